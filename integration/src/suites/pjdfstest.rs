//! The public suite of POSIX cases, with the expected failures of each door.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::{Context, Through};
use crate::error::{Doing, Error, Result, wrong};
use crate::guest::Guest;
use crate::lava::{NfsClients, SUITE_PORTS};
use crate::ring::Layout;
use crate::tally::Tally;
use crate::testing::command::{self, Show};
use crate::testing::scratch::Scratch;

/// It names what Linux file systems offer beyond the standard, and two users that every Debian has. The nap
/// between two changes whose times must differ is longer than the clock tick that the kernel stamps times with.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// Fewer results than this mean that the suite did not run as a whole.
const LEAST_CASES: usize = 350;

/// `integration/expected/DOOR.toml`.
#[derive(Debug, Deserialize)]
struct Expected {
    #[serde(default)]
    pjdfstest: Vec<ExpectedFailure>,
}

#[derive(Debug, Deserialize)]
struct ExpectedFailure {
    case: String,
    reason: String,
}

/// How one case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Runs it through one door.
pub(super) fn run(context: &Context, through: Through, layout: Layout) -> Result<Tally> {
    // Some cases run as other users, who must get to the mount wherever the checkout is.
    let open_mount = Scratch::fresh(&std::env::temp_dir(), &format!("magma-{}", std::process::id()))?;
    let (scratch, mut lava) = context.lava_of(layout)?;
    let log = context.log("pjdfstest")?;
    let limit = context.limit.saturating_sub(Duration::from_secs(60));
    let status = match through {
        Through::Fuse => {
            lava.start_volcanos()?;
            lava.mount(open_mount.path())?;
            let folder = open_mount.path().join(folder_name(open_mount.path()));
            std::fs::create_dir(&folder).doing(|| format!("cannot make {}", folder.display()))?;
            let configuration = scratch.path().join("pjdfstest.toml");
            std::fs::write(&configuration, CONFIGURATION)
                .doing(|| "cannot write pjdfstest.toml".to_owned())?;
            let mut command = Command::new(context.programs.tool("pjdfstest"));
            command.arg("-c").arg(&configuration).arg("-p").arg(&folder);
            command::succeed("pjdfstest", &mut command, &log, Show::No, limit)
        }
        Through::Guest(door) => {
            lava.start_volcanos()?;
            match through.name() {
                "nfs" => lava.start_nfs(NfsClients::Any)?,
                _ => lava.start_ninep()?,
            }
            let share = context.share()?;
            std::fs::write(share.path().join("pjdfstest.toml"), CONFIGURATION)
                .doing(|| "cannot write pjdfstest.toml".to_owned())?;
            let mount = format!("/mnt/{}", door.name());
            let folder = format!("{mount}/{}", folder_name(Path::new(&mount)));
            let script = format!(
                "mkdir {folder} && /share/bin/pjdfstest -c /share/pjdfstest.toml -p {folder} > /share/output 2>&1"
            );
            let guest = Guest::new(&context.programs, share.path(), limit);
            let status = guest.run(SUITE_PORTS, &[door], &script, &context.log("guest")?);
            super::copy(&share.path().join("output"), &log)?;
            share.discard();
            status
        }
    };
    let mut tally = judge(&context.programs.integration(), through.name(), &log, status)?;
    Context::finish(scratch, lava, &mut tally);
    open_mount.discard();
    Ok(tally)
}

/// A folder whose path has a length that pjdfstest 0.2.2 can build its longest paths from: it adds two
/// components of 11 bytes and panics when what remains up to 4095 divides by 127.
fn folder_name(parent: &Path) -> &'static str {
    let length = parent.as_os_str().len() + "/p".len() + 22;
    if (4095_usize.saturating_sub(length)).is_multiple_of(127) { "pp" } else { "p" }
}

/// Compares the outcome of every case with what is expected of the door.
fn judge(integration: &Path, door: &str, log: &Path, status: Result<()>) -> Result<Tally> {
    let path = integration.join(format!("expected/{door}.toml"));
    let text = std::fs::read_to_string(&path).doing(|| format!("cannot read {}", path.display()))?;
    let expected: Expected =
        toml::from_str(&text).map_err(|error| Error::Wrong(format!("{}: {error}", path.display())))?;
    let output = std::fs::read(log).doing(|| format!("cannot read {}", log.display()))?;
    let outcomes = parse(&String::from_utf8_lossy(&output));
    if outcomes.len() < LEAST_CASES {
        return match status {
            Err(error) => Err(error),
            Ok(()) => wrong(format!("only {} cases ran (see {})", outcomes.len(), log.display())),
        };
    }
    Ok(compare(&outcomes, &expected.pjdfstest))
}

fn compare(outcomes: &BTreeMap<String, Outcome>, expected: &[ExpectedFailure]) -> Tally {
    let mut tally = Tally::default();
    for (case, outcome) in outcomes {
        let reason =
            expected.iter().find(|failure| failure.case == *case).map(|failure| failure.reason.as_str());
        match (outcome, reason) {
            (Outcome::Passed, None) => tally.passed += 1,
            (Outcome::Skipped, _) => tally.skipped += 1,
            (Outcome::Failed, Some(reason)) => {
                println!("  expected failure  {case}: {reason}");
                tally.skipped += 1;
            }
            (Outcome::Failed, None) => tally.check(case, Err("see the log".to_owned())),
            (Outcome::Passed, Some(_)) => {
                tally.check(
                    case,
                    Err("passes, although it stands in the list of expected failures".to_owned()),
                );
            }
        }
    }
    for failure in expected.iter().filter(|failure| !outcomes.contains_key(&failure.case)) {
        tally.check(
            &failure.case,
            Err("stands in the list of expected failures, but there is no such case".to_owned()),
        );
    }
    tally
}

/// Reads `module::case  ok` lines; a case whose line ends otherwise is a failure.
fn parse(output: &str) -> BTreeMap<String, Outcome> {
    let mut outcomes = BTreeMap::new();
    for line in output.lines().filter(|line| !line.starts_with([' ', '\t'])) {
        let Some((case, rest)) = line.split_once(' ') else { continue };
        let outcome = match rest.trim() {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed,
            "skipped" => Outcome::Skipped,
            _ => continue,
        };
        if case.contains("::") {
            outcomes.insert(case.to_owned(), outcome);
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{ExpectedFailure, Outcome, compare, folder_name, parse};
    use crate::tally::Tally;

    const OUTPUT: &str = "\
chmod::a                ok
chmod::b::regular       FAILED
\tassertion failed: ok
Backtrace:
   3: core::ops::function::FnOnce::call_once
chmod::c                skipped
\trequires features: chflags

Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total
";

    fn expecting(case: &str) -> Vec<ExpectedFailure> {
        vec![ExpectedFailure { case: case.to_owned(), reason: "because".to_owned() }]
    }

    #[test]
    fn cases_are_read_from_the_output() {
        let outcomes = parse(OUTPUT);
        assert_eq!(outcomes.len(), 3);
        assert_eq!(outcomes["chmod::b::regular"], Outcome::Failed);
    }

    #[test]
    fn failures_count_unless_they_are_expected() {
        let outcomes = parse(OUTPUT);
        assert_eq!(compare(&outcomes, &[]), Tally { passed: 1, failed: 1, skipped: 1 });
        assert_eq!(
            compare(&outcomes, &expecting("chmod::b::regular")),
            Tally { passed: 1, failed: 0, skipped: 2 }
        );
    }

    #[test]
    fn an_expected_failure_that_passes_or_does_not_exist_is_a_failure() {
        let outcomes = parse(OUTPUT);
        assert_eq!(compare(&outcomes, &expecting("chmod::a")).failed, 2);
        assert_eq!(compare(&outcomes, &expecting("chmod::unknown")).failed, 2);
    }

    #[test]
    fn no_folder_has_a_length_that_makes_the_suite_panic() {
        for length in 1..400 {
            let parent = format!("/{}", "m".repeat(length));
            let base = parent.len() + 1 + folder_name(Path::new(&parent)).len() + 22;
            assert_ne!((4095 - base) % 127, 0, "{length}");
        }
    }
}
