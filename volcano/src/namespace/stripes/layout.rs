//! LAYOUT: where the bytes of a range are.

use magma_common::proto::limits::MAX_LAYOUT;
use magma_common::proto::operation::{Layout, LayoutPurpose, LayoutReply, StripeAt};

use super::{head_of, stripes_from};
use crate::namespace::data::{self, content};
use crate::namespace::plan::{Caller, Plan, Stop};
use crate::namespace::{privileges, times};
use crate::rows::{FlareRow, Head};

pub(in crate::namespace) fn layout(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &Layout,
) -> Result<LayoutReply, Stop> {
    let mut row = data::file(plan, &op.handle)?;
    match op.purpose {
        LayoutPurpose::Read => {
            data::may_read(plan, caller.credentials, &row, op.opened)?;
            if op.length > 0 {
                times::note_read(plan, &mut row);
            }
        }
        LayoutPurpose::Write => {
            data::may_write(plan, caller.credentials, &row, op.opened)?;
            content::end_within_limit(op.offset, op.length)?;
            // Before any stripe is written: nobody keeps the privileges of what he has changed by going away before he says that he has.
            let before = row.clone();
            privileges::strip_by_write(plan, caller.credentials, &mut row)?;
            if row != before {
                plan.put(row.clone());
            }
        }
        LayoutPurpose::Commit => {}
    }
    let (stripes, next) = match head_of(&row) {
        Some(head) if op.length > 0 => stripes_of(plan, &row, head, op)?,
        _ => (Vec::new(), None),
    };
    let (unit, cut) = head_of(&row).map_or((None, 0), |head| (Some(head.unit), head.cut));
    Ok(LayoutReply { attr: plan.attr(&row)?, unit, cut, stripes, next })
}

/// The stripes of the range, and where it goes on if they are too many.
fn stripes_of(
    plan: &Plan<'_>,
    row: &FlareRow,
    head: &Head,
    op: &Layout,
) -> Result<(Vec<StripeAt>, Option<u64>), Stop> {
    let first = head.unit.stripe_of(op.offset).max(1);
    let last = head.unit.stripe_of(op.offset.saturating_add(op.length - 1));
    let mut found = stripes_from(plan, &row.key(), first, MAX_LAYOUT + 1)?;
    found.retain(|entry| entry.cookie <= last && !head.is_dying(entry.cookie));
    let next = found.get(MAX_LAYOUT).map(|entry| entry.cookie.saturating_mul(head.unit.bytes()));
    found.truncate(MAX_LAYOUT);
    let stripe = |entry: crate::rows::EntryRow| StripeAt {
        number: entry.cookie,
        handle: entry.child,
        trimmed: head.trimmed(entry.cookie),
    };
    Ok((found.into_iter().map(stripe).collect(), next))
}
