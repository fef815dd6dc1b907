//! SYMLINK and MKNOD: flares that are neither files nor directories (RFC 1813 §3.3.10, §3.3.11).

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::name::PATH_MAX;
use magma_common::proto::operation::{MadeReply, Mknod, Symlink};

use super::naming::{self, Newborn};
use super::plan::{Caller, Plan, Stop};
use crate::record::Change;

pub(super) fn symlink(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Symlink) -> Result<MadeReply, Stop> {
    match op.target.len() {
        0 => return Err(FlareError::NotFound.into()),
        1..=PATH_MAX if !op.target.contains(&0) => {}
        1..=PATH_MAX => return Err(FlareError::Invalid.into()),
        _ => return Err(FlareError::NameTooLong.into()),
    }
    let dir = naming::free(plan, caller, &op.dir, &op.name)?;
    plan.need(op.target.len() as u64)?;
    let newborn =
        Newborn { kind: Kind::Symlink, mode: 0o777, umask: 0, rdev: 0, opened_by: None, set: &op.set };
    let mut row = naming::make(plan, caller, &dir, &op.name, &newborn)?;
    row.size = op.target.len() as u64;
    plan.put(row.clone());
    plan.push(Change::PutInline { flare: row.key(), data: op.target.clone() });
    Ok(MadeReply { attr: plan.attr(&row)?, created: true, dir: plan.wcc(&op.dir)? })
}

pub(super) fn mknod(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Mknod) -> Result<MadeReply, Stop> {
    if matches!(op.kind, Kind::Directory | Kind::Symlink) {
        return Err(FlareError::Invalid.into());
    }
    let dir = naming::free(plan, caller, &op.dir, &op.name)?;
    let device = matches!(op.kind, Kind::CharDevice | Kind::BlockDevice);
    if device && !caller.credentials.is_root() {
        return Err(FlareError::NotPermitted.into());
    }
    let rdev = if device { op.rdev } else { 0 };
    let newborn =
        Newborn { kind: op.kind, mode: op.mode, umask: op.umask, rdev, opened_by: None, set: &op.set };
    let row = naming::make(plan, caller, &dir, &op.name, &newborn)?;
    Ok(MadeReply { attr: plan.attr(&row)?, created: true, dir: plan.wcc(&op.dir)? })
}
