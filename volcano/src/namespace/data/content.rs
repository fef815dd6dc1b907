//! Where a file's bytes are and how they change: small ones stand in the flare's row, others in a body.
//!
//! Invariants: bytes at or above the file's size, and bytes at or above a body's `high`, read as zeros; a
//! body never becomes small again except by being dropped. These functions change the row's size and content
//! only; times and permissions are the operations' business.

use bytes::{Bytes, BytesMut};
use magma_common::error::FlareError;
use magma_common::proto::limits::MAX_FILE_SIZE;

use crate::namespace::plan::{Plan, Stop};
use crate::record::{BodyChange, Change};
use crate::rows::{BodyId, Content, FlareRow, INLINE_MAX};

/// Up to `length` bytes from `offset`, ending at the end of the file.
pub(in crate::namespace) fn read(
    plan: &Plan<'_>,
    row: &FlareRow,
    offset: u64,
    length: u64,
) -> Result<Bytes, Stop> {
    let end = offset.saturating_add(length).min(row.size);
    if offset >= end {
        return Ok(Bytes::new());
    }
    let length = (end - offset) as usize;
    let stored = match row.content {
        Content::Inline => {
            let data = plan.inline(&row.key())?;
            let len = data.len() as u64;
            data.slice(offset.min(len) as usize..end.min(len) as usize)
        }
        Content::Body { body, high } if offset < high => {
            plan.view.read_body(body, offset, (end.min(high) - offset) as usize)?
        }
        Content::Body { .. } => Bytes::new(),
    };
    if stored.len() == length {
        return Ok(stored);
    }
    let mut padded = BytesMut::with_capacity(length);
    padded.extend_from_slice(&stored);
    padded.resize(length, 0);
    Ok(padded.freeze())
}

/// Writes bytes at an offset, extending the file if they reach beyond its end.
pub(in crate::namespace) fn write(
    plan: &mut Plan<'_>,
    row: &mut FlareRow,
    offset: u64,
    data: &Bytes,
) -> Result<(), Stop> {
    write_to(plan, row, &Target::default(), offset, data)
}

/// Where bytes go.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::namespace) struct Target {
    /// The flare's body from now on, if it needs one and has none.
    pub body: Option<BodyId>,
    /// The record carries them even if they are appended: when that is on disk, so are they, whether the body is or not.
    pub in_log: bool,
}

/// The same, to a target that is chosen by the caller.
pub(in crate::namespace) fn write_to(
    plan: &mut Plan<'_>,
    row: &mut FlareRow,
    target: &Target,
    offset: u64,
    data: &Bytes,
) -> Result<(), Stop> {
    let end = end_within_limit(offset, data.len() as u64)?;
    plan.need(data.len() as u64)?;
    if row.content == Content::Inline && end <= INLINE_MAX {
        let mut bytes = BytesMut::from(plan.inline(&row.key())?);
        if (bytes.len() as u64) < end {
            bytes.resize(end as usize, 0);
        }
        if let Some(place) = bytes.get_mut(offset as usize..end as usize) {
            place.copy_from_slice(data);
        }
        plan.push(Change::PutInline { flare: row.key(), data: bytes.freeze() });
    } else {
        let (body, high) = body_of(plan, row, target.body)?;
        let below = high.clamp(offset, end) - offset;
        if below > 0 {
            let data = data.slice(..below as usize);
            change_body(plan, row, body, BodyChange::Overwrite { offset, data });
        }
        if offset + below < end {
            let (offset, data) = (offset + below, data.slice(below as usize..));
            plan.append(row.handle, body, offset, data.clone());
            if target.in_log {
                change_body(plan, row, body, BodyChange::Overwrite { offset, data });
            }
            row.content = Content::Body { body, high: end };
        }
    }
    row.size = row.size.max(end);
    Ok(())
}

/// Cuts the file, or extends it with zeros.
pub(in crate::namespace) fn resize(plan: &mut Plan<'_>, row: &mut FlareRow, size: u64) -> Result<(), Stop> {
    if size > MAX_FILE_SIZE {
        return Err(FlareError::FileTooBig.into());
    }
    match row.content {
        Content::Body { body, .. } if size == 0 => {
            change_body(plan, row, body, BodyChange::Drop);
            row.content = Content::Inline;
        }
        Content::Inline if size < row.size => {
            let mut data = plan.inline(&row.key())?;
            if size < data.len() as u64 {
                data.truncate(size as usize);
                plan.push(Change::PutInline { flare: row.key(), data });
            }
        }
        Content::Body { .. } if size < row.size => clear(plan, row, size, row.size)?,
        _ => {}
    }
    row.size = size;
    Ok(())
}

/// Makes the bytes from `start` to before `end` zeros, freeing their storage. The size stays.
pub(in crate::namespace) fn clear(
    plan: &mut Plan<'_>,
    row: &FlareRow,
    start: u64,
    end: u64,
) -> Result<(), Stop> {
    match row.content {
        Content::Inline => {
            let data = plan.inline(&row.key())?;
            let end = end.min(data.len() as u64);
            if start < end {
                let mut bytes = BytesMut::from(data);
                if let Some(range) = bytes.get_mut(start as usize..end as usize) {
                    range.fill(0);
                }
                plan.push(Change::PutInline { flare: row.key(), data: bytes.freeze() });
            }
        }
        Content::Body { body, high } => {
            let end = end.min(high);
            if start < end {
                change_body(plan, row, body, BodyChange::Zero { offset: start, length: end - start });
            }
        }
    }
    Ok(())
}

/// Makes sure that there is space for the range. What fits a small body needs none.
pub(in crate::namespace) fn reserve(
    plan: &mut Plan<'_>,
    row: &mut FlareRow,
    offset: u64,
    length: u64,
) -> Result<(), Stop> {
    let end = end_within_limit(offset, length)?;
    plan.need(length)?;
    if row.content != Content::Inline || end > INLINE_MAX {
        let (body, _) = body_of(plan, row, None)?;
        change_body(plan, row, body, BodyChange::Reserve { offset, length });
    }
    Ok(())
}

/// The end of a range, if a file may reach so far.
pub(in crate::namespace) fn end_within_limit(offset: u64, length: u64) -> Result<u64, FlareError> {
    offset.checked_add(length).filter(|end| *end <= MAX_FILE_SIZE).ok_or(FlareError::FileTooBig)
}

/// The file's body and its high mark; a small body's bytes move to a new one.
fn body_of(plan: &mut Plan<'_>, row: &mut FlareRow, new: Option<BodyId>) -> Result<(BodyId, u64), Stop> {
    if let Content::Body { body, high } = row.content {
        return Ok((body, high));
    }
    let body = new.unwrap_or_else(|| BodyId(plan.random()));
    let data = plan.inline(&row.key())?;
    let high = data.len() as u64;
    if high > 0 {
        plan.need(high)?;
        plan.append(row.handle, body, 0, data.clone());
        // They may be on disk by somebody's wish, and the log does not carry the bytes of appends: the record carries these.
        change_body(plan, row, body, BodyChange::Overwrite { offset: 0, data });
        plan.push(Change::PutInline { flare: row.key(), data: Bytes::new() });
    }
    row.content = Content::Body { body, high };
    Ok((body, high))
}

fn change_body(plan: &mut Plan<'_>, row: &FlareRow, body: BodyId, change: BodyChange) {
    plan.push(Change::Body { body, flare: row.handle, change });
}
