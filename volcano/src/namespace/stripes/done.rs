//! Stripes were written by a client: the head takes note.

use magma_common::error::FlareError;
use magma_common::proto::operation::{WriteDone, WriteReply};

use super::head_of;
use crate::namespace::data::{self, content};
use crate::namespace::plan::{Caller, Plan, Stop};
use crate::namespace::privileges;
use crate::planted::{Bug, planted};

pub(in crate::namespace) fn done(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &WriteDone,
) -> Result<WriteReply, Stop> {
    let mut row = data::file(plan, &op.handle)?;
    let Some(head) = head_of(&row) else { return Err(FlareError::Invalid.into()) };
    content::end_within_limit(op.end, 0)?;
    let unit = Some(head.unit);
    // If the file was cut meanwhile, the write was there before that.
    if head.cut == op.cut || planted(Bug::ExtendAfterCut) {
        row.size = row.size.max(op.end);
    }
    privileges::strip_by_write(plan, caller.credentials, &mut row)?;
    plan.touch_content(&mut row);
    plan.put(row);
    Ok(WriteReply { offset: 0, verifier: 0, wcc: plan.wcc(&op.handle)?, unit })
}
