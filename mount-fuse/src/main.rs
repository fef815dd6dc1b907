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

/// Payloads of up to a mebibyte come and go with every request: the system's allocator hands such memory back to the
/// kernel each time, and the page faults cost more than the copies.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Now(error)) => {
            eprintln!("mount.magma: {error}");
            ExitCode::from(MOUNT_FAILED)
        }
        Err(Failed::InTheBackground) => ExitCode::from(MOUNT_FAILED),
    }
}

enum Failed {
    Now(Box<dyn std::error::Error>),
    /// The process there has told why.
    InTheBackground,
}

impl<E: std::error::Error + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Now(Box::new(error))
    }
}

fn run() -> Result<(), Failed> {
    let plan = Arguments::parse().plan(&Surroundings::of_this_process())?;
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
        return if background::start(&plan)? { Ok(()) } else { Err(Failed::InTheBackground) };
    }
    mount(&plan, stays)
}

fn mount(plan: &Plan, stays: bool) -> Result<(), Failed> {
    // Opened before the mount, which should not stand if this fails; before the working directory changes, too.
    let log = if stays { Some(background::open_log(plan.log_file.as_deref())?) } else { None };
    if stays {
        background::detach()?;
    }
    let _logging = Logging::start(plan.resolved.channels)?;
    let mount = run_mount(&plan.config)?;
    if let Some(log) = log {
        background::ready(&log)?;
    } else {
        // Whoever started us may have gone; the mount stands all the same.
        drop(writeln!(std::io::stdout(), "mounted on {}", mount.mountpoint().display()));
    }
    mount.wait()?;
    Ok(())
}
