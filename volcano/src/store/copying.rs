//! What happens to a copy of a slice besides its own records: it follows another copy, is set back, begins anew, is filled.

use bytes::Bytes;
use magma_common::key::KeyRange;
use magma_common::proto::operation::Outcome;
use magma_common::topology::{Position, Seq, SliceId};

use super::Store;
use super::append::check_slice;
use super::copy::filter;
use super::dividing;
use super::doubts::Doubts;
use super::error::StoreError;
use super::log::{EntryRef, Lsn};
use crate::missing::Missing;
use crate::planted::{Bug, planted};
use crate::record::{BodyChange, Change, Entry, Record};
use crate::rows::BodyId;

/// Bytes of the log that are read at once to find what a rewind takes back.
const READ_AHEAD: usize = 1 << 20;

/// What became of a rewind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewound {
    /// The copy stands there now. It must not be acted upon before a sync.
    Done,
    /// The log does not hold everything that would have to be taken back. Nothing was changed; the copy can be placed.
    NotInLog,
}

impl Store {
    /// Takes the next record of a slice from another copy of it, with the bytes of its appends in their order.
    pub fn receive(&mut self, record: &Record, appended: &[Bytes]) -> Result<Lsn, StoreError> {
        self.alive()?;
        // before bytes are written that nothing would mention
        check_slice(EntryRef::Record(record), &self.db).map_err(|reason| self.rejected(reason))?;
        match self.db.slices.get(&record.slice) {
            Some(state) if !state.missing.is_empty() && planted(Bug::DropRecordsWhileCopying) => self
                .take_received(
                    &Record { changes: Vec::new(), outcome: record.outcome.clone(), ..*record },
                    &[],
                ),
            Some(state) if !state.missing.is_empty() => {
                let lacks = |ino| state.missing.contains(ino);
                let mut filtered = filter(record.changes.clone(), appended.to_vec(), lacks, state.partial);
                let changes = std::mem::take(&mut filtered.changes);
                let kept = Record { changes, outcome: record.outcome.clone(), ..*record };
                let lsn = self.take_received(&kept, &filtered.appended)?;
                if let Some(state) = self.db.slices.get_mut(&record.slice) {
                    state.partial = filtered.partial;
                }
                Ok(lsn)
            }
            _ => self.take_received(record, appended),
        }
    }

    fn take_received(&mut self, record: &Record, appended: &[Bytes]) -> Result<Lsn, StoreError> {
        let written = self.write_appends(&record.changes, appended);
        if written.is_err() {
            self.bodies.get_mut().abandon_writes();
        }
        written?;
        self.append(record)
    }

    /// Writes the bytes of the appends among changes, in their order.
    fn write_appends(&mut self, changes: &[Change], appended: &[Bytes]) -> Result<(), StoreError> {
        let mut bytes = appended.iter();
        for change in changes {
            let Change::Body { body, change: BodyChange::Append { offset, length }, .. } = change else {
                continue;
            };
            match bytes.next() {
                Some(bytes) if bytes.len() as u64 == *length => self.write_append(*body, *offset, bytes)?,
                _ => return Err(self.rejected(format!("{length} bytes to append did not come with it"))),
            }
        }
        Ok(())
    }

    /// Sets a copy back to a record of its history. What the records behind have changed stays as it is, and is missing from now on.
    ///
    /// [`Rejected`](StoreError::Rejected) if that record is not one of its history.
    pub fn rewind(&mut self, slice: SliceId, to: Position) -> Result<Rewound, StoreError> {
        self.alive()?;
        let Some(state) = self.db.slices.get(&slice) else {
            return Err(self.rejected(format!("there is no copy of slice {} here", slice.0)));
        };
        if to == state.position {
            return Ok(Rewound::Done);
        }
        match state.position_at(to.seq) {
            Some(known) if known == to => {}
            None if to.seq < state.position.seq => return Ok(Rewound::NotInLog),
            _ => {
                let Position { epoch, seq } = to;
                let reason = format!("record {} of epoch {} is not in the copy's history", seq.0, epoch.0);
                return Err(self.rejected(reason));
            }
        }
        let before = dividing::before_divisions(&self.db.slices, slice, to.seq);
        let Some((range, mut missing)) = before.filter(|_| state.reaches_back_to(to)) else {
            return Ok(Rewound::NotInLog);
        };
        let touched = self.mark_touched(slice, range, to.seq, &mut missing);
        if !self.stop_on_error(touched)? {
            return Ok(Rewound::NotInLog);
        }
        if planted(Bug::RewindWithoutRefresh) {
            missing = Missing::NOTHING;
        }
        self.take(EntryRef::Rewind { slice, to, missing: &missing })?;
        Ok(Rewound::Done)
    }

    /// Counts as missing what was changed after a record; false if the log does not reach back.
    fn mark_touched(
        &self,
        slice: SliceId,
        range: KeyRange,
        after: Seq,
        missing: &mut Missing,
    ) -> Result<bool, StoreError> {
        let Some(start) = self.index.place_of(slice, after) else { return Ok(false) };
        let mut reader = self.log.read_from(start, READ_AHEAD);
        let mut is_after = after == Seq(0);
        while let Some(read) = reader.next()? {
            let entry = EntryRef::from(&read.entry);
            if !is_after {
                let reached = reached(&read.entry, slice);
                is_after = reached == Some(after) && self.index.is_live(slice, after, read.lsn);
                continue;
            }
            if entry.slice() != slice {
                continue;
            }
            if let Entry::Record(record) = &read.entry
                && let Some(division) = record.division()
                && self.index.is_live(slice, record.seq, read.lsn)
                && !dividing::can_take_back(&self.db.slices, record, division.new)
            {
                return Ok(false);
            }
            for change in entry.changes() {
                // what belongs to the slice as a whole travels with its first key
                let ino = change.flare().map_or(range.start(), |key| key.ino());
                if range.contains_ino(ino) {
                    missing.insert(KeyRange::single(ino));
                }
            }
            // what was brought in there is as it was at a later position
            if let Entry::Copied { complete: Some(complete), .. } = read.entry
                && let Some(complete) = complete.common(range)
            {
                missing.insert(complete);
            }
        }
        Ok(true)
    }

    /// What a copy has of its flares in doubt may lack bytes that other copies have: it is missing from now on. It must not be acted
    /// upon before a sync, and then [`trust`](Self::trust) ends the doubts.
    pub fn distrust(&mut self, slice: SliceId, doubts: &Doubts) -> Result<(), StoreError> {
        self.alive()?;
        let Some(state) = self.db.slices.get(&slice) else { return Ok(()) };
        let (to, mut missing) = (state.position, state.missing_on_disk());
        doubts.flares().within(state.range).for_each(|range| missing.insert(range));
        self.take(EntryRef::Rewind { slice, to, missing: &missing })?;
        Ok(())
    }

    /// Whom it concerns knows that this store may have lost what was not on disk: later starts need not say so again.
    pub fn loss_is_told(&mut self) -> Result<(), StoreError> {
        if self.meta(super::open::LOST).is_none() {
            return Ok(());
        }
        let told = self.meta.update(|meta| drop(meta.values.remove(super::open::LOST)));
        self.stop_on_error(told)
    }

    /// Nothing of these keys is in doubt any more: what is here holds, or counts as missing, on disk.
    pub fn trust(&mut self, range: KeyRange) -> Result<(), StoreError> {
        let kept = self.meta(super::open::DOUBTFUL);
        let mut doubts: Doubts = kept.and_then(|kept| postcard::from_bytes(&kept).ok()).unwrap_or_default();
        drop(doubts.take_within(range));
        let left = postcard::to_stdvec(&doubts).map_err(|error| self.rejected(error.to_string()))?;
        self.set_meta(super::open::DOUBTFUL, &left)
    }

    /// Begins a slice of these keys here: nothing is in it, so its copy lacks nothing.
    pub fn found(&mut self, slice: SliceId, range: KeyRange) -> Result<(), StoreError> {
        let position = Position::default();
        self.take(EntryRef::Place { slice, range, position, history: &[], outcomes: &[] })?;
        self.copied(slice, &[], Some(range))?;
        Ok(())
    }

    /// Lets a copy begin anew at a position of another one: everything in its range is missing, and its sessions and transactions
    /// are gone. What rows of flares it has stay until they are replaced. The copy need not have existed. Copies of other slices here that
    /// claim these keys and others are forgotten. Rows may belong to no copy then; see [`remove_strays`](Self::remove_strays).
    pub fn place(
        &mut self,
        slice: SliceId,
        range: KeyRange,
        position: Position,
        history: &[Position],
        outcomes: &[(Seq, Outcome)],
    ) -> Result<Lsn, StoreError> {
        self.take(EntryRef::Place { slice, range, position, history, outcomes })
    }

    /// The changes that are [`copied`](Self::copied) next begin this body, of which nothing is here. Comes before its first bytes
    /// are written.
    pub(super) fn begin_copied(&mut self, body: BodyId) -> Result<(), StoreError> {
        let born = self.last().next();
        let bodies = self.bodies.get_mut();
        let begun = bodies.begin(&self.db, body, born);
        if begun.is_err() {
            bodies.abandon_writes();
        }
        self.stop_on_error(begun)
    }

    /// Takes changes that bring a copy what it lacks, or make room for it. They are no record of the slice. `complete` is not
    /// missing any more. Bytes of appends must have been written by [`write_append`](Self::write_append) just before.
    pub(super) fn copied(
        &mut self,
        slice: SliceId,
        changes: &[Change],
        complete: Option<KeyRange>,
    ) -> Result<Lsn, StoreError> {
        self.take(EntryRef::Copied { slice, changes, complete })
    }
}

/// The record at which the copy of a slice stands after this entry; none if the entry does not say.
fn reached(entry: &Entry, slice: SliceId) -> Option<Seq> {
    match entry {
        Entry::Record(record) => {
            let begins = record.division().is_some_and(|division| division.new == slice);
            (record.slice == slice || begins).then_some(record.seq)
        }
        Entry::Place { slice: placed, position, .. } => (*placed == slice).then_some(position.seq),
        Entry::Rewind { .. } | Entry::Copied { .. } => None,
    }
}
