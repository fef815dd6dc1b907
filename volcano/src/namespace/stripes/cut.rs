//! The size of a file is changed: in one record of its own flare, however many stripes it has.

use magma_common::error::FlareError;

use super::{head_of, stripes_from};
use crate::namespace::data::content;
use crate::namespace::plan::{Plan, Stop};
use crate::planted::{Bug, planted};
use crate::rows::{FlareRow, Head, Striping, Trim};

/// Stripes of one file whose ends may wait to be cleared.
const MAX_TRIMS: usize = 64;

/// Cuts the file, or extends it with zeros.
pub(in crate::namespace) fn resize(plan: &mut Plan<'_>, row: &mut FlareRow, size: u64) -> Result<(), Stop> {
    let before = row.size;
    content::resize(plan, row, size)?;
    if let Some(head) = head_of(row)
        && size < before
    {
        row.striping = Striping::Head(Box::new(cut(plan, row, head.clone(), size)?));
    }
    Ok(())
}

/// What the head knows from now on: nothing beyond this size is shown any more, and all of it is to be removed.
fn cut(plan: &Plan<'_>, row: &FlareRow, mut head: Head, size: u64) -> Result<Head, Stop> {
    let (key, unit) = (row.key(), head.unit);
    head.cut += 1;
    let beyond = unit.first_beyond(size);
    if !head.is_dying(beyond) && !stripes_from(plan, &key, beyond, 1)?.is_empty() {
        head.dying = Some(beyond);
    }
    head.trims.retain(|trim| trim.number < beyond);
    let (last, from) = (unit.stripe_of(size), size % unit.bytes());
    let is_cut = last > 0
        && from > 0
        && !head.is_dying(last)
        && stripes_from(plan, &key, last, 1)?.iter().any(|entry| entry.cookie == last);
    if is_cut && !planted(Bug::KeepTrimmedBytes) {
        let known = head.trimmed(last);
        if known.is_none() && head.trims.len() >= MAX_TRIMS {
            // They are being cleared.
            return Err(FlareError::Unavailable.into());
        }
        head.trims.retain(|trim| trim.number != last);
        head.trims.push(Trim { number: last, from: known.unwrap_or(from).min(from) });
    }
    Ok(head)
}

/// A file without a name that nobody has open, and whose stripes are still there: it waits for them to be removed.
pub(in crate::namespace) fn die(row: &mut FlareRow) {
    if let Striping::Head(head) = &mut row.striping {
        head.cut += 1;
        head.dying = Some(1);
        head.trims.clear();
    }
}
