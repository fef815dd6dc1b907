//! `magmad`: a volcano.

use std::process::ExitCode;

use clap::Parser;
use magma_volcano::cli::Cli;

fn main() -> ExitCode {
    match magma_volcano::start::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("magmad: {error}");
            ExitCode::FAILURE
        }
    }
}
