//! CREATE: a regular file, unchecked, guarded or exclusive (RFC 1813 §3.3.8).

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::proto::Credentials;
use magma_common::proto::limits::MAX_FILE_SIZE;
use magma_common::proto::operation::{Create, CreateHow, MadeReply};

use super::naming::{self, Newborn};
use super::permission::{self, READ, WRITE};
use super::plan::{Caller, Plan, Stop};
use super::privileges;
use super::stripes::cut::resize;
use crate::rows::{EntryRow, FlareRow};
use crate::transaction::Step;

pub(super) fn create(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Create) -> Result<MadeReply, Stop> {
    if let (_, Some(found)) = naming::find(plan, caller, &op.dir, &op.name)? {
        return take_existing(plan, caller, op, &found);
    }
    if op.set.size.is_some_and(|size| size > MAX_FILE_SIZE) {
        return Err(FlareError::FileTooBig.into());
    }
    let dir = naming::free(plan, caller, &op.dir, &op.name)?;
    let newborn = Newborn {
        kind: Kind::File,
        mode: op.mode,
        umask: op.umask,
        rdev: 0,
        opened_by: op.open.then_some(caller.session),
        set: &op.set,
    };
    let mut row = naming::make(plan, caller, &dir, &op.name, &newborn)?;
    row.size = op.set.size.unwrap_or(0);
    if let CreateHow::Exclusive(verifier) = op.how {
        row.verifier = Some(verifier);
    }
    plan.put(row.clone());
    Ok(MadeReply { attr: plan.attr(&row)?, created: true, dir: plan.wcc(&op.dir)? })
}

/// The name exists: an error, the first answer again (exclusive), or the file that is there (unchecked).
fn take_existing(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &Create,
    found: &EntryRow,
) -> Result<MadeReply, Stop> {
    let mut row = naming::child_of(plan, found)?;
    match op.how {
        CreateHow::Exclusive(verifier) if row.kind == Kind::File && row.verifier == Some(verifier) => {}
        CreateHow::Unchecked if row.kind == Kind::File => open_existing(plan, caller, op, &mut row)?,
        CreateHow::Unchecked if row.kind == Kind::Directory => return Err(FlareError::IsDirectory.into()),
        _ => return Err(FlareError::Exists.into()),
    }
    Ok(MadeReply { attr: plan.attr(&row)?, created: false, dir: plan.wcc(&op.dir)? })
}

fn open_existing(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &Create,
    row: &mut FlareRow,
) -> Result<(), Stop> {
    if plan.is_here(&row.key()) {
        return open_and_cut(plan, caller.credentials, (op.open, op.set.size), row);
    }
    // Its own slice sees to it.
    if op.open || op.set.size.is_some() {
        let (credentials, opened_by) = (caller.credentials.clone(), op.open.then_some(caller.session));
        plan.step(row.key(), |_| Step::TakeExisting { credentials, opened_by, size: op.set.size });
        if let Some(size) = op.set.size {
            row.size = size;
            plan.touch_content(row);
            plan.put(row.clone());
        }
    }
    Ok(())
}

/// Somebody else was faster. How the caller means to use its open is not known here, so it must have both permissions.
pub(super) fn open_and_cut(
    plan: &mut Plan<'_>,
    who: &Credentials,
    (open, size): (bool, Option<u64>),
    row: &mut FlareRow,
) -> Result<(), Stop> {
    if open {
        permission::require(plan, who, row, READ | WRITE)?;
    }
    if let Some(size) = size {
        permission::require(plan, who, row, WRITE)?;
        privileges::strip_by_write(plan, who, row)?;
        resize(plan, row, size)?;
        plan.touch_content(row);
        plan.put(row.clone());
    }
    Ok(())
}
