//! Which keys a copy of a slice lacks while it catches up.

use magma_common::key::{Ino, KeyRange};
use serde::{Deserialize, Serialize};

/// Most ranges that are told apart; beyond that, close ones are counted as one.
const MAX_RANGES: usize = 4096;

/// A set of inode numbers, as ascending ranges that do not touch each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing(Vec<KeyRange>);

impl Missing {
    /// Nothing is missing.
    pub const NOTHING: Self = Self(Vec::new());

    /// Everything in this range is missing.
    pub fn all(range: KeyRange) -> Self {
        Self(vec![range])
    }

    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this inode number is among the missing.
    pub fn contains(&self, ino: Ino) -> bool {
        let at = self.0.partition_point(|range| range.stop() < ino);
        self.0.get(at).is_some_and(|range| range.contains_ino(ino))
    }

    /// What is missing of a range, ascending.
    pub fn within(&self, range: KeyRange) -> impl Iterator<Item = KeyRange> {
        let from = self.0.partition_point(|missing| missing.stop() < range.start());
        let common = move |missing: &KeyRange| {
            KeyRange::new(missing.start().max(range.start()), missing.stop().min(range.stop()))
        };
        self.0.iter().skip(from).map_while(common)
    }

    /// The missing ranges, ascending.
    pub fn ranges(&self) -> &[KeyRange] {
        &self.0
    }

    /// Adds a range.
    pub fn insert(&mut self, added: KeyRange) {
        let (mut start, mut stop) = (added.start(), added.stop());
        let touches = |range: &KeyRange, start: Ino, stop: Ino| {
            range.start().0 <= stop.0.saturating_add(1) && start.0 <= range.stop().0.saturating_add(1)
        };
        self.0.retain(|range| {
            let joined = touches(range, start, stop);
            if joined {
                start = start.min(range.start());
                stop = stop.max(range.stop());
            }
            !joined
        });
        let at = self.0.partition_point(|range| range.stop() < start);
        self.0.splice(at..at, KeyRange::new(start, stop));
        if self.0.len() > MAX_RANGES {
            self.close_a_gap();
        }
    }

    /// Takes a range out.
    pub fn remove(&mut self, got: KeyRange) {
        let cut = |range: KeyRange| {
            let before = got
                .start()
                .0
                .checked_sub(1)
                .and_then(|stop| KeyRange::new(range.start(), Ino(stop).min(range.stop())));
            let after = got
                .stop()
                .0
                .checked_add(1)
                .and_then(|start| KeyRange::new(Ino(start).max(range.start()), range.stop()));
            [before, after].into_iter().flatten()
        };
        self.0 = std::mem::take(&mut self.0).into_iter().flat_map(cut).collect();
    }

    /// Takes out what is missing of a range; what that is.
    #[must_use]
    pub fn take_within(&mut self, range: KeyRange) -> Self {
        let taken = Self(self.within(range).collect());
        self.remove(range);
        taken
    }

    /// Counts what lies between the two ranges that are closest to each other as missing, too.
    fn close_a_gap(&mut self) {
        let gap = |pair: &[KeyRange]| match pair {
            [left, right] => right.start().0 - left.stop().0,
            _ => u64::MAX,
        };
        let closest = self.0.windows(2).enumerate().min_by_key(|(_, pair)| gap(pair)).map(|(at, _)| at);
        let Some(at) = closest else { return };
        let pair: Vec<_> = self.0.splice(at..at + 2, []).collect();
        if let [left, right] = pair.as_slice() {
            self.0.splice(at..at, KeyRange::new(left.start(), right.stop()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    fn range(start: u64, stop: u64) -> KeyRange {
        KeyRange::new(Ino(start), Ino(stop)).unwrap()
    }

    proptest! {
        #[test]
        fn it_is_the_set_that_was_put_in_and_taken_out(
            steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..10), 0..40)
        ) {
            let (mut missing, mut expected) = (Missing::NOTHING, BTreeSet::new());
            for (insert, start, length) in steps {
                let numbers = start..=start + length;
                if insert {
                    missing.insert(range(start, start + length));
                    expected.extend(numbers);
                } else {
                    missing.remove(range(start, start + length));
                    expected.retain(|number| !numbers.contains(number));
                }
                for number in 0..80 {
                    prop_assert_eq!(missing.contains(Ino(number)), expected.contains(&number));
                    let within = missing.within(range(number, number + length));
                    let found: Vec<_> = within.flat_map(|range| range.start().0..=range.stop().0).collect();
                    let some = expected.range(number..=number + length).copied();
                    prop_assert_eq!(found, some.collect::<Vec<_>>());
                }
                prop_assert!(missing.ranges().is_sorted_by(|a, b| a.stop().0 + 1 < b.start().0));
            }
        }
    }

    #[test]
    fn the_ends_of_the_keyspace_are_like_other_keys() {
        let mut missing = Missing::all(KeyRange::ALL);
        missing.remove(range(0, 0));
        missing.remove(range(u64::MAX, u64::MAX));
        assert_eq!(missing.ranges(), [range(1, u64::MAX - 1)]);
        missing.insert(range(u64::MAX, u64::MAX));
        missing.insert(range(0, 0));
        assert_eq!(missing, Missing::all(KeyRange::ALL));
        missing.remove(KeyRange::ALL);
        assert!(missing.is_empty());
    }

    #[test]
    fn too_many_ranges_become_fewer_and_cover_no_less() {
        let mut missing = Missing::NOTHING;
        for number in 0..MAX_RANGES as u64 + 100 {
            missing.insert(range(number * 10, number * 10));
        }
        assert_eq!(missing.ranges().len(), MAX_RANGES);
        assert!((0..MAX_RANGES as u64 + 100).all(|number| missing.contains(Ino(number * 10))));
    }
}
