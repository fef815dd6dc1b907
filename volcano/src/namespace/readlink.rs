//! READLINK (RFC 1813 §3.3.5).

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::proto::operation::{Readlink, ReadlinkReply};

use super::plan::{Plan, Stop};
use super::times;

pub(super) fn readlink(plan: &mut Plan<'_>, op: &Readlink) -> Result<ReadlinkReply, Stop> {
    let mut row = plan.row(&op.handle)?;
    if row.kind != Kind::Symlink {
        return Err(FlareError::NotSymlink.into());
    }
    let target = plan.inline(&row.key())?;
    times::note_read(plan, &mut row);
    Ok(ReadlinkReply { target, attr: plan.attr(&row)? })
}
