//! Messages about open files and directories: open, create, read, write, readdir, fsync.

use super::codec::{Data, Qid, Text, messages};

messages! {
    /// Opens the fid.
    Tlopen {
        /// Which.
        fid: u32,
        /// Linux's open flags, in the numbers of [`crate::flags`].
        flags: u32,
    }
    /// Opened.
    Rlopen {
        /// The file.
        qid: Qid,
        /// Best size of one read or write in bytes.
        iounit: u32,
    }
    /// Creates a regular file in the fid's directory; the fid becomes that file, open.
    Tlcreate {
        /// The directory.
        fid: u32,
        /// The file's name.
        name: Text,
        /// As in [`Tlopen`].
        flags: u32,
        /// Permission bits, the creation mask already applied.
        mode: u32,
        /// The caller's group.
        gid: u32,
    }
    /// Created and opened.
    Rlcreate {
        /// The file.
        qid: Qid,
        /// As in [`Rlopen`].
        iounit: u32,
    }
    /// Reads from an open file or an extended attribute.
    Tread {
        /// Which.
        fid: u32,
        /// First byte.
        offset: u64,
        /// At most so many bytes.
        count: u32,
    }
    /// What was read; nothing at the end.
    Rread {
        /// The bytes.
        data: Data,
    }
    /// Writes to an open file or an extended attribute.
    Twrite {
        /// Which.
        fid: u32,
        /// First byte.
        offset: u64,
        /// The bytes.
        data: Data,
    }
    /// Written.
    Rwrite {
        /// How many bytes, from the front.
        count: u32,
    }
    /// Lists an open directory.
    Treaddir {
        /// Which.
        fid: u32,
        /// Entries after the one with this offset; 0 for the first.
        offset: u64,
        /// At most so many bytes.
        count: u32,
    }
    /// Part of a listing: `qid[13] offset[8] type[1] name[s]` each; nothing at the end.
    Rreaddir {
        /// The entries.
        data: Data,
    }
    /// Asks for everything of a file to be on disk.
    Tfsync {
        /// Which.
        fid: u32,
        /// Whether attributes may be left out. Linux sends it, the protocol's first description has no such field.
        datasync: Option<u32>,
    }
    /// It is.
    Rfsync {}
}
