//! Bytes of bodies that a power cut may have taken although the log has the records that appended them.

use std::collections::BTreeMap;

use magma_common::handle::Handle;
use magma_common::key::KeyRange;
use serde::{Deserialize, Serialize};

use crate::missing::Missing;
use crate::rows::BodyId;

/// Ranges of one body that are told apart; beyond that they are counted as one.
const MAX_RANGES: usize = 256;

/// Ranges of bodies whose bytes may not be what their records say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubts(BTreeMap<BodyId, Doubt>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Doubt {
    flare: Handle,
    /// First byte and the one after the last, ascending as they were appended.
    ranges: Vec<(u64, u64)>,
}

impl Doubts {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a range.
    pub fn note(&mut self, flare: Handle, body: BodyId, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        let doubt = self.0.entry(body).or_insert_with(|| Doubt { flare, ranges: Vec::new() });
        match doubt.ranges.last_mut() {
            Some((_, last)) if *last == offset => *last = end,
            _ => doubt.ranges.push((offset, end)),
        }
        if doubt.ranges.len() > MAX_RANGES {
            let start = doubt.ranges.iter().map(|(start, _)| *start).min().unwrap_or(offset);
            let end = doubt.ranges.iter().map(|(_, end)| *end).max().unwrap_or(end);
            doubt.ranges = vec![(start, end)];
        }
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: Self) {
        for (body, doubt) in other.0 {
            for (start, end) in doubt.ranges {
                self.note(doubt.flare, body, start, end - start);
            }
        }
    }

    /// Takes those about these keys.
    #[must_use]
    pub fn take_within(&mut self, range: KeyRange) -> Self {
        let (within, beyond) =
            std::mem::take(&mut self.0).into_iter().partition(|(_, doubt)| range.contains(&doubt.flare.key));
        self.0 = beyond;
        Self(within)
    }

    /// The flares that are concerned, by their inode numbers.
    pub fn flares(&self) -> Missing {
        let mut flares = Missing::NOTHING;
        self.0.values().for_each(|doubt| flares.insert(KeyRange::single(doubt.flare.ino())));
        flares
    }

    /// The ranges: flare, body, first byte and the one after the last.
    pub fn ranges(&self) -> impl Iterator<Item = (Handle, BodyId, u64, u64)> {
        let of_body = |(body, doubt): (&BodyId, &Doubt)| {
            let (body, flare) = (*body, doubt.flare);
            doubt.ranges.clone().into_iter().map(move |(start, end)| (flare, body, start, end))
        };
        self.0.iter().flat_map(of_body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::handle::BirthNumber;
    use magma_common::key::{Ino, Key};

    fn flare() -> Handle {
        Handle {
            key: Key::from_bytes([0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            birth: BirthNumber(1),
        }
    }

    #[test]
    fn appends_that_follow_each_other_are_one_range() {
        let mut doubts = Doubts::default();
        doubts.note(flare(), BodyId(1), 0, 10);
        doubts.note(flare(), BodyId(1), 10, 5);
        doubts.note(flare(), BodyId(1), 20, 5);
        let ranges: Vec<_> = doubts.ranges().map(|(_, _, start, end)| (start, end)).collect();
        assert_eq!(ranges, [(0, 15), (20, 25)]);
        assert_eq!(doubts.flares(), Missing::all(KeyRange::single(Ino(7))));
    }

    #[test]
    fn doubts_about_some_keys_can_be_taken_out() {
        let other = Handle { key: Key::from_bytes([9; 20]), birth: BirthNumber(2) };
        let mut doubts = Doubts::default();
        doubts.note(flare(), BodyId(1), 0, 10);
        doubts.note(other, BodyId(2), 5, 5);
        let taken = doubts.take_within(KeyRange::single(other.ino()));
        assert!(taken.ranges().eq([(other, BodyId(2), 5, 10)]));
        assert!(doubts.ranges().eq([(flare(), BodyId(1), 0, 10)]));
    }

    #[test]
    fn many_ranges_become_one_that_covers_them() {
        let mut doubts = Doubts::default();
        (0..=MAX_RANGES as u64).for_each(|at| doubts.note(flare(), BodyId(1), at * 10, 5));
        let ranges: Vec<_> = doubts.ranges().map(|(_, _, start, end)| (start, end)).collect();
        assert_eq!(ranges, [(0, MAX_RANGES as u64 * 10 + 5)]);
    }
}
