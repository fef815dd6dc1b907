//! The clocks of this machine.

use std::time::Duration;

use magma_common::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::slice::Now;

/// Reads `CLOCK_BOOTTIME`, which goes on while the machine sleeps, and the real-time clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// What they show.
    pub fn now(&self) -> Now {
        let time = clock_gettime(ClockId::Boottime);
        // Time since the start of the machine is never negative.
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Now { monotonic: Duration::new(seconds, nanos), wall: Timestamp::now() }
    }
}
