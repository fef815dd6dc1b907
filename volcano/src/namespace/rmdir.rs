//! RMDIR (RFC 1813 §3.3.13).

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::proto::operation::{RemovedReply, Rmdir};

use super::plan::{Caller, Plan, Stop};
use super::steps::{entry, reference};
use super::{naming, permission};

pub(super) fn rmdir(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Rmdir) -> Result<RemovedReply, Stop> {
    let (dir, found, victim) = naming::existing(plan, caller, &op.dir, &op.name)?;
    permission::may_remove(plan, caller.credentials, &dir, &victim)?;
    if victim.kind != Kind::Directory {
        return Err(FlareError::NotDirectory.into());
    }
    if victim.entries > 0 {
        return Err(FlareError::NotEmpty.into());
    }
    entry::remove(plan, &op.dir, &found)?;
    let row = reference::drop_removed(plan, &op.dir, &found)?;
    Ok(RemovedReply { attr: plan.attr(&row)?, dir: plan.wcc(&op.dir)? })
}
