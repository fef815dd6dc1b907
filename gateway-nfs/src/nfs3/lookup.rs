//! LOOKUP and READLINK (RFC 1813 §3.3.3, §3.3.5).

use magma_common::attr::Attr;
use magma_common::name::Name;
use magma_common::proto::operation::{EntryReply, Lookup, LookupParent, Readlink};

use super::door::{Door, Refusal, Target, old_name};
use super::status::Status;
use super::wire::{self, DirOp};
use crate::xdr::{Decoder, Encoder};

pub(super) async fn lookup(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let DirOp { dir, name } = wire::only_dir_op(arguments)?;
    let target = door.target(&dir)?;
    let EntryReply { attr, dir } = match &name[..] {
        b"." => itself(door, &target).await?,
        b".." => parent(door, &target).await?,
        _ => by_name(door, &target, old_name(name)?).await?,
    };
    out.u32(Status::Ok as u32);
    out.opaque(&door.seal(&target, attr.handle));
    door.post_op(out, Some(&attr));
    door.post_op(out, Some(&dir));
    Ok(())
}

async fn by_name(door: &Door<'_>, target: &Target<'_>, name: Name) -> Result<EntryReply, Refusal> {
    door.ask(target, Lookup { dir: target.handle, name }).await
}

async fn itself(door: &Door<'_>, target: &Target<'_>) -> Result<EntryReply, Refusal> {
    let attr = door.attributes(target).await?;
    if attr.kind != magma_common::attr::Kind::Directory {
        return Err(Status::NotDirectory.into());
    }
    Ok(EntryReply { dir: attr.clone(), attr })
}

/// The directory above, or the directory itself where the export begins.
async fn parent(door: &Door<'_>, target: &Target<'_>) -> Result<EntryReply, Refusal> {
    if door.is_export_root(target).await? {
        return itself(door, target).await;
    }
    door.ask(target, LookupParent { dir: target.handle }).await
}

/// The attributes of the directory above, for listings.
pub(super) async fn parent_attributes(door: &Door<'_>, target: &Target<'_>) -> Result<Attr, Refusal> {
    parent(door, target).await.map(|entry| entry.attr)
}

pub(super) async fn readlink(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let handle = wire::only_handle(arguments)?;
    let target = door.target(&handle)?;
    let reply = door.ask(&target, Readlink { handle: target.handle }).await?;
    out.u32(Status::Ok as u32);
    door.post_op(out, Some(&reply.attr));
    out.opaque(&reply.target);
    Ok(())
}
