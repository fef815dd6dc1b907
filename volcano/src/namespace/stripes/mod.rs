//! Striped files: `docs/STRIPES.md` tells of them as a whole.
//!
//! * [`cut`] changes the size of a file, striped or not;
//! * [`make`](mod@make) makes stripes, [`write`](mod@write) is a write that goes through the head, `done` tells the head of one that did not;
//! * [`layout`](mod@layout) says where the bytes are, [`part`] reads and writes them there;
//! * [`shed`](mod@shed) removes what is not needed any more.
//!
//! What concerns several flares is planned as steps, each of which is taken at once if its flare is in this slice.

pub(super) mod cut;
mod done;
mod layout;
mod make;
pub(super) mod part;
mod shed;
mod write;

use magma_common::key::Key;
use magma_common::name::Name;

pub(super) use self::done::done;
pub(super) use self::layout::layout;
pub(super) use self::make::make;
pub(super) use self::shed::shed;
pub use self::shed::to_shed;
pub(super) use self::write::write;
use super::plan::{Plan, Stop};
use super::steps::carry_out::carry_out;
use crate::rows::{EntryRow, FlareRow, Head, Striping};
use crate::transaction::Step;

/// The name of a stripe's entry and reference.
pub(super) fn name_of(number: u64) -> Result<Name, Stop> {
    Name::new(number.to_string()).map_err(|error| magma_common::error::FlareError::from(error).into())
}

/// What a file's row says of its stripes, if it may have some.
pub(super) fn head_of(row: &FlareRow) -> Option<&Head> {
    match &row.striping {
        Striping::Head(head) => Some(head),
        Striping::Whole | Striping::Stripe { .. } => None,
    }
}

/// Takes a step: notes it for whoever has the flare, and does it if that is here.
fn take(plan: &mut Plan<'_>, key: Key, step: Step) -> Result<(), Stop> {
    if plan.is_here(&key) {
        carry_out(plan, &key, &step)?;
    }
    plan.step(key, |_| step);
    Ok(())
}

/// Up to `limit` stripes of a head from this number on, ascending, of those that were there before the plan and are after it; dying ones are among
/// them.
pub(super) fn stripes_from(
    plan: &Plan<'_>,
    head: &Key,
    number: u64,
    limit: usize,
) -> Result<Vec<EntryRow>, Stop> {
    let gone = plan.lost_entries(head);
    let stored = plan.view.entries_after(head, number.saturating_sub(1), limit.saturating_add(gone))?;
    if gone == 0 {
        return Ok(stored);
    }
    let mut left = Vec::new();
    for entry in stored {
        left.extend(plan.entry(head, &entry.name)?);
    }
    left.truncate(limit);
    Ok(left)
}
