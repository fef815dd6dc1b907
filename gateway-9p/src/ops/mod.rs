//! What each message does. One file per group of messages; here is what they share.
//!
//! Every operation becomes one or few requests to the volcano, which checks permissions; the door
//! keeps fids and nothing else.

mod attach;
mod attr;
mod io;
mod lock;
mod make;
mod names;
mod open;
mod readdir;
mod walk;
mod xattr;

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use magma_common::attr::{Attr, Kind, Wcc};
use magma_common::client::{Client, Context};
use magma_common::error::FlareError;
use magma_common::handle::BirthNumber;
use magma_common::name::Name;
use magma_common::proto::Failure;
use magma_common::proto::operation::Operation;
use tokio::sync::Semaphore;

use crate::connection::Service;
use crate::errno::{Refusal, refusals};
use crate::export::Export;
use crate::fid::FidTable;
use crate::limits::Limits;
use crate::tags::Flushed;
use crate::user::{Database, User};
use crate::wire::codec::{Qid, Text};
use crate::wire::{READ_OVERHEAD, Reply, Request};

/// What all connections of a gateway share.
pub(crate) struct Gateway {
    pub(crate) client: Client,
    pub(crate) export: Export,
    pub(crate) limits: Limits,
    pub(crate) database: Database,
    /// Makes numbers of lock owners that no client can foresee.
    pub(crate) owner_hash: RandomState,
}

/// One client: its fids and what it agreed to.
pub(crate) struct Session {
    gateway: Arc<Gateway>,
    fids: Arc<FidTable>,
    msize: AtomicU32,
    /// Names this connection among those of the gateway.
    number: u64,
    /// Grows with each Tversion: lock owners of before are others.
    generation: AtomicU64,
    attached: Arc<AtomicBool>,
    xattr_bytes: Arc<Semaphore>,
    waiting_locks: Semaphore,
}

impl Session {
    /// A session whose client has not attached yet; `attached` is set when it does.
    pub(crate) fn new(gateway: Arc<Gateway>, number: u64, attached: Arc<AtomicBool>) -> Self {
        let limits = gateway.limits;
        Self {
            fids: Arc::new(FidTable::new(limits.fids)),
            msize: AtomicU32::new(0),
            number,
            generation: AtomicU64::new(0),
            attached,
            xattr_bytes: Arc::new(Semaphore::new(limits.xattr_bytes)),
            waiting_locks: Semaphore::new(limits.waiting_locks),
            gateway,
        }
    }

    /// Does an operation on behalf of a user.
    async fn call<O: Operation>(&self, user: &User, operation: O) -> Result<O::Reply, Failure> {
        call(&self.gateway.client, user, &user.context(), operation).await
    }

    /// Does an operation that makes something with the group that the client names.
    async fn call_making<O: Operation>(
        &self,
        user: &User,
        gid: u32,
        operation: O,
    ) -> Result<O::Reply, Failure> {
        call(&self.gateway.client, user, &user.making(gid), operation).await
    }

    /// Fails if nothing may be changed.
    fn check_writable(&self) -> Result<(), Refusal> {
        if self.gateway.export.read_only { Err(refusals::READ_ONLY) } else { Ok(()) }
    }

    /// Largest payload of a reply in bytes.
    fn largest_payload(&self) -> u32 {
        self.msize().saturating_sub(READ_OVERHEAD)
    }

    /// Largest message in bytes.
    fn msize(&self) -> u32 {
        self.msize.load(Ordering::Relaxed)
    }

    /// Ends all fids. Locks taken through them are given back; that may take as long as the volcano is away, so
    /// nobody waits for it.
    pub(crate) fn end(&self) {
        for fid in self.fids.clear() {
            tokio::spawn(lock::give_back(Arc::clone(&self.gateway), fid));
        }
    }

    async fn dispatch(&self, request: Request, flushed: Flushed) -> Result<Reply, Refusal> {
        match request {
            Request::Tattach(attach) => self.attach(attach).await,
            Request::Tauth(_) => Err(refusals::NO_AUTHENTICATION),
            Request::Twalk(walk) => self.walk(walk).await,
            Request::Tclunk(clunk) => self.clunk(&clunk).await,
            Request::Tremove(remove) => self.remove(&remove).await,
            Request::Tlopen(open) => self.lopen(&open).await,
            Request::Tlcreate(create) => self.lcreate(create).await,
            Request::Tread(read) => self.read(&read).await,
            Request::Twrite(write) => self.write(write).await,
            Request::Tfsync(fsync) => self.fsync(&fsync).await,
            Request::Treaddir(readdir) => self.readdir(&readdir).await,
            Request::Tsymlink(symlink) => self.symlink(symlink).await,
            Request::Tmknod(mknod) => self.mknod(mknod).await,
            Request::Tmkdir(mkdir) => self.mkdir(mkdir).await,
            Request::Tlink(link) => self.link(link).await,
            Request::Trename(rename) => self.rename(rename).await,
            Request::Trenameat(rename) => self.renameat(rename).await,
            Request::Tunlinkat(unlink) => self.unlinkat(unlink).await,
            Request::Treadlink(readlink) => self.readlink(&readlink).await,
            Request::Tgetattr(getattr) => self.getattr(&getattr).await,
            Request::Tsetattr(setattr) => self.setattr(&setattr).await,
            Request::Tstatfs(statfs) => self.statfs(&statfs).await,
            Request::Txattrwalk(walk) => self.xattrwalk(walk).await,
            Request::Txattrcreate(create) => self.xattrcreate(&create),
            Request::Tlock(lock) => self.lock(lock, flushed).await,
            Request::Tgetlock(lock) => self.getlock(lock).await,
            // The connection answers these itself.
            Request::Tversion(_) | Request::Tflush(_) => Err(refusals::INVALID),
        }
    }
}

impl Service for Session {
    async fn reset(&self, msize: u32) {
        self.msize.store(msize, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.end();
    }

    async fn serve(&self, request: Request, flushed: Flushed) -> Reply {
        self.dispatch(request, flushed).await.unwrap_or_else(Reply::from)
    }
}

/// Does an operation on behalf of a user.
///
/// Where it is refused for want of permission and the client vouches for the user's groups, it is asked for once
/// more as a member of the groups of what it touches: the failure tells them. Asking so from the start would be
/// wrong, since members of a file's group may be allowed less than others.
async fn call<O: Operation>(
    client: &Client,
    user: &User,
    context: &Context,
    operation: O,
) -> Result<O::Reply, Failure> {
    let failure = match client.call(context, operation.clone()).await {
        Err(failure) if failure.error == FlareError::AccessDenied => failure,
        other => return other,
    };
    let groups = [&failure.first, &failure.second].map(group_after).into_iter().flatten();
    match user.vouched_for(context, groups) {
        Some(context) => client.call(&context, operation).await,
        None => Err(failure),
    }
}

fn group_after(wcc: &Wcc) -> Option<u32> {
    wcc.after.as_ref().map(|attr| attr.gid)
}

/// Runs something to its end even if the request that wants it is given up, so that what it brings (an open, a
/// lock) is never granted to nobody.
async fn to_the_end<T: Send + 'static>(
    task: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(task).await.unwrap_or(Err(refusals::INTERNAL))
}

/// A name in a request. It is copied: fids keep names, and would keep the whole buffer that a message came in.
fn name(text: &Text) -> Result<Name, Refusal> {
    Ok(Name::new(Bytes::copy_from_slice(text.as_bytes()))?)
}

/// The qid of a flare: its inode number, and a version that changes with every change of the file.
///
/// The version is the low half of the flare's change number. Zero means to Linux that a file must not be cached:
/// it is what the files have that are made up when they are read.
fn qid(attr: &Attr) -> Qid {
    let version = if attr.handle.birth == BirthNumber::INTERNAL { 0 } else { (attr.change as u32).max(1) };
    Qid { kind: qid_kind(attr.kind), version, path: attr.handle.ino().0 }
}

fn qid_kind(kind: Kind) -> u8 {
    match kind {
        Kind::Directory => Qid::QTDIR,
        Kind::Symlink => Qid::QTSYMLINK,
        Kind::File | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Qid::QTFILE,
    }
}
