//! The bytes of regular files.

mod allocate;
pub(super) mod content;
mod read;
mod seek;
mod write;

pub(super) use allocate::allocate;
pub(super) use read::{bytes, may_read, read};
pub(super) use seek::seek;
pub(super) use write::{commit, may_write, write};

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;

use super::plan::{Plan, Stop};
use crate::rows::FlareRow;

/// The regular file with this handle.
pub(super) fn file(plan: &mut Plan<'_>, handle: &Handle) -> Result<FlareRow, Stop> {
    let row = plan.row(handle)?;
    match row.kind {
        Kind::File => Ok(row),
        Kind::Directory => Err(FlareError::IsDirectory.into()),
        _ => Err(FlareError::Invalid.into()),
    }
}
