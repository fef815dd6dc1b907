//! Where a slice is to be divided so that both halves have about as much to store.

use magma_common::key::{Ino, KeyRange};
use magma_common::topology::SliceId;

use super::Store;
use crate::rows::Content;
use crate::view::{ReadError, View};

/// The range is looked at in so many places, at equal distances.
const PLACES: u64 = 256;
/// Flares that are looked at there.
const FLARES: usize = 4;
/// What a flare takes besides its bytes.
const ROW_BYTES: u64 = 512;

impl Store {
    /// About the median of a slice's keys by the bytes that they take: below it lies half of what is stored. Of an empty slice the
    /// middle of its range. None if the slice is not here or has one key only.
    ///
    /// It looks at a sample; keys are hashes, so the sample is a fair one.
    pub fn median(&self, slice: SliceId) -> Result<Option<Ino>, ReadError> {
        self.readable()?;
        let Some(range) = self.range(slice).filter(|range| range.start() < range.stop()) else {
            return Ok(None);
        };
        let mut sample = Vec::new();
        for place in places(range) {
            for ino in self.db.inos(place, FLARES)? {
                sample.push((ino, self.weight(ino)?));
            }
        }
        let inside = |ino: Ino| Ino(ino.0.clamp(range.start().0 + 1, range.stop().0));
        Ok(Some(inside(middle(&sample).unwrap_or(Ino(range.start().0.midpoint(range.stop().0))))))
    }

    /// About the bytes that a flare takes.
    fn weight(&self, ino: Ino) -> Result<u64, ReadError> {
        let Some(flare) = self.db.flare_by_ino(ino)? else { return Ok(0) };
        let bytes = match flare.row.content {
            Content::Body { body, .. } => self.body_used(body)?,
            Content::Inline => 0,
        };
        Ok(bytes.saturating_add(ROW_BYTES).saturating_add(flare.row.entries.saturating_mul(ROW_BYTES / 4)))
    }
}

/// Equal parts of a range.
fn places(range: KeyRange) -> impl Iterator<Item = KeyRange> {
    let (start, width) = (range.start().0, u128::from(range.stop().0 - range.start().0) + 1);
    let parts = u128::from(PLACES).min(width);
    // below `width`, so that the sum is no greater than the last number of the range
    let bound = move |part: u128| start + u64::try_from(width * part / parts).unwrap_or(u64::MAX);
    (0..parts).filter_map(move |part| {
        let stop = if part + 1 == parts { range.stop() } else { Ino(bound(part + 1) - 1) };
        KeyRange::new(Ino(bound(part)), stop)
    })
}

/// The first of them below which lies half of the weight; the last one if that alone is heavier than all others.
fn middle(sample: &[(Ino, u64)]) -> Option<Ino> {
    let total: u64 = sample.iter().fold(0, |sum, (_, weight)| sum.saturating_add(*weight));
    let mut below = 0_u64;
    for (ino, weight) in sample {
        if below >= total / 2 && below > 0 {
            return Some(*ino);
        }
        below = below.saturating_add(*weight);
    }
    sample.last().map(|(ino, _)| *ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_where_half_of_the_weight_lies_below() {
        let sample = |weights: &[u64]| (0..).map(Ino).zip(weights.iter().copied()).collect::<Vec<_>>();
        assert_eq!(middle(&sample(&[1, 1, 1, 1])), Some(Ino(2)));
        assert_eq!(middle(&sample(&[9, 1, 1])), Some(Ino(1)));
        assert_eq!(middle(&sample(&[1, 1, 9])), Some(Ino(2)));
        assert_eq!(middle(&[]), None);
    }

    #[test]
    fn the_places_cover_the_range() {
        for range in [KeyRange::ALL, KeyRange::new(Ino(5), Ino(9)).unwrap(), KeyRange::single(Ino(u64::MAX))]
        {
            let places: Vec<_> = places(range).collect();
            assert_eq!(places.first().unwrap().start(), range.start());
            assert_eq!(places.last().unwrap().stop(), range.stop());
            assert!(places.is_sorted_by(|a, b| a.stop().0 + 1 == b.start().0));
        }
    }
}
