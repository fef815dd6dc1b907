//! UNLINK: the entry first, then the reference, and with the last one the flare (RFC 1813 §3.3.12).

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::proto::operation::{RemovedReply, Unlink};

use super::plan::{Caller, Plan, Stop};
use super::steps::{entry, reference};
use super::{naming, permission};

pub(super) fn unlink(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Unlink) -> Result<RemovedReply, Stop> {
    let (dir, found, victim) = naming::existing(plan, caller, &op.dir, &op.name)?;
    permission::may_remove(plan, caller.credentials, &dir, &victim)?;
    if victim.kind == Kind::Directory {
        return Err(FlareError::IsDirectory.into());
    }
    entry::remove(plan, &op.dir, &found)?;
    let row = reference::drop_removed(plan, &op.dir, &found)?;
    Ok(RemovedReply { attr: plan.attr(&row)?, dir: plan.wcc(&op.dir)? })
}
