//! Going into the background: the program starts itself again, waits until the mount can be used, and returns.
//!
//! A fork would have to happen before any thread exists and would need unsafe code; a second start needs neither.
//! The key goes to the second process in its environment, which only its owner and root can read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use magma_common::options::KEY_VARIABLE;

use crate::cli::Plan;

/// Set for the process that stays.
const VARIABLE: &str = "MAGMA_MOUNT_BACKGROUND";
/// What that process says when the mount can be used.
const READY: &[u8] = b"ready\n";
/// Where the system's log listens.
const SYSTEM_LOG: &str = "/dev/log";

/// Whether this is the process that stays.
pub fn is_background() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts the process that stays; true when its mount can be used. It has told the reason itself if not.
pub fn start(plan: &Plan) -> io::Result<bool> {
    let mountpoint = &plan.config.mountpoint;
    let mountpoint = mountpoint.canonicalize().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot mount on {}: {error}", mountpoint.display()))
    })?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0("mount.magma");
    for host in &plan.config.client.hosts {
        command.arg(format!("--host={host}"));
    }
    if let Some(path) = plan.resolved.config.path() {
        command.arg("--config").arg(path.canonicalize()?);
    }
    let channels = plan.resolved.channels.to_string();
    if !channels.is_empty() {
        command.arg(format!("-D{channels}"));
    }
    let subdirectory =
        if plan.config.path.is_empty() { String::new() } else { format!(",subdir={}", plan.config.path) };
    // Unknown options were refused here, or are to be ignored there as well.
    let options = format!("{}{subdirectory}", plan.option_text);
    if !options.is_empty() {
        command.arg("-s").arg("-o").arg(options);
    }
    command.arg("--").arg(mountpoint);
    command.env(KEY_VARIABLE, plan.config.client.key.expose()).env(VARIABLE, "1");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(READY.len() as u64).read_to_end(&mut said)?;
    }
    if said == READY {
        return Ok(true);
    }
    child.wait()?;
    Ok(false)
}

/// In the process that stays, before anything else: leaves the terminal's session.
pub fn detach() -> io::Result<()> {
    rustix::process::setsid()?;
    std::env::set_current_dir("/")
}

/// Where the process that stays logs: to the file, else to the system's log, else nowhere.
pub fn open_log(log_file: Option<&Path>) -> io::Result<OwnedFd> {
    let Some(path) = log_file else { return system_log().or_else(|_| nowhere()) };
    let file = File::options().create(true).append(true).open(path);
    file.map(OwnedFd::from).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot write the log {}: {error}", path.display()))
    })
}

/// In the process that stays, once the mount can be used: tells the first process, and lets go of its terminal.
pub fn ready(log: &OwnedFd) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(READY)?;
    stdout.flush()?;
    rustix::stdio::dup2_stdout(nowhere()?)?;
    rustix::stdio::dup2_stderr(log)?;
    Ok(())
}

fn system_log() -> io::Result<OwnedFd> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(SYSTEM_LOG)?;
    Ok(socket.into())
}

fn nowhere() -> io::Result<OwnedFd> {
    File::options().write(true).open("/dev/null").map(OwnedFd::from)
}
