//! ALLOCATE: `fallocate(2)` on an open file, so without a permission check.

use magma_common::attr::Wcc;
use magma_common::error::FlareError;
use magma_common::proto::operation::{Allocate, AllocateHow};

use super::content;
use crate::namespace::plan::{Caller, Plan, Stop};
use crate::namespace::{privileges, stripes};

pub(in crate::namespace) fn allocate(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &Allocate,
) -> Result<Wcc, Stop> {
    let mut row = super::file(plan, &op.handle)?;
    if op.length == 0 {
        return Err(FlareError::Invalid.into());
    }
    if stripes::head_of(&row).is_some() {
        return Err(FlareError::NotSupported.into());
    }
    let end = content::end_within_limit(op.offset, op.length)?;
    privileges::strip_by_write(plan, caller.credentials, &mut row)?;
    match op.how {
        AllocateHow::Reserve | AllocateHow::ReserveKeepSize => {
            content::reserve(plan, &mut row, op.offset, op.length)?;
        }
        AllocateHow::PunchHole | AllocateHow::Zero | AllocateHow::ZeroKeepSize => {
            content::clear(plan, &row, op.offset, end)?;
        }
    }
    if matches!(op.how, AllocateHow::Reserve | AllocateHow::Zero) {
        row.size = row.size.max(end);
    }
    plan.touch_content(&mut row);
    plan.put(row);
    plan.wcc(&op.handle)
}
