//! SETATTR: chmod, chown, truncate and utimes in one, by the rules of Linux's `notify_change` and `setattr_prepare`.

use magma_common::attr::{Kind, MODE_MASK, SetAttr, SetTime, Wcc};
use magma_common::error::FlareError;
use magma_common::proto::Credentials;
use magma_common::proto::operation::Setattr;

use super::acl::{self, Acl};
use super::permission::{self, S_ISGID, S_ISUID, S_IXGRP, WRITE};
use super::plan::{Caller, Plan, Stop};
use super::privileges;
use super::stripes::cut::resize;
use crate::record::Change;
use crate::rows::FlareRow;

pub(super) fn setattr(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Setattr) -> Result<Wcc, Stop> {
    let mut row = plan.row(&op.handle)?;
    if op.guard.is_some_and(|guard| guard != row.ctime) {
        return Err(FlareError::GuardMismatch.into());
    }
    let who = caller.credentials;
    check(plan, who, &row, op)?;
    if op.set == SetAttr::default() {
        return plan.wcc(&op.handle);
    }
    let set = &op.set;
    if set.uid.is_some() || set.gid.is_some() {
        privileges::strip_by_chown(plan, who, &mut row)?;
        row.uid = set.uid.unwrap_or(row.uid);
        row.gid = set.gid.unwrap_or(row.gid);
    }
    if let Some(mode) = set.mode {
        change_mode(plan, who, &mut row, mode, set.uid.is_some() || set.gid.is_some())?;
    }
    if let Some(size) = set.size {
        privileges::strip_by_write(plan, who, &mut row)?;
        resize(plan, &mut row, size)?;
        plan.touch_content(&mut row);
    }
    let now = plan.touch(&mut row);
    for (time, to) in [(&mut row.atime, set.atime), (&mut row.mtime, set.mtime)] {
        match to {
            SetTime::Client(to) => *time = to,
            SetTime::Server => *time = now,
            SetTime::Keep => {}
        }
    }
    plan.put(row);
    plan.wcc(&op.handle)
}

fn check(plan: &Plan<'_>, who: &Credentials, row: &FlareRow, op: &Setattr) -> Result<(), Stop> {
    let set = &op.set;
    if set.size.is_some() {
        match row.kind {
            Kind::File => {}
            Kind::Directory => return Err(FlareError::IsDirectory.into()),
            _ => return Err(FlareError::Invalid.into()),
        }
        if !op.opened {
            permission::require(plan, who, row, WRITE)?;
        }
    }
    if set.mode.is_some() && row.kind == Kind::Symlink {
        return Err(FlareError::NotSupported.into());
    }
    check_chown(who, row, set)?;
    if set.mode.is_some() {
        permission::require_ownership(who, row)?;
    }
    let times = [set.atime, set.mtime];
    if times.iter().any(|time| matches!(time, SetTime::Client(_))) {
        permission::require_ownership(who, row)?;
    }
    // Clients send the mtime along with a size: who may truncate may do that.
    let touch = times.contains(&SetTime::Server) && set.size.is_none();
    if touch && !permission::owns(who, row) {
        permission::require(plan, who, row, WRITE)?;
    }
    Ok(())
}

/// Root may give a flare to anyone; its owner may give it to any of his groups.
fn check_chown(who: &Credentials, row: &FlareRow, set: &SetAttr) -> Result<(), FlareError> {
    let owner = who.uid == row.uid;
    let uid_allowed = set.uid.is_none_or(|uid| owner && uid == row.uid);
    let gid_allowed = set.gid.is_none_or(|gid| owner && (gid == row.gid || who.in_group(gid)));
    if who.is_root() || (uid_allowed && gid_allowed) { Ok(()) } else { Err(FlareError::NotPermitted) }
}

/// Sets the mode and lets the ACL follow. Together with a change of owner, set-id bits of anything that can be
/// run are not taken (as NFS servers do).
fn change_mode(
    plan: &mut Plan<'_>,
    who: &Credentials,
    row: &mut FlareRow,
    mode: u32,
    with_owner: bool,
) -> Result<(), Stop> {
    let mut mode = mode & MODE_MASK;
    if with_owner && row.kind != Kind::Directory {
        mode &= !S_ISUID;
        if mode & S_IXGRP != 0 {
            mode &= !S_ISGID;
        }
    }
    if !permission::may_set_gid(who, row.gid) {
        mode &= !S_ISGID;
    }
    privileges::strip_before_execute(plan, row, mode)?;
    row.mode = mode;
    if row.has_acl
        && let Some(stored) = plan.xattr(&row.key(), &acl::access_name())?
        && let Some(mut list) = Acl::decode(&stored)?
    {
        list.follow_mode(mode);
        plan.push(Change::PutXattr { flare: row.key(), name: acl::access_name(), value: list.encode() });
    }
    Ok(())
}
