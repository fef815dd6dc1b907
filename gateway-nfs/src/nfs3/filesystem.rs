//! FSSTAT, FSINFO and PATHCONF (RFC 1813 §3.3.18 to §3.3.20).

use magma_common::name::NAME_MAX;
use magma_common::proto::limits::{MAX_FILE_SIZE, MAX_IO, MAX_LINKS};
use magma_common::proto::operation::Statfs;

use super::door::{Door, Refusal};
use super::status::Status;
use super::wire;
use crate::xdr::{Decoder, Encoder};

/// Sizes and offsets that are multiples of this suit us best: a page of the client.
const MULTIPLE: u32 = 4096;
/// Size of a listing's reply that suits us best, in bytes.
const LISTING: u32 = 128 << 10;
/// `FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME`.
const PROPERTIES: u32 = 0x01 | 0x02 | 0x08 | 0x10;

pub(super) async fn fsstat(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let handle = wire::only_handle(arguments)?;
    let target = door.target(&handle)?;
    let (attr, space) = tokio::join!(door.attributes(&target), door.ask(&target, Statfs));
    let (attr, space) = (attr?, space?);
    out.u32(Status::Ok as u32);
    door.post_op(out, Some(&attr));
    out.u64(space.total);
    out.u64(space.free);
    out.u64(space.available);
    out.u64(space.flares.saturating_add(space.flares_free));
    out.u64(space.flares_free);
    out.u64(space.flares_free);
    // Seconds for which these figures stay true: none.
    out.u32(0);
    Ok(())
}

pub(super) async fn fsinfo(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let handle = wire::only_handle(arguments)?;
    let target = door.target(&handle)?;
    let attr = door.attributes(&target).await?;
    out.u32(Status::Ok as u32);
    door.post_op(out, Some(&attr));
    // READ, then WRITE: largest, preferred, suggested multiple.
    for _ in 0..2 {
        out.u32(MAX_IO);
        out.u32(MAX_IO);
        out.u32(MULTIPLE);
    }
    out.u32(LISTING);
    out.u64(MAX_FILE_SIZE);
    // Times are kept to one nanosecond.
    out.u32(0);
    out.u32(1);
    out.u32(PROPERTIES);
    Ok(())
}

pub(super) async fn pathconf(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    let handle = wire::only_handle(arguments)?;
    let target = door.target(&handle)?;
    let attr = door.attributes(&target).await?;
    out.u32(Status::Ok as u32);
    door.post_op(out, Some(&attr));
    out.u32(MAX_LINKS);
    out.u32(NAME_MAX as u32);
    // A long name is an error and not cut; only root gives files away; `a` is not `A`, and stays `a`.
    out.bool(true);
    out.bool(true);
    out.bool(false);
    out.bool(true);
    Ok(())
}
