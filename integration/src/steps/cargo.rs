//! The steps that cargo does.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Doing, Result, wrong};
use crate::programs::Programs;
use crate::tally::Tally;
use crate::testing::command::{self, Show};

/// A cold build on two cores takes minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);
/// The unit and property tests, their build included.
const TEST_LIMIT: Duration = Duration::from_secs(45 * 60);

fn cargo(programs: &Programs, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(programs.root()).args(arguments);
    command
}

/// What is installed, and ourselves. `magma` builds the same: other packages would choose other features of what these depend on, and have
/// all of it compiled once more.
const PROGRAMS: &[&str] =
    &["magma-volcano", "magma-gateway-nfs", "magma-gateway-9p", "magma-mount-fuse", "magma-integration"];

/// Builds the programs as they are installed, but for the optimisation.
pub(super) fn build(programs: &Programs, logs: &Path) -> Result<()> {
    println!("\n=== build: all programs");
    let packages = PROGRAMS.iter().flat_map(|package| ["-p", package]);
    let arguments: Vec<&str> = ["build", "--locked"].into_iter().chain(packages).collect();
    let mut command = cargo(programs, &arguments);
    command::succeed("cargo build", &mut command, &logs.join("build.log"), Show::Yes, BUILD_LIMIT)
}

/// Builds the simulation of the ring, together with the tests: what those have compiled is not compiled again.
pub(super) fn build_sweep(programs: &Programs, logs: &Path) -> Result<()> {
    let arguments = ["build", "--workspace", "--tests", "--bin", "magma-sweep", "--locked"];
    let mut command = cargo(programs, &arguments);
    command::succeed("cargo build", &mut command, &logs.join("build.log"), Show::Yes, BUILD_LIMIT)
}

/// `cargo fmt --check`.
pub(super) fn format(programs: &Programs, logs: &Path) -> Result<Tally> {
    one(programs, &["fmt", "--all", "--check"], &logs.join("format.log"))
}

/// `cargo clippy`, warnings being errors.
pub(super) fn lint(programs: &Programs, logs: &Path) -> Result<Tally> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    one(programs, &arguments, &logs.join("lint.log"))
}

fn one(programs: &Programs, arguments: &[&str], log: &Path) -> Result<Tally> {
    let status = command::run("cargo", &mut cargo(programs, arguments), log, Show::Yes, BUILD_LIMIT)?;
    Ok(if status.success() { Tally::PASSED } else { Tally::FAILED })
}

/// All tests of the workspace, with nextest where it is installed (it runs them in parallel processes).
pub(super) fn unit(programs: &Programs, logs: &Path) -> Result<Tally> {
    let log = logs.join("unit.log");
    let nextest = has_nextest(programs, logs)?;
    if !nextest {
        return counted(programs, &["test", "--workspace", "--locked", "--no-fail-fast"], &log);
    }
    let arguments = ["nextest", "run", "--workspace", "--locked", "--no-fail-fast", "--status-level", "fail"];
    let mut tally = counted(programs, &arguments, &log)?;
    let documented = ["test", "--workspace", "--doc", "--locked", "--no-fail-fast"];
    // Crates without a library have no documentation tests, so no result at all is fine here.
    let status = command::run(
        "cargo test --doc",
        &mut cargo(programs, &documented),
        &logs.join("doc.log"),
        Show::Yes,
        TEST_LIMIT,
    )?;
    let text = read(&logs.join("doc.log"))?;
    tally.add(&results(&text));
    if !status.success() && tally.failed == 0 {
        tally.failed += 1;
    }
    Ok(tally)
}

fn has_nextest(programs: &Programs, logs: &Path) -> Result<bool> {
    let mut command = cargo(programs, &["nextest", "--version"]);
    let limit = Duration::from_secs(60);
    Ok(command::run("cargo nextest", &mut command, &logs.join("nextest.log"), Show::No, limit)?.success())
}

fn counted(programs: &Programs, arguments: &[&str], log: &Path) -> Result<Tally> {
    let status = command::run("cargo test", &mut cargo(programs, arguments), log, Show::Yes, TEST_LIMIT)?;
    let mut tally = results(&read(log)?);
    if !status.success() && tally.failed == 0 {
        tally.failed += 1;
    }
    if tally.passed == 0 {
        return wrong(format!("no test ran (see {})", log.display()));
    }
    Ok(tally)
}

fn read(log: &Path) -> Result<String> {
    std::fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .doing(|| format!("cannot read {}", log.display()))
}

/// Adds up what libtest ("test result: ok. 5 passed; 0 failed; 1 ignored; ...") and nextest
/// ("Summary [ 0.8s] 5 tests run: 5 passed, 1 skipped") say.
fn results(log: &str) -> Tally {
    let mut tally = Tally::default();
    let lines = log.lines().filter(|line| line.starts_with("test result: ") || line.contains(" tests run: "));
    for line in lines {
        let words: Vec<&str> =
            line.split([' ', ';', ',', '\x1b', ':', '(', ')']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let [number, kind] = pair else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match *kind {
                "passed" => tally.passed += number,
                "failed" | "timed" => tally.failed += number,
                "ignored" | "skipped" => tally.skipped += number,
                _ => {}
            }
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::results;
    use crate::tally::Tally;

    #[test]
    fn both_test_runners_are_understood() {
        let libtest = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(results(libtest), Tally { passed: 5, failed: 2, skipped: 1 });
        let nextest = "     Summary [   0.816s] 9 tests run: 7 passed (1 slow), 2 failed, 1 skipped";
        assert_eq!(results(nextest), Tally { passed: 7, failed: 2, skipped: 1 });
        let two = format!("{libtest}\nnoise 7 passed\n{libtest}");
        assert_eq!(results(&two), Tally { passed: 10, failed: 4, skipped: 2 });
    }
}
