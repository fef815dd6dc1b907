//! From the volcano's answers to the kernel's replies.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate,
    ReplyData, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use magma_common::attr::{Attr, Kind};
use magma_common::error::FlareError;
use magma_common::name::NAME_MAX;
use magma_common::proto::Failure;
use magma_common::proto::operation::{HeldLock, LockKind, StatfsReply};

/// What an operation yields, or the errno that the caller sees.
pub(crate) type Outcome<T> = Result<T, Errno>;

/// `st_blksize`: the size of buffer that programs choose for reading and writing streams.
const PREFERRED_IO: u32 = 128 << 10;
/// `f_bsize` and `f_frsize`, in bytes.
const STATFS_BLOCK: u32 = 4096;
/// The kernel's `OFFSET_MAX`, its last byte of any file.
pub(crate) const OFFSET_MAX: u64 = i64::MAX.cast_unsigned();

/// The errno for a flare error.
pub(crate) fn errno(error: FlareError) -> Errno {
    Errno::from_i32(error.errno().raw_os_error())
}

/// The errno for a failed operation.
#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(crate) fn failed(failure: Failure) -> Errno {
    errno(failure.error)
}

/// The kernel's word for a kind of flare.
pub(crate) const fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// Attributes in the kernel's form.
pub(crate) fn file_attr(attr: &Attr, ino: INodeNo) -> FileAttr {
    FileAttr {
        ino,
        size: attr.size,
        blocks: attr.used.div_ceil(512),
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
        crtime: attr.btime.into(),
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        // The kernel's 32-bit encoding is the lower half of makedev's.
        rdev: attr.rdev as u32,
        blksize: PREFERRED_IO,
        flags: 0,
    }
}

/// Attributes that may be wrong at once, for an entry whose flare was not reached: a number and a type, nothing else.
pub(crate) fn unknown_attr(ino: INodeNo, kind: FileType) -> FileAttr {
    FileAttr {
        ino,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PREFERRED_IO,
        flags: 0,
    }
}

/// A flare found or made by name.
pub(crate) struct Entry {
    /// Its attributes.
    pub(crate) attr: FileAttr,
    /// Its birth number.
    pub(crate) generation: Generation,
    /// How long the kernel may believe the attributes.
    pub(crate) attributes_ttl: Duration,
    /// How long the kernel may believe the name.
    pub(crate) name_ttl: Duration,
}

impl Entry {
    /// No such name, and the kernel may believe that for a while. Inode 0 says so.
    pub(crate) fn absent(ttl: Duration) -> Self {
        let attr = unknown_attr(INodeNo(0), FileType::RegularFile);
        Self { attr, generation: Generation(0), attributes_ttl: ttl, name_ttl: ttl }
    }
}

/// A flare's attributes.
pub(crate) struct Attributes {
    /// The attributes.
    pub(crate) attr: FileAttr,
    /// How long the kernel may believe them.
    pub(crate) ttl: Duration,
}

/// An open file or directory.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its number.
    pub(crate) number: FileHandle,
    /// How the kernel treats its pages.
    pub(crate) flags: FopenFlags,
}

/// A file made and opened.
pub(crate) struct Created {
    /// The file.
    pub(crate) entry: Entry,
    /// The open.
    pub(crate) opened: Opened,
}

/// A value or list of extended attributes.
pub(crate) struct Xattr {
    /// The bytes.
    pub(crate) value: Bytes,
    /// The space the caller offers; 0 asks for the size.
    pub(crate) space: u32,
}

/// Sends the outcome of an operation to the kernel.
pub(crate) trait Answer<T>: Send + 'static {
    /// Replies.
    fn answer(self, outcome: Outcome<T>);
}

macro_rules! answers {
    ($($reply:ident($yield:ty) |$to:ident, $value:ident| $send:expr;)*) => {
        $(impl Answer<$yield> for $reply {
            fn answer(self, outcome: Outcome<$yield>) {
                match outcome {
                    Ok($value) => { let $to = self; $send }
                    Err(errno) => self.error(errno),
                }
            }
        })*
    };
}

answers! {
    ReplyEmpty(()) |reply, _done| reply.ok();
    ReplyData(Bytes) |reply, data| reply.data(&data);
    ReplyAttr(Attributes) |reply, it| reply.attr(&it.ttl, &it.attr);
    ReplyEntry(Entry) |reply, it| reply.entry_with_ttls(&it.attributes_ttl, &it.name_ttl, &it.attr, it.generation);
    ReplyOpen(Opened) |reply, it| reply.opened(it.number, it.flags);
    ReplyCreate(Created) |reply, it| {
        let ttl = it.entry.attributes_ttl.min(it.entry.name_ttl);
        reply.created(&ttl, &it.entry.attr, it.entry.generation, it.opened.number, it.opened.flags);
    };
    ReplyWrite(u32) |reply, written| reply.written(written);
    ReplyLseek(i64) |reply, offset| reply.offset(offset);
    ReplyXattr(Xattr) |reply, it| {
        match u32::try_from(it.value.len()) {
            Ok(size) if it.space == 0 => reply.size(size),
            Ok(size) if size <= it.space => reply.data(&it.value),
            _ => reply.error(Errno::ERANGE),
        }
    };
    ReplyStatfs(StatfsReply) |reply, it| {
        let block = u64::from(STATFS_BLOCK);
        let files = it.flares.saturating_add(it.flares_free);
        let (total, free, available) = (it.total / block, it.free / block, it.available / block);
        reply.statfs(total, free, available, files, it.flares_free, STATFS_BLOCK, NAME_MAX as u32, STATFS_BLOCK);
    };
    ReplyLock(Option<HeldLock>) |reply, held| {
        match held {
            None => reply.locked(0, 0, libc::F_UNLCK, 0),
            Some(held) => {
                let kind = if held.kind == LockKind::Shared { libc::F_RDLCK } else { libc::F_WRLCK };
                reply.locked(held.start.min(OFFSET_MAX), held.end.min(OFFSET_MAX), kind, held.owner.pid);
            }
        }
    };
}
