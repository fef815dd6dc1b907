//! `./magma soak`: the drills of the ring in their long form, for as long as wanted: each of them once, in random order, then all once more.

use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{Result, wrong};
use crate::programs::Programs;
use crate::steps::{Done, Long, build, in_namespace, log_folder, make_tools, show_logs, summarise};
use crate::suites::{self, Suite};
use crate::tally::Tally;
use crate::testing::random;
use crate::testing::signals;

/// The drills.
const DRILLS: [&str; 4] = ["ring-failover", "ring-doors", "ring-power", "ring-grow"];

/// No drill takes more than this part of the time, so that a short soak has several.
const SHARES: u32 = 4;

/// Options of the soak.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// After so many minutes nothing more is begun, and what has been promised is looked for.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Only these drills [default: all of ring-failover, ring-doors, ring-power, ring-grow].
    drills: Vec<String>,
    /// Go on with the programs that are built.
    #[arg(long)]
    no_build: bool,
}

/// Runs drill after drill; whether all of them passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let programs = Programs::locate()?;
    if !rustix::process::geteuid().is_root() {
        return wrong("the drills mount file systems and make network namespaces: run them as root");
    }
    let drills = choose(&options.drills)?;
    if !options.no_build {
        build(&programs)?;
    }
    make_tools(&programs)?;
    let mut random = random::announced();
    let whole = Duration::from_secs(60 * options.minutes);
    let end = Instant::now() + whole;
    let mut results: Vec<Done> = Vec::new();
    let mut left = Vec::new();
    while results.is_empty() || Instant::now() < end {
        if left.is_empty() {
            left.clone_from(&drills);
        }
        let choice = usize::try_from(random.below(left.len() as u64)).unwrap_or(0);
        let drill = left.swap_remove(choice);
        let seed = random.next() >> 1;
        let name = format!("soak-{}-{}", results.len() + 1, drill.name);
        println!("\n=== {name}: {} (seed {seed})", drill.about);
        let begin = Instant::now();
        let time = end.saturating_duration_since(begin).min(whole / SHARES);
        let logs = log_folder(&programs, &name)?;
        let outcome = in_namespace(&programs, drill, &logs, Some(Long { seed, time }));
        signals::check()?;
        let tally = outcome.unwrap_or_else(|error| {
            println!("  FAILED  {name}: {error}");
            Tally::FAILED
        });
        if tally.failed > 0 {
            show_logs(&logs);
        }
        println!("{name}: {tally} ({} s)", begin.elapsed().as_secs());
        results.push(Done { name: format!("{name}, seed {seed}"), tally, took: begin.elapsed() });
    }
    Ok(summarise(&results))
}

fn choose(names: &[String]) -> Result<Vec<&'static Suite>> {
    if let Some(unknown) = names.iter().find(|name| !DRILLS.contains(&name.as_str())) {
        return wrong(format!("there is no drill {unknown:?}; there are {}", DRILLS.join(", ")));
    }
    let wanted = |suite: &&Suite| {
        DRILLS.contains(&suite.name) && (names.is_empty() || names.iter().any(|name| name == suite.name))
    };
    Ok(suites::ALL.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::{DRILLS, choose};

    #[test]
    fn every_drill_is_a_suite() {
        assert_eq!(choose(&[]).unwrap().len(), DRILLS.len());
        assert_eq!(choose(&["ring-power".to_owned()]).unwrap().len(), 1);
        assert!(choose(&["hostile".to_owned()]).is_err());
    }
}
