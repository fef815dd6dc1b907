//! The load of the drills (`workloads/pressure.py`): several workers at once, each of which compares what it reads with what
//! it wrote and times what it does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Doing, Error, Result, wrong};
use crate::guest::{Door, Guest};
use crate::lava::SUITE_PORTS;
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
    &["append1", "append2", "storm1", "storm2", "bank1", "bank2", "git1", "fsx1", "rsync1"];
/// The same, where other mounts are busy as well.
pub(super) const SOME_WORKERS: &[&str] = &["append1", "storm1", "bank1", "bank2", "git1", "fsx1", "rsync1"];
/// The same on the mounts of a guest, whose only processor is slower.
pub(super) const NFS_WORKERS: &[&str] = &["append-nfs", "bank-nfs", "git-nfs", "fsx-nfs", "rsync-nfs"];
pub(super) const NINEP_WORKERS: &[&str] = &["append-9p", "bank-9p", "git-9p", "fsx-9p", "rsync-9p"];

/// How much workers do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// All that they can.
    Full,
    /// Less, so that they do not wait for the processor while several mounts are busy.
    Light,
}

/// One worker, which may share its process (a guest) with others.
#[derive(Debug)]
struct Worker {
    process: usize,
    /// Where it works, below the mount point, whichever that is.
    folder: String,
    /// Where it notes what was acknowledged.
    journal: PathBuf,
}

/// The workers of a drill.
pub(super) struct Pressure {
    journal: PathBuf,
    processes: Vec<Process>,
    workers: BTreeMap<&'static str, Worker>,
    /// Files that tell the workers to end.
    stops: Vec<PathBuf>,
    /// How many lines about slow operations were read, by process.
    read: Vec<usize>,
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
        (workers, pace): (&[&'static str], Pace),
        random: &mut Random,
    ) -> Result<Self> {
        let journal = context.folder.join(format!("journal-{folder}"));
        if journal.exists() {
            std::fs::remove_dir_all(&journal).doing(|| format!("cannot remove {}", journal.display()))?;
        }
        for made in [&journal, &mount.join(folder)] {
            std::fs::create_dir_all(made).doing(|| format!("cannot make {}", made.display()))?;
        }
        let mut pressure = Self {
            stops: vec![journal.join("stop")],
            journal,
            processes: Vec::new(),
            workers: BTreeMap::new(),
            read: Vec::new(),
        };
        for worker in workers {
            let mut command = command_of(context, worker, &mount.join(folder), &pressure.journal);
            command.arg("--check").arg(check.join(folder));
            command
                .args(["--seed", &random.below(1 << 32).to_string(), "--fsx"])
                .arg(context.programs.tool("fsx"));
            command.arg("--fsx-config").arg(context.programs.integration().join("expected/fsx-fuse.toml"));
            if pace == Pace::Light {
                command.arg("--light");
            }
            let process = Process::start(worker, command, &context.log(&format!("{folder}-{worker}"))?)?;
            let journal = pressure.journal.clone();
            pressure.add(process, [(*worker, Worker { process: 0, folder: folder.to_owned(), journal })]);
        }
        Ok(pressure)
    }

    /// Boots a guest with these doors and starts such workers in a folder of each, made through `mount`. `share` is what the
    /// guest sees as `/share`.
    pub(super) fn start_in_guest(
        &mut self,
        context: &Context,
        (mount, share): (&Path, &Path),
        doors: &[(Door, &[&'static str])],
        random: &mut Random,
    ) -> Result<()> {
        let journal = share.join("journal");
        std::fs::create_dir_all(&journal).doing(|| format!("cannot make {}", journal.display()))?;
        let mut lines = vec!["mkdir /tmp/journal".to_owned()];
        let mut workers = Vec::new();
        for (door, names) in doors {
            let name = door.name();
            let folder = format!("load-{name}");
            let made = mount.join(&folder);
            std::fs::create_dir_all(&made).doing(|| format!("cannot make {}", made.display()))?;
            // The guest may not see what appears in `/share`; what its mounts show is up to date.
            self.stops.push(made.join("stop"));
            let configuration = format!("fsx-{name}.toml");
            let original = context.programs.integration().join("expected").join(&configuration);
            crate::suites::copy(&original, &share.join(&configuration))?;
            for worker in *names {
                let seed = random.below(1 << 32);
                lines.push(format!(
                    "python3 -B /share/workloads/pressure.py {worker} /mnt/{name}/{folder} --journal /tmp/journal \
                     --light --stop /mnt/{name}/{folder}/stop --seed {seed} --fsx /share/bin/fsx \
                     --fsx-config /share/{configuration} &"
                ));
                let (folder, journal) = (folder.clone(), journal.clone());
                workers.push((*worker, Worker { process: 0, folder, journal }));
            }
        }
        lines.push("failed=0; for job in $(jobs -p); do wait $job || failed=1; done".to_owned());
        lines.push("cp /tmp/journal/*.* /share/journal/ && (exit $failed)".to_owned());
        let doors: Vec<Door> = doors.iter().map(|(door, _)| *door).collect();
        let guest = Guest::new(&context.programs, share, context.limit);
        let process = guest.start(SUITE_PORTS, &doors, &lines.join("\n"), &context.log("guest")?)?;
        self.add(process, workers);
        Ok(())
    }

    fn add(&mut self, process: Process, workers: impl IntoIterator<Item = (&'static str, Worker)>) {
        let number = self.processes.len();
        self.processes.push(process);
        self.read.push(0);
        self.workers
            .extend(workers.into_iter().map(|(name, worker)| (name, Worker { process: number, ..worker })));
    }

    /// How much each worker has done; an error if one has failed.
    fn counts(&mut self) -> Result<BTreeMap<&'static str, u64>> {
        let mut counts = BTreeMap::new();
        for (number, process) in self.processes.iter_mut().enumerate() {
            let text = process.printed()?;
            if let Some(error) = text.lines().find(|line| line.starts_with("ERROR ")) {
                return wrong(format!("an application got an error: {error}"));
            }
            process.must_run()?;
            for (name, _) in self.workers.iter().filter(|(_, worker)| worker.process == number) {
                let last = text.lines().rev().find_map(|line| line.strip_prefix(&format!("COUNT {name} ")));
                counts.insert(*name, last.and_then(|count| count.trim().parse().ok()).unwrap_or(0));
            }
        }
        Ok(counts)
    }

    /// Waits until every worker has gone on from where it is now; how long that took.
    pub(super) fn goes_on(&mut self, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let before = self.counts()?;
        let mut waiting = Vec::new();
        let outcome = wait::until("every worker to go on", limit, || {
            let now = self.counts()?;
            waiting = before
                .iter()
                .filter(|(name, count)| now.get(*name) <= Some(count))
                .map(|(name, _)| *name)
                .collect();
            Ok(waiting.is_empty().then_some(()))
        });
        match outcome {
            Err(Error::TimedOut { what, limit }) => {
                wrong(format!("{what}: not within {} s; {} did not", limit.as_secs(), waiting.join(", ")))
            }
            outcome => outcome.map(|()| begin.elapsed()),
        }
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
        for (process, read) in self.processes.iter().zip(&mut self.read) {
            let text = process.printed()?;
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines: Vec<&str> = whole.lines().filter(|line| line.starts_with("SLOW ")).collect();
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
        for stop in &self.stops {
            std::fs::write(stop, "").doing(|| format!("cannot write {}", stop.display()))?;
        }
        for (number, process) in self.processes.iter_mut().enumerate() {
            let status = process.wait(ENDS)?;
            let text = process.printed()?;
            for (name, _) in self.workers.iter().filter(|(_, worker)| worker.process == number) {
                if !status.success() || !text.lines().any(|line| line.trim_end() == format!("END {name}")) {
                    let error =
                        text.lines().find(|line| line.starts_with("ERROR ")).unwrap_or("it said no END");
                    return wrong(format!(
                        "{name} ended with {status}: {error} (see {})",
                        process.log().display()
                    ));
                }
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
        let verifies = |name: &&&str| !["git", "fsx", "rsync"].iter().any(|kind| name.starts_with(kind));
        for worker in self.workers.keys().filter(verifies) {
            let outcome = self.look_closely(context, mount, worker, &[])?;
            tally.check(&format!("everything that {worker} was promised is there {when}"), outcome);
        }
        Ok(())
    }

    /// Looks for what the appending workers were promised while they run. What is missing is the inner error.
    pub(super) fn look(&self, context: &Context, mount: &Path) -> Result<std::result::Result<(), String>> {
        for worker in self.workers.keys().filter(|name| name.starts_with("append")) {
            let found = self.look_closely(context, mount, worker, &["--quick"])?;
            if found.is_err() {
                return Ok(found);
            }
        }
        Ok(Ok(()))
    }

    fn look_closely(
        &self,
        context: &Context,
        mount: &Path,
        name: &str,
        options: &[&str],
    ) -> Result<std::result::Result<(), String>> {
        let Some(worker) = self.workers.get(name) else { return wrong(format!("there is no worker {name}")) };
        let mut command = command_of(context, name, &mount.join(&worker.folder), &worker.journal);
        command.arg("--verify").args(options);
        let log = context.log(&format!("verify-{name}"))?;
        let outcome = command::succeed("the verification", &mut command, &log, Show::No, VERIFIES);
        if outcome.is_ok() && script::tally(&log)?.passed > 0 {
            return Ok(Ok(()));
        }
        let text = std::fs::read_to_string(&log).doing(|| format!("cannot read {}", log.display()))?;
        let reason = text.lines().find(|line| line.starts_with("FAIL "));
        Ok(Err(reason.unwrap_or("the script did not end in order").to_owned()))
    }
}

fn command_of(context: &Context, worker: &str, folder: &Path, journal: &Path) -> std::process::Command {
    let mut command = workloads::python();
    command.arg(context.programs.integration().join("workloads/pressure.py")).arg(worker);
    command.arg(folder).arg("--journal").arg(journal);
    command
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
