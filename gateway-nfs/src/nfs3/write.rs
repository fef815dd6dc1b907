//! WRITE and COMMIT (RFC 1813 §3.3.7, §3.3.21).

use bytes::Bytes;
use magma_common::proto::Durability;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{Commit, Write, WriteAt};

use super::door::{Door, Refusal};
use super::status::Status;
use super::wire;
use crate::xdr::{Decoder, Encoder, XdrError};

/// `stable_how`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stability {
    Unstable = 0,
    DataSync = 1,
    FileSync = 2,
}

impl Stability {
    fn decode(from: &mut Decoder) -> Result<Self, XdrError> {
        match from.u32()? {
            0 => Ok(Self::Unstable),
            1 => Ok(Self::DataSync),
            2 => Ok(Self::FileSync),
            _ => Err(XdrError::BadValue),
        }
    }
}

/// `WRITE3args`.
pub(super) struct WriteArguments {
    handle: Bytes,
    offset: u64,
    stability: Stability,
    /// A slice of the record that brought it.
    data: Bytes,
}

impl WriteArguments {
    pub(super) fn decode(mut from: Decoder) -> Result<Self, XdrError> {
        let (handle, offset, count) = (wire::handle(&mut from)?, from.u64()?, from.u32()?);
        let stability = Stability::decode(&mut from)?;
        let data = from.opaque(usize::MAX)?;
        from.finish()?;
        if data.len() != count as usize {
            return Err(XdrError::BadValue);
        }
        Ok(Self { handle, offset, stability, data })
    }
}

/// The file of `COMMIT3args`. The range is of no use: committing part of a file would not be cheaper.
pub(super) fn commit_arguments(mut from: Decoder) -> Result<Bytes, XdrError> {
    let (handle, _offset, _count) = (wire::handle(&mut from)?, from.u64()?, from.u32()?);
    from.finish()?;
    Ok(handle)
}

pub(super) async fn write(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let WriteArguments { handle, offset, stability, mut data } = WriteArguments::decode(arguments)?;
    let target = door.writable(&handle)?;
    // More than was offered in FSINFO is written in part, which the client sees from the count.
    data.truncate(MAX_IO as usize);
    let written = data.len() as u32;
    let (durability, committed) = match stability {
        Stability::Unstable => (Durability::Replicated, Stability::Unstable),
        // The stronger promise costs nothing more.
        Stability::DataSync | Stability::FileSync => (Durability::Stable, Stability::FileSync),
    };
    let target = target.with_durability(durability);
    // As in READ: the owner may always write.
    let write = Write { handle: target.handle, at: WriteAt::Offset(offset), opened: false };
    let reply = door.write(&target, write, data).await?;
    out.u32(Status::Ok as u32);
    door.wcc(out, &reply.wcc);
    out.u32(written);
    out.u32(committed as u32);
    out.u64(reply.verifier);
    Ok(())
}

pub(super) async fn commit(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let handle = commit_arguments(arguments)?;
    let target = door.writable(&handle)?.with_durability(Durability::Stable);
    let reply = door.ask(&target, Commit { handle: target.handle }).await?;
    out.u32(Status::Ok as u32);
    door.wcc(out, &reply.wcc);
    out.u64(reply.verifier);
    Ok(())
}
