//! Counting what passed and what failed.

use serde::{Deserialize, Serialize};

/// The outcome of a step or suite.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Checks that held.
    pub(crate) passed: u64,
    /// Checks that did not.
    pub(crate) failed: u64,
    /// Cases that do not apply here.
    pub(crate) skipped: u64,
}

impl Tally {
    /// One check that held.
    pub(crate) const PASSED: Tally = Tally { passed: 1, failed: 0, skipped: 0 };
    /// One check that did not.
    pub(crate) const FAILED: Tally = Tally { passed: 0, failed: 1, skipped: 0 };

    /// Adds another outcome to this one.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Counts one check and prints its line at once, so that a run can be followed.
    pub(crate) fn check(&mut self, name: &str, outcome: std::result::Result<(), String>) {
        match outcome {
            Ok(()) => {
                println!("  ok      {name}");
                self.passed += 1;
            }
            Err(reason) => {
                println!("  FAILED  {name}: {reason}");
                self.failed += 1;
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn sums_are_shown_as_passed_and_failed() {
        let mut tally = Tally::PASSED;
        tally.add(&Tally::FAILED);
        assert_eq!(tally.to_string(), "1 passed, 1 failed");
        tally.add(&Tally { passed: 1, failed: 0, skipped: 3 });
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 3 skipped");
    }
}
