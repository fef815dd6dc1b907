//! Messages that make, move and remove names, and read symbolic links.

use super::codec::{Qid, Text, messages};

/// [`Tunlinkat`]: the name is a directory's.
pub const AT_REMOVEDIR: u32 = 0x200;

messages! {
    /// Makes a symbolic link.
    Tsymlink {
        /// The directory.
        dfid: u32,
        /// The link's name.
        name: Text,
        /// What it points to.
        target: Text,
        /// The caller's group.
        gid: u32,
    }
    /// Made.
    Rsymlink {
        /// The link.
        qid: Qid,
    }
    /// Makes a device, FIFO, socket or regular file.
    Tmknod {
        /// The directory.
        dfid: u32,
        /// The name.
        name: Text,
        /// Type and permission bits, the creation mask already applied.
        mode: u32,
        /// Device numbers.
        major: u32,
        /// Device numbers.
        minor: u32,
        /// The caller's group.
        gid: u32,
    }
    /// Made.
    Rmknod {
        /// What was made.
        qid: Qid,
    }
    /// Makes a directory.
    Tmkdir {
        /// Where.
        dfid: u32,
        /// Its name.
        name: Text,
        /// Permission bits, the creation mask already applied.
        mode: u32,
        /// The caller's group.
        gid: u32,
    }
    /// Made.
    Rmkdir {
        /// The directory.
        qid: Qid,
    }
    /// Gives a file another name.
    Tlink {
        /// The directory.
        dfid: u32,
        /// The file.
        fid: u32,
        /// The new name.
        name: Text,
    }
    /// Linked.
    Rlink {}
    /// Moves the file of a fid.
    Trename {
        /// Which.
        fid: u32,
        /// The directory it goes to.
        dfid: u32,
        /// Its name there.
        name: Text,
    }
    /// Moved.
    Rrename {}
    /// Moves a name.
    Trenameat {
        /// The directory it is in.
        olddirfid: u32,
        /// The name.
        oldname: Text,
        /// The directory it goes to.
        newdirfid: u32,
        /// The name there; what bears it is replaced.
        newname: Text,
    }
    /// Moved.
    Rrenameat {}
    /// Removes a name.
    Tunlinkat {
        /// The directory; it may be open.
        dirfid: u32,
        /// The name.
        name: Text,
        /// [`AT_REMOVEDIR`] or nothing.
        flags: u32,
    }
    /// Removed.
    Runlinkat {}
    /// Reads a symbolic link.
    Treadlink {
        /// Which.
        fid: u32,
    }
    /// What it points to.
    Rreadlink {
        /// The bytes given when it was made.
        target: Text,
    }
}
