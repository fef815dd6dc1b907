//! The kernel's requests, in the protocol's order: each callback decodes and starts the operation on the client's
//! runtime; the reply goes out from there. No callback waits for the network.
//!
//! Thread hand-offs of an operation: caller -> FUSE worker -> runtime -> (network) -> runtime -> caller. What needs no
//! network (forget, opening a directory, a close without locks) is answered by the FUSE worker itself.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags,
    ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use magma_common::attr::SetAttr;
use magma_common::client::Context;
use magma_common::proto::limits::MAX_IO;

use crate::caller::{Caller, Callers};
use crate::core::Core;
use crate::interrupt::{unless_killed, unless_killed_or_late};
use crate::operation::attributes::set_time;
use crate::operation::copy::CopyEnd;
use crate::operation::directory::Listing;
use crate::operation::lock::Wanted;
use crate::operation::name::{Node, Sought, name_of};
use crate::operation::opening::Flags;
use crate::reply::{Answer, Created, Outcome};

/// Requests the kernel may have in flight on its own behalf (read-ahead, write-back, asynchronous direct I/O).
const MAX_BACKGROUND: u16 = 256;

/// The file system that the FUSE library serves.
pub(crate) struct MagmaFs {
    core: Arc<Core>,
    callers: Callers,
    runtime: tokio::runtime::Handle,
}

impl MagmaFs {
    /// Serves a mount; operations run on `runtime`, where the client was connected.
    pub(crate) fn new(core: Arc<Core>, runtime: tokio::runtime::Handle) -> Self {
        Self { core, callers: Callers::default(), runtime }
    }

    /// Starts an operation and replies with its outcome.
    fn serve<T, F, R>(&self, request: &Request, reply: R, operation: impl FnOnce(Arc<Core>, Context) -> F)
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send + 'static,
        R: Answer<T>,
    {
        self.serve_for(Caller::of(request), reply, operation);
    }

    fn serve_for<T, F, R>(&self, caller: Caller, reply: R, operation: impl FnOnce(Arc<Core>, Context) -> F)
    where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send + 'static,
        R: Answer<T>,
    {
        let operation = operation(Arc::clone(&self.core), self.callers.context(caller));
        self.runtime.spawn(async move { reply.answer(unless_killed(caller.tid, operation).await) });
    }

    /// As [`serve`](Self::serve) for operations that open a file: one whose caller was killed meanwhile is closed again.
    fn serve_open<T, F, R>(
        &self,
        request: &Request,
        reply: R,
        operation: impl FnOnce(Arc<Core>, Context) -> F,
        late: impl FnOnce(Arc<Core>, T) + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output = Outcome<T>> + Send + 'static,
        R: Answer<T>,
    {
        let caller = Caller::of(request);
        let core = Arc::clone(&self.core);
        let operation = operation(Arc::clone(&self.core), self.callers.context(caller));
        self.runtime.spawn(async move {
            let late = move |opened| late(core, opened);
            reply.answer(unless_killed_or_late(caller.tid, operation, late).await);
        });
    }

    fn serve_listing(&self, request: &Request, mut listing: impl Listing, open: FileHandle, position: u64) {
        let caller = Caller::of(request);
        let core = Arc::clone(&self.core);
        self.runtime.spawn(async move {
            let list = core.list(open, position, &mut listing);
            match unless_killed(caller.tid, list).await {
                Ok(()) => listing.send(),
                Err(errno) => listing.fail(errno),
            }
        });
    }
}

/// What is asked of the kernel, each only if it offers it. `FUSE_ATOMIC_O_TRUNC` is not: see decision 0054.
fn capabilities() -> impl Iterator<Item = InitFlags> {
    [
        InitFlags::FUSE_ASYNC_READ,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_BIG_WRITES,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_POSIX_LOCKS,
        InitFlags::FUSE_FLOCK_LOCKS,
        // The kernel enforces ACLs; the volcano applies the umask, unless a default ACL takes its place.
        InitFlags::FUSE_POSIX_ACL,
        InitFlags::FUSE_DONT_MASK,
        // The volcano clears set-user-id and set-group-id, so the kernel need not ask before each write.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        // Pages go when attributes show that somebody else has written.
        InitFlags::FUSE_AUTO_INVAL_DATA,
        // A symbolic link never changes; a new one under the same name is a new flare.
        InitFlags::FUSE_CACHE_SYMLINKS,
        InitFlags::FUSE_EXPORT_SUPPORT,
        InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    ]
    .into_iter()
}

impl Filesystem for MagmaFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in capabilities() {
            if let Err(lacking) = config.add_capabilities(capability) {
                tracing::debug!(target: "magma::mount", ?lacking, "this kernel does not offer");
            }
        }
        let too_large = |limit| io::Error::other(format!("the FUSE library takes at most {limit}"));
        config.set_max_write(MAX_IO).map_err(too_large)?;
        if let Err(limit) = config.set_max_readahead(MAX_IO) {
            config.set_max_readahead(limit).map_err(too_large)?;
        }
        config.set_max_background(MAX_BACKGROUND).map_err(|_| io::Error::other("no background requests"))?;
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let sought = Sought::of(name);
        self.serve(request, reply, |core, context| async move { core.lookup(context, parent, sought).await });
    }

    fn forget(&self, _request: &Request, ino: INodeNo, nlookup: u64) {
        self.core.inodes.forget(ino, nlookup);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(request, reply, |core, context| async move { core.getattr(context, ino, fh).await });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr { mode, uid, gid, size, atime: set_time(atime), mtime: set_time(mtime) };
        self.serve(request, reply, |core, context| async move { core.setattr(context, ino, fh, set).await });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(request, reply, |core, context| async move { core.readlink(context, ino).await });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (name, node) = (name_of(name), Node { mode, umask, rdev });
        self.serve(
            request,
            reply,
            |core, context| async move { core.mknod(context, parent, name, node).await },
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let name = name_of(name);
        self.serve(request, reply, |core, context| async move {
            core.mkdir(context, parent, name, mode, umask).await
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name_of(name);
        self.serve(request, reply, |core, context| async move { core.unlink(context, parent, name).await });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name_of(name);
        self.serve(request, reply, |core, context| async move { core.rmdir(context, parent, name).await });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let name = name_of(link_name);
        let target = Bytes::copy_from_slice(target.as_os_str().as_bytes());
        self.serve(request, reply, |core, context| async move {
            core.symlink(context, parent, name, target).await
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent, name_of(name)), (newparent, name_of(newname)));
        self.serve(
            request,
            reply,
            |core, context| async move { core.rename(context, from, to, flags).await },
        );
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let name = name_of(newname);
        self.serve(
            request,
            reply,
            |core, context| async move { core.link(context, ino, newparent, name).await },
        );
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = Flags(flags.0);
        let late = |core: Arc<Core>, opened| core.abandon(&opened);
        self.serve_open(
            request,
            reply,
            |core, context| async move { core.open(context, ino, flags).await },
            late,
        );
    }

    fn read(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(request, reply, |core, context| async move { core.read(context, fh, offset, size).await });
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (data, flags) = (Bytes::copy_from_slice(data), Flags(flags.0));
        let mut caller = Caller::of(request);
        if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            // Pages of a mapping belong to the file, not to whoever happens to write them back: were the write given up
            // because that process is killed, the kernel would drop them.
            caller.tid = 0;
        }
        self.serve_for(caller, reply, |core, context| async move {
            core.write(context, fh, offset, data, flags).await
        });
    }

    fn flush(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Every write has been answered already. Without locks there is nothing to do.
        if !self.core.locks_file(fh) {
            return reply.ok();
        }
        self.serve(
            request,
            reply,
            |core, context| async move { core.flush(context, fh, lock_owner.0).await },
        );
    }

    fn release(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if !self.core.locks_file(fh) {
            return reply.answer(self.core.release(fh));
        }
        self.serve(request, reply, |core, context| async move { core.unlock_and_release(context, fh).await });
    }

    fn fsync(&self, request: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.serve(request, reply, |core, context| async move { core.fsync(context, fh).await });
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.answer(self.core.opendir(self.callers.context(Caller::of(request)), ino));
    }

    fn readdir(&self, request: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.serve_listing(request, reply, fh, offset);
    }

    fn readdirplus(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.serve_listing(request, reply, fh, offset);
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply.answer(self.core.releasedir(fh));
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.serve(request, reply, |core, context| async move { core.fsyncdir(context, ino).await });
    }

    fn statfs(&self, request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.serve(request, reply, |core, context| async move { core.statfs(context).await });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (name, value) = (name_of(name), Bytes::copy_from_slice(value));
        self.serve(request, reply, |core, context| async move {
            core.setxattr(context, ino, name, value, flags).await
        });
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name_of(name);
        self.serve(
            request,
            reply,
            |core, context| async move { core.getxattr(context, ino, name, size).await },
        );
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.serve(request, reply, |core, context| async move { core.listxattr(context, ino, size).await });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name_of(name);
        self.serve(request, reply, |core, context| async move { core.removexattr(context, ino, name).await });
    }

    /// The kernel checks permissions itself and does not ask; were it to, "not supported" means that.
    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (name, flags) = (name_of(name), Flags(flags));
        let late = |core: Arc<Core>, created: Created| {
            core.abandon(&created.opened);
            core.inodes.forget(created.entry.attr.ino, 1);
        };
        self.serve_open(
            request,
            reply,
            |core, context| async move { core.create(context, parent, name, mode, umask, flags).await },
            late,
        );
    }

    fn getlk(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let wanted = Wanted { tid: request.pid(), owner: lock_owner.0, pid, start, end, kind: typ };
        self.serve(request, reply, |core, context| async move { core.getlk(context, fh, wanted).await });
    }

    fn setlk(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let wanted = Wanted { tid: request.pid(), owner: lock_owner.0, pid, start, end, kind: typ };
        self.serve(
            request,
            reply,
            |core, context| async move { core.setlk(context, fh, wanted, sleep).await },
        );
    }

    fn bmap(&self, _request: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// Files are always ready; the kernel says so itself from the first "not supported" on.
    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.serve(request, reply, |core, context| async move {
            core.fallocate(context, fh, offset, length, mode).await
        });
    }

    fn lseek(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.serve(
            request,
            reply,
            |core, context| async move { core.lseek(context, fh, offset, whence).await },
        );
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = CopyEnd { open: fh_in, offset: offset_in };
        let to = CopyEnd { open: fh_out, offset: offset_out };
        self.serve(request, reply, |core, context| async move {
            core.copy_file_range(context, from, to, len).await
        });
    }
}
