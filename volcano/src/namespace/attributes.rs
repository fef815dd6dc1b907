//! GETATTR, of one flare and of many. Attributes may be read by whoever has the handle.

use magma_common::attr::Attr;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::limits::MAX_STAT_MANY;
use magma_common::proto::operation::{Getattr, StatMany};

use super::plan::{Plan, Stop};

pub(super) fn getattr(plan: &mut Plan<'_>, op: &Getattr) -> Result<Attr, Stop> {
    attr_of(plan, &op.handle)
}

pub(super) fn stat_many(plan: &mut Plan<'_>, op: &StatMany) -> Result<Vec<Result<Attr, FlareError>>, Stop> {
    if op.handles.len() > MAX_STAT_MANY {
        return Err(FlareError::BadRequest.into());
    }
    let one = |handle| match attr_of(plan, handle) {
        Ok(attr) => Ok(Ok(attr)),
        Err(Stop::Failure(failure)) => Ok(Err(failure.error)),
        Err(fatal) => Err(fatal),
    };
    op.handles.iter().map(one).collect()
}

fn attr_of(plan: &mut Plan<'_>, handle: &Handle) -> Result<Attr, Stop> {
    let row = plan.row(handle)?;
    plan.attr(&row)
}
