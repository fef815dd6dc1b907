//! `nfsstat3` (RFC 1813 §2.6), and which error of a flare operation becomes which.

use magma_common::error::FlareError;

/// The outcome of a procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Ok = 0,
    Perm = 1,
    NoEntry = 2,
    Io = 5,
    NoDevice = 6,
    Access = 13,
    Exists = 17,
    CrossDevice = 18,
    NotDirectory = 20,
    IsDirectory = 21,
    Invalid = 22,
    FileTooBig = 27,
    NoSpace = 28,
    ReadOnly = 30,
    TooManyLinks = 31,
    NameTooLong = 63,
    NotEmpty = 66,
    Stale = 70,
    BadHandle = 10_001,
    NotSync = 10_002,
    NotSupported = 10_004,
    TooSmall = 10_005,
    ServerFault = 10_006,
    BadType = 10_007,
    Jukebox = 10_008,
}

impl From<FlareError> for Status {
    fn from(error: FlareError) -> Self {
        match error {
            FlareError::NotFound | FlareError::NoAttribute => Self::NoEntry,
            FlareError::Exists => Self::Exists,
            FlareError::NotDirectory => Self::NotDirectory,
            FlareError::IsDirectory => Self::IsDirectory,
            FlareError::NotEmpty => Self::NotEmpty,
            // NFSv3 has no EBUSY; what other servers answer instead.
            FlareError::AccessDenied | FlareError::Busy => Self::Access,
            FlareError::NotPermitted => Self::Perm,
            FlareError::Stale => Self::Stale,
            FlareError::NoSpace => Self::NoSpace,
            FlareError::FileTooBig => Self::FileTooBig,
            FlareError::NameTooLong => Self::NameTooLong,
            FlareError::Invalid | FlareError::NotSymlink | FlareError::SymlinkLoop | FlareError::TooBig => {
                Self::Invalid
            }
            FlareError::CrossDevice => Self::CrossDevice,
            FlareError::TooManyLinks => Self::TooManyLinks,
            FlareError::Range => Self::TooSmall,
            FlareError::NotSupported => Self::NotSupported,
            FlareError::ReadOnly => Self::ReadOnly,
            FlareError::NoSuchOffset => Self::NoDevice,
            FlareError::GuardMismatch => Self::NotSync,
            FlareError::Io | FlareError::Striped => Self::Io,
            // None can come of what this door asks for.
            FlareError::Deadlock | FlareError::NoLocks | FlareError::TooManyOpen | FlareError::BadRequest => {
                Self::ServerFault
            }
            // Ask again later: a volcano starts, moves, or is away for the moment.
            FlareError::WouldBlock
            | FlareError::SessionEnded
            | FlareError::TimedOut
            | FlareError::NotOwner
            | FlareError::Unavailable
            | FlareError::TooManyOutstanding
            | FlareError::Interrupted => Self::Jukebox,
        }
    }
}

/// Whether after this error a change may yet have been made, or be made: the volcano has not decided on it, or its answer was lost.
pub(crate) fn outcome_is_open(error: FlareError) -> bool {
    Status::from(error) == Status::Jukebox
}
