//! LOOKUP of a name and of `..` (RFC 1813 §3.3.3).

use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::{EntryReply, Lookup, LookupParent};

use super::naming;
use super::permission::{self, EXECUTE};
use super::plan::{Caller, Plan, Stop};

pub(super) fn lookup(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Lookup) -> Result<EntryReply, Stop> {
    let (dir, found) = naming::find(plan, caller, &op.dir, &op.name)?;
    let child = naming::child_of(plan, &found.ok_or(FlareError::NotFound)?)?;
    Ok(EntryReply { attr: plan.attr(&child)?, dir: plan.attr(&dir)? })
}

/// The root is its own parent; a removed directory has none.
pub(super) fn lookup_parent(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &LookupParent,
) -> Result<EntryReply, Stop> {
    let dir = plan.directory(&op.dir)?;
    permission::require(plan, caller.credentials, &dir, EXECUTE)?;
    let parent = if op.dir == Handle::root() {
        dir.clone()
    } else {
        let references = plan.view.references(&op.dir.key)?;
        let reference = references.first().ok_or(FlareError::NotFound)?;
        plan.directory(&reference.parent)?
    };
    Ok(EntryReply { attr: plan.attr(&parent)?, dir: plan.attr(&dir)? })
}
