//! The referred flare's part: a reference comes or goes, and with the last one, once nobody has it open, the flare.

use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::name::Name;

use crate::namespace::plan::{Plan, Stop};
use crate::namespace::stripes;
use crate::record::{BodyChange, Change};
use crate::rows::{Content, EntryRow, FlareRow, Life, ReferenceRow};
use crate::transaction::Step;

/// Adds a reference: the flare is now also called `name` in `parent`.
pub(in crate::namespace) fn add(
    plan: &mut Plan<'_>,
    flare: &Handle,
    parent: &Handle,
    name: &Name,
) -> Result<FlareRow, Stop> {
    let reference = ReferenceRow { parent: *parent, name: name.clone(), made_by: plan.moment.op };
    plan.step(flare.key, |_| Step::AddReference(reference.clone()));
    add_this(plan, flare, reference)
}

/// The flare gains this reference.
pub(super) fn add_this(
    plan: &mut Plan<'_>,
    flare: &Handle,
    reference: ReferenceRow,
) -> Result<FlareRow, Stop> {
    let mut row = plan.row(flare)?;
    if row.kind != Kind::Directory {
        row.nlink += 1;
    }
    plan.touch(&mut row);
    plan.put(row.clone());
    plan.push(Change::PutReference { flare: row.key(), reference });
    Ok(row)
}

/// Drops the reference that belongs to an entry of `parent`, while another one has taken its place.
pub(in crate::namespace) fn drop_moved(
    plan: &mut Plan<'_>,
    parent: &Handle,
    entry: &EntryRow,
) -> Result<FlareRow, Stop> {
    let (flare, reference) = (entry.child, belonging(parent, entry));
    plan.step(flare.key, |_| Step::DropMoved(reference.clone()));
    forget_moved(plan, &flare, &reference)
}

/// The flare has got another name in place of this one.
pub(super) fn forget_moved(
    plan: &mut Plan<'_>,
    flare: &Handle,
    reference: &ReferenceRow,
) -> Result<FlareRow, Stop> {
    let mut row = plan.row(flare)?;
    if row.kind != Kind::Directory {
        row.nlink = row.nlink.saturating_sub(1);
    }
    plan.touch(&mut row);
    forget(plan, flare, reference);
    plan.put(row.clone());
    Ok(row)
}

/// Drops the reference that belongs to a removed entry of `parent`. Without references the flare is an
/// orphan while it is held open, else it dies. The row as it is, or would be if it had not died.
pub(in crate::namespace) fn drop_removed(
    plan: &mut Plan<'_>,
    parent: &Handle,
    entry: &EntryRow,
) -> Result<FlareRow, Stop> {
    let (flare, reference) = (entry.child, belonging(parent, entry));
    plan.step(flare.key, |_| Step::DropRemoved(reference.clone()));
    forget_removed(plan, &flare, &reference)
}

/// The flare has lost this name.
pub(super) fn forget_removed(
    plan: &mut Plan<'_>,
    flare: &Handle,
    reference: &ReferenceRow,
) -> Result<FlareRow, Stop> {
    let mut row = plan.row(flare)?;
    row.nlink = if row.kind == Kind::Directory { 0 } else { row.nlink.saturating_sub(1) };
    plan.touch(&mut row);
    if row.nlink > 0 {
        forget(plan, flare, reference);
        plan.put(row.clone());
        return Ok(row);
    }
    row.life = Life::Orphan;
    if plan.is_open(&row.handle) {
        forget(plan, flare, reference);
        plan.put(row.clone());
    } else {
        if has_stripes(&row) {
            forget(plan, flare, reference);
        }
        die(plan, &row)?;
    }
    Ok(row)
}

/// The reference that belongs to an entry of `parent`.
fn belonging(parent: &Handle, entry: &EntryRow) -> ReferenceRow {
    ReferenceRow { parent: *parent, name: entry.name.clone(), made_by: entry.made_by }
}

fn forget(plan: &mut Plan<'_>, flare: &Handle, reference: &ReferenceRow) {
    let ReferenceRow { parent, name, made_by } = reference.clone();
    plan.push(Change::DeleteReference { flare: flare.key, parent: parent.key, name, made_by });
}

fn has_stripes(row: &FlareRow) -> bool {
    stripes::head_of(row).is_some_and(|head| head.count > 0)
}

/// The flare has no name and nobody has it open: it is removed, after its stripes if it has some.
fn die(plan: &mut Plan<'_>, row: &FlareRow) -> Result<(), Stop> {
    if !has_stripes(row) {
        bury(plan, row);
        return Ok(());
    }
    let mut row = FlareRow { life: Life::Dying, ..row.clone() };
    stripes::cut::die(&mut row);
    if !plan.locks(&row.key())?.is_empty() {
        plan.push(Change::PutLocks { flare: row.key(), locks: Vec::new() });
    }
    plan.put(row);
    Ok(())
}

/// Removes the flare and what hangs on it.
pub(in crate::namespace) fn bury(plan: &mut Plan<'_>, row: &FlareRow) {
    if let Content::Body { body, .. } = row.content {
        plan.push(Change::Body { body, flare: row.handle, change: BodyChange::Drop });
    }
    plan.push(Change::DeleteFlare(row.key()));
}

/// Somebody has given the flare's last open back: it dies if it has no name. Whether anybody still has it open is asked again.
pub fn release_last(plan: &mut Plan<'_>, handle: Handle) -> Result<(), Stop> {
    match plan.row(&handle) {
        Ok(row) if row.life == Life::Orphan && !plan.is_open(&handle) => die(plan, &row)?,
        Ok(_) | Err(Stop::Failure(_)) => {}
        Err(other) => return Err(other),
    }
    Ok(())
}
