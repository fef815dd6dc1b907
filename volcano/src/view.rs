//! What the namespace operations may read of a slice.

use bytes::Bytes;
use magma_common::key::{Ino, Key};
use magma_common::name::Name;
use magma_common::proto::{OpId, SessionId};

use crate::rows::{BodyId, EntryRow, FlareRow, LockRow, ReferenceRow, SessionRow};

/// The store cannot answer; the volcano stops serving rather than guess.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// A row or record does not decode.
    #[error("{what} is damaged")]
    Damaged {
        /// Which row or file.
        what: String,
    },
    /// A block's checksum does not match and no copy can repair it. Only this block is affected; service goes on.
    #[error("block {block} of body {body:?} fails its checksum")]
    Checksum {
        /// Which body.
        body: BodyId,
        /// Which 64 KiB block.
        block: u64,
    },
    /// A file of the store failed.
    #[error("the store's files failed: {0}")]
    Disk(#[from] std::io::Error),
    /// The flare is in another slice, which has to be asked first. The view has noted what is wanted.
    #[error("the flare is in another slice")]
    Elsewhere,
    /// A transaction over several slices is about to change the flare, and its outcome is not known yet. The view has noted which flare.
    #[error("the flare is held by an operation whose outcome is not known yet")]
    Held,
}

/// Free space of the volcano's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that can still be used before the reserve is touched.
    pub available: u64,
    /// Flares that exist.
    pub flares: u64,
    /// Sizes of all regular files, added up, in bytes.
    pub bytes: u64,
}

/// Read access to the applied state of a slice: every record applied so far is visible, whether or not it is on disk.
pub trait View {
    /// The flare with this key, orphans included.
    fn flare(&self, key: &Key) -> Result<Option<FlareRow>, ReadError>;
    /// Whether any flare, orphans included, has this inode number.
    fn ino_taken(&self, ino: Ino) -> Result<bool, ReadError>;
    /// One entry of a directory.
    fn entry(&self, dir: &Key, name: &Name) -> Result<Option<EntryRow>, ReadError>;
    /// Up to `limit` entries with a cookie above `cookie`, ascending.
    fn entries_after(&self, dir: &Key, cookie: u64, limit: usize) -> Result<Vec<EntryRow>, ReadError>;
    /// All names of a flare.
    fn references(&self, flare: &Key) -> Result<Vec<ReferenceRow>, ReadError>;
    /// The bytes of a small body; empty if there are none.
    fn inline(&self, flare: &Key) -> Result<Bytes, ReadError>;
    /// One extended attribute.
    fn xattr(&self, flare: &Key, name: &Name) -> Result<Option<Bytes>, ReadError>;
    /// The names of all extended attributes.
    fn xattr_names(&self, flare: &Key) -> Result<Vec<Name>, ReadError>;
    /// All locks of a flare.
    fn locks(&self, flare: &Key) -> Result<Vec<LockRow>, ReadError>;
    /// The flares on which a session holds locks.
    fn locked_by(&self, session: SessionId) -> Result<Vec<Key>, ReadError>;
    /// One session, if it is open.
    fn session(&self, id: SessionId) -> Result<Option<SessionRow>, ReadError>;
    /// All open sessions.
    fn sessions(&self) -> Result<Vec<SessionRow>, ReadError>;
    /// Up to `limit` keys above `after` of flares without a name, ascending.
    fn orphans(&self, after: Option<Key>, limit: usize) -> Result<Vec<Key>, ReadError>;
    /// Bytes of a body, with what is still to be written to its file laid over; checksums are verified. Holes and bytes beyond the file are zeros.
    fn read_body(&self, body: BodyId, offset: u64, length: usize) -> Result<Bytes, ReadError>;
    /// The first offset at or after `offset`, below `end`, that holds data; `None` if there is none.
    fn body_data(&self, body: BodyId, offset: u64, end: u64) -> Result<Option<u64>, ReadError>;
    /// The first offset at or after `offset` that lies in a hole; `end` if there is none before it.
    fn body_hole(&self, body: BodyId, offset: u64, end: u64) -> Result<u64, ReadError>;
    /// Storage that a body takes, in bytes.
    fn body_used(&self, body: BodyId) -> Result<u64, ReadError>;
    /// Free space.
    fn space(&self) -> Space;

    /// Whether the flare with this key is in this slice, if there is one. Of a flare elsewhere only the row, the storage that it takes, its
    /// ACLs, its first reference and single entries can be read.
    fn is_here(&self, _key: &Key) -> bool {
        true
    }
    /// Whether everything is in this slice.
    fn is_alone(&self) -> bool {
        true
    }
    /// The entry that this operation made leads to that flare, which may be elsewhere: what is known of it because of another entry does not count.
    fn led_to(&self, _flare: &Key, _made_by: OpId) {}
    /// Storage that a flare elsewhere takes, in bytes; none if the flare is here or unknown.
    fn used_elsewhere(&self, _flare: &Key) -> Option<u64> {
        None
    }
}
