//! What is to be written over a body's file but may not be yet, because its record is not on disk.

use std::collections::BTreeMap;

use super::super::log::Lsn;
use bytes::Bytes;

/// Bytes, or a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// These bytes.
    Data(Bytes),
    /// Zeros.
    Hole,
}

#[derive(Clone, Debug)]
struct Laid {
    end: u64,
    lsn: Lsn,
    piece: Piece,
}

impl Laid {
    /// The part of this from `start` (where it lies now) to `at`, and the part behind.
    fn split(self, start: u64, at: u64) -> (Self, Self) {
        let (head, tail) = match self.piece {
            Piece::Hole => (Piece::Hole, Piece::Hole),
            Piece::Data(mut bytes) => {
                let tail =
                    bytes.split_off(usize::try_from(at - start).unwrap_or(usize::MAX).min(bytes.len()));
                (Piece::Data(bytes), Piece::Data(tail))
            }
        };
        (Self { end: at, lsn: self.lsn, piece: head }, Self { end: self.end, lsn: self.lsn, piece: tail })
    }
}

/// Pieces that lie over a body, by their first byte; they do not overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay {
    pieces: BTreeMap<u64, Laid>,
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Lays a piece over everything that is there.
    pub(super) fn put(&mut self, start: u64, end: u64, piece: Piece, lsn: Lsn) {
        if start >= end {
            return;
        }
        self.split_at(start);
        self.split_at(end);
        let covered: Vec<_> = self.pieces.range(start..end).map(|(&at, _)| at).collect();
        for at in covered {
            self.pieces.remove(&at);
        }
        self.pieces.insert(start, Laid { end, lsn, piece });
    }

    fn split_at(&mut self, at: u64) {
        let Some((&start, laid)) = self.pieces.range(..at).next_back() else { return };
        if laid.end <= at {
            return;
        }
        if let Some(whole) = self.pieces.remove(&start) {
            let (head, tail) = whole.split(start, at);
            self.pieces.insert(start, head);
            self.pieces.insert(at, tail);
        }
    }

    /// Forgets what came with records up to `through`: it is in the file.
    pub(super) fn settle(&mut self, through: Lsn) {
        self.pieces.retain(|_, laid| laid.lsn > through);
    }

    /// The pieces that touch a range, cut to it.
    pub(super) fn cut(&self, start: u64, end: u64) -> Vec<(u64, u64, Piece)> {
        let from = self.pieces.range(..start).next_back().map_or(start, |(&at, _)| at);
        let mut cut = Vec::new();
        for (&at, laid) in self.pieces.range(from..end) {
            let (low, high) = (at.max(start), laid.end.min(end));
            if low < high {
                let (_, tail) = laid.clone().split(at, low);
                cut.push((low, high, tail.split(low, high).0.piece));
            }
        }
        cut
    }

    /// What lies at an offset: `Ok` the piece's end and whether it is data, or `Err` where the next piece starts.
    pub(super) fn at(&self, offset: u64) -> Result<(u64, bool), Option<u64>> {
        match self.pieces.range(..=offset).next_back() {
            Some((_, laid)) if laid.end > offset => Ok((laid.end, matches!(laid.piece, Piece::Data(_)))),
            _ => Err(self.pieces.range(offset..).next().map(|(&at, _)| at)),
        }
    }
}

/// Lays pieces over bytes read from `offset` on.
pub(super) fn lay(pieces: &[(u64, u64, Piece)], offset: u64, buffer: &mut [u8]) {
    for (start, end, piece) in pieces {
        let index =
            |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let (low, high) = (index(*start), index(*end));
        let Some(target) = buffer.get_mut(low..high) else { continue };
        match piece {
            Piece::Hole => target.fill(0),
            Piece::Data(bytes) => target.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn reading(overlay: &Overlay, base: &[u8]) -> Vec<u8> {
        let mut bytes = base.to_vec();
        lay(&overlay.cut(0, base.len() as u64), 0, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn pieces_read_like_writes_in_their_order(
            puts in proptest::collection::vec((0u64..64, 0u64..32, any::<Option<u8>>()), 0..40),
            settled in 0u64..40,
        ) {
            let mut overlay = Overlay::default();
            let mut expected = vec![9; 96];
            let mut file = vec![9; 96];
            for (lsn, (start, length, fill)) in (1..).zip(puts) {
                let range = start as usize..(start + length) as usize;
                let piece = fill.map_or(Piece::Hole, |fill| Piece::Data(vec![fill; length as usize].into()));
                overlay.put(start, start + length, piece, Lsn(lsn));
                expected[range.clone()].fill(fill.unwrap_or(0));
                if lsn <= settled {
                    file[range].fill(fill.unwrap_or(0));
                }
            }
            prop_assert_eq!(reading(&overlay, &[9; 96]), expected.clone());
            // writing the first records to the file and forgetting them changes nothing that is read
            overlay.settle(Lsn(settled));
            prop_assert_eq!(reading(&overlay, &file), expected);
        }

        #[test]
        fn a_cut_holds_exactly_the_range(low in 0u64..100, length in 1u64..100) {
            let mut overlay = Overlay::default();
            overlay.put(10, 50, Piece::Data(Bytes::from_static(&[1; 40])), Lsn(1));
            overlay.put(30, 40, Piece::Hole, Lsn(2));
            for (start, end, piece) in overlay.cut(low, low + length) {
                prop_assert!(low <= start && start < end && end <= low + length);
                if let Piece::Data(bytes) = piece {
                    prop_assert_eq!(bytes.len() as u64, end - start);
                }
            }
        }
    }

    #[test]
    fn the_next_piece_is_found() {
        let mut overlay = Overlay::default();
        overlay.put(10, 20, Piece::Hole, Lsn(1));
        assert_eq!(overlay.at(0), Err(Some(10)));
        assert_eq!(overlay.at(10), Ok((20, false)));
        assert_eq!(overlay.at(20), Err(None));
    }
}
