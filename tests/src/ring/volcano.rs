//! A volcano: its machine, its disk and, while it runs, its process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::key::KeyRange;
use magma_common::proto::Reply;
use magma_common::topology::{
    BootId, DEFAULT_PORT, Epoch, Member, Replica, Slice as SliceOfRing, SliceId, Topology, VolcanoId,
};
use magma_volcano::coordinator::{Change, Coordinator, FileVault, Vault};
use magma_volcano::node::{Node, TOPOLOGY};
use magma_volcano::slice::{Call, Identity, Slice, SyncFor, Ticket};
use magma_volcano::store::simulated::{Dice as DiskDice, SimDisk};
use magma_volcano::store::{Disk, OpenOptions, Store, SyncDone};
use magma_volcano::view::ReadError;

use super::clock::{Clock, MICROSECOND, MILLISECOND, SECOND, Time};
use super::dice::Dice;

/// The slice that there is.
pub const SLICE: SliceId = SliceId(1);
/// Under this name the store keeps who this volcano is.
const IDENTITY: &str = "identity";
/// What may wait for a process that does not run, in messages; the rest is lost.
const BACKLOG: usize = 500;

/// Where an answer goes.
#[derive(Clone, Debug)]
pub struct Route {
    /// To which client.
    pub client: usize,
    /// Which of its tries.
    pub tag: u64,
    /// Its operation.
    pub operation: usize,
    /// Through which volcano, in which run of its process, and its number for the request.
    pub through: Option<(usize, u64, u64)>,
}

/// What comes to a process from outside.
#[derive(Debug)]
pub enum Input {
    /// A message of another volcano.
    Message(SocketAddr, Bytes),
    /// A request.
    Request(Route, Box<Call>),
    /// Who asked has gone away.
    Cancel(usize, u64),
    /// A sync has ended.
    Synced(Box<SyncDone>, SyncFor),
    /// A read has ended.
    Read(Ticket, Result<Option<Bytes>, ReadError>),
    /// An administrator wants this.
    Wanted(Change),
    /// An administrator stops the network.
    ShutDown,
}

/// An answer with what is known about its making.
#[derive(Clone, Debug)]
pub struct Passed {
    /// When it left the volcano that had evaluated it.
    pub released: Time,
    /// The newest topology known there.
    pub version: u64,
    /// What it says.
    pub answer: Result<(Reply, Bytes), FlareError>,
}

/// How a volcano begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It founds the network, in which there are to be so many copies.
    Found(u8),
    /// It asks the volcano at this place to take it in.
    Join(usize),
    /// It was a member before.
    Resume,
}

/// See the module's documentation.
pub struct Volcano {
    /// Its place in the world.
    pub place: usize,
    /// The simulated disk.
    pub disk: SimDisk,
    folder: PathBuf,
    /// The machine's clocks.
    pub clock: Clock,
    dice: Dice,
    /// Runs of the machine.
    machine: u64,
    /// Counts the beginnings and ends of processes.
    pub run: u64,
    /// The process.
    pub node: Option<Node>,
    /// Its present life, or its last one.
    pub life: Option<Replica>,
    /// Since when it is stopped.
    pub paused: Option<Time>,
    /// What waits for the process.
    pub inbox: Vec<Input>,
    /// It has been told to look at what waits.
    pub is_called: bool,
    /// It was to be told the time while it was stopped.
    pub missed_tick: bool,
    /// The reign under which it serves.
    pub serves: Option<Epoch>,
    /// Where the answers go.
    pub waiting: BTreeMap<Ticket, Route>,
    next_ticket: u64,
    /// Requests that were passed on, by their numbers.
    pub forwards: BTreeMap<u64, Route>,
    next_forward: u64,
    /// How it begins next.
    pub beginning: Beginning,
    /// What a sync takes at most.
    pub sync_time: Time,
    /// It does not come back.
    pub is_gone: bool,
    /// It is to be started at some time.
    pub is_expected: bool,
    /// Versions of the topology that it has shown.
    pub shown: u64,
    /// Its disk fails, or has failed.
    pub is_failing: bool,
    /// Its disk is full.
    pub is_full: bool,
}

/// Where the volcano at this place listens for the flare protocol.
pub fn address(place: usize) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, place as u8 + 1).into(), DEFAULT_PORT)
}

/// The place of an address.
pub fn place_of(address: SocketAddr) -> Option<usize> {
    match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[3]).checked_sub(1),
        SocketAddr::V6(_) => None,
    }
}

impl Volcano {
    /// A machine with an empty disk.
    pub fn new(place: usize, folder: PathBuf, mut dice: Dice, beginning: Beginning) -> Self {
        std::fs::create_dir_all(&folder).expect("there is space for a database");
        Self {
            place,
            disk: SimDisk::new(&folder),
            folder,
            clock: Clock::new(&mut dice),
            dice,
            machine: 1,
            run: 0,
            node: None,
            life: None,
            paused: None,
            inbox: Vec::new(),
            is_called: false,
            missed_tick: false,
            serves: None,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            forwards: BTreeMap::new(),
            next_forward: 0,
            beginning,
            sync_time: 3 * MILLISECOND,
            is_gone: false,
            is_expected: false,
            shown: 0,
            is_failing: false,
            is_full: false,
        }
    }

    /// Whether its process is there, stopped or not.
    pub fn is_up(&self) -> bool {
        self.node.is_some()
    }

    fn random(&mut self) -> Box<dyn FnMut() -> u64> {
        let mut dice = Dice::new(self.dice.next(), "process");
        Box::new(move || dice.next())
    }

    /// Starts the process. An error is a fault of the volcano.
    pub fn start(&mut self, now: Time) -> Result<Replica, String> {
        self.disk.revive();
        self.shown = 0;
        let is_new = self.beginning != Beginning::Resume;
        let has_store = is_new && self.folder.join("magma.db").exists();
        let options = OpenOptions {
            create: is_new && !has_store,
            machine_boot: format!("run {}", self.machine),
            segment_size: 128 << 10,
            commit_interval: Duration::from_secs(1),
            wal_bytes: 256 << 10,
            keep: Duration::from_secs(30),
            body_interval: Duration::from_secs(5),
            ..OpenOptions::default()
        };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (mut store, opened) =
            Store::open(&self.folder, Arc::clone(&disk), options).map_err(|error| format!("the store: {error}"))?;
        let life = self.begin_life(&mut store)?;
        let own = member(self.place, life);
        let vault: Box<dyn Vault> = Box::new(FileVault::new(disk, self.folder.clone()));
        let times = self.clock.now(now);
        let monotonic = times.monotonic;
        let random = self.random();
        let opening = |error: magma_volcano::coordinator::OpenError| format!("the coordinator: {error}");
        let (topology, coordinator) = match self.beginning {
            Beginning::Found(copies) if !has_store => {
                let topology = founding(&own, copies);
                let coordinator = Coordinator::found(own.id, topology.clone(), vault, random, monotonic);
                (topology, coordinator.map_err(opening)?)
            }
            _ => {
                let coordinator = Coordinator::open(own.id, vault, random, monotonic).map_err(opening)?;
                let stored = store.meta(TOPOLOGY).and_then(|bytes| postcard::from_bytes::<Topology>(&bytes).ok());
                let stored = stored.unwrap_or_default();
                let agreed = coordinator.topology().filter(|agreed| agreed.version > stored.version).cloned();
                (agreed.unwrap_or(stored), coordinator)
            }
        };
        let identity = Identity { slice: SLICE, volcano: own.id, boot: own.boot };
        let contacts = match self.beginning {
            Beginning::Join(contact) => vec![member(contact, life).node_address()],
            _ => Vec::new(),
        };
        let random = self.random();
        let slice = Slice::new(identity, topology.clone(), store, opened, random, times);
        self.node = Some(Node::new(own, topology, coordinator, slice, contacts, times));
        self.life = Some(life);
        self.run += 1;
        if let Beginning::Found(_) = self.beginning {
            self.beginning = Beginning::Resume;
        }
        Ok(life)
    }

    fn begin_life(&mut self, store: &mut Store) -> Result<Replica, String> {
        let known = store.meta(IDENTITY).and_then(|bytes| postcard::from_bytes::<Replica>(&bytes).ok());
        let (volcano, lives) = match known {
            Some(last) => (last.volcano, last.boot.0 >> 32),
            None => (VolcanoId(self.dice.next() | 1), 0),
        };
        let life = Replica { volcano, boot: BootId((lives + 1) << 32 | self.dice.below(1 << 32)) };
        let encoded = postcard::to_stdvec(&life).map_err(|error| error.to_string())?;
        store.set_meta(IDENTITY, &encoded).map_err(|error| error.to_string())?;
        Ok(life)
    }

    /// The process is gone, whatever it was doing.
    pub fn end(&mut self) {
        self.node = None;
        self.run += 1;
        self.paused = None;
        self.inbox.clear();
        self.is_called = false;
        self.missed_tick = false;
        self.serves = None;
        self.waiting.clear();
        self.forwards.clear();
        self.disk.revive();
    }

    /// The power goes: the process is gone, and what was not on disk perhaps, too.
    pub fn cut_power(&mut self, now: Time) {
        self.end();
        self.disk.cut_power(&mut DiskDice::new(self.dice.next()));
        self.machine += 1;
        self.clock.reboot(now, &mut self.dice);
    }

    /// The whole disk is lost. What comes back is another volcano, which asks the one at this place to take it in.
    pub fn lose_disk(&mut self, contact: usize) {
        self.end();
        std::fs::remove_dir_all(&self.folder).expect("it is there");
        std::fs::create_dir_all(&self.folder).expect("there is space for a database");
        self.disk = SimDisk::new(&self.folder);
        self.beginning = Beginning::Join(contact);
    }

    /// Something for the process; lost if too much waits already.
    pub fn put(&mut self, input: Input) {
        let may_be_lost = matches!(input, Input::Message(..) | Input::Request(..));
        if !may_be_lost || self.inbox.len() < BACKLOG {
            self.inbox.push(input);
        }
    }

    /// A name for a request that was taken.
    pub fn take_in(&mut self, route: Route) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket, route);
        ticket
    }

    /// Keeps where the answer to a request goes that is passed on; its number.
    pub fn pass_on(&mut self, route: Route) -> u64 {
        self.next_forward += 1;
        self.forwards.insert(self.next_forward, route);
        self.next_forward
    }

    /// How long the next sync takes.
    pub fn next_sync_time(&mut self) -> Time {
        self.dice.range(50 * MICROSECOND, self.sync_time.max(100 * MICROSECOND))
    }

    /// How long until the process is told the time again.
    pub fn next_tick(&mut self) -> Time {
        let wanted = self.node.as_ref().map_or(Duration::from_secs(1), Node::next_tick);
        self.clock.real(wanted).max(MILLISECOND) + self.dice.below(5 * MILLISECOND)
    }

    /// Somebody sets the wall clock, or the rate of the clocks changes.
    pub fn disturb_clock(&mut self, now: Time) {
        if self.dice.one_in(2) {
            self.clock.jump(&mut self.dice);
        } else {
            self.clock.drift(now, &mut self.dice);
        }
    }

    /// The topology that the process knows; the newest one that its coordinator knows if that is newer.
    pub fn topology(&self) -> Option<&Topology> {
        let node = self.node.as_ref()?;
        let agreed = node.coordinator().topology().filter(|agreed| agreed.version > node.topology().version);
        Some(agreed.unwrap_or_else(|| node.topology())).filter(|topology| topology.network != 0)
    }
}

fn member(place: usize, life: Replica) -> Member {
    let address = address(place);
    Member {
        id: life.volcano,
        boot: life.boot,
        nickname: format!("volcano{place}-{:x}", life.volcano.0),
        servername: format!("volcano{place}.intranet"),
        address: address.ip(),
        port: address.port(),
        bandwidth: 0,
        witness: false,
        leaving: false,
    }
}

fn founding(own: &Member, copies: u8) -> Topology {
    Topology {
        version: 1,
        network: 77,
        lineage: 5,
        loss_counter: 1,
        members: vec![own.clone()],
        slices: vec![SliceOfRing {
            id: SLICE,
            range: KeyRange::ALL,
            epoch: Epoch(1),
            primary: own.replica(),
            mirrors: Vec::new(),
            joining: Vec::new(),
        }],
        handle_key: [9; 32],
        copies,
        voters: vec![own.id],
    }
}

/// A set of places, for people.
pub fn list(places: &BTreeSet<usize>) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A second, as volcanos count it.
pub const PATIENCE_OF_FORWARDS: Time = 5 * SECOND;
