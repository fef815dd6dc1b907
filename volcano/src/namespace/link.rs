//! LINK (RFC 1813 §3.3.15): the flare's reference first, then the entry.

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::proto::limits::MAX_LINKS;
use magma_common::proto::operation::{Link, LinkReply};

use super::naming;
use super::plan::{Caller, Plan, Stop};
use super::steps::{entry, reference};
use crate::rows::Life;

pub(super) fn link(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Link) -> Result<LinkReply, Stop> {
    let row = plan.row(&op.handle)?;
    naming::free(plan, caller, &op.dir, &op.name)?;
    if row.kind == Kind::Directory {
        return Err(FlareError::NotPermitted.into());
    }
    if row.life == Life::Orphan {
        return Err(FlareError::NotFound.into());
    }
    if row.nlink >= MAX_LINKS {
        return Err(FlareError::TooManyLinks.into());
    }
    let row = reference::add(plan, &op.handle, &op.dir, &op.name)?;
    entry::add(plan, &op.dir, &op.name, &row)?;
    Ok(LinkReply { attr: plan.attr(&row)?, dir: plan.wcc(&op.dir)? })
}
