//! Messages about attributes: getattr, setattr, statfs, extended attributes.

use super::codec::{Qid, Text, messages};

/// What a [`Tgetattr`] may ask for and an [`Rgetattr`] says is valid.
pub mod getattr {
    /// Everything that `stat(2)` shows.
    pub const BASIC: u64 = 0x7ff;
    /// Time of birth.
    pub const BTIME: u64 = 0x800;
    /// Generation.
    pub const GEN: u64 = 0x1000;
    /// Version of the content.
    pub const DATA_VERSION: u64 = 0x2000;
    /// All of it.
    pub const ALL: u64 = 0x3fff;
}

/// Which fields of a [`Tsetattr`] count.
pub mod setattr {
    /// Permission bits.
    pub const MODE: u32 = 0x1;
    /// Owner.
    pub const UID: u32 = 0x2;
    /// Group.
    pub const GID: u32 = 0x4;
    /// Size.
    pub const SIZE: u32 = 0x8;
    /// Time of last read: now, unless [`ATIME_SET`].
    pub const ATIME: u32 = 0x10;
    /// Time of last change of content: now, unless [`MTIME_SET`].
    pub const MTIME: u32 = 0x20;
    /// Time of last change: now.
    pub const CTIME: u32 = 0x40;
    /// To the time in the message.
    pub const ATIME_SET: u32 = 0x80;
    /// To the time in the message.
    pub const MTIME_SET: u32 = 0x100;
}

messages! {
    /// Seconds and nanoseconds since 1970.
    Time {
        /// Seconds, as a 64-bit two's complement number.
        seconds: u64,
        /// Nanoseconds within the second.
        nanos: u64,
    }
    /// Reads attributes.
    Tgetattr {
        /// Of which file.
        fid: u32,
        /// What is wanted; see [`getattr`].
        request_mask: u64,
    }
    /// Attributes.
    Rgetattr {
        /// Which fields are filled.
        valid: u64,
        /// The file.
        qid: Qid,
        /// Type and permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Number of names.
        nlink: u64,
        /// Device number of a device.
        rdev: u64,
        /// Size in bytes.
        size: u64,
        /// Best size of one read or write in bytes.
        blksize: u64,
        /// Storage used, in units of 512 bytes.
        blocks: u64,
        /// Last read.
        atime: Time,
        /// Last change of content.
        mtime: Time,
        /// Last change.
        ctime: Time,
        /// Birth.
        btime: Time,
        /// Tells apart files that bore the same inode number.
        generation: u64,
        /// Changes with the content.
        data_version: u64,
    }
    /// Sets attributes.
    Tsetattr {
        /// Of which file.
        fid: u32,
        /// Which fields count; see [`setattr`].
        valid: u32,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Size in bytes.
        size: u64,
        /// Last read.
        atime: Time,
        /// Last change of content.
        mtime: Time,
    }
    /// Set.
    Rsetattr {}
    /// Asks how much space there is.
    Tstatfs {
        /// Any file.
        fid: u32,
    }
    /// Space and numbers.
    Rstatfs {
        /// The file system's magic number.
        kind: u32,
        /// Size of a block in bytes.
        bsize: u32,
        /// Blocks in all.
        blocks: u64,
        /// Blocks free.
        bfree: u64,
        /// Blocks free for users.
        bavail: u64,
        /// Files, those that could still be made counted in.
        files: u64,
        /// Files that could still be made.
        ffree: u64,
        /// The network.
        fsid: u64,
        /// Longest name in bytes.
        namelen: u32,
    }
    /// Makes a fid to read an extended attribute from.
    Txattrwalk {
        /// Of which file.
        fid: u32,
        /// The fid to be made.
        newfid: u32,
        /// The attribute's full name; none for the list of all names.
        name: Text,
    }
    /// Made.
    Rxattrwalk {
        /// How many bytes there are to read.
        size: u64,
    }
    /// Turns the fid into one that an extended attribute's value is written to; clunking it sets the attribute.
    Txattrcreate {
        /// Which.
        fid: u32,
        /// The attribute's full name.
        name: Text,
        /// Length of the value in bytes.
        attr_size: u64,
        /// `XATTR_CREATE` 1, `XATTR_REPLACE` 2.
        flags: u32,
    }
    /// Ready for the value.
    Rxattrcreate {}
}
