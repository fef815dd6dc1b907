//! Counting what the workload scripts report: lines "PASS name" and "FAIL name: reason".

use std::path::Path;

use crate::error::{Doing, Result};
use crate::tally::Tally;

/// Adds up the lines of a log.
pub(super) fn tally(log: &Path) -> Result<Tally> {
    let bytes = std::fs::read(log).doing(|| format!("cannot read {}", log.display()))?;
    Ok(count(&String::from_utf8_lossy(&bytes)))
}

fn count(text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines() {
        if line.starts_with("PASS ") {
            tally.passed += 1;
        } else if line.starts_with("FAIL ") {
            tally.failed += 1;
        }
    }
    tally
}

/// A script's result and what it reported must agree: a script that dies is a failure, whatever it said before.
pub(super) fn judge(outcome: Result<()>, log: &Path) -> Result<Tally> {
    let mut tally = tally(log)?;
    if let Err(error) = outcome
        && tally.failed == 0
    {
        tally.check("the script ends in order", Err(error.to_string()));
    }
    if tally.passed + tally.failed == 0 {
        tally.check("the script reports something", Err(format!("see {}", log.display())));
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::count;
    use crate::tally::Tally;

    #[test]
    fn only_report_lines_count() {
        let text = "noise\nPASS a (0.1 s)\nFAIL b: reason\n PASS c\nPASS d";
        assert_eq!(count(text), Tally { passed: 2, failed: 1, skipped: 0 });
    }
}
