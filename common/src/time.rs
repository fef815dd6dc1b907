//! Points in time as files carry them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Seconds and nanoseconds since 1970-01-01 00:00:00 UTC; before that, `seconds` is negative and `nanos` still counts forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    const NANOS_PER_SECOND: u32 = 1_000_000_000;

    /// `None` unless `nanos` is below 10^9.
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        (nanos < Self::NANOS_PER_SECOND).then_some(Self { seconds, nanos })
    }

    /// Whole seconds since 1970, rounded towards the past.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    pub const fn nanos(self) -> u32 {
        self.nanos
    }

    /// The next representable point in time.
    #[must_use]
    pub fn next(self) -> Self {
        if self.nanos + 1 == Self::NANOS_PER_SECOND {
            Self { seconds: self.seconds.saturating_add(1), nanos: 0 }
        } else {
            Self { nanos: self.nanos + 1, ..self }
        }
    }

    /// What the system's real-time clock shows.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// How long `self` lies after `earlier`; zero if it does not.
    pub fn since(self, earlier: Self) -> Duration {
        let nanos =
            |t: Self| i128::from(t.seconds) * i128::from(Self::NANOS_PER_SECOND) + i128::from(t.nanos);
        let between = (nanos(self) - nanos(earlier)).max(0);
        Duration::from_nanos(u64::try_from(between).unwrap_or(u64::MAX))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self { seconds: -seconds, nanos: 0 },
                    nanos => Self { seconds: -seconds - 1, nanos: Self::NANOS_PER_SECOND - nanos },
                }
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let nanos = Duration::from_nanos(u64::from(time.nanos));
        let whole = Duration::from_secs(time.seconds.unsigned_abs());
        let base =
            if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_round_trip() {
        let half_second_before = UNIX_EPOCH - Duration::from_millis(500);
        let time = Timestamp::from(half_second_before);
        assert_eq!((time.seconds(), time.nanos()), (-1, 500_000_000));
        assert_eq!(SystemTime::from(time), half_second_before);
    }

    #[test]
    fn next_carries_into_the_second() {
        let last = Timestamp::new(5, 999_999_999).unwrap();
        assert_eq!(last.next(), Timestamp::new(6, 0).unwrap());
        assert_eq!(last.next().since(last), Duration::from_nanos(1));
    }
}
