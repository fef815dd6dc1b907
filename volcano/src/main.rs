//! `magmad`: a volcano.

use std::process::ExitCode;

use clap::Parser;
use magma_volcano::cli::Cli;

/// Payloads of up to a mebibyte come and go with every request: the system's allocator hands such memory back to the
/// kernel each time, and the page faults cost more than the copies.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match magma_volcano::start::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("magmad: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
