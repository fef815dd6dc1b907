//! WRITE and COMMIT (RFC 1813 §3.3.7, §3.3.21).

use magma_common::proto::Durability;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{Commit, Write, WriteAt};

use super::door::{Door, Refusal};
use super::status::Status;
use super::wire;
use crate::xdr::{Decoder, Encoder, XdrError};

/// `stable_how`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stability {
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

pub(super) async fn write(door: &Door<'_>, mut arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let handle = wire::handle(&mut arguments)?;
    let (offset, count) = (arguments.u64()?, arguments.u32()?);
    let stability = Stability::decode(&mut arguments)?;
    let mut data = arguments.opaque(usize::MAX)?;
    arguments.finish()?;
    if data.len() != count as usize {
        return Err(Refusal::Garbage);
    }
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

pub(super) async fn commit(
    door: &Door<'_>,
    mut arguments: Decoder,
    out: &mut Encoder,
) -> Result<(), Refusal> {
    let handle = wire::handle(&mut arguments)?;
    let (_offset, _count) = (arguments.u64()?, arguments.u32()?);
    arguments.finish()?;
    let target = door.writable(&handle)?.with_durability(Durability::Stable);
    // All of the file: a range would not make it cheaper.
    let reply = door.ask(&target, Commit { handle: target.handle }).await?;
    out.u32(Status::Ok as u32);
    door.wcc(out, &reply.wcc);
    out.u64(reply.verifier);
    Ok(())
}
