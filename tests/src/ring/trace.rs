//! What happens, for people.

use super::clock::{SECOND, Time};

/// Prints what happens, if it is to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace(bool);

impl Trace {
    /// One that prints, or does not.
    pub fn new(prints: bool) -> Self {
        Self(prints)
    }

    /// Whether it prints.
    pub fn prints(self) -> bool {
        self.0
    }

    /// One line.
    pub fn say(self, now: Time, line: impl FnOnce() -> String) {
        if self.0 {
            println!("{:12.6} {}", now as f64 / SECOND as f64, line());
        }
    }
}
