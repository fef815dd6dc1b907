//! Repeatable randomness: every suite prints its seed.

/// `SplitMix64` (Steele, Lea, Flood 2014): enough to choose moments and contents.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A sequence that the seed fixes.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when there is none.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// That many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// The random sequence of a suite; prints its seed so that a run can be repeated.
pub(crate) fn announced() -> Random {
    let seed = seed();
    println!("  seed {seed} (MAGMA_SEED={seed} repeats it)");
    Random::seeded(seed)
}

/// A seed from the clock, or the one that `MAGMA_SEED` gives to repeat a run.
fn seed() -> u64 {
    std::env::var("MAGMA_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_secs() ^ u64::from(since.subsec_nanos()))
    })
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_seed_gives_the_same_sequence_again() {
        let (mut a, mut b) = (Random::seeded(7), Random::seeded(7));
        assert_eq!(a.bytes(33), b.bytes(33));
        assert_ne!(a.next(), Random::seeded(8).next());
        assert_eq!(a.below(0), 0);
        assert!(a.below(10) < 10);
    }
}
