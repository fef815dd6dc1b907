//! GETATTR, of one flare and of many. Attributes may be read by whoever has the handle.

use magma_common::attr::Attr;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::limits::MAX_STAT_MANY;
use magma_common::proto::operation::{Getattr, StatMany};

use super::plan::{Plan, Stop};

pub(super) fn getattr(plan: &mut Plan<'_>, op: &Getattr) -> Result<Attr, Stop> {
    let row = plan.row(&op.handle)?;
    plan.attr(&row)
}

pub(super) fn stat_many(plan: &Plan<'_>, op: &StatMany) -> Result<Vec<Result<Attr, FlareError>>, Stop> {
    if op.handles.len() > MAX_STAT_MANY {
        return Err(FlareError::BadRequest.into());
    }
    let mut attrs = Vec::with_capacity(op.handles.len());
    let mut is_complete = true;
    for handle in &op.handles {
        match one_of_many(plan, handle) {
            Ok(attr) => attrs.push(attr),
            Err(Stop::Elsewhere) => is_complete = false,
            Err(other) => return Err(other),
        }
    }
    if is_complete { Ok(attrs) } else { Err(Stop::Elsewhere) }
}

/// Read straight from the view: a plan that kept all these rows would look through them for each.
fn one_of_many(plan: &Plan<'_>, handle: &Handle) -> Result<Result<Attr, FlareError>, Stop> {
    let attr = match plan.stored_row(handle)? {
        Some(row) => plan.stored_attr(&row),
        None => return Ok(Err(FlareError::Stale)),
    };
    match attr {
        Ok(attr) => Ok(Ok(attr)),
        Err(Stop::Failure(failure)) => Ok(Err(failure.error)),
        Err(fatal) => Err(fatal),
    }
}
