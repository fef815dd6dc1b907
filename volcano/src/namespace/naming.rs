//! Finding names and checking that one is free, before an operation changes them; and making the flare for a free one.

use magma_common::attr::{Kind, SetAttr, SetTime};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::{Credentials, SessionId};

use super::acl::{self, Acl};
use super::permission::{self, EXECUTE, S_ISGID, S_IXGRP};
use super::plan::{Caller, Plan, Stop};
use super::steps::child::{self, Birth};
use super::steps::entry;
use crate::record::Change;
use crate::rows::{EntryRow, FlareRow};

/// The name in the root that leads to the volcano's own directory. No flare may take it.
const RESERVED: &[u8] = b".dht";

/// A directory and what a name in it leads to; the caller may search the directory.
pub(super) fn find(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    dir: &Handle,
    name: &Name,
) -> Result<(FlareRow, Option<EntryRow>), Stop> {
    let dir = plan.directory(dir)?;
    permission::require(plan, caller.credentials, &dir, EXECUTE)?;
    let found = plan.entry(&dir.key(), name)?;
    Ok((dir, found))
}

/// A directory, an entry that exists in it and the flare it leads to.
pub(super) fn existing(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    dir: &Handle,
    name: &Name,
) -> Result<(FlareRow, EntryRow, FlareRow), Stop> {
    let (dir, found) = find(plan, caller, dir, name)?;
    match found {
        Some(found) => {
            let child = child_of(plan, &found)?;
            Ok((dir, found, child))
        }
        None if is_reserved(&dir, name) => Err(FlareError::ReadOnly.into()),
        None => Err(FlareError::NotFound.into()),
    }
}

/// The flare an entry leads to. An entry that leads nowhere is damage, which is not the caller's mistake.
pub(super) fn child_of(plan: &mut Plan<'_>, entry: &EntryRow) -> Result<FlareRow, Stop> {
    plan.view.led_to(&entry.child.key, entry.made_by);
    plan.row(&entry.child).map_err(|stop| match stop {
        Stop::Failure(_) => FlareError::Io.into(),
        other => other,
    })
}

/// A directory in which the caller may add the name, which is free.
pub(super) fn free(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    dir: &Handle,
    name: &Name,
) -> Result<FlareRow, Stop> {
    let (dir, found) = find(plan, caller, dir, name)?;
    if found.is_some() || is_reserved(&dir, name) {
        return Err(FlareError::Exists.into());
    }
    permission::may_add(plan, caller.credentials, &dir)?;
    Ok(dir)
}

/// Whether the volcano keeps this name for itself.
pub(super) fn is_reserved(dir: &FlareRow, name: &Name) -> bool {
    dir.handle == Handle::root() && name.as_bytes() == RESERVED
}

/// What the caller wants a new flare to be.
pub(super) struct Newborn<'a> {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) umask: u32,
    pub(super) rdev: u64,
    pub(super) opened_by: Option<SessionId>,
    pub(super) set: &'a SetAttr,
}

/// Makes a flare under a name that was found free: the child first, then the entry.
pub(super) fn make(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    dir: &FlareRow,
    name: &Name,
    newborn: &Newborn<'_>,
) -> Result<FlareRow, Stop> {
    let who = caller.credentials;
    let inherited = inherited_acl(plan, dir, newborn.kind)?;
    let bits = match newborn.kind {
        Kind::Symlink => 0o777,
        Kind::Directory => newborn.mode & 0o1777,
        _ => newborn.mode & magma_common::attr::MODE_MASK,
    };
    let (access, mode) = match inherited.clone() {
        Some(acl) => {
            let (acl, mode) = acl.inherit(bits);
            (Some(acl).filter(|acl| !acl.as_mode().1), mode)
        }
        None if newborn.kind == Kind::Symlink => (None, bits),
        None => (None, bits & !(newborn.umask & 0o777)),
    };
    let (gid, mode) = group_and_mode(who, dir, newborn.kind, mode);
    let born = Birth {
        kind: newborn.kind,
        mode,
        uid: who.uid,
        gid,
        rdev: newborn.rdev,
        opened_by: newborn.opened_by,
    };
    let mut row = child::reserve(plan, dir, name, born)?;
    apply_set(plan, who, &mut row, newborn.set);
    let default = inherited.filter(|_| newborn.kind == Kind::Directory);
    row.has_acl = access.is_some() || default.is_some();
    plan.put(row.clone());
    for (name, acl) in [(acl::access_name(), access), (acl::default_name(), default)] {
        if let Some(acl) = acl {
            plan.push(Change::PutXattr { flare: row.key(), name, value: acl.encode() });
        }
    }
    entry::add(plan, &dir.handle, name, &row)?;
    Ok(row)
}

fn inherited_acl(plan: &Plan<'_>, dir: &FlareRow, child: Kind) -> Result<Option<Acl>, Stop> {
    if !dir.has_acl || child == Kind::Symlink {
        return Ok(None);
    }
    let stored = plan.xattr(&dir.key(), &acl::default_name())?;
    Ok(stored.map(|value| Acl::decode(&value)).transpose()?.flatten())
}

/// Group and mode of a child (Linux's `inode_init_owner` and `mode_strip_sgid`).
fn group_and_mode(who: &Credentials, dir: &FlareRow, kind: Kind, mode: u32) -> (u32, u32) {
    if dir.mode & S_ISGID == 0 {
        return (who.gid, mode);
    }
    match kind {
        Kind::Directory => (dir.gid, mode | S_ISGID),
        _ if mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP && !permission::may_set_gid(who, dir.gid) => {
            (dir.gid, mode & !S_ISGID)
        }
        _ => (dir.gid, mode),
    }
}

/// The further attributes of a create. An owner or group that the caller may not give is not taken, as NFS
/// servers do: some clients send along what they expect anyway.
fn apply_set(plan: &Plan<'_>, who: &Credentials, row: &mut FlareRow, set: &SetAttr) {
    if let Some(uid) = set.uid.filter(|_| who.is_root()) {
        row.uid = uid;
    }
    if let Some(gid) = set.gid.filter(|gid| permission::may_set_gid(who, *gid)) {
        row.gid = gid;
    }
    for (time, to) in [(&mut row.atime, set.atime), (&mut row.mtime, set.mtime)] {
        match to {
            SetTime::Client(to) => *time = to,
            SetTime::Server => *time = plan.moment.now,
            SetTime::Keep => {}
        }
    }
}
