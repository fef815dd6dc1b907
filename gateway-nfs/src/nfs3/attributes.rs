//! GETATTR, SETATTR and ACCESS (RFC 1813 §3.3.1, §3.3.2, §3.3.4).

use bytes::Bytes;
use magma_common::attr::{Kind, SetAttr};
use magma_common::proto::operation::{
    ACCESS_DELETE, ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, Access, Setattr,
};

use magma_common::time::Timestamp;

use super::door::{Door, Refusal};
use super::status::Status;
use super::wire;
use crate::xdr::{Decoder, Encoder, XdrError};

const NFS_READ: u32 = 0x01;
const NFS_LOOKUP: u32 = 0x02;
const NFS_MODIFY: u32 = 0x04;
const NFS_EXTEND: u32 = 0x08;
const NFS_DELETE: u32 = 0x10;
const NFS_EXECUTE: u32 = 0x20;

/// What the bits of ACCESS come to for a directory. Directories are searched, not executed.
const OF_DIRECTORY: &[(u32, u8)] = &[
    (NFS_READ, ACCESS_READ),
    (NFS_LOOKUP, ACCESS_EXECUTE),
    (NFS_MODIFY, ACCESS_WRITE),
    (NFS_EXTEND, ACCESS_WRITE),
    (NFS_DELETE, ACCESS_DELETE),
];
/// And for everything else. Whether a file can be deleted is its directory's affair.
const OF_FILE: &[(u32, u8)] = &[
    (NFS_READ, ACCESS_READ),
    (NFS_MODIFY, ACCESS_WRITE),
    (NFS_EXTEND, ACCESS_WRITE),
    (NFS_EXECUTE, ACCESS_EXECUTE),
];

/// `SETATTR3args`.
pub(super) struct SetattrArguments {
    handle: Bytes,
    set: SetAttr,
    /// Change nothing unless the file still has this ctime.
    guard: Option<Timestamp>,
}

impl SetattrArguments {
    pub(super) fn decode(mut from: Decoder) -> Result<Self, XdrError> {
        let handle = wire::handle(&mut from)?;
        let set = wire::set_attr(&mut from)?;
        let guard = wire::optional(&mut from, wire::time)?;
        from.finish()?;
        Ok(Self { handle, set, guard })
    }
}

/// `ACCESS3args`.
pub(super) struct AccessArguments {
    handle: Bytes,
    asked: u32,
}

impl AccessArguments {
    pub(super) fn decode(mut from: Decoder) -> Result<Self, XdrError> {
        let (handle, asked) = (wire::handle(&mut from)?, from.u32()?);
        from.finish()?;
        Ok(Self { handle, asked })
    }
}

pub(super) async fn getattr(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let handle = wire::only_handle(arguments)?;
    let target = door.target(&handle)?;
    let attr = door.attributes(&target).await?;
    out.u32(Status::Ok as u32);
    wire::attributes(out, &attr, door.gateway.network);
    Ok(())
}

pub(super) async fn setattr(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let SetattrArguments { handle, set, guard } = SetattrArguments::decode(arguments)?;
    let target = door.writable(&handle)?;
    // NFS has no open files: who could write when the file was opened may cut it later, so its owner always may.
    // For a path, the client has asked for ACCESS before.
    let opened = set.size.is_some() && door.attributes(&target).await?.uid == target.uid();
    let wcc = door.change(&target, Setattr { handle: target.handle, set, guard, opened }).await?;
    out.u32(Status::Ok as u32);
    door.wcc(out, &wcc);
    Ok(())
}

pub(super) async fn access(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let AccessArguments { handle, asked } = AccessArguments::decode(arguments)?;
    let target = door.target(&handle)?;
    let mask = ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_DELETE;
    let reply = door.ask(&target, Access { handle: target.handle, mask }).await?;
    let meaning = if reply.attr.kind == Kind::Directory { OF_DIRECTORY } else { OF_FILE };
    let granted = meaning.iter().filter(|(_, needed)| reply.granted & needed != 0);
    let mut granted = granted.fold(0, |bits, (bit, _)| bits | bit);
    if target.export.read_only {
        granted &= !(NFS_MODIFY | NFS_EXTEND | NFS_DELETE);
    }
    out.u32(Status::Ok as u32);
    door.post_op(out, Some(&reply.attr));
    out.u32(granted & asked);
    Ok(())
}
