//! `mount.magma`: mounts a MagmaFS network with FUSE.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use magma_common::logging::Logging;
use magma_common::options::Surroundings;
use magma_mount_fuse::background;
use magma_mount_fuse::cli::{Arguments, Plan};
use magma_mount_fuse::run_mount;

/// `mount(8)`'s exit status for a mount that failed.
const MOUNT_FAILED: u8 = 32;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(error) = error {
                eprintln!("mount.magma: {error}");
            }
            ExitCode::from(MOUNT_FAILED)
        }
    }
}

type Failed = Option<Box<dyn std::error::Error>>;

/// Does what the command line says; an error without a text has been told already.
fn run() -> Result<(), Failed> {
    let plan = Arguments::parse().plan(&Surroundings::of_this_process()).map_err(told)?;
    let stays = background::is_background();
    if plan.fake {
        eprintln!("mount.magma: -f with a source: nothing is mounted (--foreground stays in the foreground)");
        return Ok(());
    }
    if !stays {
        for warning in &plan.resolved.warnings {
            eprintln!("mount.magma: {warning}");
        }
    }
    if !stays && !plan.foreground {
        return if background::start(&plan).map_err(told)? { Ok(()) } else { Err(None) };
    }
    mount(&plan, stays).map_err(Some)
}

fn told(error: impl std::error::Error + 'static) -> Failed {
    Some(Box::new(error))
}

fn mount(plan: &Plan, stays: bool) -> Result<(), Box<dyn std::error::Error>> {
    if stays {
        background::detach()?;
    }
    let _logging = Logging::start(plan.resolved.channels)?;
    let mount = run_mount(&plan.config)?;
    if stays {
        background::ready(plan.log_file.as_deref())?;
    } else {
        // Whoever started us may have gone; the mount stands all the same.
        drop(writeln!(std::io::stdout(), "mounted on {}", mount.mountpoint().display()));
    }
    mount.wait()?;
    Ok(())
}
