//! The load of the drills (`workloads/pressure.py`): several workers at once, each of which compares what it reads with what
//! it wrote and times what it does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Doing, Result, wrong};
use crate::suites::{Context, script, workloads};
use crate::tally::Tally;
use crate::testing::command::{self, Show};
use crate::testing::process::Process;
use crate::testing::random::Random;
use crate::testing::wait;

/// The longest that one operation of an application may take while volcanos come and go. This is the product's promise.
pub(super) const LONGEST_STALL: Duration = Duration::from_secs(5);
/// How long the workers may take to end: a `git clone` or a run of fsx is finished first.
const ENDS: Duration = Duration::from_secs(120);
/// How long a look at everything that was acknowledged may take.
const VERIFIES: Duration = Duration::from_secs(120);

/// Everything that is done on one mount at the same time.
pub(super) const ALL_WORKERS: &[&str] =
    &["append1", "append2", "storm1", "storm2", "bank1", "bank2", "git1", "fsx1"];

/// The workers of a drill.
pub(super) struct Pressure {
    /// Below the mount point, whichever that is.
    folder: &'static str,
    journal: PathBuf,
    workers: BTreeMap<&'static str, Process>,
    /// How many lines about slow operations were read, by worker.
    read: BTreeMap<&'static str, usize>,
}

/// The slowest operation of a time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stall {
    /// How long it took.
    pub(super) time: Duration,
    /// Whose and which.
    pub(super) what: String,
}

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.time.is_zero() {
            return f.write_str("no operation took 0.5 s");
        }
        write!(f, "the longest stall was {:.2} s ({})", self.time.as_secs_f64(), self.what)
    }
}

impl Pressure {
    /// Starts these workers in `mount/folder`; what they compare with is read through `check`, another mount.
    pub(super) fn start(
        context: &Context,
        (mount, check): (&Path, &Path),
        folder: &'static str,
        workers: &[&'static str],
        random: &mut Random,
    ) -> Result<Self> {
        let journal = context.folder.join(format!("journal-{folder}"));
        if journal.exists() {
            std::fs::remove_dir_all(&journal).doing(|| format!("cannot remove {}", journal.display()))?;
        }
        for made in [&journal, &mount.join(folder)] {
            std::fs::create_dir_all(made).doing(|| format!("cannot make {}", made.display()))?;
        }
        let mut pressure = Self { folder, journal, workers: BTreeMap::new(), read: BTreeMap::new() };
        for worker in workers {
            let mut command = pressure.script(context, worker, mount);
            command.arg("--check").arg(check.join(folder));
            command
                .args(["--seed", &random.below(1 << 32).to_string(), "--fsx"])
                .arg(context.programs.tool("fsx"));
            command.arg("--fsx-config").arg(context.programs.integration().join("expected/fsx-fuse.toml"));
            let process = Process::start(worker, command, &context.log(&format!("{folder}-{worker}"))?)?;
            pressure.workers.insert(worker, process);
        }
        Ok(pressure)
    }

    fn script(&self, context: &Context, worker: &str, mount: &Path) -> std::process::Command {
        let mut command = workloads::python();
        command.arg(context.programs.integration().join("workloads/pressure.py")).arg(worker);
        command.arg(mount.join(self.folder)).arg("--journal").arg(&self.journal);
        command
    }

    /// How much each worker has done; an error if one has failed.
    fn counts(&mut self) -> Result<BTreeMap<&'static str, u64>> {
        let mut counts = BTreeMap::new();
        for (name, process) in &mut self.workers {
            let text = process.printed()?;
            if let Some(error) = text.lines().find(|line| line.starts_with("ERROR ")) {
                return wrong(format!("an application got an error: {error}"));
            }
            process.must_run()?;
            let last = text.lines().rev().find_map(|line| line.strip_prefix(&format!("COUNT {name} ")));
            counts.insert(*name, last.and_then(|count| count.trim().parse().ok()).unwrap_or(0));
        }
        Ok(counts)
    }

    /// Waits until every worker has gone on from where it is now; how long that took.
    pub(super) fn goes_on(&mut self, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let before = self.counts()?;
        wait::until("every worker to go on", limit, || {
            let now = self.counts()?;
            Ok(before.iter().all(|(name, count)| now.get(name) > Some(count)).then_some(()))
        })?;
        Ok(begin.elapsed())
    }

    /// Lets the workers work for so long.
    pub(super) fn work_for(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        wait::until("the workers to work", time * 2 + ENDS, || {
            self.counts()?;
            Ok((Instant::now() >= end).then_some(()))
        })
    }

    /// The slowest operation that has ended since this was last asked. What is still running is not known yet.
    pub(super) fn slowest(&mut self) -> Result<Stall> {
        let mut slowest = Stall { time: Duration::ZERO, what: String::new() };
        for (name, process) in &self.workers {
            let text = process.printed()?;
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines: Vec<&str> = whole.lines().filter(|line| line.starts_with("SLOW ")).collect();
            let read = self.read.entry(name).or_insert(0);
            for line in lines.iter().skip(*read) {
                if let Some(stall) = stall(line).filter(|stall| stall.time > slowest.time) {
                    slowest = stall;
                }
            }
            *read = lines.len();
        }
        Ok(slowest)
    }

    /// Asks all workers to end, and waits for them.
    pub(super) fn end(&mut self) -> Result<()> {
        let stop = self.journal.join("stop");
        std::fs::write(&stop, "").doing(|| format!("cannot write {}", stop.display()))?;
        for (name, process) in &mut self.workers {
            let status = process.wait(ENDS)?;
            let text = process.printed()?;
            if !status.success() || !text.lines().any(|line| line == format!("END {name}")) {
                let error = text.lines().find(|line| line.starts_with("ERROR ")).unwrap_or("it said no END");
                return wrong(format!(
                    "{name} ended with {status}: {error} (see {})",
                    process.log().display()
                ));
            }
        }
        Ok(())
    }

    /// Looks in `mount` for everything that each of the workers was promised. They must have ended.
    pub(super) fn verify(
        &self,
        context: &Context,
        mount: &Path,
        tally: &mut Tally,
        when: &str,
    ) -> Result<()> {
        for worker in self.workers.keys().filter(|name| !name.starts_with("git") && !name.starts_with("fsx"))
        {
            let outcome = self.look_closely(context, mount, worker, &[])?;
            tally.check(&format!("everything that {worker} was promised is there {when}"), outcome);
        }
        Ok(())
    }

    /// Looks for what the appending workers were promised while they run. What is missing is the inner error.
    pub(super) fn look(&self, context: &Context, mount: &Path) -> Result<std::result::Result<(), String>> {
        self.look_closely(context, mount, "append", &["--quick"])
    }

    fn look_closely(
        &self,
        context: &Context,
        mount: &Path,
        workers: &str,
        options: &[&str],
    ) -> Result<std::result::Result<(), String>> {
        for worker in self.workers.keys().filter(|name| name.starts_with(workers)) {
            let mut command = self.script(context, worker, mount);
            command.arg("--verify").args(options);
            let log = context.log(&format!("verify-{worker}"))?;
            let outcome = command::succeed("the verification", &mut command, &log, Show::No, VERIFIES);
            if outcome.is_err() || script::tally(&log)?.passed == 0 {
                let text =
                    std::fs::read_to_string(&log).doing(|| format!("cannot read {}", log.display()))?;
                let reason = text
                    .lines()
                    .find(|line| line.starts_with("FAIL "))
                    .unwrap_or("the script did not end in order");
                return Ok(Err(reason.to_owned()));
            }
        }
        Ok(Ok(()))
    }
}

/// Reads "SLOW worker operation seconds".
fn stall(line: &str) -> Option<Stall> {
    let (what, seconds) = line.strip_prefix("SLOW ")?.rsplit_once(' ')?;
    Some(Stall { time: Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?, what: what.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::stall;

    #[test]
    fn slow_operations_are_read_with_their_names() {
        let found = stall("SLOW storm1 fsync of a folder 3.250").unwrap();
        assert_eq!(found.time.as_millis(), 3250);
        assert_eq!(found.to_string(), "the longest stall was 3.25 s (storm1 fsync of a folder)");
        assert_eq!(stall("COUNT storm1 5"), None);
    }
}
