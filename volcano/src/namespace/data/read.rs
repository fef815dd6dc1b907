//! READ (RFC 1813 §3.3.6).

use bytes::Bytes;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{Read, ReadReply};

use super::content;
use crate::namespace::permission::{self, EXECUTE, READ};
use crate::namespace::plan::{BodyRange, Caller, Plan, Stop};
use crate::namespace::times;
use crate::rows::Content;

pub(in crate::namespace) fn read(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &Read,
) -> Result<(ReadReply, Bytes), Stop> {
    let mut row = super::file(plan, &op.handle)?;
    let who = caller.credentials;
    // An NFS client checked when it opened the file; its owner may have changed the mode since. And it
    // reads what it runs (RFC 1813 §4.4).
    let allowed = op.opened || permission::owns(who, &row) || permission::granted(plan, who, &row, EXECUTE)?;
    if !allowed {
        permission::require(plan, who, &row, READ)?;
    }
    let end = op.offset.saturating_add(op.length.min(MAX_IO).into()).min(row.size);
    let length = end.saturating_sub(op.offset);
    let data = match row.content {
        Content::Body { body, high } if plan.leaves_reads() && length > 0 && op.offset < high => {
            plan.read = Some(BodyRange { body, offset: op.offset, length: length as usize });
            Bytes::new()
        }
        _ => content::read(plan, &row, op.offset, length)?,
    };
    if op.length > 0 {
        times::note_read(plan, &mut row);
    }
    let eof = op.offset.saturating_add(length) >= row.size;
    Ok((ReadReply { eof, attr: plan.attr(&row)? }, data))
}
