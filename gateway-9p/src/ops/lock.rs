//! Tlock and Tgetlock: POSIX locks on ranges of bytes. Linux sends `flock(2)` this way too, as a lock on all bytes.
//!
//! An owner is a process of a host as the client names them, within one connection: two clients may well have the
//! same host name and process number. What is locked through a fid is given back when the fid ends.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use magma_common::client::Context;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::{HeldLock, Lock, LockFamily, LockKind, LockOwner, TestLock};
use magma_common::proto::{Credentials, Durability};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Gateway, Session, to_the_end};
use crate::errno::{Refusal, refusals};
use crate::fid::{Fid, Role, lock};
use crate::tags::Flushed;
use crate::wire::Reply;
use crate::wire::codec::Text;
use crate::wire::lock::{
    BLOCKED, ERROR, FLAG_BLOCK, RDLCK, Rgetlock, Rlock, SUCCESS, Tgetlock, Tlock, UNLCK, WRLCK,
};

/// A lock that is waited for is asked for again after so long at first, and ever less often.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// And after so long at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

impl Session {
    /// A request that may wait asks until it has the lock, its client gives up, or the client's patience for one
    /// request is over: it is then told to ask again, so that a signal can reach the process that waits. A lock is
    /// never waited for inside the volcano, where a flush could not tell whether it was granted.
    pub(super) async fn lock(&self, request: Tlock, mut flushed: Flushed) -> Result<Reply, Refusal> {
        let fid = self.fids.get(request.fid)?;
        let opened = fid.opened()?;
        let (start, end) = range(request.start, request.length)?;
        let kind = lock_kind(request.kind)?;
        let owner = self.owner(request.proc_id, &request.client_id);
        if kind != LockKind::Unlock && opened.remember(owner).is_err() {
            return Ok(Rlock { status: ERROR }.into());
        }
        let (handle, family) = (fid.target.handle, LockFamily::Posix);
        let wanted = Lock { handle, family, owner, kind, start, end, wait: false };
        let waits = request.flags & FLAG_BLOCK != 0;
        let place = if waits { self.waiting_locks.try_acquire().ok() } else { None };
        let until = Instant::now() + self.gateway.limits.lock_patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let status = self.try_lock(&fid, request.fid, &wanted).await?;
            let over = Instant::now() >= until;
            if status != BLOCKED || place.is_none() || over {
                return Ok(Rlock { status }.into());
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = flushed.wait() => return Ok(Rlock { status }.into()),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks once. The asking goes on to its end even if the request is given up, and a lock that nobody is there for
    /// any more is given back.
    async fn try_lock(&self, fid: &Arc<Fid>, number: u32, wanted: &Lock) -> Result<u8, Refusal> {
        let (gateway, fids) = (Arc::clone(&self.gateway), Arc::clone(&self.fids));
        let (fid, wanted) = (Arc::clone(fid), wanted.clone());
        to_the_end(async move {
            let (kind, owner) = (wanted.kind, wanted.owner);
            match gateway.client.call(&fid.target.user.context(), wanted).await {
                Ok(()) if kind == LockKind::Unlock || fids.is_current(number, &fid) => Ok(SUCCESS),
                Ok(()) => {
                    unlock_all(&gateway, fid.target.handle, owner).await;
                    Err(refusals::BAD_FID)
                }
                Err(failure) => match failure.error {
                    FlareError::WouldBlock => Ok(BLOCKED),
                    FlareError::NoLocks => Ok(ERROR),
                    _ => Err(Refusal::of_open_file(&failure)),
                },
            }
        })
        .await
    }

    pub(super) async fn getlock(&self, request: Tgetlock) -> Result<Reply, Refusal> {
        let fid = self.fids.get(request.fid)?;
        let target = fid.file()?;
        let (start, end) = range(request.start, request.length)?;
        let kind = match lock_kind(request.kind)? {
            // Linux asks this way whether there is any lock at all.
            LockKind::Unlock => LockKind::Exclusive,
            kind => kind,
        };
        let owner = self.owner(request.proc_id, &request.client_id);
        let test = TestLock { handle: target.handle, family: LockFamily::Posix, owner, kind, start, end };
        let reply = match self.call(&target.user, test).await? {
            Some(held) => in_the_way(&held),
            None => Rgetlock {
                kind: UNLCK,
                start: request.start,
                length: request.length,
                proc_id: request.proc_id,
                client_id: request.client_id,
            },
        };
        Ok(reply.into())
    }

    fn owner(&self, proc_id: u32, client_id: &Text) -> LockOwner {
        let generation = self.generation.load(Ordering::Relaxed);
        let identity = (self.number, generation, proc_id, client_id.as_bytes());
        LockOwner { owner: self.gateway.owner_hash.hash_one(identity), pid: proc_id }
    }
}

/// Whether locks were taken through the fid.
pub(super) fn holds_locks(fid: &Fid) -> bool {
    matches!(&fid.role, Role::Open(opened) if !lock(&opened.lock_owners).is_empty())
}

/// Gives back all locks that were taken through the fid.
pub(super) async fn give_back(gateway: Arc<Gateway>, fid: Arc<Fid>) {
    let Role::Open(opened) = &fid.role else { return };
    let owners = std::mem::take(&mut *lock(&opened.lock_owners));
    for owner in owners {
        unlock_all(&gateway, fid.target.handle, owner).await;
    }
}

async fn unlock_all(gateway: &Gateway, handle: Handle, owner: LockOwner) {
    let context = Context {
        credentials: Arc::new(Credentials::ROOT),
        durability: Durability::Replicated,
        deadline: None,
        call: None,
    };
    let (family, kind) = (LockFamily::Posix, LockKind::Unlock);
    let unlock = Lock { handle, family, owner, kind, start: 0, end: u64::MAX, wait: false };
    match gateway.client.call(&context, unlock).await {
        Ok(()) => {}
        // A file that is gone has no locks.
        Err(failure) if failure.error == FlareError::Stale => {}
        Err(failure) => warn!("a lock of {handle:?} could not be given back: {failure}"),
    }
}

/// First and last byte of a range; a length of 0 reaches to the end of the file.
fn range(start: u64, length: u64) -> Result<(u64, u64), Refusal> {
    match length.checked_sub(1) {
        None => Ok((start, u64::MAX)),
        Some(rest) => start.checked_add(rest).map(|end| (start, end)).ok_or(refusals::INVALID),
    }
}

fn lock_kind(kind: u8) -> Result<LockKind, Refusal> {
    match kind {
        RDLCK => Ok(LockKind::Shared),
        WRLCK => Ok(LockKind::Exclusive),
        UNLCK => Ok(LockKind::Unlock),
        _ => Err(refusals::INVALID),
    }
}

fn in_the_way(held: &HeldLock) -> Rgetlock {
    let length = if held.end == u64::MAX { 0 } else { (held.end - held.start).saturating_add(1) };
    Rgetlock {
        kind: match held.kind {
            LockKind::Shared => RDLCK,
            LockKind::Exclusive => WRLCK,
            LockKind::Unlock => UNLCK,
        },
        start: held.start,
        length,
        proc_id: held.owner.pid,
        // Which host it is the volcano does not know; the session at least tells doors apart.
        client_id: Text::new(format!("session-{:x}", held.session.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::proto::SessionId;

    #[test]
    fn ranges_are_inclusive_and_cannot_wrap() {
        assert_eq!(range(10, 0), Ok((10, u64::MAX)));
        assert_eq!(range(10, 1), Ok((10, 10)));
        assert_eq!(range(u64::MAX, 2), Err(refusals::INVALID));
    }

    #[test]
    fn a_lock_in_the_way_is_told_in_the_terms_of_the_request() {
        let owner = LockOwner { owner: 1, pid: 42 };
        let held = HeldLock { session: SessionId(7), owner, kind: LockKind::Shared, start: 5, end: 9 };
        let told = in_the_way(&held);
        assert_eq!((told.kind, told.start, told.length, told.proc_id), (RDLCK, 5, 5, 42));
        assert_eq!(in_the_way(&HeldLock { end: u64::MAX, ..held }).length, 0);
    }
}
