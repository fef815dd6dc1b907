//! WRITE and COMMIT (RFC 1813 §3.3.7, §3.3.21). The slice puts the verifier in and decides when they are answered.

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::proto::Credentials;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{Commit, CommitReply, Write, WriteAt, WriteReply};

use super::content;
use crate::namespace::permission::{self, WRITE};
use crate::namespace::plan::{Caller, Plan, Stop};
use crate::namespace::{privileges, stripes};
use crate::rows::FlareRow;

pub(in crate::namespace) fn write(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &Write,
    payload: &Bytes,
) -> Result<WriteReply, Stop> {
    if payload.len() > MAX_IO as usize {
        return Err(FlareError::BadRequest.into());
    }
    let mut row = super::file(plan, &op.handle)?;
    let who = caller.credentials;
    may_write(plan, who, &row, op.opened)?;
    let offset = match op.at {
        WriteAt::Offset(offset) => offset,
        WriteAt::End => row.size,
    };
    let end = offset.saturating_add(payload.len() as u64);
    let head = stripes::head_of(&row).filter(|head| end > head.unit.bytes());
    if let Some(head) = head.filter(|_| !payload.is_empty()) {
        stripes::write(plan, caller, (&row, head), offset, payload)?;
        let unit = Some(head.unit);
        return Ok(WriteReply { offset, verifier: 0, wcc: plan.wcc(&op.handle)?, unit });
    }
    if !payload.is_empty() {
        privileges::strip_by_write(plan, who, &mut row)?;
        content::write(plan, &mut row, offset, payload)?;
        plan.touch_content(&mut row);
        plan.put(row);
    }
    Ok(WriteReply { offset, verifier: 0, wcc: plan.wcc(&op.handle)?, unit: None })
}

/// Refuses whoever may not write the file.
pub(in crate::namespace) fn may_write(
    plan: &Plan<'_>,
    who: &Credentials,
    row: &FlareRow,
    opened: bool,
) -> Result<(), Stop> {
    if opened || permission::owns(who, row) { Ok(()) } else { permission::require(plan, who, row, WRITE) }
}

/// Nothing changes: what is asked for is that everything up to now is on disk before the answer.
pub(in crate::namespace) fn commit(plan: &mut Plan<'_>, op: &Commit) -> Result<CommitReply, Stop> {
    let row = plan.row(&op.handle)?;
    if stripes::head_of(&row).is_some_and(|head| head.count > 0) {
        return Err(FlareError::Striped.into());
    }
    Ok(CommitReply { verifier: 0, wcc: plan.wcc(&op.handle)? })
}
