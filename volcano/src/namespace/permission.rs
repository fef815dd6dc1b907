//! Who may do what: mode bits, ACLs, root (Linux's `generic_permission`), sticky directories.

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::proto::Credentials;

use super::acl::{self, Acl};
use super::plan::{Plan, Stop};
use crate::rows::{FlareRow, Life};

/// Read permission, as in one digit of a mode.
pub(super) const READ: u32 = 4;
/// Write permission.
pub(super) const WRITE: u32 = 2;
/// Execute permission; of a directory: to search it.
pub(super) const EXECUTE: u32 = 1;

/// Set-user-id bit of a mode.
pub(super) const S_ISUID: u32 = 0o4000;
/// Set-group-id bit of a mode.
pub(super) const S_ISGID: u32 = 0o2000;
/// Sticky bit of a mode.
pub(super) const S_ISVTX: u32 = 0o1000;
/// Group execute bit of a mode.
pub(super) const S_IXGRP: u32 = 0o0010;

const ANY_EXECUTE: u32 = 0o111;
const GROUP_BITS: u32 = 0o070;

/// Whether all the wanted bits are granted.
pub(super) fn granted(plan: &Plan<'_>, who: &Credentials, row: &FlareRow, want: u32) -> Result<bool, Stop> {
    if who.is_root() {
        // CAP_DAC_OVERRIDE: everything, except to run what nobody may run.
        let runnable = row.kind == Kind::Directory || row.mode & ANY_EXECUTE != 0;
        return Ok(want & EXECUTE == 0 || runnable);
    }
    if who.uid == row.uid {
        return Ok((row.mode >> 6) & want == want);
    }
    // Linux looks at the ACL only if its mask (the group digit) grants anything.
    if row.has_acl
        && row.mode & GROUP_BITS != 0
        && let Some(stored) = plan.xattr(&row.key(), &acl::access_name())?
        && let Ok(Some(list)) = Acl::decode(&stored)
    {
        return Ok(list.grants(who, row.gid, want));
    }
    let digit = if who.in_group(row.gid) { row.mode >> 3 } else { row.mode };
    Ok(digit & want == want)
}

/// Refuses with `EACCES` what is not granted.
pub(super) fn require(plan: &Plan<'_>, who: &Credentials, row: &FlareRow, want: u32) -> Result<(), Stop> {
    if granted(plan, who, row, want)? { Ok(()) } else { Err(FlareError::AccessDenied.into()) }
}

/// Whether the caller owns the flare or is root.
pub(super) fn owns(who: &Credentials, row: &FlareRow) -> bool {
    who.is_root() || who.uid == row.uid
}

/// Refuses with `EPERM` who neither owns the flare nor is root.
pub(super) fn require_ownership(who: &Credentials, row: &FlareRow) -> Result<(), Stop> {
    if owns(who, row) { Ok(()) } else { Err(FlareError::NotPermitted.into()) }
}

/// Whether the caller may keep a set-group-id bit for this group.
pub(super) fn may_set_gid(who: &Credentials, gid: u32) -> bool {
    who.is_root() || who.in_group(gid)
}

/// Whether a name may be added to the directory (Linux's `may_create`, after the name was found free).
pub(super) fn may_add(plan: &Plan<'_>, who: &Credentials, dir: &FlareRow) -> Result<(), Stop> {
    if dir.life == Life::Orphan {
        return Err(FlareError::NotFound.into());
    }
    require(plan, who, dir, WRITE | EXECUTE)
}

/// Whether the directory's name for this flare may be removed (Linux's `may_delete`).
pub(super) fn may_remove(
    plan: &Plan<'_>,
    who: &Credentials,
    dir: &FlareRow,
    victim: &FlareRow,
) -> Result<(), Stop> {
    require(plan, who, dir, WRITE | EXECUTE)?;
    let sticky = dir.mode & S_ISVTX != 0;
    if sticky && !who.is_root() && who.uid != victim.uid && who.uid != dir.uid {
        return Err(FlareError::NotPermitted.into());
    }
    Ok(())
}
