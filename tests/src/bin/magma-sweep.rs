//! Runs seeds of the simulated ring: see `docs/guide/testing.md`.

#![allow(clippy::pedantic, reason = "a program for tests that prints figures for people")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use magma_tests::ring::sweep::{self, Seed};
use magma_tests::ring::trace::Trace;
use magma_volcano::planted::Bug;

/// Seeds that once failed.
const CORPUS: &str = include_str!("../../corpus/ring-seeds.txt");
/// A line about the progress comes after so many seeds.
const PROGRESS: usize = 50;
/// So many seeds are run unless it is said how many.
const SEEDS: u64 = 1000;
/// In one world of so many, client libraries ask.
const LIBRARIES: u64 = 4;
/// In one world of so many, nothing goes wrong while slices are divided and moved.
const CALM: u64 = 9;
/// In one world of so many, files are striped.
const STRIPES: u64 = 5;
/// So many seeds have to be enough to find a planted fault.
const SEEDS_FOR_A_FAULT: u64 = 150;

/// Most slices of a world.
const MOST_SLICES: i64 = 8;
/// Faults that only several slices show are looked for with so many.
const SLICES_FOR_A_FAULT: u32 = 3;

/// Simulates rings of volcanos, one for each seed, and checks that they keep what they promise.
#[derive(Parser)]
struct Cli {
    /// How many seeds [default: 1000, and 150 for a planted fault].
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Threads; one for each core unless given.
    #[arg(long)]
    jobs: Option<usize>,
    /// One seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Cuts the keyspace into so many slices in every world [default: each seed decides; for a planted fault 1, or 3 if one slice does not show it].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MOST_SLICES))]
    slices: Option<u32>,
    /// Client libraries ask in every world, and not clients that speak the protocol by themselves [default: in one of four].
    #[arg(long)]
    libraries: bool,
    /// Nothing goes wrong in any world, while slices are divided and moved: nobody may wait long [default: in one of nine].
    #[arg(long)]
    calm: bool,
    /// Files are striped in every world [default: in one of five].
    #[arg(long)]
    stripes: bool,
    /// Shows what happens, and what volcanos say.
    #[arg(long)]
    trace: bool,
    /// Plants this fault, or each of them (`all`), and looks for a seed that finds it.
    #[arg(long)]
    plant: Option<String>,
    /// Leaves out the seeds that once failed.
    #[arg(long)]
    no_corpus: bool,
}

impl Cli {
    /// The world of a number, as it is wanted of all worlds.
    fn seed(&self, number: u64, slices: Option<u32>) -> Seed {
        Seed { number, slices, libraries: self.libraries, calm: self.calm, stripes: self.stripes }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.trace {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env();
        let filter = filter.unwrap_or_else(|_| "magma=debug,volcano=debug".into());
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    } else if cli.seed.is_none() {
        std::panic::set_hook(Box::new(|_| ()));
    }
    match (&cli.plant, cli.seed) {
        (Some(name), seed) => plant(&cli, name, seed),
        (None, Some(number)) => one(cli.seed(number, cli.slices), None, cli.trace),
        (None, None) => many(&cli),
    }
}

fn one(seed: Seed, bug: Option<Bug>, trace: bool) -> ExitCode {
    let begun = Instant::now();
    match sweep::seed(seed, bug, Trace::new(trace)) {
        Ok(summary) => {
            println!("seed {seed} passed in {:.2} s: {summary:?}", begun.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("seed {seed} FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

fn jobs(cli: &Cli) -> usize {
    cli.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into))
}

fn many(cli: &Cli) -> ExitCode {
    let corpus = if cli.no_corpus { Vec::new() } else { sweep::corpus(CORPUS) };
    let numbers = cli.first..cli.first + cli.seeds.unwrap_or(SEEDS);
    let drawn = numbers.map(|number| Seed {
        libraries: cli.libraries || number % LIBRARIES == 0,
        calm: cli.calm || number % CALM == 0,
        stripes: cli.stripes || number % STRIPES == 0,
        ..cli.seed(number, cli.slices)
    });
    let seeds: Vec<Seed> = corpus.into_iter().chain(drawn).collect();
    let begun = Instant::now();
    let (mut passed, mut failed, mut operations) = (0, Vec::new(), 0);
    sweep::seeds(&seeds, jobs(cli), None, |seed, outcome| {
        match outcome {
            Ok(summary) => {
                passed += 1;
                operations += summary.operations;
            }
            Err(why) => {
                println!("seed {seed} FAILED: {why}\n    replay it: ./magma sweep --seed {seed} --trace");
                failed.push(seed);
            }
        }
        let done = passed + failed.len();
        if done % PROGRESS == 0 {
            let minutes = begun.elapsed().as_secs_f64() / 60.0;
            println!(
                "{done} of {} seeds, {:.0} a minute, {} failed",
                seeds.len(),
                done as f64 / minutes,
                failed.len()
            );
        }
        true
    });
    println!("{operations} operations in {:.0} s", begun.elapsed().as_secs_f64());
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plant(cli: &Cli, name: &str, seed: Option<u64>) -> ExitCode {
    let is_wanted = |bug: &&Bug| name == "all" || format!("{bug:?}").eq_ignore_ascii_case(name);
    let bugs: Vec<Bug> = Bug::ALL.iter().filter(is_wanted).copied().collect();
    if bugs.is_empty() {
        println!("there is no fault {name}; there are: {:?}", Bug::ALL);
        return ExitCode::FAILURE;
    }
    let needed = |bug: Bug| match bug {
        // only worlds that decide by themselves divide slices
        _ if bug.is_of_division() => None,
        _ if bug.is_of_stripes() && !bug.is_across() => None,
        _ if bug.is_across() => Some(SLICES_FOR_A_FAULT),
        _ => Some(1),
    };
    let world = |bug: Bug, number| Seed {
        stripes: cli.stripes || bug.is_of_stripes(),
        ..cli.seed(number, cli.slices.or(needed(bug)))
    };
    if let (Some(number), [bug]) = (seed, bugs.as_slice()) {
        return one(world(*bug, number), Some(*bug), cli.trace);
    }
    let numbers = cli.first..cli.first + cli.seeds.unwrap_or(SEEDS_FOR_A_FAULT);
    let (all, mut missed) = (bugs.len(), 0);
    for bug in bugs {
        let seeds: Vec<Seed> = numbers.clone().map(|number| world(bug, number)).collect();
        let mut tried = 0;
        let mut found = None;
        sweep::seeds(&seeds, jobs(cli), Some(bug), |seed, outcome| {
            tried += 1;
            if let Err(why) = outcome {
                found = Some((seed, why.lines().next().unwrap_or_default().to_owned()));
            }
            found.is_none()
        });
        match found {
            Some((seed, why)) => println!("{bug:?}: found after {tried} seeds (seed {seed}): {why}"),
            None => {
                println!("{bug:?}: NOT FOUND by {tried} seeds");
                missed += 1;
            }
        }
    }
    println!("{} passed, {missed} failed", all - missed);
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
