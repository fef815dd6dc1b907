//! LOCK and TESTLOCK: advisory locks (`fcntl(2)`, `flock(2)`). Waiting for one is the slice's business.

use magma_common::error::FlareError;
use magma_common::proto::SessionId;
use magma_common::proto::limits::MAX_LOCKS_PER_FLARE;
use magma_common::proto::operation::{HeldLock, Lock, LockFamily, LockKind, TestLock};

use super::locks::{self, Wanted};
use super::plan::{Caller, Plan, Stop};
use crate::record::Change;
use crate::rows::LockRow;

pub(super) fn lock(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Lock) -> Result<(), Stop> {
    let row = plan.row(&op.handle)?;
    let wanted = wanted(caller.session, op);
    if wanted.start > wanted.end {
        return Err(FlareError::Invalid.into());
    }
    let held = plan.locks(&row.key())?;
    if locks::conflicts(&held, &wanted).is_some() {
        return Err(FlareError::WouldBlock.into());
    }
    let after = locks::apply(&held, &wanted);
    if after.len() > MAX_LOCKS_PER_FLARE && after.len() > held.len() {
        return Err(FlareError::NoLocks.into());
    }
    if after != held {
        plan.push(Change::PutLocks { flare: row.key(), locks: after });
    }
    Ok(())
}

pub(super) fn test_lock(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &TestLock,
) -> Result<Option<HeldLock>, Stop> {
    let row = plan.row(&op.handle)?;
    let TestLock { handle, family, owner, kind, start, end } = *op;
    let asked = Lock { handle, family, owner, kind, start, end, wait: false };
    let held = plan.locks(&row.key())?;
    Ok(conflict(&held, caller.session, &asked).map(|lock| HeldLock {
        session: lock.session,
        owner: lock.owner,
        kind: lock.kind,
        start: lock.start,
        end: lock.end,
    }))
}

/// The lock that keeps this session from getting what it asks for.
pub fn conflict<'a>(held: &'a [LockRow], session: SessionId, lock: &Lock) -> Option<&'a LockRow> {
    locks::conflicts(held, &wanted(session, lock))
}

/// What a request gives up before it waits: `flock(2)` releases the old lock before it waits for the new one, and so two
/// who hold a shared lock and both want the exclusive one do not wait for each other for ever.
pub fn release_before_waiting(plan: &mut Plan<'_>, session: SessionId, op: &Lock) -> Result<(), Stop> {
    if op.family != LockFamily::Flock {
        return Ok(());
    }
    let held = plan.locks(&op.handle.key)?;
    let after = locks::apply(&held, &Wanted { kind: LockKind::Unlock, ..wanted(session, op) });
    if after != held {
        plan.push(Change::PutLocks { flare: op.handle.key, locks: after });
    }
    Ok(())
}

/// Gives back everything that a session has locked; it has ended.
pub fn release_locks(plan: &mut Plan<'_>, session: SessionId) -> Result<(), Stop> {
    for flare in plan.view.locked_by(session)? {
        let mut locks = plan.view.locks(&flare)?;
        locks.retain(|lock| lock.session != session);
        plan.push(Change::PutLocks { flare, locks });
    }
    Ok(())
}

/// A lock of the whole-file family covers everything, whatever range comes with it.
fn wanted(session: SessionId, op: &Lock) -> Wanted {
    let (start, end) = match op.family {
        LockFamily::Posix => (op.start, op.end),
        LockFamily::Flock => (0, u64::MAX),
    };
    Wanted { family: op.family, session, owner: op.owner, kind: op.kind, start, end }
}
