//! READ (RFC 1813 §3.3.6).

use bytes::Bytes;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::Read;

use super::door::{Door, Refusal};
use super::status::Status;
use super::wire;
use crate::xdr::{Decoder, Encoder, XdrError};

/// `READ3args`.
pub(super) struct ReadArguments {
    handle: Bytes,
    offset: u64,
    /// Bytes asked for.
    pub(super) count: u32,
}

impl ReadArguments {
    pub(super) fn decode(mut from: Decoder) -> Result<Self, XdrError> {
        let (handle, offset, count) = (wire::handle(&mut from)?, from.u64()?, from.u32()?);
        from.finish()?;
        Ok(Self { handle, offset, count })
    }
}

pub(super) async fn read(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let ReadArguments { handle, offset, count } = ReadArguments::decode(arguments)?;
    let target = door.target(&handle)?;
    // NFS has no open files: the volcano lets owners read on, and those who may execute.
    let read = Read { handle: target.handle, offset, length: count.min(MAX_IO), opened: false };
    let (reply, data) = door.read(&target, read).await?;
    out.u32(Status::Ok as u32);
    door.post_op(out, Some(&reply.attr));
    out.u32(data.len() as u32);
    out.bool(reply.eof);
    out.last_opaque(data);
    Ok(())
}
