//! Removes what a striped file does not need any more: some of it at a time.

use magma_common::key::Key;
use magma_common::proto::operation::Shed;

use super::{head_of, name_of, stripes_from, take};
use crate::namespace::plan::{Plan, Stop};
use crate::namespace::steps::reference;
use crate::rows::{EntryRow, FlareRow, Head, Life, Striping, Trim};
use crate::transaction::{Step, StripeLink};
use crate::view::{ReadError, View};

/// What a file has to shed, up to about `limit` stripes of it: their numbers, and the keys of those that there are.
pub fn to_shed(view: &dyn View, row: &FlareRow, limit: usize) -> Result<Vec<(u64, Option<Key>)>, ReadError> {
    let Some(head) = head_of(row) else { return Ok(Vec::new()) };
    let entries = |number: u64, limit| view.entries_after(&row.key(), number.saturating_sub(1), limit);
    let mut found = Vec::new();
    for Trim { number, .. } in &head.trims {
        let entry = entries(*number, 1)?.into_iter().find(|entry| entry.cookie == *number);
        found.push((*number, entry.map(|entry| entry.child.key)));
    }
    if let Some(first) = head.dying {
        found.extend(entries(first, limit)?.into_iter().map(|entry| (entry.cookie, Some(entry.child.key))));
    }
    Ok(found)
}

pub(in crate::namespace) fn shed(plan: &mut Plan<'_>, op: &Shed) -> Result<(), Stop> {
    let row = plan.row_by_key(&op.handle.key)?.filter(|row| row.handle == op.handle);
    let Some(row) = row.filter(FlareRow::is_to_shed) else { return Ok(()) };
    let Some(head) = head_of(&row) else { return Ok(()) };
    for number in &op.numbers {
        let entry = plan.entry(&row.key(), &name_of(*number)?)?;
        match (head.trimmed(*number), entry) {
            (Some(from), entry) => clear_end(plan, &row, head, (*number, from), entry.as_ref())?,
            (None, Some(entry)) if head.is_dying(*number) => drop_stripe(plan, &row, &entry)?,
            _ => {}
        }
    }
    let is_over = match head.dying {
        Some(first) => stripes_from(plan, &row.key(), first, 1)?.is_empty(),
        None => true,
    };
    if is_over { set_right(plan, &row) } else { Ok(()) }
}

fn clear_end(
    plan: &mut Plan<'_>,
    row: &FlareRow,
    head: &Head,
    (number, from): (u64, u64),
    entry: Option<&EntryRow>,
) -> Result<(), Stop> {
    if let Some(EntryRow { child: stripe, .. }) = entry {
        take(plan, stripe.key, Step::ClearEnd { stripe: *stripe, from, cut: head.cut })?;
    }
    take(plan, row.key(), Step::ForgetTrim { trim: Trim { number, from }, cut: head.cut })
}

fn drop_stripe(plan: &mut Plan<'_>, row: &FlareRow, entry: &EntryRow) -> Result<(), Stop> {
    let stripe = entry.child;
    take(plan, stripe.key, Step::DropStripe { stripe })?;
    let link = StripeLink { number: entry.cookie, child: stripe, made_by: entry.made_by };
    take(plan, row.key(), Step::LoseStripe(link))
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
    dying.iter().try_for_each(|entry| drop_stripe(plan, row, entry))?;
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
