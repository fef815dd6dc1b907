//! What a file loses when its content or owner changes: set-user-id, set-group-id and file capabilities.

use magma_common::attr::Kind;
use magma_common::name::Name;
use magma_common::proto::Credentials;

use super::permission::{self, S_ISGID, S_ISUID, S_IXGRP};
use super::plan::{Plan, Stop};
use crate::record::Change;
use crate::rows::FlareRow;

const ANY_EXECUTE: u32 = 0o111;

/// A write or truncation by the caller (Linux's `file_remove_privs`): root keeps the mode bits, nobody the capabilities.
pub(super) fn strip_by_write(plan: &mut Plan<'_>, who: &Credentials, row: &mut FlareRow) -> Result<(), Stop> {
    if row.kind != Kind::File {
        return Ok(());
    }
    if !who.is_root() {
        row.mode &= !dropped_bits(who, row);
    }
    strip_capabilities(plan, row)
}

/// A change of owner or group, whoever makes it (Linux's `chown_common`).
pub(super) fn strip_by_chown(plan: &mut Plan<'_>, who: &Credentials, row: &mut FlareRow) -> Result<(), Stop> {
    if row.kind == Kind::Directory {
        return Ok(());
    }
    row.mode &= !dropped_bits(who, row);
    strip_capabilities(plan, row)
}

/// Linux's `setattr_should_drop_suidgid`: set-group-id without group execute once meant mandatory locking, and stays for group members.
fn dropped_bits(who: &Credentials, row: &FlareRow) -> u32 {
    let setgid = row.mode & S_IXGRP != 0 || !permission::may_set_gid(who, row.gid);
    S_ISUID | if setgid { S_ISGID } else { 0 }
}

/// File capabilities matter only to what can be run, so only there a write looks for them.
fn strip_capabilities(plan: &mut Plan<'_>, row: &FlareRow) -> Result<(), Stop> {
    if row.mode & ANY_EXECUTE == 0 {
        return Ok(());
    }
    remove_capabilities(plan, row)
}

/// A file that becomes executable must not bring capabilities that a write would have taken from it.
pub(super) fn strip_before_execute(plan: &mut Plan<'_>, row: &FlareRow, mode: u32) -> Result<(), Stop> {
    if row.kind == Kind::File && row.mode & ANY_EXECUTE == 0 && mode & ANY_EXECUTE != 0 {
        remove_capabilities(plan, row)?;
    }
    Ok(())
}

fn remove_capabilities(plan: &mut Plan<'_>, row: &FlareRow) -> Result<(), Stop> {
    let Ok(name) = Name::new("security.capability") else { return Ok(()) };
    if plan.xattr(&row.key(), &name)?.is_some() {
        plan.push(Change::DeleteXattr { flare: row.key(), name });
    }
    Ok(())
}
