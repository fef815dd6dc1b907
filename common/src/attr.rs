//! Attributes of flares, as every door reports and sets them.

use serde::{Deserialize, Serialize};

use crate::handle::Handle;
use crate::time::Timestamp;

/// What a flare is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix-domain socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// The permission bits a flare can have: `S_ISUID | S_ISGID | S_ISVTX | 0777`.
pub const MODE_MASK: u32 = 0o7777;

/// Everything `stat` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// The flare; its inode number is `handle.ino()`.
    pub handle: Handle,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, [`MODE_MASK`].
    pub mode: u32,
    /// Number of names; 2 plus the number of subdirectories for a directory.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Device number of a device, in Linux's `makedev` encoding.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of storage used.
    pub used: u64,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of content or attributes.
    pub ctime: Timestamp,
    /// Birth.
    pub btime: Timestamp,
    /// Grows with every change of content or attributes, whatever the clocks do.
    pub change: u64,
}

/// How a setattr changes a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// Leave it.
    #[default]
    Keep,
    /// To the volcano's clock (needs write permission only).
    Server,
    /// To the client's value (needs ownership).
    Client(Timestamp),
}

/// Attributes to set; absent ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Owning group.
    pub gid: Option<u32>,
    /// Size in bytes: truncates or extends with zeros.
    pub size: Option<u64>,
    /// Time of last read.
    pub atime: SetTime,
    /// Time of last change of content.
    pub mtime: SetTime,
}

/// The attributes from before an operation that NFSv3's weak cache consistency wants (RFC 1813 §2.6, `wcc_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WccAttr {
    /// Size in bytes.
    pub size: u64,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of content or attributes.
    pub ctime: Timestamp,
}

impl From<&Attr> for WccAttr {
    fn from(attr: &Attr) -> Self {
        Self { size: attr.size, mtime: attr.mtime, ctime: attr.ctime }
    }
}

/// Attributes before and after an operation, of one flare that it touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wcc {
    /// Before; absent if the flare was not reached.
    pub before: Option<WccAttr>,
    /// After; absent if the flare was not reached or is gone.
    pub after: Option<Attr>,
}
