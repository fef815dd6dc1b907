//! Where the histories of two copies part.

use magma_common::topology::{Position, Seq};

/// The history of a copy: the first record of each epoch, ascending, and the last record.
#[derive(Clone, Copy, Debug)]
pub(super) struct History<'a> {
    pub(super) epochs: &'a [Position],
    pub(super) last: Position,
}

impl History<'_> {
    /// The record `seq` as this history has it; none beyond its ends.
    pub(super) fn at(&self, seq: Seq) -> Option<Position> {
        if seq > self.last.seq {
            return None;
        }
        let begun = self.epochs.iter().rev().find(|first| first.seq <= seq)?;
        Some(Position { epoch: begun.epoch, seq })
    }

    /// The last record that both have. A record's name is given once, and whoever has a record has its predecessors, too: so
    /// it is the last place at which both name the same epoch. None if they share nothing that both still know of.
    pub(super) fn common(&self, other: &History<'_>) -> Option<Position> {
        let highest = self.last.seq.min(other.last.seq);
        // Between two beginnings of epochs, in either history, the answer is the same: look at the upper end of each stretch.
        let mut ends: Vec<Seq> = [highest]
            .into_iter()
            .chain(self.epochs.iter().chain(other.epochs).map(|first| Seq(first.seq.0.saturating_sub(1))))
            .filter(|seq| *seq <= highest)
            .collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.into_iter().find_map(|seq| self.at(seq).filter(|position| other.at(seq) == Some(*position)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::topology::Epoch;
    use proptest::prelude::*;

    /// A history as a list of epochs, one for each record.
    fn from_list(list: &[u64]) -> (Vec<Position>, Position) {
        let name = |(at, epoch): (usize, &u64)| Position { epoch: Epoch(*epoch), seq: Seq(at as u64 + 1) };
        let all: Vec<Position> = list.iter().enumerate().map(name).collect();
        let mut epochs = all.clone();
        epochs.dedup_by_key(|position| position.epoch);
        (epochs, all.last().copied().unwrap_or_default())
    }

    proptest! {
        #[test]
        fn the_last_common_record_is_found(
            shared in proptest::collection::vec(1u64..4, 0..12),
            mut ours in proptest::collection::vec(5u64..7, 0..6),
            mut theirs in proptest::collection::vec(7u64..9, 0..6),
            cut in 0usize..12,
        ) {
            let mut shared = shared;
            shared.sort_unstable();
            ours.sort_unstable();
            theirs.sort_unstable();
            let ours: Vec<u64> = shared.iter().copied().chain(ours).collect();
            // the other may also have lost some of what was shared
            let kept = &shared[..shared.len().min(cut)];
            let theirs: Vec<u64> =
                if kept.len() < shared.len() { kept.to_vec() } else { kept.iter().copied().chain(theirs).collect() };
            let expected = (0..ours.len().min(theirs.len())).take_while(|&at| ours[at] == theirs[at]).count();
            let ((our_epochs, our_last), (their_epochs, their_last)) = (from_list(&ours), from_list(&theirs));
            let our = History { epochs: &our_epochs, last: our_last };
            let their = History { epochs: &their_epochs, last: their_last };
            let common = our.common(&their).map_or(0, |position| position.seq.0);
            prop_assert_eq!(common, expected as u64);
            prop_assert_eq!(their.common(&our), our.common(&their));
        }
    }
}
