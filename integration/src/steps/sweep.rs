//! The simulated ring: many seeds, and faults that are planted to see whether the seeds find them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::cargo;
use crate::error::{Doing, Result, wrong};
use crate::programs::Programs;
use crate::tally::Tally;
use crate::testing::command::{self, Show};

/// Seeds of a run; each takes some tenths of a second.
const SEEDS: &str = "1000";
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Every seed passes.
pub(super) fn seeds(programs: &Programs, logs: &Path) -> Result<Tally> {
    run(programs, &["--seeds", SEEDS], logs)
}

/// Every planted fault is found.
pub(super) fn planted(programs: &Programs, logs: &Path) -> Result<Tally> {
    run(programs, &["--plant", "all"], logs)
}

fn run(programs: &Programs, arguments: &[&str], logs: &Path) -> Result<Tally> {
    cargo::build_sweep(programs, logs)?;
    let log = logs.join("sweep.log");
    let mut command = Command::new(programs.binary("magma-sweep")?);
    let status = command::run("magma-sweep", command.args(arguments), &log, Show::Yes, LIMIT)?;
    let said = std::fs::read_to_string(&log).doing(|| format!("cannot read {}", log.display()))?;
    let Some(mut tally) = said.lines().next_back().and_then(closing) else {
        return wrong(format!("the sweep ended with {status} and no closing line"));
    };
    if !status.success() && tally.failed == 0 {
        tally.failed += 1;
    }
    Ok(tally)
}

/// The sweep's last line, "5 passed, 0 failed".
fn closing(line: &str) -> Option<Tally> {
    let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
    Some(Tally { passed: passed.parse().ok()?, failed: failed.parse().ok()?, skipped: 0 })
}

#[cfg(test)]
mod tests {
    use super::closing;
    use crate::tally::Tally;

    #[test]
    fn the_closing_line_is_understood() {
        assert_eq!(closing("5 passed, 2 failed"), Some(Tally { passed: 5, failed: 2, skipped: 0 }));
        assert_eq!(closing("97064 operations in 78 s"), None);
    }
}
