//! Advisory locks: fcntl ranges, open-file-description locks and whole files.
//!
//! The FUSE library does not pass on whether a lock comes from `fcntl(2)` or `flock(2)`. The two differ only when
//! the range is the whole file; then `/proc` tells in which system call the caller waits. Where `/proc` does not
//! tell, the lock is taken as a whole-file range, which is what NFS makes of `flock`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{Errno, FileHandle};
use magma_common::client::Context;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::{HeldLock, Lock, LockFamily, LockKind, LockOwner, TestLock};
use tokio::time::{sleep, sleep_until, timeout};

use crate::caller::{has_signal, is_in_flock};
use crate::core::Core;
use crate::held::Holder;
use crate::reply::{OFFSET_MAX, Outcome, errno, failed};

/// How long the volcano is asked to wait at a time; a signal to the waiting program is noticed between two.
const WAIT_SLICE: Duration = Duration::from_millis(250);
/// Shortest time between two tries for the same lock.
const MIN_RETRY: Duration = Duration::from_millis(20);
/// How long a close waits until its locks are given back.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// Looks at a caller that has not gone to sleep in its system call yet.
const SYSCALL_LOOKS: usize = 20;
const SYSCALL_LOOK_PAUSE: Duration = Duration::from_millis(1);

/// What the kernel says of a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The thread that asks.
    pub(crate) tid: u32,
    /// The kernel's number for the owner.
    pub(crate) owner: u64,
    /// The process, for people.
    pub(crate) pid: u32,
    /// First byte.
    pub(crate) start: u64,
    /// Last byte; the kernel's largest offset for the end of the file.
    pub(crate) end: u64,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub(crate) kind: i32,
}

impl Wanted {
    fn kind(&self) -> Outcome<LockKind> {
        match self.kind {
            libc::F_RDLCK => Ok(LockKind::Shared),
            libc::F_WRLCK => Ok(LockKind::Exclusive),
            libc::F_UNLCK => Ok(LockKind::Unlock),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The last byte in the protocol's terms.
    const fn last(&self) -> u64 {
        if self.end >= OFFSET_MAX { u64::MAX } else { self.end }
    }

    const fn is_whole_file(&self) -> bool {
        self.start == 0 && self.end >= OFFSET_MAX
    }

    async fn family(&self) -> LockFamily {
        if !self.is_whole_file() {
            return LockFamily::Posix;
        }
        for _ in 0..SYSCALL_LOOKS {
            match is_in_flock(self.tid) {
                Some(true) => return LockFamily::Flock,
                Some(false) => return LockFamily::Posix,
                None => sleep(SYSCALL_LOOK_PAUSE).await,
            }
        }
        LockFamily::Posix
    }
}

impl Core {
    pub(crate) async fn getlk(
        &self,
        context: Context,
        open: FileHandle,
        wanted: Wanted,
    ) -> Outcome<Option<HeldLock>> {
        let test = TestLock {
            handle: self.files.of(open)?.handle,
            // Only fcntl can ask.
            family: LockFamily::Posix,
            owner: LockOwner { owner: wanted.owner, pid: wanted.pid },
            kind: wanted.kind()?,
            start: wanted.start,
            end: wanted.last(),
        };
        let held = self.client.call(&context, test).await.map_err(failed)?;
        Ok(held.map(|mut held| {
            // A process number of another machine means nothing here.
            if held.session != self.client.session() {
                held.owner.pid = 0;
            }
            held
        }))
    }

    pub(crate) async fn setlk(
        &self,
        context: Context,
        open: FileHandle,
        wanted: Wanted,
        wait: bool,
    ) -> Outcome<()> {
        let handle = self.files.of(open)?.handle;
        let (family, kind) = (wanted.family().await, wanted.kind()?);
        let lock = Lock {
            handle,
            family,
            owner: LockOwner { owner: wanted.owner, pid: wanted.pid },
            kind,
            start: wanted.start,
            end: wanted.last(),
            wait: wait && kind != LockKind::Unlock,
        };
        if kind != LockKind::Unlock {
            self.locks.note(handle, Holder { family, owner: wanted.owner, through: open });
        }
        if lock.wait {
            self.wait_for_lock(context, lock, wanted.tid).await?;
        } else {
            self.client.call(&context, lock).await.map_err(failed)?;
        }
        match kind {
            LockKind::Unlock if wanted.is_whole_file() => self.locks.clear(handle, family, wanted.owner),
            LockKind::Unlock => {}
            // Its last holder may have written what the kernel has not seen.
            LockKind::Shared | LockKind::Exclusive => self.forget_attributes(handle),
        }
        Ok(())
    }

    /// Waits in slices, so that a signal to the caller ends the wait.
    ///
    /// A signal counts only after a definite "no": a lock whose answer was lost may be held. If the caller dies
    /// meanwhile, the close of its file gives the lock back.
    async fn wait_for_lock(&self, mut context: Context, lock: Lock, tid: u32) -> Outcome<()> {
        loop {
            let began = Instant::now();
            context.deadline = Some(began + WAIT_SLICE);
            let refused = match self.client.call(&context, lock.clone()).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure.error,
            };
            match refused {
                FlareError::WouldBlock if has_signal(tid) => return Err(Errno::EINTR),
                FlareError::WouldBlock | FlareError::TimedOut => {}
                other => return Err(errno(other)),
            }
            sleep_until((began + MIN_RETRY).into()).await;
        }
    }

    /// Whether anybody may hold a lock of this open's file.
    pub(crate) fn locks_file(&self, open: FileHandle) -> bool {
        self.files.of(open).is_ok_and(|file| self.locks.any(file.handle))
    }

    /// A close by a process ends its POSIX locks of the file, whichever descriptor it closes.
    ///
    /// A process that is ending cannot be killed any more, so it does not wait for a volcano that is away: its locks
    /// are given back when the volcano answers.
    pub(crate) async fn flush(
        self: Arc<Self>,
        context: Context,
        open: FileHandle,
        owner: u64,
    ) -> Outcome<()> {
        let handle = self.files.of(open)?.handle;
        let closed = self.locks.closed_by(handle, owner);
        let unlocking = tokio::spawn(async move { self.unlock_all(&context, handle, closed).await });
        match timeout(CLOSE_PATIENCE, unlocking).await {
            Ok(unlocked) => unlocked.unwrap_or(Err(Errno::EIO)),
            Err(_elapsed) => Ok(()),
        }
    }

    /// The last close of an open ends the locks that were taken through it.
    pub(crate) async fn unlock_ended(
        &self,
        context: &Context,
        handle: Handle,
        open: FileHandle,
    ) -> Outcome<()> {
        let ended = self.locks.ended_with(handle, open);
        self.unlock_all(context, handle, ended).await
    }

    async fn unlock_all(&self, context: &Context, handle: Handle, holders: Vec<Holder>) -> Outcome<()> {
        let mut outcome = Ok(());
        for Holder { family, owner, .. } in holders {
            let lock = Lock {
                handle,
                family,
                owner: LockOwner { owner, pid: 0 },
                kind: LockKind::Unlock,
                start: 0,
                end: u64::MAX,
                wait: false,
            };
            if let Err(failure) = self.client.call(context, lock).await {
                tracing::warn!(target: "magma::mount", ?handle, owner, %failure, "a lock could not be given back");
                outcome = Err(failed(failure));
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(start: u64, end: u64) -> Wanted {
        Wanted { tid: 0, owner: 1, pid: 2, start, end, kind: libc::F_WRLCK }
    }

    #[test]
    fn the_kernels_largest_offset_means_the_end_of_the_file() {
        assert_eq!(wanted(0, OFFSET_MAX).last(), u64::MAX);
        assert_eq!(wanted(0, 9).last(), 9);
    }

    #[tokio::test]
    async fn a_part_of_a_file_is_locked_by_fcntl_only() {
        assert_eq!(wanted(1, OFFSET_MAX).family().await, LockFamily::Posix);
    }
}
