//! Removes what a striped file does not need any more: some of it at a time.

use magma_common::proto::operation::Shed;

use super::{head_of, name_of, stripes_from, take};
use crate::namespace::plan::{Plan, Stop};
use crate::namespace::steps::reference;
use crate::rows::{FlareRow, Head, Life, Striping};
use crate::transaction::{Step, StripeLink};

/// Stripes that are removed at a time.
const DROPPED_AT_ONCE: usize = 64;
/// Stripes whose ends are cleared at a time.
const TRIMMED_AT_ONCE: usize = 16;

pub(in crate::namespace) fn shed(plan: &mut Plan<'_>, op: &Shed) -> Result<(), Stop> {
    let row = plan.row_by_key(&op.handle.key)?.filter(|row| row.handle == op.handle);
    let Some(row) = row.filter(FlareRow::is_to_shed) else { return Ok(()) };
    let Some(head) = head_of(&row) else { return Ok(()) };
    clear_ends(plan, &row, head)?;
    let nothing_is_left = drop_dying(plan, &row, head, DROPPED_AT_ONCE)?;
    if nothing_is_left { set_right(plan, &row) } else { Ok(()) }
}

fn clear_ends(plan: &mut Plan<'_>, row: &FlareRow, head: &Head) -> Result<(), Stop> {
    for trim in head.trims.iter().take(TRIMMED_AT_ONCE) {
        if let Some(entry) = plan.entry(&row.key(), &name_of(trim.number)?)? {
            let stripe = entry.child;
            take(plan, stripe.key, Step::ClearEnd { stripe, from: trim.from, cut: head.cut })?;
        }
        take(plan, row.key(), Step::ForgetTrim { trim: *trim, cut: head.cut })?;
    }
    Ok(())
}

/// Removes up to `limit` dying stripes: whether these were all.
pub(super) fn drop_dying(
    plan: &mut Plan<'_>,
    row: &FlareRow,
    head: &Head,
    limit: usize,
) -> Result<bool, Stop> {
    let Some(first) = head.dying else { return Ok(true) };
    let mut dying = stripes_from(plan, &row.key(), first, limit + 1)?;
    let are_all = dying.len() <= limit;
    dying.truncate(limit);
    for entry in dying {
        let stripe = entry.child;
        take(plan, stripe.key, Step::DropStripe { stripe })?;
        let link = StripeLink { number: entry.cookie, child: stripe, made_by: entry.made_by };
        take(plan, row.key(), Step::LoseStripe(link))?;
    }
    Ok(are_all)
}

/// A head whose last dying stripe was lost says so itself. Nothing but damage leaves one behind that does not, and it must not be
/// looked at for ever.
fn set_right(plan: &mut Plan<'_>, before: &FlareRow) -> Result<(), Stop> {
    let Some(mut row) = plan.row_by_key(&before.key())? else { return Ok(()) };
    let Striping::Head(head) = &mut row.striping else { return Ok(()) };
    if head.dying.take().is_none() {
        return Ok(());
    }
    if row.life == Life::Dying {
        reference::bury(plan, &row);
    } else {
        plan.put(row);
    }
    Ok(())
}
