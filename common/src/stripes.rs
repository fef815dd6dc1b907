//! How the bytes of a striped file are spread over flares.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many bytes of a striped file are in one flare: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct StripeUnit(u8);

/// A number of bytes that cannot be a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a unit is a power of two from 64 KiB to 64 GiB")]
pub struct NoUnit;

/// The part of a range that lies in one flare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripePart {
    /// Which stripe; 0 is the head.
    pub number: u64,
    /// Its first byte, counted from the beginning of the stripe.
    pub offset: u64,
    /// Its first byte, counted from the beginning of the range.
    pub at: u64,
    /// Number of bytes, not 0.
    pub length: u64,
}

impl StripeUnit {
    /// The smallest unit: 64 KiB.
    pub const SMALLEST: Self = Self(Self::MIN_LOG2);
    /// The smallest unit's logarithm.
    pub const MIN_LOG2: u8 = 16;
    /// The largest one's.
    pub const MAX_LOG2: u8 = 36;

    /// The unit of so many bytes.
    pub fn new(bytes: u64) -> Result<Self, NoUnit> {
        if !bytes.is_power_of_two() {
            return Err(NoUnit);
        }
        u8::try_from(bytes.trailing_zeros()).map_err(|_| NoUnit)?.try_into()
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.0
    }

    /// The stripe in which this byte of the file lies; 0 is the head.
    pub const fn stripe_of(self, offset: u64) -> u64 {
        offset >> self.0
    }

    /// The lowest stripe that has no bytes of a file of this size. The head has the first unit of every file, so it is never 0.
    pub const fn first_beyond(self, size: u64) -> u64 {
        let number = size.div_ceil(self.bytes());
        if number == 0 { 1 } else { number }
    }

    /// The parts of a range, in their order. What lies beyond the last possible offset is none.
    pub fn parts(self, offset: u64, length: u64) -> impl Iterator<Item = StripePart> {
        let end = offset.saturating_add(length);
        let mut from = offset;
        std::iter::from_fn(move || {
            if from >= end {
                return None;
            }
            let number = self.stripe_of(from);
            let start = number << self.0;
            let stop = start.saturating_add(self.bytes()).min(end);
            let part = StripePart { number, offset: from - start, at: from - offset, length: stop - from };
            from = stop;
            Some(part)
        })
    }
}

impl TryFrom<u8> for StripeUnit {
    type Error = NoUnit;

    fn try_from(log2: u8) -> Result<Self, NoUnit> {
        if (Self::MIN_LOG2..=Self::MAX_LOG2).contains(&log2) { Ok(Self(log2)) } else { Err(NoUnit) }
    }
}

impl From<StripeUnit> for u8 {
    fn from(unit: StripeUnit) -> Self {
        unit.0
    }
}

impl fmt::Display for StripeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            log2 @ ..20 => write!(f, "{}K", 1_u64 << (log2 - 10)),
            log2 @ 20..30 => write!(f, "{}M", 1_u64 << (log2 - 20)),
            log2 => write!(f, "{}G", 1_u64 << (log2 - 30)),
        }
    }
}

impl std::str::FromStr for StripeUnit {
    type Err = NoUnit;

    /// A number with K, M or G behind it.
    fn from_str(text: &str) -> Result<Self, NoUnit> {
        let (digits, shift) = match text.char_indices().last() {
            Some((at, 'K' | 'k')) => (text.get(..at), 10),
            Some((at, 'M' | 'm')) => (text.get(..at), 20),
            Some((at, 'G' | 'g')) => (text.get(..at), 30),
            _ => return Err(NoUnit),
        };
        let digits =
            digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())).ok_or(NoUnit)?;
        let number: u64 = digits.parse().map_err(|_| NoUnit)?;
        Self::new(number.checked_mul(1 << shift).ok_or(NoUnit)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const UNIT: StripeUnit = StripeUnit(16);

    #[test]
    fn a_range_is_cut_at_multiples_of_the_unit() {
        let part = |number, offset, at, length| StripePart { number, offset, at, length };
        let parts: Vec<_> = UNIT.parts(65_000, 66_108).collect();
        assert_eq!(parts, [part(0, 65_000, 0, 536), part(1, 0, 536, 65_536), part(2, 0, 66_072, 36)]);
        assert_eq!(UNIT.parts(7, 0).count(), 0);
        assert_eq!(UNIT.parts(u64::MAX - 1, 100).map(|part| part.length).sum::<u64>(), 1);
    }

    #[test]
    fn the_head_belongs_to_every_file() {
        let beyond = [0, 1, 65_536, 65_537, 131_072].map(|size| UNIT.first_beyond(size));
        assert_eq!(beyond, [1, 1, 1, 2, 2]);
    }

    #[test]
    fn units_are_read_as_they_are_shown() {
        for log2 in StripeUnit::MIN_LOG2..=StripeUnit::MAX_LOG2 {
            let unit = StripeUnit::try_from(log2).unwrap();
            assert_eq!(unit.to_string().parse(), Ok(unit));
        }
        assert_eq!("256M".parse(), StripeUnit::new(256 << 20));
        for text in ["", "M", "32K", "96K", "-1M", "+1M", "128G", "1048576", "99999999999999999999G", "ü"] {
            assert_eq!(text.parse::<StripeUnit>(), Err(NoUnit), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parts_cover_a_range_once(offset in 0_u64..1 << 40, length in 0_u64..1 << 21, log2 in 16_u8..24) {
            let unit = StripeUnit::try_from(log2).unwrap();
            let mut reached = 0;
            for part in unit.parts(offset, length) {
                prop_assert_eq!(part.at, reached);
                prop_assert_eq!(part.number * unit.bytes() + part.offset, offset + part.at);
                prop_assert!(part.length > 0 && part.offset + part.length <= unit.bytes());
                reached += part.length;
            }
            prop_assert_eq!(reached, length);
        }

        #[test]
        fn only_units_are_decoded(log2: u8) {
            let known = (16..=36).contains(&log2);
            prop_assert_eq!(postcard::from_bytes::<StripeUnit>(&[log2]).is_ok(), known);
        }
    }
}
