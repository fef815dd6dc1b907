//! Where a copy should stand: derived from all entries of its log, in the plainest way.

use std::collections::BTreeSet;

use magma_common::key::{Ino, KeyRange};
use magma_common::proto::operation::Outcome;
use magma_common::time::Timestamp;
use magma_common::topology::{Position, Seq};

use super::super::{Lsn, Store};
use super::making::SLICE;
use crate::missing::Missing;
use crate::record::{Change, Entry, Record};

/// A copy's standing after some entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Where it began: nothing, or where it was placed, with the history up to there and the place of that entry.
    start: Position,
    earlier: Vec<Position>,
    started_at: Lsn,
    range: Option<KeyRange>,
    /// The records since that were not taken back.
    pub(super) live: Vec<(Lsn, Record)>,
    pub(super) missing: Missing,
    pub(super) floor: Seq,
    time: Timestamp,
    exists: bool,
}

impl Standing {
    /// After these entries; the first one's place is 1.
    pub(super) fn after<'a>(entries: &(impl Iterator<Item = &'a Entry> + Clone)) -> Self {
        let mut standing = Self::default();
        for (lsn, entry) in (1..).map(Lsn).zip(entries.clone()) {
            standing.exists = true;
            match entry {
                Entry::Record(record) => {
                    standing.time = standing.time.max(record.time);
                    standing.live.push((lsn, record.clone()));
                }
                Entry::Rewind { to, .. } => {
                    let since = standing.place_of(to.seq).unwrap();
                    let cut = entries.clone().take(lsn.0 as usize - 1).skip(since.0 as usize);
                    for entry in cut {
                        standing.lose(entry);
                    }
                    standing.live.retain(|(_, record)| record.seq <= to.seq);
                }
                Entry::Place { range, position, history, .. } => {
                    standing.live.clear();
                    (standing.start, standing.earlier) = (*position, history.clone());
                    standing.missing = Missing::all(*range);
                    standing.range = Some(*range);
                    (standing.started_at, standing.floor) = (lsn, position.seq);
                }
                Entry::Copied { complete, .. } => {
                    let lacked = !standing.missing.is_empty();
                    if let Some(range) = complete {
                        standing.missing.remove(*range);
                    }
                    if lacked && standing.missing.is_empty() {
                        standing.floor = standing.position().seq;
                    }
                }
            }
        }
        standing
    }

    fn lose(&mut self, entry: &Entry) {
        let (changes, complete) = match entry {
            Entry::Record(record) => (&record.changes[..], None),
            Entry::Copied { changes, complete, .. } => (&changes[..], *complete),
            _ => (&[][..], None),
        };
        // what belongs to the slice as a whole travels with its first key
        let first = self.range().start();
        let ino = |change: &Change| change.flare().map_or(first, |key| key.ino());
        let keys: BTreeSet<Ino> = changes.iter().map(ino).collect();
        for range in keys.into_iter().map(KeyRange::single).chain(complete) {
            // keys beyond its range are no business of the copy
            if let Some(range) = range.common(self.range()) {
                self.missing.insert(range);
            }
        }
    }

    /// The place of a record that is part of the history, or of what the copy began with.
    pub(super) fn place_of(&self, seq: Seq) -> Option<Lsn> {
        if seq == Seq(0) {
            // all that has changed since lies behind the first record
            return Some(self.live.first()?.0.before());
        }
        if seq == self.start.seq {
            return Some(self.started_at);
        }
        self.live.iter().find(|(_, record)| record.seq == seq).map(|(lsn, _)| *lsn)
    }

    /// The keys that the slice is about.
    fn range(&self) -> KeyRange {
        self.range.unwrap_or(KeyRange::ALL)
    }

    pub(super) fn position(&self) -> Position {
        self.live.last().map_or(self.start, |(_, record)| record.position())
    }

    /// All positions that it can be set back to, the first one first.
    pub(super) fn positions(&self) -> Vec<Position> {
        [self.start].into_iter().chain(self.live.iter().map(|(_, record)| record.position())).collect()
    }

    pub(super) fn history(&self) -> Vec<Position> {
        let mut history = self.earlier.clone();
        for (_, record) in &self.live {
            if history.last().is_none_or(|last| last.epoch < record.epoch) {
                history.push(record.position());
            }
        }
        history
    }

    /// The store says the same.
    pub(super) fn assert_equals(&self, store: &Store, what: &str) {
        assert_eq!(store.position(SLICE), self.exists.then(|| self.position()), "{what}");
        assert_eq!(store.range(SLICE), self.exists.then(|| self.range()), "{what}");
        assert_eq!(store.history(SLICE), self.history(), "{what}");
        assert_eq!(store.missing(SLICE), &self.missing, "{what}");
        assert_eq!(store.time(SLICE), self.time, "{what}");
        for position in self.positions().into_iter().filter(|_| self.exists) {
            assert_eq!(store.position_at(SLICE, position.seq), Some(position), "{what}");
        }
    }

    /// What the log tells after a record is what it should; whether it told anything.
    pub(super) fn check_log(&self, store: &Store, after: Seq, max_bytes: usize, what: &str) -> bool {
        let floor = if self.missing.is_empty() { self.floor } else { self.position().seq };
        let wanted: Vec<_> = self.live.iter().filter(|(_, record)| record.seq > after).collect();
        let Some(sent) = store.read_log(SLICE, after, max_bytes).unwrap() else {
            let is_dropped = wanted.first().is_some_and(|(lsn, _)| *lsn < store.log.first());
            assert!(after < floor || is_dropped || !self.exists, "{what}: nothing told after {after:?}");
            return false;
        };
        assert!(after >= floor, "{what}: told after {after:?}, below {floor:?}");
        assert_eq!(sent.is_empty(), wanted.is_empty(), "{what}");
        let found: Vec<_> = sent.iter().map(|sent| &sent.record).collect();
        let expected: Vec<_> = wanted.iter().map(|(_, record)| record).take(found.len()).collect();
        assert_eq!(found, expected, "{what}: after {after:?}");
        true
    }
}

/// The outcomes that entries leave.
pub(super) fn outcomes<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<(Seq, Outcome)> {
    let mut kept: Vec<(Seq, Outcome)> = Vec::new();
    for entry in entries {
        match entry {
            Entry::Record(record) => {
                kept.extend(record.outcome.clone().map(|outcome| (record.seq, outcome)));
            }
            Entry::Rewind { to, .. } => kept.retain(|(seq, _)| *seq <= to.seq),
            Entry::Place { outcomes, .. } => kept.clone_from(outcomes),
            Entry::Copied { .. } => {}
        }
    }
    kept
}
