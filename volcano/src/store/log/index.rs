//! Where the records of each slice lie in the log, and which of them were taken back.
//!
//! It is sparse: some records are marked, the others are found by reading on from a mark. Nothing of it is stored; the log is
//! read anyway when it is opened.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use magma_common::topology::{Seq, SliceId};

use super::{EntryRef, Lsn, Place};
use crate::record::Record;

/// So much of the log at most lies between a mark and the next, in bytes.
const MARK_EVERY: u64 = 256 << 10;
/// Encoded bytes of the newest records of a slice that are kept in memory.
const RECENT_BYTES: usize = 8 << 20;
/// Most readers of one slice whose places are remembered.
const CURSORS: usize = 8;

/// A record whose place is known. A copy that was placed, or divided off, has a mark for the position at which it begins.
#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: Seq,
    place: Place,
}

/// Records after `to` that lie before `at` in the log are no part of the history.
#[derive(Clone, Copy, Debug)]
struct Cut {
    at: Lsn,
    to: Seq,
}

/// The newest records of a slice.
#[derive(Debug)]
struct Recent {
    /// Each with its encoded length; they follow each other.
    records: VecDeque<(usize, Record)>,
    bytes: usize,
    /// Encoded bytes of what came since somebody looked for records here. When nobody did for long nothing is kept.
    unread: Cell<usize>,
}

/// What is known of one slice's records.
#[derive(Debug, Default)]
struct Known {
    /// Of records that are part of the history, ascending. The first record of the slice in each segment has one.
    marks: VecDeque<Mark>,
    /// Ascending in both: one that a later one includes is left out.
    cuts: VecDeque<Cut>,
    /// After which record somebody has stopped reading, and where the log goes on there.
    cursors: RefCell<VecDeque<(Seq, Place)>>,
    recent: Recent,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in super::super) struct Index {
    slices: BTreeMap<SliceId, Known>,
}

impl Index {
    /// An entry of this encoded length was put there.
    pub(in super::super) fn note(&mut self, entry: EntryRef<'_>, place: Place, length: usize) {
        let known = self.slices.entry(entry.slice()).or_default();
        match entry {
            EntryRef::Record(record) => {
                known.mark(record.seq, place);
                known.recent.push(record, length);
                if let Some(division) = record.division() {
                    self.slices.entry(division.new).or_default().begin(record.seq, place);
                }
            }
            EntryRef::Rewind { to, .. } => known.cut(place.lsn, to.seq),
            EntryRef::Place { position, .. } => known.begin(position.seq, place),
            EntryRef::Copied { .. } => {}
        }
    }

    /// The log begins with this entry now.
    pub(in super::super) fn forget_before(&mut self, first: Lsn) {
        for known in self.slices.values_mut() {
            let gone = known.marks.partition_point(|mark| mark.place.lsn < first);
            known.marks.drain(..gone);
            let gone = known.cuts.partition_point(|cut| cut.at < first);
            known.cuts.drain(..gone);
        }
    }

    /// Where to begin to read the records after this one; `None` if the log does not reach back so far.
    pub(in super::super) fn place_after(&self, slice: SliceId, after: Seq) -> Option<Place> {
        let known = self.slices.get(&slice)?;
        let next = known.mark_at(Seq(after.0 + 1))?;
        let cursor = known.cursors.borrow().iter().find(|(seq, _)| *seq == after).map(|(_, place)| *place);
        // a cursor may point into a segment that is gone, when the record that it points to was the first of the next one
        Some(cursor.filter(|place| place.lsn > next.lsn).unwrap_or(next))
    }

    /// Where to begin to read everything that came after this record; `None` if the log does not reach back so far.
    pub(in super::super) fn place_of(&self, slice: SliceId, seq: Seq) -> Option<Place> {
        let known = self.slices.get(&slice)?;
        // nothing comes before the record that founds a slice
        known.mark_at(seq.max(Seq(1)))
    }

    /// The first entry that must stay so that this record of a slice and all after it do.
    pub(in super::super) fn needed_for(&self, slice: SliceId, seq: Seq) -> Option<Lsn> {
        let known = self.slices.get(&slice)?;
        let first = known.marks.front()?;
        Some(known.mark_at(seq).unwrap_or(first.place).lsn)
    }

    /// Whether the record with this number and place is part of the slice's history; or the copy was placed there, at this record.
    pub(in super::super) fn is_live(&self, slice: SliceId, seq: Seq, lsn: Lsn) -> bool {
        let Some(known) = self.slices.get(&slice) else { return true };
        let later = known.cuts.partition_point(|cut| cut.at <= lsn);
        known.cuts.get(later).is_none_or(|cut| seq <= cut.to)
    }

    /// Somebody has read up to this record, and the log goes on there.
    pub(in super::super) fn remember(&self, slice: SliceId, last: Seq, place: Place) {
        let Some(known) = self.slices.get(&slice) else { return };
        let mut cursors = known.cursors.borrow_mut();
        cursors.retain(|(seq, _)| *seq != last);
        if cursors.len() >= CURSORS {
            cursors.pop_front();
        }
        cursors.push_back((last, place));
    }

    /// The records after this one if all of them are in memory, with their encoded lengths. They are kept there while somebody asks.
    pub(in super::super) fn recent(
        &self,
        slice: SliceId,
        after: Seq,
    ) -> Option<impl Iterator<Item = &(usize, Record)>> {
        let recent = &self.slices.get(&slice)?.recent;
        recent.unread.set(0);
        let (_, oldest) = recent.records.front()?;
        let skipped = usize::try_from((after.0 + 1).checked_sub(oldest.seq.0)?).ok()?;
        Some(recent.records.iter().skip(skipped))
    }
}

impl Known {
    /// The last mark that does not lie behind this record; the log has this record only if there is one.
    fn mark_at(&self, seq: Seq) -> Option<Place> {
        let behind = self.marks.partition_point(|mark| mark.seq <= seq);
        Some(self.marks.get(behind.checked_sub(1)?)?.place)
    }

    fn mark(&mut self, seq: Seq, place: Place) {
        let is_far = self.marks.back().is_none_or(|last| {
            last.place.segment != place.segment || place.offset - last.place.offset >= MARK_EVERY
        });
        if is_far {
            self.marks.push_back(Mark { seq, place });
        }
    }

    /// A copy begins anew, after this record.
    fn begin(&mut self, seq: Seq, place: Place) {
        self.cut(place.lsn, Seq(0));
        self.marks.clear();
        self.mark(seq, place);
    }

    fn cut(&mut self, at: Lsn, to: Seq) {
        self.marks.truncate(self.marks.partition_point(|mark| mark.seq <= to));
        self.cuts.truncate(self.cuts.partition_point(|cut| cut.to < to));
        self.cuts.push_back(Cut { at, to });
        self.cursors.borrow_mut().clear();
        self.recent.clear();
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self { records: VecDeque::new(), bytes: 0, unread: Cell::new(usize::MAX) }
    }
}

impl Recent {
    fn push(&mut self, record: &Record, length: usize) {
        self.unread.set(self.unread.get().saturating_add(length));
        if self.unread.get() > RECENT_BYTES {
            return self.clear();
        }
        self.records.push_back((length, record.clone()));
        self.bytes += length;
        while self.bytes > RECENT_BYTES {
            let Some((length, _)) = self.records.pop_front() else { break };
            self.bytes -= length;
        }
    }

    fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }
}
