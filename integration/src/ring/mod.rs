//! The volcanos of a lava network as real processes: one, several on loopback addresses, or several machines.
//!
//! [`machine`] stands in for the machines (a network namespace each, with a cable that can be pulled), [`console`] asks
//! the volcanos, [`state`] understands what they say.

mod console;
pub(crate) mod machine;
mod state;

use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::{Doing, Error, Result, wrong};
use crate::programs::Programs;
use crate::testing::process::{Process, tied};
use crate::testing::wait;
use machine::{Machine, Switch};
pub(crate) use state::State;

/// How long a start may take: opening a store after a crash replays its log, and who joins has to be taken in.
const READY: Duration = Duration::from_secs(60);
/// How long the console may take to answer.
const ANSWERS: Duration = Duration::from_secs(10);
/// How long a volcano may take to leave.
const LEAVES: Duration = Duration::from_secs(120);
/// How long the network may take to forget a volcano that is gone.
const FORGETS: Duration = Duration::from_secs(60);
/// How often that is asked for.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Copies of a slice, unless the console is told otherwise.
const DEFAULT_COPIES: usize = 2;
/// The volcanos' nicknames, in the order in which they join.
const NAMES: [&str; 8] = ["wallace", "gromit", "shaun", "preston", "feathers", "timmy", "bitzer", "shirley"];

/// Where the volcanos of a network are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// So many on 127.0.0.1, 127.0.0.2 and so on.
    Loopback(usize),
    /// So many machines: 10.71.0.1 and so on, in network namespaces of their own. For suites only.
    Machines(usize),
}

impl Layout {
    /// One volcano on 127.0.0.1.
    pub(crate) const ONE: Self = Self::Loopback(1);
}

/// One volcano, whether or not it runs.
#[derive(Debug)]
struct Volcano {
    name: &'static str,
    address: Ipv4Addr,
    folder: PathBuf,
    log: PathBuf,
    machine: Option<Machine>,
    process: Option<Process>,
    witness: bool,
    frozen: bool,
    /// It has left the network.
    gone: bool,
}

/// All volcanos of a network. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Ring {
    programs: Programs,
    /// Where the folders of the volcanos are.
    folder: PathBuf,
    key_file: PathBuf,
    logs: PathBuf,
    port: u16,
    copies: usize,
    volcanos: Vec<Volcano>,
    /// Below the machines, because it must go last.
    switch: Option<Switch>,
}

impl Ring {
    /// Names the volcanos and sets up their machines; nothing runs yet.
    pub(crate) fn at(programs: &Programs, folder: &Path, layout: Layout, port: u16) -> Result<Self> {
        let mut ring = Self {
            programs: programs.clone(),
            folder: folder.to_owned(),
            key_file: folder.join("key"),
            logs: folder.join("logs"),
            port,
            copies: DEFAULT_COPIES,
            volcanos: Vec::new(),
            switch: None,
        };
        let count = match layout {
            Layout::Loopback(count) => count,
            Layout::Machines(count) => {
                ring.switch = Some(Switch::up()?);
                count
            }
        };
        for _ in 0..count {
            ring.add(false)?;
        }
        Ok(ring)
    }

    /// One more volcano, which does not run yet. Gives its number.
    pub(crate) fn add(&mut self, witness: bool) -> Result<usize> {
        let number = self.volcanos.len();
        let Some(name) = NAMES.get(number).copied() else { return wrong("no more names for volcanos") };
        let place = u8::try_from(number + 1).unwrap_or(u8::MAX);
        let log = self.logs.join(format!("magmad-{name}.log"));
        let (address, machine) = match &self.switch {
            None => (Ipv4Addr::new(127, 0, 0, place), None),
            Some(switch) => {
                let address = Ipv4Addr::new(10, 71, 0, place);
                (address, Some(Machine::new(switch, address, &log)?))
            }
        };
        let (folder, process, frozen) = (self.folder.join(name), None, false);
        self.volcanos.push(Volcano {
            name,
            address,
            folder,
            log,
            machine,
            process,
            witness,
            frozen,
            gone: false,
        });
        Ok(number)
    }

    /// One more machine, for something else than a volcano.
    pub(crate) fn machine(&self, place: u8, log: &Path) -> Result<Machine> {
        match &self.switch {
            Some(switch) => Machine::new(switch, Ipv4Addr::new(10, 71, 0, place), log),
            None => wrong("this network has no machines"),
        }
    }

    /// How many volcanos there are, running or not.
    pub(crate) fn len(&self) -> usize {
        self.volcanos.len()
    }

    /// What doors are told: every volcano, as `--host` takes it.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.storing().map(|volcano| format!("{}:{}", volcano.address, self.port)).collect()
    }

    fn storing(&self) -> impl Iterator<Item = &Volcano> {
        self.volcanos.iter().filter(|volcano| !volcano.witness && !volcano.gone)
    }

    /// Starts every volcano that does not run, and waits until all copies are in sync.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        for number in 0..self.volcanos.len() {
            if !self.runs(number) {
                self.start(number)?;
            }
        }
        Ok(())
    }

    /// Starts all at once: nobody waits until another is ready.
    pub(crate) fn start_together(&mut self, order: &[usize]) -> Result<()> {
        for &number in order {
            self.launch(number)?;
        }
        order.iter().try_for_each(|&number| self.ready(number))
    }

    /// Starts one: the first founds the network, each other joins it, and whoever has been there before goes on.
    pub(crate) fn start(&mut self, number: usize) -> Result<()> {
        self.launch(number)?;
        self.ready(number)
    }

    fn launch(&mut self, number: usize) -> Result<()> {
        let contact = self.volcanos.iter().enumerate().find(|(other, volcano)| {
            *other != number && volcano.process.is_some() && !volcano.witness && !volcano.frozen
        });
        let contact = contact.map(|(_, volcano)| format!("{}:{}", volcano.address, self.port));
        let volcano = self.volcano(number)?;
        let program = self.programs.binary("magmad")?;
        let mut command = match &volcano.machine {
            None => tied(&program),
            Some(machine) => machine.command(&program),
        };
        command.args(["-n", volcano.name, "-i", &volcano.address.to_string(), "-p", &self.port.to_string()]);
        command.arg("--key-file").arg(&self.key_file).arg("-d").arg(&volcano.folder);
        if !volcano.folder.join("config.toml").exists() {
            command.args(["-s", "localhost"]);
            match contact {
                // The folder of the first one may have been wiped: then it joins what is left of the network.
                Some(contact) => command.args(["-r", &contact]),
                None => command.arg("-b"),
            };
            if volcano.witness {
                command.arg("--witness");
            }
        }
        let process = Process::start(&format!("magmad of {}", volcano.name), command, &volcano.log)?;
        let volcano = self.volcano_mut(number)?;
        (volcano.process, volcano.frozen) = (Some(process), false);
        Ok(())
    }

    fn ready(&mut self, number: usize) -> Result<()> {
        self.process(number)?.ready("magmad ready", READY).map(|_| ())
    }

    /// Ends one without warning.
    pub(crate) fn kill(&mut self, number: usize) -> Result<()> {
        let volcano = self.volcano_mut(number)?;
        match volcano.process.take() {
            Some(mut process) => process.kill(),
            None => wrong(format!("{} does not run", volcano.name)),
        }
    }

    /// Ends all of them without warning, as far as possible at the same moment.
    pub(crate) fn kill_all(&mut self) -> Result<()> {
        let running = || (0..self.volcanos.len()).filter(|&number| self.runs(number)).collect::<Vec<_>>();
        let running = running();
        for volcano in &self.volcanos {
            if let Some(process) = &volcano.process {
                process.signal(Signal::KILL)?;
            }
        }
        running.into_iter().try_for_each(|number| self.kill(number))
    }

    /// Ends one as its administrator would.
    pub(crate) fn stop(&mut self, number: usize) -> Result<()> {
        self.thaw(number)?;
        match self.volcano_mut(number)?.process.take() {
            Some(mut process) => process.stop(),
            None => Ok(()),
        }
    }

    /// Lets one give away what it has and leave the network; returns when its process has ended by itself.
    pub(crate) fn leave(&mut self, number: usize) -> Result<()> {
        let said = self.console(number, "lava leave")?;
        if !said.contains("is leaving") {
            return wrong(format!("`lava leave` is answered with {said:?}"));
        }
        self.ends_for_good(number)
    }

    /// Waits until the process of one that is no member any more has ended by itself.
    fn ends_for_good(&mut self, number: usize) -> Result<()> {
        let status = self.process(number)?.wait(LEAVES)?;
        if !status.success() {
            return wrong(format!("{} is no member any more and ends with {status}", self.name(number)));
        }
        let volcano = self.volcano_mut(number)?;
        (volcano.process, volcano.gone) = (None, true);
        Ok(())
    }

    /// Goes on at one volcano without another one, whatever votes are missing; gives what the console says. It refuses for the
    /// first seconds after the other one was lost.
    pub(crate) fn force_out(&mut self, at: usize, who: usize) -> Result<String> {
        let command = format!("lava evict {} --force", self.name(who));
        let mut said = String::new();
        let done = wait::until("an eviction by force", FORGETS, || {
            said = self.console(at, &command)?;
            std::thread::sleep(ASK_AGAIN);
            Ok(said.contains("goes on without asking anybody").then_some(()))
        });
        if done.is_err() {
            return wrong(format!("`{command}` is answered with {said:?}"));
        }
        Ok(said)
    }

    /// Starts one that was forced out while it was down: it must hear of that and end by itself.
    pub(crate) fn start_forced_out(&mut self, number: usize) -> Result<()> {
        self.launch(number)?;
        self.ends_for_good(number)
    }

    /// Stops the clock of one: it neither answers nor knows that time passes.
    pub(crate) fn freeze(&mut self, number: usize) -> Result<()> {
        self.process(number)?.signal(Signal::STOP)?;
        self.volcano_mut(number)?.frozen = true;
        Ok(())
    }

    /// Lets it go on.
    pub(crate) fn thaw(&mut self, number: usize) -> Result<()> {
        if self.volcano(number)?.frozen {
            self.process(number)?.signal(Signal::CONT)?;
            self.volcano_mut(number)?.frozen = false;
        }
        Ok(())
    }

    /// Removes everything that one has on disk, and has the network forget it, so that it can join as a new one. It must not run.
    pub(crate) fn wipe(&mut self, number: usize) -> Result<()> {
        if self.runs(number) {
            return wrong("a volcano that runs cannot be wiped");
        }
        let volcano = self.volcano(number)?;
        let (name, folder) = (volcano.name, &volcano.folder);
        std::fs::remove_dir_all(folder).doing(|| format!("cannot remove {}", folder.display()))?;
        let Some(other) = (0..self.volcanos.len()).find(|&other| self.runs(other)) else {
            return wrong("nobody is left who could forget a volcano");
        };
        // It is refused until it has been silent for some seconds and others have what it had.
        let mut said = String::new();
        let forgotten = wait::until(&format!("{name} to be forgotten"), FORGETS, || {
            let is_member = self.state()?.members.iter().any(|member| member == name);
            if is_member {
                said = self.console(other, &format!("lava evict {name}"))?;
                std::thread::sleep(ASK_AGAIN);
            }
            Ok((!is_member).then_some(()))
        });
        forgotten.map_err(|error| Error::Wrong(format!("{error}; the console said {said:?}")))
    }

    /// The machine of one.
    pub(crate) fn machine_of(&self, number: usize) -> Result<&Machine> {
        let machine = self.volcano(number)?.machine.as_ref();
        machine.ok_or_else(|| Error::Wrong("this network has no machines".to_owned()))
    }

    /// The addresses of all volcanos but this one.
    pub(crate) fn others_of(&self, number: usize) -> Vec<Ipv4Addr> {
        let others = self.volcanos.iter().enumerate().filter(|(other, _)| *other != number);
        others.map(|(_, volcano)| volcano.address).collect()
    }

    /// Whether one was started and not stopped.
    pub(crate) fn runs(&self, number: usize) -> bool {
        self.volcanos.get(number).is_some_and(|volcano| volcano.process.is_some())
    }

    /// Its process.
    pub(crate) fn process(&mut self, number: usize) -> Result<&mut Process> {
        let volcano = self.volcano_mut(number)?;
        let name = volcano.name;
        volcano.process.as_mut().ok_or_else(|| Error::Wrong(format!("{name} does not run")))
    }

    /// The process ids of all that run.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.volcanos.iter().filter_map(|volcano| volcano.process.as_ref().map(Process::id)).collect()
    }

    /// An error if one that was started has ended by itself.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.volcanos
            .iter_mut()
            .filter_map(|volcano| volcano.process.as_mut())
            .try_for_each(Process::must_run)
    }

    /// Those that somebody has killed since this was last asked; an error if one has ended otherwise.
    pub(crate) fn take_killed(&mut self) -> Result<Vec<usize>> {
        let mut killed = Vec::new();
        for (number, volcano) in self.volcanos.iter_mut().enumerate() {
            let Some(process) = &mut volcano.process else { continue };
            if process.ended()?.is_some_and(|status| status.signal().is_some()) {
                volcano.process = None;
                killed.push(number);
            }
        }
        self.must_run()?;
        Ok(killed)
    }

    /// The nickname of one.
    pub(crate) fn name(&self, number: usize) -> &'static str {
        self.volcanos.get(number).map_or("?", |volcano| volcano.name)
    }

    /// The number of the one with this nickname.
    pub(crate) fn number(&self, name: &str) -> Result<usize> {
        let found = self.volcanos.iter().position(|volcano| volcano.name == name);
        found.ok_or_else(|| Error::Wrong(format!("there is no volcano {name:?}")))
    }

    /// Types commands, one a line, at the console of one and gives everything that the console says.
    pub(crate) fn console(&self, number: usize, commands: &str) -> Result<String> {
        let volcano = self.volcano(number)?;
        let key = std::fs::read_to_string(&self.key_file)
            .doing(|| format!("cannot read {}", self.key_file.display()))?;
        let port = self.port + 2;
        let stream = match &volcano.machine {
            Some(machine) => machine.connect((Ipv4Addr::LOCALHOST, port).into(), ANSWERS)?,
            None => std::net::TcpStream::connect_timeout(&(volcano.address, port).into(), ANSWERS)
                .doing(|| format!("connecting to the console of {}", volcano.name))?,
        };
        console::ask(stream, commands, &key, ANSWERS).doing(|| format!("the console of {}", volcano.name))
    }

    /// The network as one of them knows it.
    pub(crate) fn state_by(&self, number: usize) -> Result<State> {
        let text = self.console(number, "lava\nlava health")?;
        State::parse(&text).ok_or_else(|| Error::Wrong(format!("`lava` gives {text:?}")))
    }

    /// The network as the best informed of those knows it that answer.
    pub(crate) fn state(&self) -> Result<State> {
        let running = (0..self.volcanos.len()).filter(|&number| {
            self.volcanos.get(number).is_some_and(|volcano| volcano.process.is_some() && !volcano.frozen)
        });
        let states = running.filter_map(|number| self.state_by(number).ok());
        let newest = states.max_by_key(|state| state.version);
        newest.ok_or_else(|| Error::Wrong("no volcano says how the network is".to_owned()))
    }

    /// Who serves the first slice.
    pub(crate) fn primary(&self) -> Result<usize> {
        let state = self.state()?;
        let slice = state.slices.first().ok_or_else(|| Error::Wrong("there is no slice".to_owned()))?;
        self.number(&slice.primary)
    }

    /// A mirror of the first slice.
    pub(crate) fn mirror(&self) -> Result<usize> {
        let state = self.state()?;
        let name = state.slices.first().and_then(|slice| slice.mirrors.first());
        name.map_or_else(|| wrong("there is no mirror"), |name| self.number(name))
    }

    /// A witness that runs.
    pub(crate) fn witness(&self) -> Result<usize> {
        let found = self.volcanos.iter().position(|volcano| volcano.witness && volcano.process.is_some());
        found.ok_or_else(|| Error::Wrong("no witness runs".to_owned()))
    }

    /// Who coordinates changes.
    pub(crate) fn coordinator(&self) -> Result<usize> {
        let name = self.state()?.coordinator;
        name.map_or_else(|| wrong("nobody is known to coordinate"), |name| self.number(&name))
    }

    /// How many copies there are to be.
    pub(crate) fn copies(&self) -> usize {
        self.copies
    }

    /// Says at the console how many copies there are to be.
    pub(crate) fn set_copies(&mut self, copies: usize) -> Result<()> {
        let at = (0..self.volcanos.len()).find(|&number| self.runs(number)).unwrap_or(0);
        let said = self.console(at, &format!("lava copies {copies}"))?;
        if !said.contains("wanted") {
            return wrong(format!("`lava copies {copies}` is answered with {said:?}"));
        }
        self.copies = copies;
        Ok(())
    }

    /// How many copies there should be of what is stored by those that run.
    fn expected_copies(&self) -> usize {
        self.copies.min(self.storing().filter(|volcano| volcano.process.is_some()).count())
    }

    /// Waits until all volcanos that run agree that every copy is in sync; how long that took.
    pub(crate) fn settle(&mut self, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let copies = self.expected_copies();
        // As long as there are fewer volcanos than there should be copies, all is not well and does not get better.
        let must_be_well = copies == self.copies;
        let mut last = String::new();
        let waited = wait::until("all copies to be in sync", limit, || {
            self.must_run()?;
            let mut states = Vec::new();
            for number in (0..self.volcanos.len()).filter(|&number| self.runs(number)) {
                match self.state_by(number) {
                    Ok(state) => states.push(state),
                    Err(error) => {
                        last = error.to_string();
                        return Ok(None);
                    }
                }
            }
            last = format!("{states:?}");
            let known = |state: &State| (state.version, state.slices.clone());
            let agreed =
                states.windows(2).all(|pair| matches!(pair, [one, other] if known(one) == known(other)));
            let settled = |state: &State| state.is_in_sync(copies) && (state.well || !must_be_well);
            Ok((agreed && states.iter().all(settled)).then_some(()))
        });
        match waited {
            Err(Error::TimedOut { what, limit }) => {
                wrong(format!("{what}: not within {} s; the last state is {last}", limit.as_secs()))
            }
            waited => waited.map(|()| begin.elapsed()),
        }
    }

    /// Ends all in order; the first error, after all were tried.
    pub(crate) fn take_down(&mut self) -> Result<()> {
        let mut first_error = Ok(());
        for number in (0..self.volcanos.len()).rev() {
            let stopped = self.stop(number);
            if first_error.is_ok() {
                first_error = stopped;
            }
        }
        first_error
    }

    fn volcano(&self, number: usize) -> Result<&Volcano> {
        self.volcanos.get(number).ok_or_else(|| Error::Wrong(format!("there is no volcano {number}")))
    }

    fn volcano_mut(&mut self, number: usize) -> Result<&mut Volcano> {
        self.volcanos.get_mut(number).ok_or_else(|| Error::Wrong(format!("there is no volcano {number}")))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            eprintln!("taking down the volcanos in {}: {error}", self.folder.display());
        }
    }
}

/// A door's command line with the volcanos in it.
pub(crate) fn add_hosts(command: &mut Command, hosts: &[String]) {
    for host in hosts {
        command.arg(format!("--host={host}"));
    }
}
