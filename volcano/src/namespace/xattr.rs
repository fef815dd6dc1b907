//! Extended attributes: `user.`, `trusted.`, `security.` and POSIX ACLs, by the rules of `xattr(7)`.

use bytes::Bytes;
use magma_common::attr::{Kind, Wcc};
use magma_common::error::FlareError;
use magma_common::name::Name;
use magma_common::proto::Credentials;
use magma_common::proto::limits::{MAX_XATTR_LIST, MAX_XATTR_VALUE};
use magma_common::proto::operation::{GetXattr, ListXattr, RemoveXattr, SetXattr, XattrHow, XattrValue};

use super::acl::{self, Acl};
use super::permission::{self, READ, S_ISGID, S_ISVTX, WRITE};
use super::plan::{Caller, Plan, Stop};
use crate::record::Change;
use crate::rows::FlareRow;

/// The mode bits that an ACL determines.
const ACCESS_BITS: u32 = 0o777;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Namespace {
    User,
    Trusted,
    Security,
    AccessAcl,
    DefaultAcl,
}

impl Namespace {
    fn of(name: &Name) -> Result<Self, FlareError> {
        let bytes = name.as_bytes();
        for (prefix, namespace) in
            [(&b"user."[..], Self::User), (b"trusted.", Self::Trusted), (b"security.", Self::Security)]
        {
            if let Some(rest) = bytes.strip_prefix(prefix) {
                return if rest.is_empty() { Err(FlareError::Invalid) } else { Ok(namespace) };
            }
        }
        match bytes {
            b"system.posix_acl_access" => Ok(Self::AccessAcl),
            b"system.posix_acl_default" => Ok(Self::DefaultAcl),
            _ => Err(FlareError::NotSupported),
        }
    }

    fn is_acl(self) -> bool {
        matches!(self, Self::AccessAcl | Self::DefaultAcl)
    }
}

pub(super) fn get(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &GetXattr) -> Result<XattrValue, Stop> {
    let row = plan.row(&op.handle)?;
    let who = caller.credentials;
    match Namespace::of(&op.name)? {
        Namespace::User if !bears_user_attributes(&row) => return Err(FlareError::NoAttribute.into()),
        Namespace::User => permission::require(plan, who, &row, READ)?,
        Namespace::Trusted if !who.is_root() => return Err(FlareError::NoAttribute.into()),
        namespace if namespace.is_acl() && row.kind == Kind::Symlink => {
            return Err(FlareError::NotSupported.into());
        }
        _ => {}
    }
    let value = plan.xattr(&row.key(), &op.name)?.ok_or(FlareError::NoAttribute)?;
    Ok(XattrValue { value })
}

/// Names; those that only root may see are left out for others.
pub(super) fn list(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &ListXattr) -> Result<Vec<Name>, Stop> {
    let row = plan.row(&op.handle)?;
    let mut names = plan.view.xattr_names(&row.key())?;
    names.retain(|name| caller.credentials.is_root() || !name.as_bytes().starts_with(b"trusted."));
    Ok(names)
}

pub(super) fn set(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &SetXattr) -> Result<Wcc, Stop> {
    let mut row = plan.row(&op.handle)?;
    let namespace = Namespace::of(&op.name)?;
    if op.value.len() > MAX_XATTR_VALUE {
        return Err(FlareError::TooBig.into());
    }
    may_change(plan, caller.credentials, &row, namespace)?;
    if namespace.is_acl() {
        set_acl(plan, caller.credentials, &mut row, namespace, op)?;
    } else {
        let exists = plan.xattr(&row.key(), &op.name)?.is_some();
        match (op.how, exists) {
            (XattrHow::Create, true) => return Err(FlareError::Exists.into()),
            (XattrHow::Replace, false) => return Err(FlareError::NoAttribute.into()),
            _ => {}
        }
        put(plan, &row, &op.name, op.value.clone(), exists)?;
    }
    plan.touch(&mut row);
    plan.put(row);
    plan.wcc(&op.handle)
}

pub(super) fn remove(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &RemoveXattr) -> Result<Wcc, Stop> {
    let mut row = plan.row(&op.handle)?;
    let namespace = Namespace::of(&op.name)?;
    may_change(plan, caller.credentials, &row, namespace)?;
    match plan.xattr(&row.key(), &op.name)? {
        // Linux lets an ACL be removed that is not there.
        None if namespace.is_acl() => return plan.wcc(&op.handle),
        None => return Err(FlareError::NoAttribute.into()),
        Some(_) => plan.push(Change::DeleteXattr { flare: row.key(), name: op.name.clone() }),
    }
    if namespace.is_acl() {
        row.has_acl = has_other_acl(plan, &row, namespace)?;
    }
    plan.touch(&mut row);
    plan.put(row);
    plan.wcc(&op.handle)
}

fn bears_user_attributes(row: &FlareRow) -> bool {
    matches!(row.kind, Kind::File | Kind::Directory)
}

fn may_change(plan: &Plan<'_>, who: &Credentials, row: &FlareRow, namespace: Namespace) -> Result<(), Stop> {
    match namespace {
        Namespace::User => {
            let sticky = row.kind == Kind::Directory && row.mode & S_ISVTX != 0;
            if !bears_user_attributes(row) || (sticky && !permission::owns(who, row)) {
                return Err(FlareError::NotPermitted.into());
            }
            permission::require(plan, who, row, WRITE)
        }
        Namespace::Trusted | Namespace::Security if who.is_root() => Ok(()),
        Namespace::Trusted | Namespace::Security => Err(FlareError::NotPermitted.into()),
        Namespace::AccessAcl | Namespace::DefaultAcl if row.kind == Kind::Symlink => {
            Err(FlareError::NotSupported.into())
        }
        Namespace::AccessAcl | Namespace::DefaultAcl => permission::require_ownership(who, row),
    }
}

/// Sets an ACL. An access ACL brings its bits into the mode, and is not kept if it says no more than they do.
fn set_acl(
    plan: &mut Plan<'_>,
    who: &Credentials,
    row: &mut FlareRow,
    namespace: Namespace,
    op: &SetXattr,
) -> Result<(), Stop> {
    let mut list = Acl::decode(&op.value)?;
    if namespace == Namespace::DefaultAcl && row.kind != Kind::Directory {
        return if list.is_some() { Err(FlareError::AccessDenied.into()) } else { Ok(()) };
    }
    if namespace == Namespace::AccessAcl
        && let Some(acl) = &list
    {
        let (bits, minimal) = acl.as_mode();
        let mut mode = row.mode & !ACCESS_BITS | bits;
        if op.clear_setgid && !permission::may_set_gid(who, row.gid) {
            mode &= !S_ISGID;
        }
        super::privileges::strip_before_execute(plan, row, mode)?;
        row.mode = mode;
        if minimal {
            list = None;
        }
    }
    let exists = plan.xattr(&row.key(), &op.name)?.is_some();
    match &list {
        Some(acl) => put(plan, row, &op.name, acl.encode(), exists)?,
        None if exists => plan.push(Change::DeleteXattr { flare: row.key(), name: op.name.clone() }),
        None => {}
    }
    row.has_acl = list.is_some() || has_other_acl(plan, row, namespace)?;
    Ok(())
}

fn has_other_acl(plan: &Plan<'_>, row: &FlareRow, namespace: Namespace) -> Result<bool, Stop> {
    let other = match namespace {
        Namespace::AccessAcl => acl::default_name(),
        _ => acl::access_name(),
    };
    Ok(plan.xattr(&row.key(), &other)?.is_some())
}

/// Puts a value if there is space for it and its name still fits the list of names.
fn put(plan: &mut Plan<'_>, row: &FlareRow, name: &Name, value: Bytes, exists: bool) -> Result<(), Stop> {
    plan.need((name.as_bytes().len() + value.len()) as u64)?;
    if !exists {
        let listed = |name: &Name| name.as_bytes().len() + 1;
        let names = plan.view.xattr_names(&row.key())?;
        if names.iter().map(listed).sum::<usize>() + listed(name) > MAX_XATTR_LIST {
            return Err(FlareError::NoSpace.into());
        }
    }
    plan.push(Change::PutXattr { flare: row.key(), name: name.clone(), value });
    Ok(())
}
