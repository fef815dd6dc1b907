//! `magma-nfs`: see the library.

use std::process::ExitCode;

use clap::Parser;
use magma_gateway_nfs::{Options, run};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("magma-nfs: {error}");
            ExitCode::FAILURE
        }
    }
}
