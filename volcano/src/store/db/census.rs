//! How many flares each copy has, and of how many bytes.
//!
//! Nothing of it is on disk. After a start the rows are counted in small steps, in the order of their inode numbers, while they go on
//! changing: what changes where the count has been already is counted at once. Until the count is complete the rest is reckoned to
//! be like what was counted, since inode numbers are hashes.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use magma_common::key::{Ino, KeyRange};
use magma_common::topology::SliceId;

/// What is known of every copy.
#[derive(Debug, Default)]
pub(super) struct Census(BTreeMap<SliceId, Count>);

/// What is known of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    /// The keys that it is about.
    pub(super) range: KeyRange,
    /// The lowest inode number that was not counted yet; none if all were.
    pub(super) next: Option<Ino>,
    keys: u64,
    bytes: u64,
}

impl Census {
    /// These are the copies now. One that is new, or about other keys than before, is counted from its beginning.
    pub(super) fn keep(&mut self, copies: impl Iterator<Item = (SliceId, KeyRange)> + Clone) {
        let is_known =
            |(id, range): (SliceId, KeyRange)| self.0.get(&id).is_some_and(|count| count.range == range);
        if copies.clone().count() == self.0.len() && copies.clone().all(is_known) {
            return;
        }
        let before = std::mem::take(&mut self.0);
        for (id, range) in copies {
            let new = Count { range, next: Some(range.start()), keys: 0, bytes: 0 };
            self.0.insert(id, before.get(&id).copied().filter(|count| count.range == range).unwrap_or(new));
        }
    }

    /// A copy that is not counted to the end.
    pub(super) fn unfinished(&self) -> Option<(SliceId, Count)> {
        self.0.iter().find(|(_, count)| count.next.is_some()).map(|(id, count)| (*id, *count))
    }

    /// So much more was counted, up to `next`, or all.
    pub(super) fn counted(&mut self, id: SliceId, keys: u64, bytes: u64, next: Option<Ino>) {
        if let Some(count) = self.0.get_mut(&id) {
            count.keys = count.keys.saturating_add(keys);
            count.bytes = count.bytes.saturating_add(bytes);
            count.next = next;
        }
    }

    /// A flare changes: how many bytes it had, if it was there, and has, if it is there from now on.
    pub(super) fn change(&mut self, ino: Ino, before: Option<u64>, after: Option<u64>) {
        let has_been = |count: &&mut Count| {
            count.range.contains_ino(ino) && count.next.is_none_or(|next| ino.cmp(&next) == Ordering::Less)
        };
        for count in self.0.values_mut().filter(has_been) {
            let keys = |size: Option<u64>| u64::from(size.is_some());
            count.keys = count.keys.saturating_sub(keys(before)).saturating_add(keys(after));
            let (less, more) = (before.unwrap_or(0), after.unwrap_or(0));
            count.bytes = count.bytes.saturating_sub(less).saturating_add(more);
        }
    }

    /// Flares of a copy and their bytes, reckoned as long as they are not counted; none if nothing can be said yet.
    pub(super) fn of(&self, id: SliceId) -> Option<(u64, u64)> {
        let count = self.0.get(&id)?;
        let Some(next) = count.next else { return Some((count.keys, count.bytes)) };
        let counted = KeyRange::new(count.range.start(), Ino(next.0.checked_sub(1)?))?.share();
        let whole = |number: u64| {
            #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "an estimate")]
            let whole = (number as f64 * count.range.share() / counted) as u64;
            whole
        };
        Some((whole(count.keys), whole(count.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SliceId = SliceId(3);

    fn range(start: u64, stop: u64) -> KeyRange {
        KeyRange::new(Ino(start), Ino(stop)).unwrap()
    }

    #[test]
    fn what_changes_behind_the_count_is_counted_and_what_lies_before_it_will_be() {
        let mut census = Census::default();
        census.keep([(ID, range(100, 299))].into_iter());
        assert_eq!(census.of(ID), None, "nothing is known");
        census.counted(ID, 10, 1000, Some(Ino(200)));
        assert_eq!(census.of(ID), Some((20, 2000)), "half of it was counted");
        census.change(Ino(150), Some(30), Some(130));
        census.change(Ino(151), None, Some(7));
        census.change(Ino(250), None, Some(5000));
        census.change(Ino(99), None, Some(5000));
        census.counted(ID, 3, 5010, None);
        assert_eq!(census.of(ID), Some((14, 6117)));
        census.change(Ino(250), Some(5000), None);
        assert_eq!(census.of(ID), Some((13, 1117)));
        census.keep([(ID, range(100, 299))].into_iter());
        assert_eq!(census.of(ID), Some((13, 1117)), "nothing new");
        census.keep([(ID, range(100, 199)), (SliceId(4), range(200, 299))].into_iter());
        assert_eq!((census.of(ID), census.of(SliceId(4))), (None, None), "the slice was divided");
        assert_eq!(census.unfinished().map(|(id, count)| (id, count.next)), Some((ID, Some(Ino(100)))));
        census.keep([(SliceId(4), range(200, 299))].into_iter());
        assert_eq!(census.unfinished().map(|(id, _)| id), Some(SliceId(4)), "the other one is gone");
    }
}
