//! Servers are killed at random moments while every door writes; nothing that was acknowledged may be missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Context, workloads};
use crate::error::{Doing, Result, wrong};
use crate::guest::{Door, Guest, mount_line};
use crate::lava::{Lava, NfsClients, SUITE_PORTS};
use crate::tally::Tally;
use crate::testing::process::Process;
use crate::testing::random::{self, Random};
use crate::testing::wait;

/// How often the volcano is killed.
const VOLCANO_ROUNDS: u64 = 6;
/// How often the NFS gateway is killed.
const GATEWAY_ROUNDS: u64 = 5;
/// A server is killed after each writer has had between 1 and this many more lines acknowledged.
const LINES_BETWEEN: u64 = 80;
/// How long a door may take to go on after a restart. The NFS client asks again after up to 60 s.
pub(super) const GOES_ON: Duration = Duration::from_secs(100);
/// How long the writers may take to end.
const ENDS: Duration = Duration::from_secs(60);

/// A writer (`workloads/appender.py`): its name, and the process in whose output its lines appear.
struct Writer {
    name: &'static str,
    process: usize,
}

/// All writers of a drill.
pub(super) struct Load {
    folder: PathBuf,
    processes: Vec<Process>,
    writers: Vec<Writer>,
}

impl Load {
    pub(super) fn new(mount: &Path) -> Result<Self> {
        let folder = mount.join("load");
        std::fs::create_dir(&folder).doing(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder, processes: Vec::new(), writers: Vec::new() })
    }

    /// A writer on this host.
    pub(super) fn start_here(&mut self, context: &Context, name: &'static str) -> Result<()> {
        let mut command = workloads::python();
        command.arg(context.programs.integration().join("workloads/appender.py")).arg(name).arg(&self.folder);
        self.add(Process::start(name, command, &context.log(name)?)?, &[name]);
        Ok(())
    }

    pub(super) fn add(&mut self, process: Process, names: &[&'static str]) {
        let index = self.processes.len();
        self.processes.push(process);
        self.writers.extend(names.iter().map(|name| Writer { name, process: index }));
    }

    fn printed(&self, writer: &Writer) -> Result<String> {
        match self.processes.get(writer.process) {
            Some(process) => process.printed(),
            None => wrong(format!("{} was not started", writer.name)),
        }
    }

    /// Waits until each writer has had `lines` more lines acknowledged than now.
    pub(super) fn progress(&self, lines: u64, limit: Duration) -> Result<()> {
        for writer in &self.writers {
            let goal = acknowledged(&self.printed(writer)?, writer.name).map_or(0, |last| last + 1) + lines;
            wait::until(&format!("{lines} more lines through {}", writer.name), limit, || {
                let text = self.printed(writer)?;
                if let Some(error) =
                    text.lines().find(|line| line.starts_with(&format!("ERROR {} ", writer.name)))
                {
                    return wrong(format!("a hard mount must not fail, but: {error}"));
                }
                Ok((acknowledged(&text, writer.name).map_or(0, |last| last + 1) >= goal).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Asks all writers to end, and waits for them.
    pub(super) fn end(&mut self) -> Result<()> {
        let stop = self.folder.join("stop");
        std::fs::write(&stop, "").doing(|| format!("cannot write {}", stop.display()))?;
        for process in &mut self.processes {
            let status = process.wait(ENDS)?;
            if !status.success() {
                return wrong(format!("a writer ended with {status} (see {})", process.log().display()));
            }
        }
        for writer in &self.writers {
            if !self.printed(writer)?.lines().any(|line| line.trim_end() == format!("END {}", writer.name)) {
                return wrong(format!("{} did not end in order", writer.name));
            }
        }
        Ok(())
    }

    /// Compares what was acknowledged with what is in `folder`.
    pub(super) fn verify(&self, folder: &Path, tally: &mut Tally) -> Result<()> {
        for writer in &self.writers {
            let text = self.printed(writer)?;
            let outcome = verify_lines(&folder.join(format!("{}.log", writer.name)), writer.name, &text);
            tally.check(&format!("every acknowledged line of {} is there, once", writer.name), outcome);
            let outcome = verify_files(folder, writer.name, &text);
            tally.check(&format!("every acknowledged file of {} is there", writer.name), outcome);
        }
        Ok(())
    }
}

/// The last line that was acknowledged.
fn acknowledged(text: &str, name: &str) -> Option<u64> {
    numbers(text, "ACK", name).last()
}

fn numbers<'a>(text: &'a str, kind: &'a str, name: &'a str) -> impl Iterator<Item = u64> + 'a {
    // Only whole lines: the last one may be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(move |line| {
        let mut words = line.trim_end().split(' ');
        (words.next() == Some(kind) && words.next() == Some(name))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

fn verify_lines(log: &Path, name: &str, printed: &str) -> std::result::Result<(), String> {
    let last = acknowledged(printed, name).ok_or("nothing was acknowledged")?;
    let text = std::fs::read_to_string(log).map_err(|error| format!("{}: {error}", log.display()))?;
    check_lines(&text, name, last)
}

/// The log holds lines 0, 1, 2 ... up to at least `last`, each whole and once.
fn check_lines(text: &str, name: &str, last: u64) -> std::result::Result<(), String> {
    let mut next = 0_u64;
    for line in text.lines() {
        let fill = "x".repeat(usize::try_from(next % 300).unwrap_or(0));
        let wanted = format!("{name} {next:08} {fill}");
        if line != wanted {
            return Err(format!("line {next} is {:?}", line.chars().take(60).collect::<String>()));
        }
        next += 1;
    }
    if next <= last {
        return Err(format!("{last} was acknowledged, but the file ends after {next} lines"));
    }
    Ok(())
}

fn verify_files(folder: &Path, name: &str, printed: &str) -> std::result::Result<(), String> {
    for number in numbers(printed, "MADE", name) {
        let path = folder.join(format!("{name}-{number}"));
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if text != format!("made {name} {number}\n") {
            return Err(format!("{} holds {text:?}", path.display()));
        }
    }
    Ok(())
}

pub(super) fn appender(name: &str, mount: &str) -> String {
    format!("python3 -B /share/workloads/appender.py {name} {mount}/load")
}

/// The volcano is killed; all three doors go on by themselves.
pub(super) fn volcano(context: &Context) -> Result<Tally> {
    let (scratch, mut lava) = context.lava()?;
    let mount = lava.start_all()?;
    let share = context.share()?;
    let mut random = random::announced();
    let mut tally = Tally::default();

    let mut load = Load::new(&mount)?;
    load.start_here(context, "fuse")?;
    let work = format!("{} & {} & wait", appender("nfs", "/mnt/nfs"), appender("9p", "/mnt/9p"));
    let guest = Guest::new(&context.programs, share.path(), context.limit);
    let doors = [Door::NfsFresh, Door::NinepClient];
    load.add(guest.start(SUITE_PORTS, &doors, &work, &context.log("guest")?)?, &["nfs", "9p"]);

    load.progress(1, GOES_ON)?;
    for round in 1..=VOLCANO_ROUNDS {
        let outcome = kill_and_restart(&mut lava, &load, &mut random, Server::Volcano);
        tally.check(
            &format!("all doors go on after kill {round}"),
            outcome.map_err(|error| error.to_string()),
        );
    }
    tally.check("the writers end without an error", load.end().map_err(|error| error.to_string()));

    // What counts is what the disk gives back to somebody who has cached nothing.
    lava.ring().kill(0)?;
    lava.start_volcanos()?;
    let fresh = scratch.path().join("fresh");
    lava.mount(&fresh)?;
    load.verify(&fresh.join("load"), &mut tally)?;
    share.discard();
    Context::finish(scratch, lava, &mut tally);
    Ok(tally)
}

/// The gateways are killed; the NFS mount goes on by itself, a 9P mount is made anew.
pub(super) fn gateways(context: &Context) -> Result<Tally> {
    let (scratch, mut lava) = context.lava()?;
    let mount = lava.start_all()?;
    let share = context.share()?;
    let mut random = random::announced();
    let mut tally = Tally::default();

    let mut load = Load::new(&mount)?;
    load.start_here(context, "fuse")?;
    // The kernel's 9P client does not connect again: its writer fails, and a new mount goes on.
    let work = format!(
        "{nfs} &\n{ninep}\ncd /\numount -l /mnt/9p\nuntil {again} 2> /dev/null; do sleep 0.1; done\n{more} &\nwait",
        nfs = appender("nfs", "/mnt/nfs"),
        ninep = appender("9p", "/mnt/9p"),
        again = mount_line(Door::NinepClient, SUITE_PORTS),
        more = appender("9p-again", "/mnt/9p"),
    );
    let guest = Guest::new(&context.programs, share.path(), context.limit);
    let doors = [Door::NfsFresh, Door::NinepClient];
    load.add(guest.start(SUITE_PORTS, &doors, &work, &context.log("guest")?)?, &["nfs", "9p"]);

    load.progress(1, GOES_ON)?;
    let before = load.writers.pop();
    for round in 1..=GATEWAY_ROUNDS {
        let outcome = kill_and_restart(&mut lava, &load, &mut random, Server::Nfs);
        tally.check(
            &format!("NFS and FUSE go on after kill {round}"),
            outcome.map_err(|error| error.to_string()),
        );
    }
    let guest_process = load.processes.len().saturating_sub(1);
    load.writers.push(Writer { name: "9p-again", process: guest_process });
    let outcome = kill_and_restart(&mut lava, &load, &mut random, Server::Ninep);
    tally.check("9P works again after a new mount", outcome.map_err(|error| error.to_string()));
    tally.check("the writers end without an error", load.end().map_err(|error| error.to_string()));

    load.writers.extend(before);
    let fresh = scratch.path().join("fresh");
    lava.mount(&fresh)?;
    load.verify(&fresh.join("load"), &mut tally)?;
    share.discard();
    Context::finish(scratch, lava, &mut tally);
    Ok(tally)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Volcano,
    Nfs,
    Ninep,
}

/// Kills a server at a random moment of the load, starts it again and waits until every writer goes on.
fn kill_and_restart(lava: &mut Lava, load: &Load, random: &mut Random, server: Server) -> Result<()> {
    if server != Server::Ninep {
        load.progress(1 + random.below(LINES_BETWEEN), GOES_ON)?;
    }
    match server {
        Server::Volcano => {
            lava.ring().kill(0)?;
            lava.start_volcanos()?;
        }
        Server::Nfs => {
            lava.nfs()?.kill()?;
            lava.start_nfs(NfsClients::Any)?;
        }
        Server::Ninep => {
            lava.ninep()?.kill()?;
            lava.start_ninep()?;
        }
    }
    load.progress(1, GOES_ON)
}

#[cfg(test)]
mod tests {
    use super::{acknowledged, check_lines, numbers};

    #[test]
    fn only_whole_lines_of_the_own_name_count() {
        let text = "ACK nfs 1\nACK 9p 7\nMADE nfs 10\nACK nfs 2\nACK nfs 3";
        assert_eq!(acknowledged(text, "nfs"), Some(2));
        assert_eq!(acknowledged(text, "fuse"), None);
        assert_eq!(numbers(text, "MADE", "nfs").collect::<Vec<_>>(), [10]);
    }

    #[test]
    fn a_missing_a_repeated_and_a_torn_line_are_found() {
        assert!(check_lines("n 00000000 \nn 00000001 x\n", "n", 1).is_ok());
        assert!(check_lines("n 00000000 \n", "n", 1).is_err());
        assert!(check_lines("n 00000000 \nn 00000000 \nn 00000001 x\n", "n", 1).is_err());
        assert!(check_lines("n 00000000 \nn 0000", "n", 0).is_err());
    }
}
