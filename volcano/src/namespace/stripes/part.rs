//! What clients do at a stripe itself.

use bytes::Bytes;
use magma_common::attr::Wcc;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{CommitPart, CommitReply, ReadStripe, WriteStripe, WriteStripeReply};

use crate::namespace::data::{self, content};
use crate::namespace::plan::{Plan, Stop};
use crate::rows::{FlareRow, Striping};

/// The stripe with this handle, if it belongs to that file; its cut number, and how many bytes it can have.
fn stripe(plan: &mut Plan<'_>, stripe: &Handle, head: &Handle) -> Result<(FlareRow, u64, u64), Stop> {
    let row = plan.row_by_key(&stripe.key)?.filter(|row| row.handle == *stripe);
    let Some(row) = row else { return Err(FlareError::Stale.into()) };
    let Striping::Stripe { cut, unit } = row.striping else { return Err(FlareError::Stale.into()) };
    let belongs = plan.references(&stripe.key)?.iter().any(|reference| reference.parent == *head);
    if belongs { Ok((row, cut, unit.bytes())) } else { Err(FlareError::Stale.into()) }
}

pub(in crate::namespace) fn read(plan: &mut Plan<'_>, op: &ReadStripe) -> Result<Bytes, Stop> {
    let (row, cut, _) = stripe(plan, &op.stripe, &op.head)?;
    if cut > op.cut {
        return Err(FlareError::Stale.into());
    }
    let end = op.offset.saturating_add(op.length.min(MAX_IO).into()).min(row.size);
    data::bytes(plan, &row, op.offset, end.saturating_sub(op.offset))
}

pub(in crate::namespace) fn write(
    plan: &mut Plan<'_>,
    op: &WriteStripe,
    payload: &Bytes,
) -> Result<WriteStripeReply, Stop> {
    if payload.len() > MAX_IO as usize {
        return Err(FlareError::BadRequest.into());
    }
    let (mut row, cut, unit) = stripe(plan, &op.stripe, &op.head)?;
    if op.offset.saturating_add(payload.len() as u64) > unit {
        return Err(FlareError::Invalid.into());
    }
    if cut > op.cut {
        return Err(FlareError::Stale.into());
    }
    if !payload.is_empty() {
        content::write(plan, &mut row, op.offset, payload)?;
        plan.touch_content(&mut row);
        plan.put(row);
    }
    Ok(WriteStripeReply { verifier: 0 })
}

/// As for a whole file: what is asked for is that everything is on disk before the answer.
pub(in crate::namespace) fn commit(plan: &mut Plan<'_>, op: &CommitPart) -> Result<CommitReply, Stop> {
    if op.part == op.head {
        plan.row(&op.head)?;
        return Ok(CommitReply { verifier: 0, wcc: plan.wcc(&op.head)? });
    }
    stripe(plan, &op.part, &op.head)?;
    Ok(CommitReply { verifier: 0, wcc: Wcc::default() })
}
