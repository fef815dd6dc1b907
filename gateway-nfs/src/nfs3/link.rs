//! RENAME and LINK (RFC 1813 §3.3.14, §3.3.15): two directories or a file and a directory, within one export.

use bytes::Bytes;
use magma_common::proto::operation::{Link, Rename, RenameHow};

use super::door::{Door, Refusal, Target, new_name, old_name};
use super::status::Status;
use super::wire::{self, DirOp};
use crate::xdr::{Decoder, Encoder, XdrError};

/// `RENAME3args`.
pub(super) struct RenameArguments {
    from: DirOp,
    to: DirOp,
}

impl RenameArguments {
    pub(super) fn decode(mut arguments: Decoder) -> Result<Self, XdrError> {
        let (from, to) = (wire::dir_op(&mut arguments)?, wire::dir_op(&mut arguments)?);
        arguments.finish()?;
        Ok(Self { from, to })
    }
}

/// `LINK3args`.
pub(super) struct LinkArguments {
    handle: Bytes,
    at: DirOp,
}

impl LinkArguments {
    pub(super) fn decode(mut from: Decoder) -> Result<Self, XdrError> {
        let (handle, at) = (wire::handle(&mut from)?, wire::dir_op(&mut from)?);
        from.finish()?;
        Ok(Self { handle, at })
    }
}

pub(super) async fn rename(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let RenameArguments { from, to } = RenameArguments::decode(arguments)?;
    let (from_dir, to_dir) = (door.writable(&from.dir)?, door.writable(&to.dir)?);
    same_export(&from_dir, &to_dir)?;
    let rename = Rename {
        from_dir: from_dir.handle,
        from_name: old_name(from.name)?,
        to_dir: to_dir.handle,
        to_name: old_name(to.name)?,
        how: RenameHow::Replace,
    };
    let reply = door.change(&from_dir, rename).await?;
    out.u32(Status::Ok as u32);
    door.wcc(out, &reply.from_dir);
    door.wcc(out, &reply.to_dir);
    Ok(())
}

pub(super) async fn link(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let LinkArguments { handle, at: DirOp { dir, name } } = LinkArguments::decode(arguments)?;
    let (target, dir) = (door.writable(&handle)?, door.writable(&dir)?);
    same_export(&target, &dir)?;
    let link = Link { handle: target.handle, dir: dir.handle, name: new_name(name)? };
    let reply = door.change(&target, link).await?;
    out.u32(Status::Ok as u32);
    door.post_op(out, Some(&reply.attr));
    door.wcc(out, &reply.dir);
    Ok(())
}

fn same_export(a: &Target<'_>, b: &Target<'_>) -> Result<(), Refusal> {
    if a.export_id == b.export_id { Ok(()) } else { Err(Status::CrossDevice.into()) }
}
