//! A write that goes through the head: the file's own bytes and size, and what each stripe gets, happen together.

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::proto::limits::MAX_THROUGH_HEAD;
use magma_common::stripes::StripePart;

use super::make::{make_room, writable};
use super::take;
use crate::namespace::data::content;
use crate::namespace::plan::{Caller, Plan, Stop};
use crate::rows::{BodyId, FlareRow, Head};
use crate::transaction::Step;

/// Writes bytes at an offset of a striped file, some of them beyond its first unit.
pub(in crate::namespace) fn write(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    (row, head): (&FlareRow, &Head),
    offset: u64,
    data: &Bytes,
) -> Result<(), Stop> {
    let end = content::end_within_limit(offset, data.len() as u64)?;
    plan.need(data.len() as u64)?;
    if data.len() > MAX_THROUGH_HEAD {
        return Err(FlareError::Striped.into());
    }
    let key = row.key();
    let parts: Vec<StripePart> = head.unit.parts(offset, data.len() as u64).collect();
    let stripes = || parts.iter().filter(|part| part.number > 0);
    make_room(plan, row, head, stripes().map(|part| part.number))?;
    let own = parts.iter().find(|part| part.number == 0).map_or(Bytes::new(), |part| bytes_of(part, data));
    take(plan, key, Step::Extend { credentials: caller.credentials.clone(), offset, data: own, end })?;
    for part in stripes() {
        let stripe = writable(plan, row, head, part.number)?;
        let body = BodyId(plan.random());
        let fill = Step::Fill {
            stripe,
            offset: part.offset,
            data: bytes_of(part, data),
            body,
            stable: caller.stable,
        };
        take(plan, stripe.key, fill)?;
    }
    Ok(())
}

fn bytes_of(part: &StripePart, data: &Bytes) -> Bytes {
    let start = (part.at as usize).min(data.len());
    data.slice(start..start.saturating_add(part.length as usize).min(data.len()))
}
