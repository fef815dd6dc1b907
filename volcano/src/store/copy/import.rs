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
use magma_common::handle::Handle;
use magma_common::key::KeyRange;
use magma_common::topology::SliceId;

use super::super::Store;
use super::super::error::StoreError;
use super::super::log::EntryRef;
use super::landing::{Landed, Waits};
use super::{Partial, brings_sessions, wipe};
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

/// A body's bytes in a part: what is appended to which body of which flare.
#[derive(Clone, Copy, Debug)]
struct Append {
    body: BodyId,
    flare: Handle,
    offset: u64,
    end: u64,
}

impl Store {
    /// Takes a part of a slice from another copy of it. This copy must stand exactly where the part is true.
    ///
    /// A part that is refused or fails leaves what was missing missing. One whose keys are not missing any more is passed over.
    pub fn import(&mut self, slice: SliceId, part: &Part) -> Result<Imported, StoreError> {
        self.alive()?;
        let appends = check(part).map_err(|reason| self.rejected(reason))?;
        let Some(state) = self.db.slices.get(&slice) else {
            return Err(self.rejected(format!("there is no copy of slice {} here", slice.0)));
        };
        if !state.missing.overlaps(part.range) {
            return Ok(Imported::Done);
        }
        if !state.missing.covers(part.range) {
            return Err(self.rejected("it brings keys that are here".to_owned()));
        }
        let before = if part.first { None } else { state.partial };
        if !part.first && before.is_none_or(|partial| KeyRange::single(partial.flare().ino()) != part.range) {
            return Ok(Imported::OutOfPlace);
        }
        let after = partial_after(before, part, &appends).map_err(|reason| self.rejected(reason))?;
        if part.first && !self.make_way(slice, part)? {
            return Ok(Imported::Later);
        }
        self.take_part(slice, part, &appends)?;
        self.landed(slice, part, after, !appends.is_empty() || before.is_some());
        Ok(Imported::Done)
    }

    /// A part was taken.
    fn landed(&mut self, slice: SliceId, part: &Part, partial: Option<Partial>, bytes: bool) {
        let last = self.last();
        let Some(state) = self.db.slices.get_mut(&slice) else { return };
        state.partial = partial;
        if part.last {
            let waits = if bytes { Waits::Bodies(last) } else { Waits::Log(last) };
            state.complete(part.range);
            state.landed.push(Landed { range: part.range, waits });
        }
    }

    /// Takes away what this copy has in the range of a part, as much as may be done at once. Whether nothing is left.
    fn make_way(&mut self, slice: SliceId, part: &Part) -> Result<bool, StoreError> {
        let mut wiped = wipe::plan(&self.db, part.range)?;
        if brings_sessions(part.range) && !wiped.more {
            wiped.changes.extend(self.ended_sessions(slice, part)?);
        }
        if !wiped.changes.is_empty() {
            if let Some(state) = self.db.slices.get_mut(&slice) {
                state.partial = None;
            }
            self.take(EntryRef::Copied { slice, changes: &wiped.changes, complete: None })?;
        }
        let crowded = self.db.dropped_bodies(0, MAX_DROPPED)?.len() >= MAX_DROPPED;
        Ok(!wiped.more && !crowded)
    }

    /// The ends of the sessions that a part does not have.
    fn ended_sessions(&self, slice: SliceId, part: &Part) -> Result<Vec<Change>, StoreError> {
        let brought = part.changes.iter().filter_map(|change| match change {
            Change::PutSession(row) => Some(row.id),
            _ => None,
        });
        let brought: BTreeSet<_> = brought.collect();
        let here = self.export_sessions(slice)?.into_iter().map(|row| row.id);
        Ok(here.filter(|id| !brought.contains(id)).map(Change::EndSession).collect())
    }

    /// Writes the bytes of a part and logs its changes.
    fn take_part(&mut self, slice: SliceId, part: &Part, appends: &[Append]) -> Result<(), StoreError> {
        let born = self.last().next();
        let mut begun = BTreeSet::new();
        let mut take = || {
            for (append, bytes) in appends.iter().zip(&part.appended) {
                let bodies = self.bodies.get_mut();
                if part.first && !begun.contains(&append.body) {
                    bodies.begin(&self.db, append.body, born)?;
                    begun.insert(append.body);
                }
                self.write_append(append.body, append.offset, bytes)?;
            }
            // on disk with the log or not at all; what needs a body's bytes as well is said later
            let complete = (part.last && part.first && appends.is_empty()).then_some(part.range);
            self.take(EntryRef::Copied { slice, changes: &part.changes, complete })
        };
        let taken = take();
        if taken.is_err() {
            self.bodies.get_mut().discard(&begun);
        }
        taken.map(|_| ())
    }
}

/// Checks a part by itself; gives out its appends, in their order.
fn check(part: &Part) -> Result<Vec<Append>, String> {
    let mut appends = Vec::new();
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
            | Change::PutLocks { .. }
            | Change::PutSession(_) => {}
            Change::Body { body, flare, change: BodyChange::Append { offset, length } } => {
                let end = offset.checked_add(*length).ok_or("an append ends beyond all offsets")?;
                appends.push(Append { body: *body, flare: *flare, offset: *offset, end });
            }
            _ => return Err("it takes something away".to_owned()),
        }
    }
    let fits = |(append, bytes): (&Append, &Bytes)| append.end - append.offset == bytes.len() as u64;
    if appends.len() != part.appended.len() || !appends.iter().zip(&part.appended).all(fits) {
        return Err("the bytes of its appends did not come with it".to_owned());
    }
    Ok(appends)
}

/// How much is here of the flare that comes in several parts, once this one has been taken.
fn partial_after(
    before: Option<Partial>,
    part: &Part,
    appends: &[Append],
) -> Result<Option<Partial>, String> {
    if part.last {
        return Ok(None);
    }
    let row = part.changes.iter().rev().find_map(|change| match change {
        Change::PutFlare(row) => Some(row.handle),
        _ => None,
    });
    let partial = match (row, before, appends.last()) {
        (Some(flare), ..) | (None, Some(Partial::Rows { flare }), _) => Partial::Rows { flare },
        (None, _, Some(&Append { body, flare, end, .. })) => Partial::Bytes { flare, body, upto: end },
        _ => return Err("it brings nothing and says that more comes".to_owned()),
    };
    if KeyRange::single(partial.flare().ino()) != part.range {
        return Err("it is about more than one flare and not complete".to_owned());
    }
    Ok(Some(partial))
}
