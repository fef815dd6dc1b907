//! SEEK to data or to a hole (`lseek(2)`).

use magma_common::error::FlareError;
use magma_common::proto::operation::{Seek, SeekReply, SeekWhence};

use crate::namespace::plan::{Plan, Stop};
use crate::namespace::stripes;
use crate::rows::Content;

pub(in crate::namespace) fn seek(plan: &mut Plan<'_>, op: &Seek) -> Result<SeekReply, Stop> {
    let row = super::file(plan, &op.handle)?;
    let from = op.offset;
    if from >= row.size {
        return Err(FlareError::NoSuchOffset.into());
    }
    if stripes::head_of(&row).is_some_and(|head| head.count > 0) {
        // Where the holes of its stripes are is not known here. Calling all of it data is right, too.
        let offset = if op.whence == SeekWhence::Data { from } else { row.size };
        return Ok(SeekReply { offset });
    }
    // Behind what is stored there is one hole, up to the end of the file.
    let stored = match row.content {
        Content::Inline => plan.inline(&row.key())?.len() as u64,
        Content::Body { high, .. } => high,
    }
    .min(row.size);
    let offset = match (op.whence, row.content) {
        (SeekWhence::Data, _) if from >= stored => None,
        (SeekWhence::Hole, _) if from >= stored => Some(from),
        (SeekWhence::Data, Content::Inline) => Some(from),
        (SeekWhence::Hole, Content::Inline) => Some(stored),
        (SeekWhence::Data, Content::Body { body, .. }) => plan.view.body_data(body, from, stored)?,
        (SeekWhence::Hole, Content::Body { body, .. }) => Some(plan.view.body_hole(body, from, stored)?),
    };
    Ok(SeekReply { offset: offset.ok_or(FlareError::NoSuchOffset)? })
}
