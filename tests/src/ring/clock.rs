//! Simulated time, and the clocks of volcanos, none of which shows it.

use std::time::Duration;

use magma_common::time::Timestamp;
use magma_volcano::slice::Now;

use super::dice::Dice;

/// Simulated time since the beginning, in nanoseconds.
pub type Time = u64;

/// A microsecond.
pub const MICROSECOND: Time = 1_000;
/// A millisecond.
pub const MILLISECOND: Time = 1_000_000;
/// A second.
pub const SECOND: Time = 1_000_000_000;

/// What a clock's rate is measured in: so many ticks of it are a tick of simulated time.
const EVEN: u64 = 1_000_000;
/// Where wall clocks begin, in seconds since 1970.
const BEGINNING: i64 = 1_750_000_000;

/// The clocks of one machine.
#[derive(Debug)]
pub struct Clock {
    /// Parts per million of simulated time.
    rate: u64,
    /// At this simulated time ...
    since: Time,
    /// ... the monotonic clock showed this.
    shown: u64,
    /// The wall clock is ahead of the monotonic one by this, in nanoseconds.
    ahead: i128,
}

impl Clock {
    /// The clocks of a machine that was started some time ago.
    pub fn new(dice: &mut Dice) -> Self {
        let mut clock = Self { rate: EVEN, since: 0, shown: dice.below(100_000 * SECOND), ahead: 0 };
        clock.ahead = i128::from(BEGINNING) * i128::from(SECOND) - i128::from(clock.shown);
        clock.ahead += i128::from(dice.below(4 * SECOND)) - i128::from(2 * SECOND);
        clock.drift(0, dice);
        clock
    }

    fn monotonic(&self, now: Time) -> u64 {
        let passed = u128::from(now.saturating_sub(self.since)) * u128::from(self.rate) / u128::from(EVEN);
        self.shown + u64::try_from(passed).expect("simulations are short")
    }

    /// From now on the clock runs at another rate, 0.9 to 1.1.
    pub fn drift(&mut self, now: Time, dice: &mut Dice) {
        self.shown = self.monotonic(now);
        self.since = now;
        self.rate = *dice.pick(&[900_000, 950_000, 999_900, EVEN, EVEN, 1_000_100, 1_050_000, 1_100_000]);
    }

    /// Somebody sets the wall clock.
    pub fn jump(&mut self, dice: &mut Dice) {
        let by = i128::from(dice.magnitude(MILLISECOND, 7200 * SECOND));
        self.ahead += if dice.one_in(2) { by } else { -by };
    }

    /// The time from `since` to `now` did not pass for this machine.
    pub fn freeze(&mut self, since: Time, now: Time) {
        let shown = self.monotonic(since);
        self.ahead += i128::from(self.monotonic(now) - shown);
        (self.shown, self.since) = (shown, now);
    }

    /// The machine starts anew: its monotonic clock begins again.
    pub fn reboot(&mut self, now: Time, dice: &mut Dice) {
        let wall = self.ahead + i128::from(self.monotonic(now));
        self.shown = dice.below(30 * SECOND);
        self.since = now;
        self.ahead = wall - i128::from(self.shown);
    }

    /// What the clocks show.
    pub fn now(&self, now: Time) -> Now {
        let monotonic = self.monotonic(now);
        let wall = i128::from(monotonic) + self.ahead;
        let second = i128::from(SECOND);
        let seconds = i64::try_from(wall.div_euclid(second)).expect("within some thousand years");
        let nanos = u32::try_from(wall.rem_euclid(second)).expect("below a second");
        let wall = Timestamp::new(seconds, nanos).expect("below a second");
        Now { monotonic: Duration::from_nanos(monotonic), wall }
    }

    /// How much simulated time passes while the clock goes on by this much.
    pub fn real(&self, span: Duration) -> Time {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / EVEN);
        u64::try_from(u128::from(span) * u128::from(EVEN) / u128::from(self.rate))
            .expect("simulations are short")
    }
}
