//! `magma-9p`: see the library.

use std::process::ExitCode;

use clap::Parser;
use magma_gateway_9p::{Options, run};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("magma-9p: {error}");
            ExitCode::FAILURE
        }
    }
}
