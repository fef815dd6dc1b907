//! Steps at the head of a striped file, and at its stripes.

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::key::Key;
use magma_common::proto::Credentials;

use super::reference;
use crate::namespace::data::content::{self, Target};
use crate::namespace::plan::{Plan, Stop};
use crate::namespace::privileges;
use crate::namespace::stripes::{name_of, stripes_from};
use crate::record::Change;
use crate::rows::{EntryRow, FlareRow, Head, Life, Striping, Trim};
use crate::transaction::StripeLink;

/// The row of a head.
fn head(plan: &mut Plan<'_>, key: &Key) -> Result<Option<(FlareRow, Head)>, Stop> {
    let row = plan.row_by_key(key)?;
    Ok(row.and_then(|row| match &row.striping {
        Striping::Head(head) => {
            let head = (**head).clone();
            Some((row, head))
        }
        Striping::Whole | Striping::Stripe { .. } => None,
    }))
}

fn put_head(plan: &mut Plan<'_>, row: FlareRow, head: Head) {
    plan.put(FlareRow { striping: Striping::Head(Box::new(head)), ..row });
}

/// The head's own part of a write.
pub(super) fn extend(
    plan: &mut Plan<'_>,
    key: &Key,
    who: &Credentials,
    (offset, data): (u64, &Bytes),
    end: u64,
) -> Result<(), Stop> {
    let Some((mut row, _)) = head(plan, key)? else { return Ok(()) };
    privileges::strip_by_write(plan, who, &mut row)?;
    if !data.is_empty() {
        content::write(plan, &mut row, offset, data)?;
    }
    row.size = row.size.max(end);
    plan.touch_content(&mut row);
    plan.put(row);
    Ok(())
}

/// The head gains a stripe.
pub(super) fn gain(plan: &mut Plan<'_>, key: &Key, link: &StripeLink, cut: u64) -> Result<(), Stop> {
    let Some((row, mut known)) = head(plan, key)? else { return Ok(()) };
    let StripeLink { number, child, made_by } = *link;
    let name = name_of(number)?;
    let found = plan.entry(key, &name)?;
    if found.as_ref().is_some_and(|entry| entry.child == child) {
        return Ok(());
    }
    known.count += u64::from(found.is_none());
    known.cut = known.cut.max(cut);
    let entry = EntryRow { name, child, kind: Kind::File, cookie: number, made_by };
    plan.push(Change::PutEntry { dir: *key, entry });
    put_head(plan, row, known);
    Ok(())
}

/// The head loses a stripe. With the last one a file dies that has no name.
pub(super) fn lose(plan: &mut Plan<'_>, key: &Key, link: &StripeLink) -> Result<(), Stop> {
    let Some((row, mut known)) = head(plan, key)? else { return Ok(()) };
    let name = name_of(link.number)?;
    if plan.entry(key, &name)?.is_none_or(|entry| entry.child != link.child) {
        return Ok(());
    }
    plan.push(Change::DeleteEntry { dir: *key, name });
    known.count = known.count.saturating_sub(1);
    if let Some(first) = known.dying
        && stripes_from(plan, key, first, 1)?.is_empty()
    {
        known.dying = None;
        if row.life == Life::Dying {
            reference::bury(plan, &row);
            return Ok(());
        }
    }
    put_head(plan, row, known);
    Ok(())
}

/// The end of a stripe has been cleared.
pub(super) fn forget_trim(plan: &mut Plan<'_>, key: &Key, trim: Trim, cut: u64) -> Result<(), Stop> {
    let Some((row, mut known)) = head(plan, key)? else { return Ok(()) };
    if known.trims.contains(&trim) || known.cut < cut {
        known.trims.retain(|other| *other != trim);
        known.cut = known.cut.max(cut);
        put_head(plan, row, known);
    }
    Ok(())
}

/// The stripe with this handle, and its cut number.
fn stripe(plan: &mut Plan<'_>, handle: &Handle) -> Result<Option<(FlareRow, u64)>, Stop> {
    let row = plan.row_by_key(&handle.key)?.filter(|row| row.handle == *handle);
    Ok(row.and_then(|row| match row.striping {
        Striping::Stripe { cut, .. } => Some((row, cut)),
        Striping::Whole | Striping::Head(_) => None,
    }))
}

/// A stripe gets bytes.
pub(super) fn fill(
    plan: &mut Plan<'_>,
    handle: &Handle,
    (offset, data): (u64, &Bytes),
    target: &Target,
) -> Result<(), Stop> {
    let Some((mut row, _)) = stripe(plan, handle)? else { return Ok(()) };
    content::write_to(plan, &mut row, target, offset, data)?;
    plan.touch_content(&mut row);
    plan.put(row);
    Ok(())
}

/// A stripe loses its bytes from there on, and whoever does not know of that writes to it no more.
pub(super) fn clear_end(plan: &mut Plan<'_>, handle: &Handle, from: u64, cut: u64) -> Result<(), Stop> {
    let Some((mut row, known)) = stripe(plan, handle)? else { return Ok(()) };
    if known >= cut {
        // It has been done, and what is there now was written since.
        return Ok(());
    }
    if from < row.size {
        content::resize(plan, &mut row, from)?;
        plan.touch_content(&mut row);
    }
    if let Striping::Stripe { cut: told, .. } = &mut row.striping {
        *told = cut;
    }
    plan.put(row);
    Ok(())
}

/// A stripe is removed.
pub(super) fn drop(plan: &mut Plan<'_>, handle: &Handle) -> Result<(), Stop> {
    if let Some((row, _)) = stripe(plan, handle)? {
        reference::bury(plan, &row);
    }
    Ok(())
}

/// Whether a step can be prepared at this stripe: it is there.
pub(super) fn is_there(plan: &mut Plan<'_>, handle: &Handle) -> Result<bool, Stop> {
    Ok(stripe(plan, handle)?.is_some())
}
