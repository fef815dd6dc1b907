//! CREATE, MKDIR, SYMLINK and MKNOD (RFC 1813 §3.3.8 to §3.3.11).

use bytes::Bytes;
use magma_common::attr::{Kind, SetAttr};
use magma_common::proto::operation::{Create, CreateHow, MadeReply, Mkdir, Mknod, Symlink};

use super::door::{Door, Refusal, Target, new_name};
use super::status::Status;
use super::wire::{self, DeviceNumber, DirOp};
use crate::xdr::{Decoder, Encoder, XdrError};

/// The permissions of what is made by a client that names none: nobody but the owner.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// A file made exclusively gets its permissions by the SETATTR that follows; until then it has none.
const EXCLUSIVE_MODE: u32 = 0;

/// `CREATE3args`.
pub(super) struct CreateArguments {
    at: DirOp,
    how: CreateHow,
    set: SetAttr,
}

impl CreateArguments {
    pub(super) fn decode(mut from: Decoder) -> Result<Self, XdrError> {
        let at = wire::dir_op(&mut from)?;
        let (how, set) = match from.u32()? {
            0 => (CreateHow::Unchecked, wire::set_attr(&mut from)?),
            1 => (CreateHow::Guarded, wire::set_attr(&mut from)?),
            2 => (
                CreateHow::Exclusive(from.u64()?),
                SetAttr { mode: Some(EXCLUSIVE_MODE), ..SetAttr::default() },
            ),
            _ => return Err(XdrError::BadValue),
        };
        from.finish()?;
        Ok(Self { at, how, set })
    }
}

/// `MKDIR3args`.
pub(super) struct MkdirArguments {
    at: DirOp,
    set: SetAttr,
}

impl MkdirArguments {
    pub(super) fn decode(mut from: Decoder) -> Result<Self, XdrError> {
        let (at, set) = (wire::dir_op(&mut from)?, wire::set_attr(&mut from)?);
        from.finish()?;
        Ok(Self { at, set })
    }
}

/// `SYMLINK3args`.
pub(super) struct SymlinkArguments {
    at: DirOp,
    set: SetAttr,
    to: Bytes,
}

impl SymlinkArguments {
    pub(super) fn decode(mut from: Decoder) -> Result<Self, XdrError> {
        let (at, set) = (wire::dir_op(&mut from)?, wire::set_attr(&mut from)?);
        // Copied, like names: what is kept of it must not keep the record.
        let to = Bytes::copy_from_slice(&from.opaque(usize::MAX)?);
        from.finish()?;
        Ok(Self { at, set, to })
    }
}

/// `MKNOD3args`.
pub(super) struct MknodArguments {
    at: DirOp,
    /// `None` for files, directories and links, which MKNOD does not make.
    what: Option<Special>,
}

impl MknodArguments {
    pub(super) fn decode(mut from: Decoder) -> Result<Self, XdrError> {
        let (at, what) = (wire::dir_op(&mut from)?, special(&mut from)?);
        from.finish()?;
        Ok(Self { at, what })
    }
}

/// What MKNOD is to make.
struct Special {
    kind: Kind,
    set: SetAttr,
    device: DeviceNumber,
}

/// `mknoddata3`.
fn special(from: &mut Decoder) -> Result<Option<Special>, XdrError> {
    let kind = match from.u32()? {
        1 | 2 | 5 => return Ok(None),
        3 => Kind::BlockDevice,
        4 => Kind::CharDevice,
        6 => Kind::Socket,
        7 => Kind::Fifo,
        _ => return Err(XdrError::BadValue),
    };
    let set = wire::set_attr(from)?;
    let device = match kind {
        Kind::BlockDevice | Kind::CharDevice => DeviceNumber { major: from.u32()?, minor: from.u32()? },
        _ => DeviceNumber { major: 0, minor: 0 },
    };
    Ok(Some(Special { kind, set, device }))
}

pub(super) async fn create(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let CreateArguments { at: DirOp { dir, name }, how, set } = CreateArguments::decode(arguments)?;
    let target = door.writable(&dir)?;
    let create = Create {
        dir: target.handle,
        name: new_name(name)?,
        mode: set.mode.unwrap_or(FILE_MODE),
        // The client has applied it.
        umask: 0,
        how,
        set,
        open: false,
    };
    let made = door.change(&target, create).await?;
    reply(door, &target, &made, out);
    Ok(())
}

pub(super) async fn mkdir(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let MkdirArguments { at: DirOp { dir, name }, set } = MkdirArguments::decode(arguments)?;
    let target = door.writable(&dir)?;
    let mkdir = Mkdir {
        dir: target.handle,
        name: new_name(name)?,
        mode: set.mode.unwrap_or(DIRECTORY_MODE),
        umask: 0,
        set,
    };
    let made = door.change(&target, mkdir).await?;
    reply(door, &target, &made, out);
    Ok(())
}

pub(super) async fn symlink(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let SymlinkArguments { at: DirOp { dir, name }, set, to } = SymlinkArguments::decode(arguments)?;
    let target = door.writable(&dir)?;
    let symlink = Symlink { dir: target.handle, name: new_name(name)?, target: to, set };
    let made = door.change(&target, symlink).await?;
    reply(door, &target, &made, out);
    Ok(())
}

pub(super) async fn mknod(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let MknodArguments { at: DirOp { dir, name }, what } = MknodArguments::decode(arguments)?;
    let target = door.writable(&dir)?;
    let Some(Special { kind, set, device }) = what else { return Err(Status::BadType.into()) };
    let mknod = Mknod {
        dir: target.handle,
        name: new_name(name)?,
        kind,
        mode: set.mode.unwrap_or(FILE_MODE),
        umask: 0,
        rdev: rustix::fs::makedev(device.major, device.minor),
        set,
    };
    let made = door.change(&target, mknod).await?;
    reply(door, &target, &made, out);
    Ok(())
}

fn reply(door: &Door<'_>, target: &Target<'_>, made: &MadeReply, out: &mut Encoder) {
    out.u32(Status::Ok as u32);
    wire::post_op_handle(out, Some(&door.seal(target, made.attr.handle)));
    door.post_op(out, Some(&made.attr));
    door.wcc(out, &made.dir);
}
