//! Taking in parts of a slice that another copy of it gives out.
//!
//! What a part brings becomes an entry of the log like a record's changes, so the death of the process loses nothing of it. That
//! is not enough for the keys to count as no longer missing after a power cut: the log does not carry the bytes of bodies. So a
//! range whose bodies may not be on disk has *landed*. Records apply to it from then on, but the log is told that it is complete
//! only when a sync of all bodies has come by; whoever opens the store before finds it missing.
//!
//! What is left of a body must not mix with what comes of the same body anew, not in a replay of the log either. So a
//! body that is brought in lies in a file of its own, named by the entry that began it, whatever became of an earlier one.

use std::collections::BTreeSet;

use bytes::Bytes;
use magma_common::key::{Ino, KeyRange};
use magma_common::topology::SliceId;

use super::super::Store;
use super::super::error::StoreError;
use super::landing::{Landed, Waits};
use super::wipe::Wiped;
use super::{Partial, filter};
use crate::node::message::Part;
use crate::record::{BodyChange, Change};
use crate::rows::BodyId;

/// Dropped bodies whose files may still be there before new ones are brought in: they take space.
const MAX_DROPPED: usize = 1024;

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// The copy has it.
    Done,
    /// Room must be made for it first, of which a piece was done. Nothing of it was taken; it can be sent again, as it is then.
    Later,
    /// It goes on with a flare of which this copy does not have what came before. That flare must be begun anew.
    OutOfPlace,
}

/// What is taken of a part.
#[derive(Debug)]
struct Taken {
    changes: Vec<Change>,
    /// The bytes of the appends among them.
    appended: Vec<Bytes>,
}

impl Store {
    /// Takes a part of a slice from another copy of it. This copy must stand exactly where the part is true.
    ///
    /// It may be sent again, made anew where the sender had begun before: of what is here already nothing changes.
    /// [`Rejected`](StoreError::Rejected): it makes no sense. [`NoSpace`](StoreError::NoSpace): it does not fit on the disk.
    /// Then nothing of it was taken.
    pub fn import(&mut self, slice: SliceId, part: &Part) -> Result<Imported, StoreError> {
        self.alive()?;
        let Some(state) = self.db.slices.get(&slice) else {
            return Err(self.rejected(format!("there is no copy of slice {} here", slice.0)));
        };
        let first = state.range.start();
        check(part, first).map_err(|reason| self.rejected(reason))?;
        let wanted: Vec<_> = state.missing.within(part.range).collect();
        if wanted.is_empty() {
            return Ok(Imported::Done);
        }
        let before = state.partial.filter(|_| !part.first);
        if !part.first && before.is_none_or(|partial| KeyRange::single(partial.ino()) != part.range) {
            return Ok(Imported::OutOfPlace);
        }
        let after = partial_after(before, part, first).map_err(|reason| self.rejected(reason))?;
        if part.first && !self.make_way(slice, part, &wanted)? {
            return Ok(Imported::Later);
        }
        let begins = matches!(before, None | Some(Partial::Whole { .. }));
        let taken = if begins { lacking(part, &wanted) } else { self.beyond(part)? };
        let brings_bytes = before.is_some() || !taken.appended.is_empty();
        self.take_part(slice, part, &taken, begins)?;
        let waits = if brings_bytes { Waits::Bodies(self.last()) } else { Waits::Log(self.last()) };
        if let Some(state) = self.db.slices.get_mut(&slice) {
            state.partial = after;
            for range in wanted.into_iter().filter(|_| part.last) {
                state.complete(range);
                state.landed.push(Landed { range, waits });
            }
        }
        Ok(Imported::Done)
    }

    /// Takes away what this copy has where a part is wanted, as much as may be done at once. Whether nothing is left.
    fn make_way(&mut self, slice: SliceId, part: &Part, wanted: &[KeyRange]) -> Result<bool, StoreError> {
        let mut wiped = Wiped::default();
        for &range in wanted {
            wiped.plan(&self.db, range)?;
        }
        if self.brings_whole(slice, part.range) {
            wiped.remove(self.not_among(slice, part, wiped.room())?);
        }
        if let Some(state) = self.db.slices.get_mut(&slice) {
            state.partial = None;
        }
        if !wiped.changes.is_empty() {
            self.copied(slice, &wiped.changes, None)?;
        }
        let crowded = self.db.dropped_bodies(0, MAX_DROPPED)?.len() >= MAX_DROPPED;
        Ok(!wiped.more && !crowded)
    }

    /// A part that goes on with a flare, without the bytes that are here already.
    fn beyond(&mut self, part: &Part) -> Result<Taken, StoreError> {
        let mut bytes = part.appended.iter();
        let mut taken = Taken { changes: Vec::new(), appended: Vec::new() };
        for change in &part.changes {
            let Change::Body { body, flare, change: BodyChange::Append { offset, length } } = change else {
                taken.changes.push(change.clone());
                continue;
            };
            let (end, mut bytes) = (offset + length, bytes.next().cloned().unwrap_or_default());
            // of a body that grows as its parts come, that is the border before the first of them
            let start = self.bodies.get_mut().high(&self.db, *body)?.max(*offset);
            if start < end || *offset == end {
                let here = usize::try_from(start - offset).unwrap_or(usize::MAX).min(bytes.len());
                let change = BodyChange::Append { offset: start, length: end.saturating_sub(start) };
                taken.changes.push(Change::Body { body: *body, flare: *flare, change });
                taken.appended.push(bytes.split_off(here));
            }
        }
        Ok(taken)
    }

    /// Writes the bytes that a part brings and logs its changes. `begins`: nothing is here of the flares that it is about.
    fn take_part(
        &mut self,
        slice: SliceId,
        part: &Part,
        taken: &Taken,
        begins: bool,
    ) -> Result<(), StoreError> {
        let mut begun = BTreeSet::new();
        for (body, offset, bytes) in taken.appends() {
            if begins && begun.insert(body) {
                self.begin_copied(body)?;
            }
            self.write_append(body, offset, bytes)?;
        }
        // on disk with the log or not at all; what needs a body's bytes as well is said later
        let is_whole = part.first && part.last && taken.appended.is_empty();
        self.copied(slice, &taken.changes, is_whole.then_some(part.range))?;
        Ok(())
    }
}

impl Taken {
    /// The appends: body, offset, bytes.
    fn appends(&self) -> impl Iterator<Item = (BodyId, u64, &Bytes)> {
        let appends = self.changes.iter().filter_map(|change| match change {
            Change::Body { body, change: BodyChange::Append { offset, .. }, .. } => Some((*body, *offset)),
            _ => None,
        });
        appends.zip(&self.appended).map(|((body, offset), bytes)| (body, offset, bytes))
    }
}

/// What a part of whole flares has of the keys that are wanted.
fn lacking(part: &Part, wanted: &[KeyRange]) -> Taken {
    let is_here = |ino| !wanted.iter().any(|range| range.contains_ino(ino));
    let kept = filter(part.changes.clone(), part.appended.clone(), is_here, None);
    Taken { changes: kept.changes, appended: kept.appended }
}

/// Whether a part makes sense by itself in a slice whose range begins with `first`.
fn check(part: &Part, first: Ino) -> Result<(), String> {
    let mut bytes = part.appended.iter();
    for change in &part.changes {
        let key = change.flare();
        if key.is_some_and(|key| !part.range.contains(&key)) {
            return Err("it brings keys outside of its range".to_owned());
        }
        match change {
            Change::PutFlare(_)
            | Change::PutInline { .. }
            | Change::PutEntry { .. }
            | Change::PutReference { .. }
            | Change::PutXattr { .. }
            | Change::PutLocks { .. } => {}
            Change::PutSession(_) | Change::PutTransaction(_) if part.range.contains_ino(first) => {}
            Change::PutSession(_) | Change::PutTransaction(_) => {
                return Err("it brings what travels with the first key of the slice alone".to_owned());
            }
            Change::Body { change: BodyChange::Append { offset, length }, .. } => {
                if bytes.next().is_none_or(|bytes| bytes.len() as u64 != *length) {
                    return Err("the bytes of its appends did not come with it".to_owned());
                }
                offset.checked_add(*length).ok_or("an append ends beyond all offsets")?;
            }
            _ => return Err("it takes something away".to_owned()),
        }
    }
    if bytes.next().is_some() { Err("it brings bytes that belong nowhere".to_owned()) } else { Ok(()) }
}

/// How much is here of what comes in several parts, once this one has been taken. The slice's range begins with `first`.
fn partial_after(before: Option<Partial>, part: &Part, first: Ino) -> Result<Option<Partial>, String> {
    let mut partial =
        before.or_else(|| part.range.contains_ino(first).then_some(Partial::Whole { ino: first }));
    for change in &part.changes {
        partial = match (change, partial) {
            (Change::PutFlare(row), _) => Some(Partial::Rows { flare: row.handle }),
            (_, Some(Partial::Rows { .. })) => partial,
            (Change::Body { body, flare, change: BodyChange::Append { offset, length } }, _) => {
                let here = match partial {
                    Some(Partial::Bytes { upto, .. }) => upto,
                    _ => 0,
                };
                Some(Partial::Bytes { flare: *flare, body: *body, upto: here.max(offset + length) })
            }
            _ => partial,
        };
    }
    match partial {
        _ if part.last => Ok(None),
        Some(partial) if KeyRange::single(partial.ino()) == part.range => Ok(Some(partial)),
        _ => Err("it says that more comes of something else than one key".to_owned()),
    }
}
