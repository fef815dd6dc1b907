//! Keeps what strangers do from filling the log.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Lets one line through per period and counts the others.
pub(super) struct LogLimiter {
    period: Duration,
    last: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl LogLimiter {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, last: Cell::new(None), suppressed: Cell::new(0) }
    }

    /// Whether to write the line now, and how many were left out since the last one.
    pub(super) fn allow(&self) -> Option<u64> {
        if self.last.get().is_some_and(|last| last.elapsed() < self.period) {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.last.set(Some(Instant::now()));
        Some(self.suppressed.replace(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_gets_through_per_period() {
        let limiter = LogLimiter::new(Duration::from_secs(3600));
        assert_eq!(limiter.allow(), Some(0));
        assert_eq!(limiter.allow(), None);
        let limiter = LogLimiter::new(Duration::ZERO);
        assert_eq!(limiter.allow(), Some(0));
        assert_eq!(limiter.allow(), Some(0));
    }
}
