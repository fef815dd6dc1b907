//! Waiting for a condition.

use std::time::{Duration, Instant};

use super::signals;
use crate::error::{Error, Result};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Waits until `condition` gives a value, at most for `limit`; ends early on a signal or an error.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        signals::check()?;
        if Instant::now() >= deadline {
            return Err(Error::TimedOut { what: what.to_owned(), limit });
        }
        std::thread::sleep(POLL);
    }
}

/// As [`until`], for cleaning up: signals do not end it.
pub(crate) fn quietly_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}
