//! READ (RFC 1813 §3.3.6).

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::proto::Credentials;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{Read, ReadReply};

use super::content;
use crate::namespace::permission::{self, EXECUTE, READ};
use crate::namespace::plan::{BodyRange, Caller, Plan, Stop};
use crate::namespace::{stripes, times};
use crate::rows::{Content, FlareRow};

pub(in crate::namespace) fn read(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &Read,
) -> Result<(ReadReply, Bytes), Stop> {
    let mut row = super::file(plan, &op.handle)?;
    may_read(plan, caller.credentials, &row, op.opened)?;
    let end = op.offset.saturating_add(op.length.min(MAX_IO).into()).min(row.size);
    let length = end.saturating_sub(op.offset);
    if stripes::head_of(&row).is_some_and(|head| length > 0 && end > head.unit.bytes()) {
        return Err(FlareError::Striped.into());
    }
    let data = bytes(plan, &row, op.offset, length)?;
    if op.length > 0 {
        times::note_read(plan, &mut row);
    }
    let eof = op.offset.saturating_add(length) >= row.size;
    Ok((ReadReply { eof, attr: plan.attr(&row)? }, data))
}

/// Refuses whoever may not read the file.
pub(in crate::namespace) fn may_read(
    plan: &Plan<'_>,
    who: &Credentials,
    row: &FlareRow,
    opened: bool,
) -> Result<(), Stop> {
    // An NFS client checked when it opened the file; its owner may have changed the mode since. And it
    // reads what it runs (RFC 1813 §4.4).
    let allowed = opened || permission::owns(who, row) || permission::granted(plan, who, row, EXECUTE)?;
    if allowed { Ok(()) } else { permission::require(plan, who, row, READ) }
}

/// Bytes that a flare has itself. Those of a body may be left to the caller.
pub(in crate::namespace) fn bytes(
    plan: &mut Plan<'_>,
    row: &FlareRow,
    offset: u64,
    length: u64,
) -> Result<Bytes, Stop> {
    match row.content {
        Content::Body { body, high } if plan.leaves_reads() && length > 0 && offset < high => {
            plan.read = Some(BodyRange { body, offset, length: length as usize });
            Ok(Bytes::new())
        }
        _ => content::read(plan, row, offset, length),
    }
}
