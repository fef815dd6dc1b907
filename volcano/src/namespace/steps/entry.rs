//! The directory's part: an entry comes, changes or goes, and the directory's times, size, counters and nlink with it.

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::Name;

use crate::namespace::plan::{Plan, Stop};
use crate::record::Change;
use crate::rows::{EntryRow, FlareRow};
use crate::transaction::{Link, Step};

/// What an entry adds to its directory's size, in bytes.
const ENTRY_SIZE: u64 = 32;

/// Adds an entry whose name is free.
pub(in crate::namespace) fn add(
    plan: &mut Plan<'_>,
    dir: &Handle,
    name: &Name,
    child: &FlareRow,
) -> Result<(), Stop> {
    let link = link_to(plan, name, child);
    plan.step(dir.key, |_| Step::AddEntry(link.clone()));
    add_link(plan, dir, &link)
}

/// The directory gains this name.
pub(super) fn add_link(plan: &mut Plan<'_>, dir: &Handle, link: &Link) -> Result<(), Stop> {
    let mut dir = plan.directory(dir)?;
    let cookie = dir.next_cookie;
    dir.next_cookie += 1;
    dir.entries += 1;
    link_subdirectory(&mut dir, link.kind)?;
    changed(plan, dir.clone());
    put(plan, &dir, link, cookie);
    Ok(())
}

/// Lets an existing entry lead to another flare. It keeps its place in listings.
pub(in crate::namespace) fn replace(
    plan: &mut Plan<'_>,
    dir: &Handle,
    old: &EntryRow,
    child: &FlareRow,
) -> Result<(), Stop> {
    let link = link_to(plan, &old.name, child);
    plan.step(dir.key, |_| Step::ReplaceEntry { old: old.into(), new: link.clone() });
    lead_elsewhere(plan, dir, old, &link)
}

/// The entry leads there from now on.
pub(super) fn lead_elsewhere(
    plan: &mut Plan<'_>,
    dir: &Handle,
    old: &EntryRow,
    link: &Link,
) -> Result<(), Stop> {
    let mut dir = plan.directory(dir)?;
    unlink_subdirectory(&mut dir, old.kind);
    link_subdirectory(&mut dir, link.kind)?;
    changed(plan, dir.clone());
    put(plan, &dir, link, old.cookie);
    Ok(())
}

/// Removes an entry.
pub(in crate::namespace) fn remove(plan: &mut Plan<'_>, dir: &Handle, old: &EntryRow) -> Result<(), Stop> {
    let mut dir = plan.directory(dir)?;
    dir.entries = dir.entries.saturating_sub(1);
    unlink_subdirectory(&mut dir, old.kind);
    plan.push(Change::DeleteEntry { dir: dir.key(), name: old.name.clone() });
    plan.step(dir.key(), |_| Step::RemoveEntry(old.into()));
    changed(plan, dir);
    Ok(())
}

fn link_to(plan: &Plan<'_>, name: &Name, child: &FlareRow) -> Link {
    Link { name: name.clone(), child: child.handle, kind: child.kind, made_by: plan.moment.op }
}

fn put(plan: &mut Plan<'_>, dir: &FlareRow, link: &Link, cookie: u64) {
    let Link { name, child, kind, made_by } = link.clone();
    let entry = EntryRow { name, child, kind, cookie, made_by };
    plan.push(Change::PutEntry { dir: dir.key(), entry });
}

fn changed(plan: &mut Plan<'_>, mut dir: FlareRow) {
    dir.size = dir.entries * ENTRY_SIZE;
    plan.touch_content(&mut dir);
    plan.put(dir);
}

fn link_subdirectory(dir: &mut FlareRow, child: Kind) -> Result<(), FlareError> {
    if child == Kind::Directory {
        dir.nlink = dir.nlink.checked_add(1).ok_or(FlareError::TooManyLinks)?;
    }
    Ok(())
}

fn unlink_subdirectory(dir: &mut FlareRow, child: Kind) {
    if child == Kind::Directory {
        dir.nlink = dir.nlink.saturating_sub(1);
    }
}
