//! A command that runs to its end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::wait;
use crate::error::{Doing, Error, Result};

/// After the limit or a signal, a command may take this long to clean up after itself.
const GRACE: Duration = Duration::from_secs(60);

/// Whether a command's output is shown while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// On our own output, and in the log.
    Yes,
    /// In the log only.
    No,
}

/// Runs a command with a time limit, its output in `log`; gives its status, whatever it is.
pub(crate) fn run(
    name: &str,
    command: &mut Command,
    log: &Path,
    show: Show,
    limit: Duration,
) -> Result<ExitStatus> {
    let make = || File::create(log).doing(|| format!("cannot make {}", log.display()));
    let file = make()?;
    let second = file.try_clone().doing(|| format!("cannot use {}", log.display()))?;
    command.stdin(Stdio::null()).process_group(0);
    if show == Show::Yes {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    } else {
        command.stdout(file.try_clone().doing(|| format!("cannot use {}", log.display()))?).stderr(second);
        let mut child = command.spawn().doing(|| format!("cannot start {name}"))?;
        return finish(name, &mut child, limit);
    }
    let mut child = command.spawn().doing(|| format!("cannot start {name}"))?;
    let copies = [
        child.stdout.take().map(|from| std::thread::spawn(move || copy(from, std::io::stdout(), file))),
        child.stderr.take().map(|from| std::thread::spawn(move || copy(from, std::io::stderr(), second))),
    ];
    let status = finish(name, &mut child, limit);
    for copy in copies.into_iter().flatten() {
        match copy.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("the output of {name} could not be copied: {error}"),
            Err(_) => eprintln!("the output of {name} could not be copied"),
        }
    }
    status
}

/// As [`run`], but a status other than 0 is an error.
pub(crate) fn succeed(
    name: &str,
    command: &mut Command,
    log: &Path,
    show: Show,
    limit: Duration,
) -> Result<()> {
    let status = run(name, command, log, show, limit)?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Ended { name: name.to_owned(), status, log: log.to_owned() })
    }
}

/// Waits for the end; on a signal or at the limit the whole process group is asked to end, then killed.
fn finish(name: &str, child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let what = format!("the end of {name}");
    let outcome = wait::until(&what, limit, || child.try_wait().doing(|| what.clone()));
    if outcome.is_ok() {
        return outcome;
    }
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        let asked = kill_process_group(group, Signal::TERM).is_ok();
        if !(asked && wait::quietly_until(GRACE, || ended(child))) {
            if let Err(error) = kill_process_group(group, Signal::KILL) {
                eprintln!("cannot kill {name}: {error}");
            }
            wait::quietly_until(GRACE, || ended(child));
        }
    }
    outcome
}

fn copy(mut from: impl Read, mut shown: impl Write, mut logged: impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut buffer)?;
        let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else { return Ok(()) };
        shown.write_all(part)?;
        shown.flush()?;
        logged.write_all(part)?;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{Show, run, succeed};

    #[test]
    fn output_goes_to_the_log_and_the_status_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 4"]);
        let status = run("sh", &mut command, &log, Show::No, Duration::from_secs(10)).unwrap();
        assert_eq!(status.code(), Some(4));
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains("out") && text.contains("err"), "{text}");
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let log = folder.path().join("log");
        let error = succeed("sleep", &mut command, &log, Show::No, Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("the end of sleep"), "{error}");
    }
}
