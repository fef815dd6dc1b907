//! READ (RFC 1813 §3.3.6).

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{ACCESS_EXECUTE, Access, Read, ReadReply};

use super::door::{Door, Refusal, Target};
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
    let (reply, data) = read_permitted(door, &target, offset, count.min(MAX_IO)).await?;
    out.u32(Status::Ok as u32);
    door.post_op(out, Some(&reply.attr));
    out.u32(data.len() as u32);
    out.bool(reply.eof);
    out.last_opaque(data);
    Ok(())
}

/// Reads if the caller may read, owns the file, or may execute it.
///
/// NFS has no open files: who could read when the file was opened may read on, so its owner always may. And to
/// execute a file, a client has to read it.
async fn read_permitted(
    door: &Door<'_>,
    target: &Target<'_>,
    offset: u64,
    length: u32,
) -> Result<(ReadReply, Bytes), Refusal> {
    let read = |opened| Read { handle: target.handle, offset, length, opened };
    let refusal = match door.read(target, read(false)).await {
        Err(Refusal::Failed(failed)) if failed.status == Status::Access => Refusal::Failed(failed),
        other => return other,
    };
    let access = door.ask(target, Access { handle: target.handle, mask: ACCESS_EXECUTE }).await?;
    if access.granted & ACCESS_EXECUTE != 0 && access.attr.kind == Kind::File {
        door.read(target, read(true)).await
    } else {
        Err(refusal)
    }
}
