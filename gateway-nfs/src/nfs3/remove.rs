//! REMOVE and RMDIR (RFC 1813 §3.3.12, §3.3.13).

use magma_common::attr::Wcc;
use magma_common::proto::operation::{Rmdir, Unlink};

use super::door::{Door, Refusal, old_name};
use super::status::Status;
use super::wire::{self, DirOp};
use crate::xdr::{Decoder, Encoder};

pub(super) async fn remove(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let DirOp { dir, name } = wire::only_dir_op(arguments)?;
    let target = door.writable(&dir)?;
    let removed = door.change(&target, Unlink { dir: target.handle, name: old_name(name)? }).await?;
    reply(door, &removed.dir, out);
    Ok(())
}

pub(super) async fn rmdir(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let DirOp { dir, name } = wire::only_dir_op(arguments)?;
    let target = door.writable(&dir)?;
    // RFC 1813 §3.3.13 has it so.
    if &name[..] == b".." {
        return Err(Status::Exists.into());
    }
    let removed = door.change(&target, Rmdir { dir: target.handle, name: old_name(name)? }).await?;
    reply(door, &removed.dir, out);
    Ok(())
}

fn reply(door: &Door<'_>, dir: &Wcc, out: &mut Encoder) {
    out.u32(Status::Ok as u32);
    door.wcc(out, dir);
}
