//! The operations, one struct each, with the reply each one has.
//!
//! An operation that changes something carries an operation id in its header; its
//! reply carries the attributes that NFSv3's weak cache consistency wants, so that no
//! front end asks twice. A [`Failure`] carries them too.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::header::{OpId, SessionId};
use crate::attr::{Attr, Kind, SetAttr, Wcc};
use crate::error::FlareError;
use crate::handle::Handle;
use crate::key::Key;
use crate::name::Name;
use crate::time::Timestamp;
use crate::topology::{Epoch, Topology, VolcanoId};

/// An operation that did not succeed, with the attributes of what it touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// What went wrong.
    pub error: FlareError,
    /// Of the directory or flare that the operation names first.
    pub first: Wcc,
    /// Of the second: rename's target directory, link's directory.
    pub second: Wcc,
}

impl From<FlareError> for Failure {
    fn from(error: FlareError) -> Self {
        Self { error, first: Wcc::default(), second: Wcc::default() }
    }
}

/// One kind of request and the reply it gets.
pub trait Operation: Into<Request> + Clone + Send + 'static {
    /// The number that stands in the header.
    const OPCODE: u16;
    /// What a success is answered with.
    type Reply: Send + 'static;

    /// Takes this operation's reply out of the general one; `None` if the volcano answered something else.
    fn reply(reply: Reply) -> Option<Self::Reply>;
}

macro_rules! operations {
    ($($number:literal $effect:ident $operation:ident => $reply:ty;)*) => {
        /// Any request. The variant's number is its opcode.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "each operation's struct is documented")]
        #[repr(u16)]
        pub enum Request { $($operation($operation) = $number,)* }

        /// The reply to any request that succeeded.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "each reply's struct is documented")]
        pub enum Reply { $($operation($reply),)* }

        impl Request {
            /// The number that stands in the header.
            pub const fn opcode(&self) -> u16 {
                match self { $(Self::$operation(_) => $number,)* }
            }

            /// The operation's name, for logs and metrics.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$operation(_) => stringify!($operation),)* }
            }

            /// Whether it changes the state of a slice, and so carries an operation id.
            pub const fn mutates(&self) -> bool {
                match self { $(Self::$operation(_) => operations!(@ $effect),)* }
            }

            /// Encodes the fields as a message body.
            pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
                match self { $(Self::$operation(fields) => postcard::to_stdvec(fields),)* }
            }

            /// Decodes a message body. Bytes left over are an error.
            pub fn decode(opcode: u16, body: &[u8]) -> Result<Self, FlareError> {
                match opcode {
                    $($number => decode_whole(body).map(Self::$operation),)*
                    _ => Err(FlareError::NotSupported),
                }
            }
        }

        impl Reply {
            /// Encodes the fields as a message body.
            pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
                match self { $(Self::$operation(fields) => postcard::to_stdvec(fields),)* }
            }

            /// Decodes the body of the reply to a request with this opcode.
            pub fn decode(opcode: u16, body: &[u8]) -> Result<Self, FlareError> {
                match opcode {
                    $($number => decode_whole(body).map(Self::$operation),)*
                    _ => Err(FlareError::NotSupported),
                }
            }
        }

        $(
            impl From<$operation> for Request {
                fn from(operation: $operation) -> Self { Self::$operation(operation) }
            }

            impl Operation for $operation {
                const OPCODE: u16 = $number;
                type Reply = $reply;

                fn reply(reply: Reply) -> Option<$reply> {
                    match reply { Reply::$operation(reply) => Some(reply), _ => None }
                }
            }
        )*
    };
    (@ reads) => { false };
    (@ mutates) => { true };
}

fn decode_whole<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FlareError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(FlareError::BadRequest),
    }
}

operations! {
    1  reads   OpenSession => SessionReply;
    2  reads   KeepAlive => KeepAliveReply;
    3  reads   EndSession => ();
    4  reads   ReclaimOpens => ();
    5  reads   FetchTopology => Topology;
    10 reads   Lookup => EntryReply;
    11 reads   LookupParent => EntryReply;
    12 reads   Getattr => Attr;
    13 reads   StatMany => Vec<Result<Attr, FlareError>>;
    14 mutates Setattr => Wcc;
    15 reads   Access => AccessReply;
    16 mutates Create => MadeReply;
    17 mutates Mkdir => MadeReply;
    18 mutates Symlink => MadeReply;
    19 mutates Mknod => MadeReply;
    20 mutates Link => LinkReply;
    21 mutates Unlink => RemovedReply;
    22 mutates Rmdir => RemovedReply;
    23 mutates Rename => RenameReply;
    24 reads   Readdir => ReaddirReply;
    25 reads   Readlink => ReadlinkReply;
    26 mutates Open => Attr;
    27 mutates Release => ();
    28 reads   Read => ReadReply;
    29 mutates Write => WriteReply;
    30 reads   Commit => CommitReply;
    31 mutates Allocate => Wcc;
    32 reads   Seek => SeekReply;
    33 reads   Statfs => StatfsReply;
    34 reads   GetXattr => XattrValue;
    35 mutates SetXattr => Wcc;
    36 reads   ListXattr => Vec<Name>;
    37 mutates RemoveXattr => Wcc;
    38 mutates Lock => ();
    39 reads   TestLock => Option<HeldLock>;
}

/// Opens a session. Its id is in the reply; every later request of this client carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Who this is, for people: door, host and process, at most 255 bytes.
    pub client: String,
}

/// The terms of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReply {
    /// The new session.
    pub session: SessionId,
    /// It ends when nothing has been heard for this long, in milliseconds.
    pub lease_ms: u32,
    /// The volcano at the other end of the connection, which may have passed the request on.
    pub door: VolcanoId,
    /// The topology as the volcano knows it.
    pub topology: Topology,
}

/// Keeps the session alive and acknowledges results up to a low-water mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The client has the results of all its operations up to this sequence number.
    pub acknowledged: u64,
}

/// The session lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAliveReply {
    /// The volcano at the other end of the connection: the one that answers, or one that passes its answer on.
    pub door: VolcanoId,
    /// The version of the topology it knows.
    pub topology_version: u64,
}

/// Ends the session: its locks and opens go, and it is refused for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSession;

/// Tells one slice which of its flares this session has open: after the beginning of a
/// [reign](crate::topology::Slice::reign), of the session, or of the slice.
///
/// A flare that is not named stays as it was. An unlinked one waits until every session that was alive has sent its last
/// such message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimOpens {
    /// Any key of the slice.
    pub at: Key,
    /// The slice's reign, as far as the client knows. The primary of another one answers `NotOwner`: it must hear
    /// all parts, and those of a former reign were said to somebody else.
    pub reign: Epoch,
    /// Handles and how often each is open, at most [`MAX_OPENS_PER_MESSAGE`](super::limits::MAX_OPENS_PER_MESSAGE).
    pub opens: Vec<(Handle, u32)>,
    /// No more follow.
    pub last: bool,
}

/// Asks for the topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchTopology;

/// Looks a name up in a directory; the caller needs search permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The directory.
    pub dir: Handle,
    /// The name.
    pub name: Name,
}

/// Looks up `..`; the root is its own parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupParent {
    /// The directory whose parent is wanted.
    pub dir: Handle,
}

/// A flare found by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReply {
    /// The flare.
    pub attr: Attr,
    /// The directory it was found in.
    pub dir: Attr,
}

/// Reads attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Getattr {
    /// The flare.
    pub handle: Handle,
}

/// Reads the attributes of many flares; the reply has one result each, in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatMany {
    /// The flares, at most [`MAX_STAT_MANY`](super::limits::MAX_STAT_MANY).
    pub handles: Vec<Handle>,
}

/// Sets attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setattr {
    /// The flare.
    pub handle: Handle,
    /// What to set.
    pub set: SetAttr,
    /// Do it only if this is the flare's ctime, else [`FlareError::GuardMismatch`] (RFC 1813 §3.3.2).
    pub guard: Option<Timestamp>,
    /// The caller has the file open for writing: no permission check for the size.
    pub opened: bool,
}

/// Asks which accesses the caller has: bits `R_OK` 4, `W_OK` 2, `X_OK` 1, and 8 for deleting entries of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The flare.
    pub handle: Handle,
    /// The bits asked for.
    pub mask: u8,
}

/// [`Access`]: read a file, list a directory.
pub const ACCESS_READ: u8 = 4;
/// [`Access`]: write a file, add entries to a directory.
pub const ACCESS_WRITE: u8 = 2;
/// [`Access`]: execute a file, search a directory.
pub const ACCESS_EXECUTE: u8 = 1;
/// [`Access`]: remove entries of a directory.
pub const ACCESS_DELETE: u8 = 8;

/// The granted part of the bits asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessReply {
    /// Granted bits.
    pub granted: u8,
    /// The flare.
    pub attr: Attr,
}

/// What a create does about a name that exists (RFC 1813 §3.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateHow {
    /// Takes the existing regular file, applying only a size that is given.
    Unchecked,
    /// Fails with [`FlareError::Exists`].
    Guarded,
    /// Fails unless the file was made by a create with the same verifier.
    Exclusive(u64),
}

/// Creates a regular file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Where.
    pub dir: Handle,
    /// Its name.
    pub name: Name,
    /// Permission bits, applied with `umask` unless the directory has a default ACL.
    pub mode: u32,
    /// The caller's file creation mask; 0 where the client has applied it already.
    pub umask: u32,
    /// What to do about an existing name.
    pub how: CreateHow,
    /// Further attributes; `mode` inside is not used.
    pub set: SetAttr,
    /// Also open it, as [`Open`] does, for this session. No permission of the file's own mode is needed.
    pub open: bool,
}

/// A flare made (or, for an unchecked create, found).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeReply {
    /// The flare.
    pub attr: Attr,
    /// False if an unchecked or exclusive create found it there.
    pub created: bool,
    /// The directory.
    pub dir: Wcc,
}

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mkdir {
    /// Where.
    pub dir: Handle,
    /// Its name.
    pub name: Name,
    /// As in [`Create`].
    pub mode: u32,
    /// As in [`Create`].
    pub umask: u32,
    /// Further attributes; `mode` and `size` inside are not used.
    pub set: SetAttr,
}

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symlink {
    /// Where.
    pub dir: Handle,
    /// Its name.
    pub name: Name,
    /// What it points to: 1 to 4095 bytes, not interpreted.
    pub target: Bytes,
    /// Further attributes; `mode` and `size` inside are not used.
    pub set: SetAttr,
}

/// Makes a FIFO, socket or device. Devices need root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mknod {
    /// Where.
    pub dir: Handle,
    /// Its name.
    pub name: Name,
    /// Anything but a directory or a symbolic link.
    pub kind: Kind,
    /// As in [`Create`].
    pub mode: u32,
    /// As in [`Create`].
    pub umask: u32,
    /// Device number in Linux's `makedev` encoding.
    pub rdev: u64,
    /// Further attributes; `mode` and `size` inside are not used.
    pub set: SetAttr,
}

/// Gives a flare another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The flare; not a directory.
    pub handle: Handle,
    /// Where the new name goes.
    pub dir: Handle,
    /// The new name.
    pub name: Name,
}

/// A name added to a flare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReply {
    /// The flare.
    pub attr: Attr,
    /// The directory.
    pub dir: Wcc,
}

/// Removes a name of anything but a directory. The flare dies with its last name, once nobody has it open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlink {
    /// The directory.
    pub dir: Handle,
    /// The name.
    pub name: Name,
}

/// Removes an empty directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rmdir {
    /// The parent directory.
    pub dir: Handle,
    /// The name.
    pub name: Name,
}

/// A name removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedReply {
    /// The flare that bore the name, as it is now.
    pub attr: Attr,
    /// The directory.
    pub dir: Wcc,
}

/// What a rename does about an existing target name (`renameat2(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameHow {
    /// Replaces it atomically.
    Replace,
    /// Fails with [`FlareError::Exists`].
    NoReplace,
    /// The two names change places.
    Exchange,
}

/// Renames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// The source directory.
    pub from_dir: Handle,
    /// The source name.
    pub from_name: Name,
    /// The target directory.
    pub to_dir: Handle,
    /// The target name.
    pub to_name: Name,
    /// About an existing target.
    pub how: RenameHow,
}

/// A rename done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameReply {
    /// The source directory.
    pub from_dir: Wcc,
    /// The target directory.
    pub to_dir: Wcc,
    /// The flare that moved.
    pub moved: Attr,
    /// The flare that lost its name at the target, as it is now (under exchange: the one that went the other way).
    pub replaced: Option<Attr>,
}

/// Lists a directory in the order of its cookies. `.` and `..` are the door's business.
///
/// An entry keeps its cookie as long as it exists; cookies of removed entries remain valid positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readdir {
    /// The directory.
    pub dir: Handle,
    /// Entries with a cookie above this one; 0 for the first.
    pub cookie: u64,
    /// At most so many, 1 to [`MAX_READDIR_ENTRIES`](super::limits::MAX_READDIR_ENTRIES).
    pub limit: u32,
    /// With the attributes of each entry's flare.
    pub attributes: bool,
    /// The caller has the directory open: no permission check.
    pub opened: bool,
}

/// One directory entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dirent {
    /// Its name.
    pub name: Name,
    /// The flare.
    pub handle: Handle,
    /// What the flare is.
    pub kind: Kind,
    /// Its position: 3 and up, below 2^63.
    pub cookie: u64,
    /// Attributes, if asked for.
    pub attr: Option<Attr>,
}

/// Part of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaddirReply {
    /// Entries, cookies ascending.
    pub entries: Vec<Dirent>,
    /// Nothing follows.
    pub eof: bool,
    /// The directory.
    pub dir: Attr,
}

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
    /// At most so many bytes, up to [`MAX_IO`](super::limits::MAX_IO).
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

/// Writes the request's payload. [`Durability`](super::Durability) decides when it is answered.
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

/// Finds data or holes; beyond the end it is [`FlareError::NoSuchOffset`].
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

/// Asks how much space there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statfs;

/// Space and numbers of the whole network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatfsReply {
    /// Bytes in all.
    pub total: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes free for users.
    pub available: u64,
    /// Flares that exist.
    pub flares: u64,
    /// Flares that could still be made.
    pub flares_free: u64,
}

/// Reads an extended attribute. POSIX ACLs are `system.posix_acl_access` and `system.posix_acl_default`, in Linux's encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetXattr {
    /// The flare.
    pub handle: Handle,
    /// Full name with its prefix.
    pub name: Name,
}

/// The value of an extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrValue {
    /// At most [`MAX_XATTR_VALUE`](super::limits::MAX_XATTR_VALUE) bytes.
    pub value: Bytes,
}

/// What [`SetXattr`] does about an existing attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrHow {
    /// Creates or replaces.
    Any,
    /// Fails with [`FlareError::Exists`] if it exists.
    Create,
    /// Fails with [`FlareError::NoAttribute`] if it does not.
    Replace,
}

/// Sets an extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetXattr {
    /// The flare.
    pub handle: Handle,
    /// Full name with its prefix: `user.`, `trusted.`, `security.`, or a POSIX ACL.
    pub name: Name,
    /// The value.
    pub value: Bytes,
    /// About an existing one.
    pub how: XattrHow,
    /// Setting an access ACL may clear set-group-id when the caller is not in the owning group.
    pub clear_setgid: bool,
}

/// Lists extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListXattr {
    /// The flare.
    pub handle: Handle,
}

/// Removes an extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveXattr {
    /// The flare.
    pub handle: Handle,
    /// Full name with its prefix.
    pub name: Name,
}

/// Two families of advisory locks that do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockFamily {
    /// POSIX byte ranges (`fcntl(2)`).
    Posix,
    /// Whole files (`flock(2)`).
    Flock,
}

/// What a lock does to others, or its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockKind {
    /// Others may hold shared ones.
    Shared,
    /// Nobody else holds any.
    Exclusive,
    /// Gives the range back.
    Unlock,
}

/// Who holds a lock: an owner number within the request's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockOwner {
    /// The door's number for the owner.
    pub owner: u64,
    /// Its process id, for people.
    pub pid: u32,
}

/// Takes or releases an advisory lock.
///
/// A conflict is [`FlareError::WouldBlock`], at once or, with `wait`, when the request's deadline comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The file.
    pub handle: Handle,
    /// Which family.
    pub family: LockFamily,
    /// Who.
    pub owner: LockOwner,
    /// What.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; `u64::MAX` for the end of the file.
    pub end: u64,
    /// Wait for it.
    pub wait: bool,
}

/// Asks which lock would be in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestLock {
    /// The file.
    pub handle: Handle,
    /// Which family.
    pub family: LockFamily,
    /// Who asks.
    pub owner: LockOwner,
    /// For which lock.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
}

/// A lock that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLock {
    /// Whose session.
    pub session: SessionId,
    /// Who there.
    pub owner: LockOwner,
    /// What.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
}

/// The record of an operation's outcome that a retry is answered from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which operation.
    pub id: OpId,
    /// Its opcode.
    pub opcode: u16,
    /// Its encoded reply.
    pub reply: Bytes,
}
