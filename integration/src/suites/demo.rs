//! The demo as a newcomer uses it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::Context;
use crate::error::{Doing, Result, wrong};
use crate::lava::{ADDRESS, SUITE_PORTS, mounted};
use crate::tally::Tally;
use crate::testing::process::{Process, tied};
use crate::testing::scratch::Scratch;
use crate::testing::wait;

/// How long the demo may take to be up; it does not build here.
const UP: Duration = Duration::from_secs(60);
/// How long it may take to be down.
const DOWN: Duration = Duration::from_secs(45);
/// How long a killed volcano may take to be back.
const BACK: Duration = Duration::from_secs(60);
/// How long the console may take to answer.
const ANSWERS: Duration = Duration::from_secs(10);

/// Starts it twice in one folder.
pub(super) fn run(context: &Context) -> Result<Tally> {
    let scratch = Scratch::fresh(&context.folder, "lava")?;
    let folder = scratch.path().join("with space");
    let mut tally = Tally::default();
    let note = folder.join("magma/note");

    let mut demo = start(context, &folder)?;
    let text = demo.printed()?;
    for line in ["sudo mount -t nfs -o vers=3", "sudo mount -t 9p -o trans=tcp", "telnet 127.0.0.1 12002"] {
        let found = if text.contains(line) { Ok(()) } else { Err("is not shown".to_owned()) };
        tally.check(&format!("the demo shows \"{line} ...\""), found);
    }
    std::fs::write(&note, "kept").doing(|| format!("cannot write {}", note.display()))?;
    tally.check("the console answers", console().map_err(|error| error.to_string()));
    let killed = kill_as_told(&demo, &text, &note);
    tally.check(
        "files stay there when a volcano is killed as it says",
        killed.map_err(|error| error.to_string()),
    );
    tally.check("Ctrl-C ends it", end(&mut demo, &folder, Signal::INT).map_err(|error| error.to_string()));
    tally.check("nothing stays behind", leftovers());

    let mut demo = start(context, &folder)?;
    let kept = std::fs::read_to_string(&note).map_err(|error| error.to_string());
    let same = kept.and_then(|text| if text == "kept" { Ok(()) } else { Err(format!("holds {text:?}")) });
    tally.check("the next demo finds the files again", same);
    tally.check("SIGTERM ends it", end(&mut demo, &folder, Signal::TERM).map_err(|error| error.to_string()));
    tally.check("nothing stays behind", leftovers());
    if tally.failed == 0 {
        scratch.discard();
    }
    Ok(tally)
}

fn start(context: &Context, folder: &Path) -> Result<Process> {
    let mut command = tied(&context.programs.binary("magma-integration")?);
    command.args(["demo", "--folder"]).arg(folder);
    let mut demo = Process::start("the demo", command, &context.log("demo")?)?;
    demo.ready("Ctrl-C takes everything down", UP)?;
    Ok(demo)
}

/// Kills the process that the text tells to kill, uses the files, and waits until the demo has brought the volcano back.
fn kill_as_told(demo: &Process, text: &str, note: &Path) -> Result<()> {
    let told = text.lines().find_map(|line| line.trim().strip_prefix("kill -9 "));
    let id = told.and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
    let Some(id) = id else { return wrong("it names no process") };
    kill_process(id, Signal::KILL).doing(|| format!("cannot kill {told:?}"))?;
    let doing = || format!("{}", note.display());
    let kept = std::fs::read_to_string(note).doing(doing)?;
    if kept != "kept" {
        return wrong(format!("{} holds {kept:?}", note.display()));
    }
    std::fs::write(note, "kept still").doing(doing)?;
    std::fs::write(note, "kept").doing(doing)?;
    wait::until("the volcano to be brought back", BACK, || {
        Ok(demo.printed()?.contains(" is back, as process ").then_some(()))
    })
}

fn end(demo: &mut Process, folder: &Path, signal: Signal) -> Result<()> {
    demo.signal(signal)?;
    let status = demo.wait(DOWN)?;
    if !status.success() {
        return wrong(format!("it ends with {status}"));
    }
    if mounted(&folder.join("magma")) {
        return wrong("the folder is still mounted");
    }
    Ok(())
}

/// No process of ours has a port any more: each suite has a network namespace of its own.
fn leftovers() -> std::result::Result<(), String> {
    let ports = [SUITE_PORTS.volcano, SUITE_PORTS.console(), 2049, 564];
    match ports.iter().find(|port| TcpStream::connect((ADDRESS, **port)).is_ok()) {
        Some(port) => Err(format!("port {port} is still served")),
        None => Ok(()),
    }
}

/// Asks the console for the topology.
fn console() -> Result<()> {
    let doing = || "the console".to_owned();
    let mut stream = TcpStream::connect((ADDRESS, SUITE_PORTS.console())).doing(doing)?;
    stream.set_read_timeout(Some(Duration::from_millis(100))).doing(doing)?;
    stream.write_all(b"lava\r\nquit\r\n").doing(doing)?;
    let mut text = String::new();
    wait::until("the console's answer", ANSWERS, || {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(length) => {
                text += &String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                Ok((length == 0 || text.contains("wallace")).then_some(()))
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).doing(doing),
        }
    })?;
    if text.contains("MAGMA [wallace]") { Ok(()) } else { wrong(format!("it says {text:?}")) }
}
