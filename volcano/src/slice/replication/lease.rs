//! The lease between the copies of a slice (`PacificA`'s, Microsoft Research TR-2008-25, §2.2).
//!
//! The primary may answer only while each copy that counts has answered a beacon sent less than [`LEASE`] ago, by the
//! primary's clock. A mirror that answers a beacon promises not to become primary for [`PROMISE`] from then, by its own
//! clock. Two clocks may differ in rate by 22 % (two that NTP corrects, apart from each other), so the promise outlives
//! the lease whichever of the two is the slower.
//!
//! A primary that hears nobody, but is heard, would be promised again and again what is of no use to it. So it asks a mirror
//! that it has not heard for [`DEAF`] for an answer, but for no promise ([`NO_PROMISE`]); with the first answer it does again.
//! When it knows that it hears nobody at all, it releases the mirrors from what they have promised ([`Beacons::void`]): the others
//! need not wait for the end of a lease that it cannot use.

use std::collections::VecDeque;
use std::time::Duration;

/// How long an answered beacon lets the primary answer, counted from when it was sent.
pub const LEASE: Duration = Duration::from_secs(2);
/// How long a mirror that has answered a beacon does not become primary: 1.25 times [`LEASE`].
pub const PROMISE: Duration = Duration::from_millis(2500);
/// Beacons are sent this often when nothing else is.
pub const BEACON_INTERVAL: Duration = Duration::from_millis(400);

/// A mirror that was not heard for so long is asked for no promise. Together with [`PROMISE`] this is longer than it takes the
/// primary to have a silent mirror taken out: a mirror that is alone in being silent does not get ahead of that.
pub(super) const DEAF: Duration = Duration::from_secs(1);
/// The number of every beacon that asks for no promise; no other has it.
pub(super) const NO_PROMISE: u64 = 0;

/// Moments that are remembered; beacons sent before them count as not sent.
const REMEMBERED: usize = 4096;
/// Beacons that are sent within this time count as sent at its beginning.
const MOMENT: Duration = Duration::from_millis(1);

/// When each beacon was sent.
#[derive(Debug, Default)]
pub(super) struct Beacons {
    newest: u64,
    /// The first beacon of each moment, and when it was sent.
    sent: VecDeque<(u64, Duration)>,
}

impl Beacons {
    /// The number for a message that is sent now: no two messages have the same.
    pub(super) fn send(&mut self, now: Duration) -> u64 {
        self.newest += 1;
        if self.sent.back().is_none_or(|(_, begun)| now.saturating_sub(*begun) >= MOMENT) {
            self.sent.push_back((self.newest, now));
        }
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        self.newest
    }

    /// Makes all beacons sent so far void: their answers give no lease. The number of the newest of them.
    pub(super) fn void(&mut self) -> u64 {
        self.sent.clear();
        self.newest
    }

    /// When the beacon of this number was sent, or a little earlier, if that is remembered.
    pub(super) fn sent_at(&self, number: u64) -> Option<Duration> {
        let after = self.sent.partition_point(|(first, _)| *first <= number);
        let begun = self.sent.get(after.checked_sub(1)?).filter(|_| number <= self.newest);
        begun.map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beacon_counts_from_when_it_was_sent() {
        let mut beacons = Beacons::default();
        let early = beacons.send(Duration::from_secs(1));
        let same = beacons.send(Duration::from_secs(1));
        assert_eq!(beacons.sent_at(same), Some(Duration::from_secs(1)));
        let late = beacons.send(Duration::from_secs(2));
        assert_eq!(beacons.sent_at(early), Some(Duration::from_secs(1)));
        assert_eq!(beacons.sent_at(late), Some(Duration::from_secs(2)));
        assert_eq!(beacons.sent_at(late + 1), None, "nobody sent that");
    }

    #[test]
    fn beacons_of_long_ago_are_forgotten() {
        let mut beacons = Beacons::default();
        let first = beacons.send(Duration::ZERO);
        for second in 1..=REMEMBERED as u64 {
            beacons.send(Duration::from_secs(second));
        }
        assert_eq!(beacons.sent_at(first), None);
        assert!(beacons.sent_at(first + 1).is_some());
    }

    #[test]
    fn answers_to_void_beacons_count_for_nothing() {
        let mut beacons = Beacons::default();
        let void = beacons.send(Duration::from_secs(1));
        assert_eq!(beacons.void(), void);
        assert_eq!(beacons.sent_at(void), None);
        let next = beacons.send(Duration::from_secs(2));
        assert_eq!((beacons.sent_at(void), beacons.sent_at(next)), (None, Some(Duration::from_secs(2))));
    }

    #[test]
    fn the_promise_outlives_the_lease_with_the_clocks_apart() {
        assert!(PROMISE.as_secs_f64() >= LEASE.as_secs_f64() * 1.1 / 0.9);
    }
}
