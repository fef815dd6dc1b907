//! MKDIR (RFC 1813 §3.3.9).

use magma_common::attr::Kind;
use magma_common::proto::operation::{MadeReply, Mkdir};

use super::naming::{self, Newborn};
use super::plan::{Caller, Plan, Stop};

pub(super) fn mkdir(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Mkdir) -> Result<MadeReply, Stop> {
    let dir = naming::free(plan, caller, &op.dir, &op.name)?;
    let newborn = Newborn {
        kind: Kind::Directory,
        mode: op.mode,
        umask: op.umask,
        rdev: 0,
        opened_by: None,
        set: &op.set,
    };
    let row = naming::make(plan, caller, &dir, &op.name, &newborn)?;
    Ok(MadeReply { attr: plan.attr(&row)?, created: true, dir: plan.wcc(&op.dir)? })
}
