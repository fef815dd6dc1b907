//! What can go wrong with an operation on a flare, and which errno says so.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

macro_rules! flare_errors {
    ($($(#[$doc:meta])* $variant:ident = $message:literal => $errno:ident,)*) => {
        /// The outcome of a flare operation that did not succeed; the same at every door.
        ///
        /// The numbers on the wire are the positions in this list: new errors are added at its end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
        pub enum FlareError {
            $($(#[$doc])* #[error($message)] $variant,)*
        }

        impl FlareError {
            /// The errno that the kernel's file system interface uses for this.
            pub const fn errno(self) -> Errno {
                match self { $(Self::$variant => Errno::$errno,)* }
            }

            /// Every error, in the order of the wire format.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
        }
    };
}

flare_errors! {
    /// No flare or entry of that name.
    NotFound = "no such file or directory" => NOENT,
    /// The name exists already.
    Exists = "the name exists already" => EXIST,
    /// A directory was needed.
    NotDirectory = "not a directory" => NOTDIR,
    /// Something other than a directory was needed.
    IsDirectory = "is a directory" => ISDIR,
    /// The directory still has entries.
    NotEmpty = "the directory is not empty" => NOTEMPTY,
    /// The caller lacks the permission bits.
    AccessDenied = "permission denied" => ACCESS,
    /// Only the owner or root may do this.
    NotPermitted = "operation not permitted" => PERM,
    /// The handle's flare is gone, or another one bears its key now.
    Stale = "the file behind this handle is gone" => STALE,
    /// A copy is below its reserve of free space.
    NoSpace = "no space left on the volcano" => NOSPC,
    /// Beyond the largest file size.
    FileTooBig = "the file would become too large" => FBIG,
    /// A name over 255 bytes or a path over 4095.
    NameTooLong = "the name is too long" => NAMETOOLONG,
    /// An argument that makes no sense for the operation.
    Invalid = "invalid argument" => INVAL,
    /// The two names lie in different exports.
    CrossDevice = "the names lie in different exports" => XDEV,
    /// Too many symbolic links.
    SymlinkLoop = "too many levels of symbolic links" => LOOP,
    /// More than the largest number of hard links.
    TooManyLinks = "too many links" => MLINK,
    /// The extended attribute does not exist.
    NoAttribute = "no such extended attribute" => NODATA,
    /// The answer does not fit the space the caller offered.
    Range = "the answer is larger than the space offered for it" => RANGE,
    /// A value or list above its limit.
    TooBig = "the value is larger than allowed" => TOOBIG,
    /// The operation does not exist for this flare.
    NotSupported = "operation not supported" => OPNOTSUPP,
    /// The export, or `/.dht`, is read-only.
    ReadOnly = "read-only file system" => ROFS,
    /// A conflicting lock is held.
    WouldBlock = "a conflicting lock is held" => AGAIN,
    /// Waiting for this lock would never end.
    Deadlock = "waiting for this lock would deadlock" => DEADLK,
    /// Table of locks full.
    NoLocks = "no more locks can be held" => NOLCK,
    /// The object is in use in a way that forbids the operation.
    Busy = "in use" => BUSY,
    /// No data or hole at or after the offset.
    NoSuchOffset = "no data or hole there" => NXIO,
    /// The guard (ctime) of a setattr did not match.
    GuardMismatch = "the file changed meanwhile" => AGAIN,
    /// A checksum mismatch that no copy can repair, or a failing disk.
    Io = "input/output error" => IO,
    /// The session is unknown or ended; whatever it had in doubt stays in doubt.
    SessionEnded = "the session has ended" => IO,
    /// The request's deadline passed without an answer.
    TimedOut = "no answer before the deadline" => TIMEDOUT,
    /// This volcano does not own the key; ask again with a newer topology.
    NotOwner = "another volcano owns this key" => AGAIN,
    /// The volcano is starting or stopping; ask again.
    Unavailable = "the volcano is not serving yet or any more" => AGAIN,
    /// The session has too many unacknowledged results; acknowledge some first.
    TooManyOutstanding = "too many unacknowledged requests in this session" => AGAIN,
    /// The request could not be decoded or breaks a limit of the protocol.
    BadRequest = "malformed request" => PROTO,
    /// The handle is not a symbolic link.
    NotSymlink = "not a symbolic link" => INVAL,
    /// The caller was interrupted or went away while it waited.
    Interrupted = "interrupted" => INTR,
    /// The session holds as many flares open as it may.
    TooManyOpen = "too many open files" => NFILE,
    /// The file is striped: its parts have to be asked for one by one. The client library does that.
    Striped = "the file is striped" => IO,
}

impl From<crate::name::NameError> for FlareError {
    fn from(error: crate::name::NameError) -> Self {
        match error {
            crate::name::NameError::TooLong => Self::NameTooLong,
            crate::name::NameError::Empty => Self::NotFound,
            crate::name::NameError::Dot | crate::name::NameError::BadByte => Self::Invalid,
        }
    }
}
