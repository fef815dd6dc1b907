//! RENAME: replacing, not replacing, exchanging (`renameat2(2)`, RFC 1813 §3.3.14).
//!
//! The order of the checks is that of Linux's `do_renameat2` and `vfs_rename`.

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::{Rename, RenameHow, RenameReply};

use super::naming;
use super::permission::{self, WRITE};
use super::plan::{Caller, Plan, Stop};
use super::steps::{entry, reference};
use crate::rows::{EntryRow, FlareRow};
use crate::transaction::Step;

/// The deepest directory that another may be moved into: where the walk to the root ends in any case.
const MAX_DEPTH: usize = 1 << 14;

/// A name with the flare that bears it.
struct Named {
    entry: EntryRow,
    row: FlareRow,
}

impl Named {
    fn is_directory(&self) -> bool {
        self.row.kind == Kind::Directory
    }
}

fn exchanged_directory(op: &Rename, target: Option<&Named>) -> bool {
    op.how == RenameHow::Exchange && target.is_some_and(Named::is_directory)
}

pub(super) fn rename(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Rename) -> Result<RenameReply, Stop> {
    let (from_dir, entry, row) = naming::existing(plan, caller, &op.from_dir, &op.from_name)?;
    let source = Named { entry, row };
    let (to_dir, target) = naming::find(plan, caller, &op.to_dir, &op.to_name)?;
    let target = match target {
        Some(entry) => Some(Named { row: naming::child_of(plan, &entry)?, entry }),
        None if naming::is_reserved(&to_dir, &op.to_name) => return Err(FlareError::Exists.into()),
        None => None,
    };
    match (op.how, &target) {
        (RenameHow::NoReplace, Some(_)) => return Err(FlareError::Exists.into()),
        (RenameHow::Exchange, None) => return Err(FlareError::NotFound.into()),
        _ => {}
    }
    check_ancestry(plan, op, &source, target.as_ref())?;
    if target.as_ref().is_some_and(|target| target.row.handle == source.row.handle) {
        // Two names of one flare: POSIX wants that nothing happens.
        return answer(plan, op, &source.row, None);
    }
    check_permissions(plan, caller, op, (&from_dir, &source), (&to_dir, target.as_ref()))?;
    if op.from_dir != op.to_dir && (source.is_directory() || exchanged_directory(op, target.as_ref())) {
        plan.step(Handle::root().key, |_| Step::MoveDirectory);
    }
    match target {
        Some(target) if op.how == RenameHow::Exchange => exchange(plan, op, &source, &target),
        Some(target) => replace(plan, op, &source, &target),
        None => move_to_free_name(plan, op, &source),
    }
}

/// A directory never comes to lie below itself, and what lies above a name is not empty.
fn check_ancestry(
    plan: &mut Plan<'_>,
    op: &Rename,
    source: &Named,
    target: Option<&Named>,
) -> Result<(), Stop> {
    if op.from_dir == op.to_dir {
        return Ok(());
    }
    if source.row.kind == Kind::Directory && lies_below(plan, &op.to_dir, &source.row.handle)? {
        return Err(FlareError::Invalid.into());
    }
    match target {
        Some(target)
            if target.row.kind == Kind::Directory && lies_below(plan, &op.from_dir, &target.row.handle)? =>
        {
            let exchange = op.how == RenameHow::Exchange;
            Err(if exchange { FlareError::Invalid } else { FlareError::NotEmpty }.into())
        }
        _ => Ok(()),
    }
}

/// Whether `ancestor` is `dir` or one of the directories between it and the root.
fn lies_below(plan: &mut Plan<'_>, dir: &Handle, ancestor: &Handle) -> Result<bool, Stop> {
    let mut at = *dir;
    for _ in 0..MAX_DEPTH {
        if at == *ancestor {
            return Ok(true);
        }
        if at == Handle::root() {
            return Ok(false);
        }
        match plan.view.references(&at.key)?.first() {
            Some(reference) => at = reference.parent,
            // Removed while it is open: it lies nowhere.
            None => return Ok(false),
        }
    }
    Err(FlareError::NameTooLong.into())
}

fn check_permissions(
    plan: &Plan<'_>,
    caller: &Caller<'_>,
    op: &Rename,
    (from_dir, source): (&FlareRow, &Named),
    (to_dir, target): (&FlareRow, Option<&Named>),
) -> Result<(), Stop> {
    let who = caller.credentials;
    let exchange = op.how == RenameHow::Exchange;
    permission::may_remove(plan, who, from_dir, &source.row)?;
    match target {
        None => permission::may_add(plan, who, to_dir)?,
        Some(target) => {
            permission::may_remove(plan, who, to_dir, &target.row)?;
            if !exchange {
                check_kinds(source, target)?;
            }
        }
    }
    if from_dir.handle != to_dir.handle {
        // Moving a directory to another parent changes its `..`.
        let other = target.filter(|_| exchange);
        for moved in [Some(source), other].into_iter().flatten() {
            if moved.row.kind == Kind::Directory {
                permission::require(plan, who, &moved.row, WRITE)?;
            }
        }
    }
    match target {
        Some(target) if !exchange && target.row.entries > 0 => Err(FlareError::NotEmpty.into()),
        _ => Ok(()),
    }
}

fn check_kinds(source: &Named, target: &Named) -> Result<(), FlareError> {
    match (source.row.kind == Kind::Directory, target.row.kind == Kind::Directory) {
        (true, false) => Err(FlareError::NotDirectory),
        (false, true) => Err(FlareError::IsDirectory),
        _ => Ok(()),
    }
}

fn move_to_free_name(plan: &mut Plan<'_>, op: &Rename, source: &Named) -> Result<RenameReply, Stop> {
    reference::add(plan, &source.row.handle, &op.to_dir, &op.to_name)?;
    entry::add(plan, &op.to_dir, &op.to_name, &source.row)?;
    entry::remove(plan, &op.from_dir, &source.entry)?;
    let moved = reference::drop_moved(plan, &op.from_dir, &source.entry)?;
    answer(plan, op, &moved, None)
}

fn replace(plan: &mut Plan<'_>, op: &Rename, source: &Named, target: &Named) -> Result<RenameReply, Stop> {
    reference::add(plan, &source.row.handle, &op.to_dir, &op.to_name)?;
    entry::replace(plan, &op.to_dir, &target.entry, &source.row)?;
    entry::remove(plan, &op.from_dir, &source.entry)?;
    let moved = reference::drop_moved(plan, &op.from_dir, &source.entry)?;
    let replaced = reference::drop_removed(plan, &op.to_dir, &target.entry)?;
    answer(plan, op, &moved, Some(&replaced))
}

fn exchange(plan: &mut Plan<'_>, op: &Rename, source: &Named, target: &Named) -> Result<RenameReply, Stop> {
    reference::add(plan, &source.row.handle, &op.to_dir, &op.to_name)?;
    reference::add(plan, &target.row.handle, &op.from_dir, &op.from_name)?;
    entry::replace(plan, &op.to_dir, &target.entry, &source.row)?;
    entry::replace(plan, &op.from_dir, &source.entry, &target.row)?;
    let moved = reference::drop_moved(plan, &op.from_dir, &source.entry)?;
    let other = reference::drop_moved(plan, &op.to_dir, &target.entry)?;
    answer(plan, op, &moved, Some(&other))
}

fn answer(
    plan: &mut Plan<'_>,
    op: &Rename,
    moved: &FlareRow,
    replaced: Option<&FlareRow>,
) -> Result<RenameReply, Stop> {
    Ok(RenameReply {
        from_dir: plan.wcc(&op.from_dir)?,
        to_dir: plan.wcc(&op.to_dir)?,
        moved: plan.attr(moved)?,
        replaced: replaced.map(|row| plan.attr(row)).transpose()?,
    })
}
