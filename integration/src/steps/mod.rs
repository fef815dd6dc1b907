//! `./magma test`: every check, in order, each with a closing line, and the sum at the end.

mod cargo;
mod licences;
mod sweep;
mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{Doing, Error, Result, wrong};
use crate::programs::Programs;
use crate::suites::{self, Suite};
use crate::tally::Tally;
use crate::testing::command::{self, Show};
use crate::testing::process::tail;
use crate::testing::signals;

/// Lines of each log shown when a suite has failed.
const SHOWN_LINES: usize = 40;
/// A suite that has reached its own limit cleans up in this time.
const CLEAN_UP: Duration = Duration::from_secs(90);

/// Options of the test command.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Steps or suites, by their name or a part of it between dashes ("fuse", "pjdfstest-nfs") [default: all].
    names: Vec<String>,
    /// Show the names and stop.
    #[arg(long)]
    list: bool,
    /// Go on with the programs that are built.
    #[arg(long)]
    no_build: bool,
}

/// One thing that the test command does.
struct Step {
    name: String,
    about: String,
    work: Work,
}

enum Work {
    /// Something done from here.
    Plain(fn(&Programs, &Path) -> Result<Tally>),
    /// A suite in a network namespace of its own.
    Suite(&'static Suite),
}

/// Runs what was asked for; whether all of it passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let programs = Programs::locate()?;
    let all = steps();
    if options.list {
        for step in &all {
            println!("{:<20} {}", step.name, step.about);
        }
        return Ok(true);
    }
    let chosen = choose(all, &options.names)?;
    let runs_suites = chosen.iter().any(|step| matches!(step.work, Work::Suite(_)));
    if runs_suites && !rustix::process::geteuid().is_root() {
        return wrong(
            "the suites mount file systems and make network namespaces: run them as root, \
             or choose among format lint licences unit sweep planted",
        );
    }
    if runs_suites {
        make_tools(&programs)?;
    }
    let results = run_all(&programs, &chosen, !options.no_build)?;
    Ok(summarise(&results))
}

/// Builds our own programs for suites, as they are installed. The tests leave others in the same place: built together with the simulation,
/// which has them changed a little.
pub(crate) fn build(programs: &Programs) -> Result<()> {
    cargo::build(programs, &log_folder(programs, "build")?)
}

/// Makes the public suites and the guest's image, if they are missing.
pub(crate) fn make_tools(programs: &Programs) -> Result<()> {
    tools::prepare(programs, &log_folder(programs, "tools")?)
}

/// The outcome of one step.
pub(crate) struct Done {
    /// Which.
    pub(crate) name: String,
    /// What came out.
    pub(crate) tally: Tally,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Runs the steps in their order. With `builds`, programs are built before the first suite: after the tests, see [`build`].
fn run_all(programs: &Programs, chosen: &[Step], builds: bool) -> Result<Vec<Done>> {
    let mut results = Vec::new();
    let mut is_built = !builds;
    for step in chosen {
        if matches!(step.work, Work::Suite(_)) && !std::mem::replace(&mut is_built, true) {
            build(programs)?;
        }
        println!("\n=== {}: {}", step.name, step.about);
        let begin = Instant::now();
        let logs = log_folder(programs, &step.name)?;
        let outcome = match &step.work {
            Work::Plain(work) => work(programs, &logs),
            Work::Suite(suite) => in_namespace(programs, suite, &logs, None),
        };
        signals::check()?;
        let tally = outcome.unwrap_or_else(|error| {
            println!("  FAILED  {}: {error}", step.name);
            Tally::FAILED
        });
        if tally.failed > 0 {
            show_logs(&logs);
        }
        let took = begin.elapsed();
        println!("{}: {tally} ({} s)", step.name, took.as_secs());
        results.push(Done { name: step.name.clone(), tally, took });
    }
    Ok(results)
}

/// Shows all outcomes and their sum; whether everything passed.
pub(crate) fn summarise(results: &[Done]) -> bool {
    let mut total = Tally::default();
    println!("\n=== summary");
    for done in results {
        println!("{:<20} {} ({} s)", done.name, done.tally, done.took.as_secs());
        total.add(&done.tally);
    }
    println!("{total}");
    total.failed == 0 && total.passed > 0
}

fn steps() -> Vec<Step> {
    let plain = |name: &str, about: &str, work| Step {
        name: name.to_owned(),
        about: about.to_owned(),
        work: Work::Plain(work),
    };
    let mut all = vec![
        plain("format", "the source is formatted by rustfmt", cargo::format),
        plain("lint", "clippy finds nothing", cargo::lint),
        plain("licences", "every dependency has a licence that deny.toml allows", licences::check),
        plain("unit", "unit, property and in-process tests", cargo::unit),
        plain("sweep", "rings of volcanos in a simulation, with faults, one for each seed", sweep::seeds),
        plain("planted", "faults that are planted in the ring are found by the simulation", sweep::planted),
    ];
    all.extend(suites::ALL.iter().map(|suite| Step {
        name: suite.name.to_owned(),
        about: suite.about.to_owned(),
        work: Work::Suite(suite),
    }));
    all
}

/// Keeps the steps that were named. A name that names nothing is refused: it would pass as a test of nothing.
fn choose(all: Vec<Step>, names: &[String]) -> Result<Vec<Step>> {
    let matches =
        |step: &Step, name: &String| step.name == *name || step.name.split('-').any(|part| part == name);
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|step| matches(step, name))) {
        return wrong(format!("there is no step \"{unknown}\"; ./magma test --list shows them"));
    }
    let wanted = |step: &Step| names.is_empty() || names.iter().any(|name| matches(step, name));
    Ok(all.into_iter().filter(wanted).collect())
}

/// The long form of a drill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Long {
    /// What its randomness begins with.
    pub(crate) seed: u64,
    /// It begins nothing more after this time.
    pub(crate) time: Duration,
}

/// Runs a suite as a process of its own, in a network namespace of its own.
pub(crate) fn in_namespace(
    programs: &Programs,
    suite: &Suite,
    logs: &Path,
    long: Option<Long>,
) -> Result<Tally> {
    let report = logs.join("report.json");
    let mut command = Command::new(programs.integration().join("guest/network"));
    command.arg(programs.binary("magma-integration")?).arg("suite").arg(suite.name);
    command.arg("--folder").arg(logs).arg("--report").arg(&report);
    let mut limit = suite.limit + CLEAN_UP;
    if let Some(Long { seed, time }) = long {
        command.arg("--long").arg(time.as_secs().to_string()).env("MAGMA_SEED", seed.to_string());
        limit = suite.limit * suites::LONGER + CLEAN_UP;
    }
    let status = command::run(suite.name, &mut command, &logs.join("suite.log"), Show::Yes, limit)?;
    match std::fs::read_to_string(&report) {
        Ok(text) => {
            let mut tally: Tally = serde_json::from_str(&text)
                .map_err(|error| Error::Wrong(format!("{}: {error}", report.display())))?;
            if !status.success() && tally.failed == 0 {
                tally.failed += 1;
            }
            Ok(tally)
        }
        Err(_) => wrong(format!("the suite ended with {status} and reported nothing")),
    }
}

/// A new folder for the logs of a step.
pub(crate) fn log_folder(programs: &Programs, name: &str) -> Result<PathBuf> {
    let folder = programs.runs().join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).doing(|| format!("cannot remove {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).doing(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Shows the ends of the processes' logs, and where all of it is.
pub(crate) fn show_logs(folder: &Path) {
    println!("--- logs in {}", folder.display());
    for inner in [folder.join("logs"), folder.join("lava/logs")] {
        let Ok(entries) = std::fs::read_dir(&inner) else { continue };
        for entry in entries.flatten() {
            match tail(&entry.path(), SHOWN_LINES) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => println!("--- end of {}\n{text}", entry.path().display()),
                Err(error) => println!("--- {}: {error}", entry.path().display()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{choose, steps};

    #[test]
    fn a_part_of_a_name_chooses_every_step_that_has_it() {
        let chosen = choose(steps(), &["fuse".to_owned()]).unwrap();
        assert!(chosen.len() >= 3);
        assert!(chosen.iter().all(|step| step.name.ends_with("-fuse")));
        assert_eq!(choose(steps(), &["lint".to_owned()]).unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!(choose(steps(), &["nonsense".to_owned()]).is_err());
    }
}
