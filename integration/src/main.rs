//! Everything that is done with whole MagmaFS processes: the demo, the test command, the suites it runs
//! against real kernels, and the benchmark.
//!
//! `./magma` builds this program and calls it. Reading order: [`testing`] (processes under control),
//! [`ring`] (volcanos, and machines for them), [`lava`] (the same with doors), [`guest`] (a Linux with real
//! clients), [`steps`] (what `./magma test` runs), [`suites`], [`soak`], [`bench`], [`demo`].

mod bench;
mod demo;
mod error;
mod guest;
mod lava;
mod programs;
mod ring;
mod soak;
mod steps;
mod suites;
mod tally;
mod testing;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "magma", about = "Demo, tests and benchmarks of MagmaFS")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run three volcanos with all their doors until Ctrl-C.
    Demo(demo::Options),
    /// Run the tests.
    Test(steps::Options),
    /// Run the drills of the ring again and again.
    Soak(soak::Options),
    /// Compare the speed of folders.
    Bench(bench::Options),
    /// Run one suite inside the network namespace that the test command made for it.
    #[command(hide = true)]
    Suite(suites::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = testing::signals::listen().and_then(|()| match arguments.command {
        Command::Demo(options) => demo::run(&options).map(|()| true),
        Command::Test(options) => steps::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Bench(options) => bench::run(&options).map(|()| true),
        Command::Suite(options) => suites::run(&options),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("magma: {error}");
            ExitCode::FAILURE
        }
    }
}
