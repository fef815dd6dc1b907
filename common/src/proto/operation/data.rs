//! Opening flares, and what files and symbolic links hold.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::attr::{Attr, Wcc};
use crate::handle::Handle;
use crate::stripes::StripeUnit;

/// Reads a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readlink {
    /// The link.
    pub handle: Handle,
}

/// What a symbolic link says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadlinkReply {
    /// The bytes given when it was made.
    pub target: Bytes,
    /// The link.
    pub attr: Attr,
}

/// Opens a flare for this session: it stays readable after its last name is gone, until [`Release`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// A regular file or a directory.
    pub handle: Handle,
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// For execution (needs execute, not read permission).
    pub execute: bool,
    /// Cut it to nothing.
    pub truncate: bool,
}

/// Gives opens back. It carries an operation id, so that a retry does not give back twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The flare.
    pub handle: Handle,
    /// How many opens.
    pub count: u32,
}

/// Reads data; it comes as the reply's payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The file.
    pub handle: Handle,
    /// First byte.
    pub offset: u64,
    /// At most so many bytes, up to [`MAX_IO`](crate::proto::limits::MAX_IO).
    pub length: u32,
    /// The caller has it open: no permission check. Otherwise the owner may always read, and who may execute it (RFC 1813 §4.4).
    pub opened: bool,
}

/// Data read; the bytes are the payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReply {
    /// The payload reaches the end of the file.
    pub eof: bool,
    /// The file.
    pub attr: Attr,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteAt {
    /// At this offset.
    Offset(u64),
    /// At the end, whatever others append meanwhile.
    End,
}

/// Writes the request's payload. [`Durability`](crate::proto::Durability) decides when it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The file.
    pub handle: Handle,
    /// Where.
    pub at: WriteAt,
    /// The caller has it open: no permission check. Otherwise the owner may always write.
    pub opened: bool,
}

/// Data written, all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteReply {
    /// The offset it went to.
    pub offset: u64,
    /// Changes exactly when data that was written but not committed may be gone.
    pub verifier: u64,
    /// The file.
    pub wcc: Wcc,
    /// Some of it went into stripes: the file is striped, by this unit, and the caller may write to them itself.
    pub unit: Option<StripeUnit>,
}

/// Answers when the flare's data, attributes and names are on disk at every in-sync copy (`fsync(2)`, NFS COMMIT).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The flare.
    pub handle: Handle,
}

/// Everything up to now is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitReply {
    /// As in [`WriteReply`].
    pub verifier: u64,
    /// The flare.
    pub wcc: Wcc,
}

/// What [`Allocate`] does (`fallocate(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllocateHow {
    /// Makes sure the range can be written, extending the file if it ends beyond.
    Reserve,
    /// The same without extending it.
    ReserveKeepSize,
    /// Makes the range a hole.
    PunchHole,
    /// Makes the range zeros, extending the file.
    Zero,
    /// The same without extending it.
    ZeroKeepSize,
}

/// Reserves, punches or zeroes a range of an open file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocate {
    /// The file.
    pub handle: Handle,
    /// First byte.
    pub offset: u64,
    /// Number of bytes, not 0.
    pub length: u64,
    /// What to do.
    pub how: AllocateHow,
}

/// What [`Seek`] looks for (`lseek(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeekWhence {
    /// Data at or after the offset.
    Data,
    /// A hole at or after the offset; the end of the file is one.
    Hole,
}

/// Finds data or holes; beyond the end it is [`FlareError::NoSuchOffset`](crate::error::FlareError::NoSuchOffset).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seek {
    /// The file.
    pub handle: Handle,
    /// Where to start.
    pub offset: u64,
    /// What to look for.
    pub whence: SeekWhence,
}

/// What [`Seek`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeekReply {
    /// Its offset.
    pub offset: u64,
}
