//! READ (RFC 1813 §3.3.6).

use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::Read;

use super::door::{Door, Refusal};
use super::status::Status;
use super::wire;
use crate::xdr::{Decoder, Encoder, XdrError};

pub(super) async fn read(door: &Door<'_>, mut arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let handle = wire::handle(&mut arguments)?;
    let (offset, count) = (arguments.u64()?, arguments.u32()?);
    arguments.finish()?;
    let target = door.target(&handle)?;
    // NFS has no open files: who could read when the file was opened may read on, so its owner always may.
    let read = Read { handle: target.handle, offset, length: count.min(MAX_IO), opened: false };
    let (reply, data) = door.read(&target, read).await?;
    out.u32(Status::Ok as u32);
    door.post_op(out, Some(&reply.attr));
    out.u32(data.len() as u32);
    out.bool(reply.eof);
    out.last_opaque(data);
    Ok(())
}

/// How many bytes the call asks for.
pub(super) fn count(mut arguments: Decoder) -> Result<u32, XdrError> {
    let (_handle, _offset) = (wire::handle(&mut arguments)?, arguments.u64()?);
    arguments.u32()
}
