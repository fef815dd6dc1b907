//! Notices that a peer has vanished while something is expected of it.
//!
//! Time is counted in *looks*, which the caller takes at a steady pace: one that was kept from looking for a while, because
//! its process or machine stood still, has not been listening either, and blames nobody for it.

use std::time::Duration;

/// The pace.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// After so many looks in silence the peer is given something to acknowledge.
const PROBE_AFTER: u32 = 2;
/// After so many looks in silence it is gone.
const GONE_AFTER: u32 = 5;

/// What a look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// The peer lives, or has not been silent for long.
    Alive,
    /// It should be asked for a sign of life.
    Probe,
    /// It has been silent for too long.
    Gone,
}

/// How long a peer has been silent.
#[derive(Debug)]
pub(super) struct Silence {
    heard: u64,
    looks: u32,
}

impl Silence {
    /// Begins to listen. `heard` counts what the peer has heard so far, as it has shown.
    pub(super) fn new(heard: u64) -> Self {
        Self { heard, looks: 0 }
    }

    /// To be called once per [`LOOK`].
    pub(super) fn look(&mut self, heard: u64) -> Sign {
        if heard != self.heard {
            *self = Self::new(heard);
            return Sign::Alive;
        }
        self.looks += 1;
        match self.looks {
            PROBE_AFTER => Sign::Probe,
            looks if looks >= GONE_AFTER => Sign::Gone,
            _ => Sign::Alive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_probed_and_then_gone() {
        let mut silence = Silence::new(7);
        let signs: Vec<_> = (0..5).map(|_| silence.look(7)).collect();
        assert_eq!(signs, [Sign::Alive, Sign::Probe, Sign::Alive, Sign::Alive, Sign::Gone]);
    }

    #[test]
    fn an_acknowledged_probe_begins_the_count_anew() {
        let mut silence = Silence::new(7);
        assert_eq!([silence.look(7), silence.look(7)], [Sign::Alive, Sign::Probe]);
        assert_eq!(silence.look(8), Sign::Alive);
        let signs: Vec<_> = (0..4).map(|_| silence.look(8)).collect();
        assert_eq!(signs, [Sign::Alive, Sign::Probe, Sign::Alive, Sign::Alive]);
    }
}
