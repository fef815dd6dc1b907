//! One long-running process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::wait;
use crate::error::{Doing, Error, Result, wrong};

/// How long a process may take to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long the kernel may take to end a killed process.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// No more of a log than this is searched for a ready line or shown.
const LOG_WINDOW: u64 = 1 << 20;

/// A command whose process gets SIGTERM when the harness dies. It must be started from the main thread:
/// the kernel ties this to the thread that forked.
pub(crate) fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// A running process whose output goes to a log. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    log_start: u64,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts it, with its output appended to `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .doing(|| format!("cannot open {}", log.display()))
        };
        let output = open()?;
        let log_start = output.metadata().doing(|| format!("cannot stat {}", log.display()))?.len();
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(open()?)
            .process_group(0)
            .spawn()
            .doing(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), log_start, status: None })
    }

    /// Waits until it prints a line that begins with `beginning`, and gives that line.
    pub(crate) fn ready(&mut self, beginning: &str, limit: Duration) -> Result<String> {
        let what = format!("{} to print \"{beginning}\" (see {})", self.name, self.log.display());
        wait::until(&what, limit, || {
            let printed = self.printed()?;
            if let Some(line) = printed.lines().find(|line| line.starts_with(beginning)) {
                return Ok(Some(line.to_owned()));
            }
            self.must_run().map(|()| None)
        })
    }

    /// What it has printed since it was started, as far as it is searched.
    pub(crate) fn printed(&self) -> Result<String> {
        read_from(&self.log, self.log_start).doing(|| format!("cannot read {}", self.log.display()))
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Its status, if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().doing(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(self.status)
    }

    /// An error if it has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(Error::Ended { name: self.name.clone(), status, log: self.log.clone() }),
        }
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::until(&what, limit, || self.ended())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        match self.pid() {
            Some(pid) if self.status.is_none() => {
                kill_process(pid, signal).doing(|| format!("cannot signal {}", self.name))
            }
            _ => wrong(format!("{} has ended already", self.name)),
        }
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        if wait::quietly_until(KILL_LIMIT, || self.has_ended()) {
            Ok(())
        } else {
            wrong(format!("{} does not end on SIGKILL", self.name))
        }
    }

    /// Asks it to end (SIGTERM); it must do so in time and with status 0.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.signal(Signal::TERM)?;
            if !wait::quietly_until(STOP_LIMIT, || self.has_ended()) {
                self.kill()?;
                return wrong(format!(
                    "{} did not end within {} s of SIGTERM (see {})",
                    self.name,
                    STOP_LIMIT.as_secs(),
                    self.log.display()
                ));
            }
        }
        match self.status {
            Some(status) if !status.success() => {
                Err(Error::Ended { name: self.name.clone(), status, log: self.log.clone() })
            }
            _ => Ok(()),
        }
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.ended(), Ok(Some(_)))
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let Some(pid) = self.pid() else { return };
        // What it started itself belongs to its group and must not stay behind either.
        let asked = kill_process_group(pid, Signal::TERM).is_ok();
        if asked && wait::quietly_until(STOP_LIMIT, || self.has_ended()) {
            return;
        }
        if let Err(error) = kill_process_group(pid, Signal::KILL) {
            eprintln!("cannot kill {} ({pid:?}): {error}", self.name);
        }
        wait::quietly_until(KILL_LIMIT, || self.has_ended());
    }
}

/// The text of a log from a position on, as far as the window reaches.
fn read_from(log: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_WINDOW).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a log, for showing after a failure.
pub(crate) fn tail(log: &Path, lines: usize) -> std::io::Result<String> {
    let length = std::fs::metadata(log)?.len();
    let text = read_from(log, length.saturating_sub(LOG_WINDOW))?;
    let all: Vec<&str> = text.lines().collect();
    Ok(all.iter().skip(all.len().saturating_sub(lines)).fold(String::new(), |mut shown, line| {
        shown.push_str(line);
        shown.push('\n');
        shown
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Process, tail, tied};

    fn shell(script: &str, log: &std::path::Path) -> Process {
        let mut command = tied("/bin/sh".as_ref());
        command.args(["-c", script]);
        Process::start("shell", command, log).unwrap()
    }

    #[test]
    fn a_ready_line_is_found_and_the_process_stops_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut process =
            shell("trap 'exit 0' TERM; echo starting; echo ready: here; while :; do sleep 0.05; done", &log);
        assert_eq!(process.ready("ready:", Duration::from_secs(10)).unwrap(), "ready: here");
        process.stop().unwrap();
        assert!(tail(&log, 1).unwrap().contains("ready: here"));
    }

    #[test]
    fn a_process_that_ends_before_it_is_ready_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell("exit 3", &folder.path().join("log"));
        let error = process.ready("ready:", Duration::from_secs(60)).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn dropping_a_process_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let process = shell("echo up; exec sleep 1000", &folder.path().join("log"));
        let entry = format!("/proc/{}", process.id());
        assert!(std::path::Path::new(&entry).exists());
        drop(process);
        assert!(!std::path::Path::new(&entry).exists());
    }
}
