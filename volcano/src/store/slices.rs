//! What is known of each copy of a slice that is kept here: how far it has come, by which way, and what it lacks.

use std::cmp::Ordering;

use magma_common::key::KeyRange;
use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Position, Seq, SliceId};

use super::copy::{Landed, Partial};
use crate::missing::Missing;

/// Most epochs of which the first record is remembered.
const MAX_HISTORY: usize = 256;

/// The state of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SliceState {
    /// The keys that it is about.
    pub(super) range: KeyRange,
    /// Its last record.
    pub(super) position: Position,
    /// The latest time of any record that it has had. A rewind does not lower it.
    pub(super) time: Timestamp,
    /// The first record of each epoch, ascending; those of the newest epochs.
    pub(super) history: Vec<Position>,
    /// What it lacks.
    pub(super) missing: Missing,
    /// The log has all of each record after this one. Means nothing while something is missing.
    pub(super) floor: Seq,
    /// How much is here of a flare that comes in several parts. Whoever opens the store again does not know, and begins that flare anew.
    pub(super) partial: Option<Partial>,
    /// What was brought in and is not missing any more, but would be after a power cut.
    pub(super) landed: Vec<Landed>,
    /// The slice that this one was divided off, and the record that did it, if that happened here.
    pub(super) parent: Option<(SliceId, Seq)>,
}

/// A copy that has had no record yet, of a slice that covers everything.
impl Default for SliceState {
    fn default() -> Self {
        Self {
            range: KeyRange::ALL,
            position: Position::default(),
            time: Timestamp::default(),
            history: Vec::new(),
            missing: Missing::NOTHING,
            floor: Seq::default(),
            partial: None,
            landed: Vec::new(),
            parent: None,
        }
    }
}

impl SliceState {
    /// A copy that begins anew at a position.
    pub(super) fn placed(
        before: Option<&Self>,
        range: KeyRange,
        position: Position,
        history: &[Position],
    ) -> Self {
        let mut state = Self {
            range,
            position,
            time: before.map_or(Timestamp::default(), |before| before.time),
            history: history.to_vec(),
            missing: Missing::all(range),
            floor: position.seq,
            ..Self::default()
        };
        state.forget_old_epochs();
        state
    }

    /// Whether a record with this name can come next.
    pub(super) fn check_next(&self, name: Position) -> Result<(), String> {
        let next = self.position.seq.0 + 1;
        if name.seq.0 != next {
            return Err(format!("the next record is {next}, not {}", name.seq.0));
        }
        if name.epoch < self.position.epoch {
            return Err(format!("its epoch {} lies before {}", name.epoch.0, self.position.epoch.0));
        }
        Ok(())
    }

    /// The next record has come.
    pub(super) fn advance(&mut self, name: Position, time: Timestamp) {
        if self.history.last().is_none_or(|last| last.epoch < name.epoch) {
            self.history.push(name);
            self.forget_old_epochs();
        }
        self.position = name;
        self.time = self.time.max(time);
    }

    /// The records after this position are taken back.
    pub(super) fn rewind(&mut self, to: Position, missing: &Missing) {
        self.history.retain(|first| first.seq <= to.seq);
        self.position = to;
        self.missing = missing.clone();
        self.partial = None;
        self.landed.clear();
    }

    /// What is missing for whoever opens the store with the log as it is now.
    pub(super) fn missing_on_disk(&self) -> Missing {
        let mut missing = self.missing.clone();
        for landed in &self.landed {
            missing.insert(landed.range);
        }
        missing
    }

    /// A range is not missing any more.
    pub(super) fn complete(&mut self, range: KeyRange) {
        let lacked = !self.missing.is_empty();
        self.missing.remove(range);
        if lacked && self.missing.is_empty() {
            self.floor = self.position.seq;
        }
    }

    /// The log has all of each record after this one.
    pub(super) fn floor(&self) -> Seq {
        // of the records that come while something is missing it has only what the copy could use
        if self.missing.is_empty() { self.floor } else { self.position.seq }
    }

    /// The name of the record with this number; none if it is not there yet, or older than what the history remembers.
    pub(super) fn position_at(&self, seq: Seq) -> Option<Position> {
        if seq > self.position.seq {
            return None;
        }
        let began = self.history.partition_point(|first| first.seq <= seq);
        let epoch = match began.checked_sub(1).and_then(|last| self.history.get(last)) {
            Some(first) => first.epoch,
            // before the first record of all
            None if seq == Seq(0) && self.history.first().is_none_or(|first| first.seq == Seq(1)) => Epoch(0),
            None => return None,
        };
        Some(Position { epoch, seq })
    }

    fn forget_old_epochs(&mut self) {
        let old = self.history.len().saturating_sub(MAX_HISTORY);
        self.history.drain(..old);
    }
}

/// Whether a history that somebody else tells can lead to a position.
pub(super) fn check_history(history: &[Position], position: Position) -> Result<(), String> {
    let ascends = |pair: &[Position]| match pair {
        [before, after] => before.seq < after.seq && before.epoch < after.epoch,
        _ => true,
    };
    let leads_there = match history.last() {
        Some(last) => last.epoch == position.epoch && last.seq.cmp(&position.seq) != Ordering::Greater,
        None => position == Position::default(),
    };
    if history.windows(2).all(ascends) && leads_there {
        return Ok(());
    }
    Err(format!("the history does not lead to record {} of epoch {}", position.seq.0, position.epoch.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch: Epoch(epoch), seq: Seq(seq) }
    }

    /// A copy that has had these records.
    fn state(epochs: &[u64]) -> SliceState {
        let mut state = SliceState::default();
        for (seq, &epoch) in (1..).zip(epochs) {
            state.check_next(at(epoch, seq)).unwrap();
            state.advance(at(epoch, seq), Timestamp::default());
        }
        state
    }

    #[test]
    fn the_history_says_which_epoch_a_record_had() {
        let state = state(&[1, 1, 4, 4, 9]);
        assert_eq!(state.history, [at(1, 1), at(4, 3), at(9, 5)]);
        let found: Vec<_> = (0..7).map(|seq| state.position_at(Seq(seq))).collect();
        let known = [at(0, 0), at(1, 1), at(1, 2), at(4, 3), at(4, 4), at(9, 5)].map(Some);
        assert_eq!(found, [&known[..], &[None]].concat());
    }

    #[test]
    fn only_the_newest_epochs_are_remembered() {
        let epochs: Vec<_> = (1..=300).collect();
        let state = state(&epochs);
        assert_eq!((state.history.len(), state.history[0]), (MAX_HISTORY, at(45, 45)));
        assert_eq!(state.position_at(Seq(44)), None);
        assert_eq!(state.position_at(Seq(0)), None);
    }

    #[test]
    fn a_record_out_of_place_or_of_an_older_epoch_does_not_fit() {
        let state = state(&[1, 4]);
        assert!(state.check_next(at(3, 3)).is_err());
        assert!(state.check_next(at(4, 2)).is_err());
        assert!(state.check_next(at(4, 4)).is_err());
        state.check_next(at(5, 3)).unwrap();
    }

    #[test]
    fn a_rewind_takes_epochs_back() {
        let mut state = state(&[1, 1, 4, 4]);
        state.rewind(at(1, 2), &Missing::NOTHING);
        assert_eq!((state.position, &state.history[..]), (at(1, 2), &[at(1, 1)][..]));
        state.rewind(Position::default(), &Missing::NOTHING);
        assert!(state.history.is_empty());
        state.check_next(at(1, 1)).unwrap();
    }

    #[test]
    fn a_history_that_does_not_ascend_or_does_not_lead_there_is_noticed() {
        check_history(&[at(1, 1), at(4, 3)], at(4, 3)).unwrap();
        check_history(&[], Position::default()).unwrap();
        for (history, position) in [
            (&[at(1, 1), at(4, 3)][..], at(4, 2)),
            (&[at(1, 1), at(4, 3)], at(5, 9)),
            (&[at(4, 1), at(1, 3)], at(1, 9)),
            (&[at(1, 3), at(4, 3)], at(4, 9)),
            (&[], at(1, 1)),
        ] {
            assert!(check_history(history, position).is_err(), "{history:?} {position:?}");
        }
    }
}
