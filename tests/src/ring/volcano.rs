//! A volcano: its machine, its disk and, while it runs, its process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use magma_common::client::HostPort;
use magma_common::error::FlareError;
use magma_common::proto::Reply;
use magma_common::stripes::StripeUnit;
use magma_common::topology::{DEFAULT_PORT, Epoch, NODE_PORT_OFFSET, Replica, Seq, SliceId, Topology};
use magma_volcano::coordinator::Change;
use magma_volcano::life::{self, Origin, Profile};
use magma_volcano::node::Node;
use magma_volcano::slice::{Call, SliceRef, SyncFor, Ticket};
use magma_volcano::store::simulated::{Dice as DiskDice, SimDisk};
use magma_volcano::store::{OpenOptions, SyncDone};
use magma_volcano::view::ReadError;

use super::clock::{Clock, MICROSECOND, MILLISECOND, SECOND, Time};
use super::dice::Dice;

/// What may wait for a process that does not run, in messages; the rest is lost.
const BACKLOG: usize = 500;
/// The longest time that a sync takes on a disk that is as it should be.
const SYNC_TIME: Time = 3 * MILLISECOND;

/// Where an answer goes.
#[derive(Clone, Debug)]
pub struct Route {
    /// To which client.
    pub client: usize,
    /// Which of its tries.
    pub tag: u64,
    /// Its operation.
    pub operation: usize,
    /// The slice that it is for.
    pub slice: SliceId,
    /// Through which volcano, in which run of its process, and its number for the request.
    pub through: Option<(usize, u64, u64)>,
    /// The last record of its slice that there was when the request was evaluated, or, of one that had to wait, a little earlier.
    pub at: Seq,
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
    Synced(Box<SyncDone>, Vec<SyncFor>),
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
    /// It founds the network, with so many slices, and files striped by this unit.
    Found(u32, Option<StripeUnit>),
    /// It asks others to take it in.
    Join,
    /// It was a member before.
    Resume,
}

/// What is known of a copy of a slice in this life of its volcano.
#[derive(Debug, Default)]
pub struct Copy {
    /// This life has synced its log up to this record since it began.
    pub synced: Seq,
    /// When the newest sync that another copy has asked for, and that has ended, was begun.
    pub synced_for_primary: Time,
    /// The newest beacon of each other volcano that it was to answer.
    pub heard: BTreeMap<usize, u64>,
    /// The epoch under which it has proposed itself as primary.
    pub proposed_itself: Option<Epoch>,
    /// The copies that it has proposed as in sync, and the epoch under which it has.
    pub proposed_copies: (Epoch, Vec<Replica>),
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
    /// Disks that it has had.
    disks: u64,
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
    /// The slices that it serves, and under which reigns.
    pub serves: BTreeMap<SliceId, Epoch>,
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
    /// Of each slice.
    pub copies: BTreeMap<SliceId, Copy>,
}

/// Where the volcano at this place listens for the flare protocol.
pub fn address(place: usize) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, place as u8 + 1).into(), DEFAULT_PORT)
}

/// Where clients find it.
pub fn client_address(place: usize) -> HostPort {
    let address = address(place);
    HostPort { host: address.ip().to_string(), port: address.port() }
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
            disks: 1,
            run: 0,
            node: None,
            life: None,
            paused: None,
            inbox: Vec::new(),
            is_called: false,
            missed_tick: false,
            serves: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            forwards: BTreeMap::new(),
            next_forward: 0,
            beginning,
            sync_time: SYNC_TIME,
            is_gone: false,
            is_expected: false,
            shown: 0,
            is_failing: false,
            is_full: false,
            copies: BTreeMap::new(),
        }
    }

    /// Whether its process is there, stopped or not.
    pub fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Whether it stands still, or its disk is not as it should be.
    pub fn is_troubled(&self) -> bool {
        self.paused.is_some() || self.is_full || self.sync_time > SYNC_TIME
    }

    /// Starts the process, which may ask the volcanos at `contacts` to take it in. An error is a fault of the volcano.
    pub fn start(&mut self, now: Time, contacts: &[usize]) -> Result<Replica, String> {
        self.disk.revive();
        self.shown = 0;
        let options = OpenOptions {
            machine_boot: format!("run {}", self.machine),
            segment_size: 128 << 10,
            commit_interval: Duration::from_secs(1),
            wal_bytes: 256 << 10,
            keep: Duration::from_secs(30),
            body_interval: Duration::from_secs(5),
            ..OpenOptions::default()
        };
        let origin = match self.beginning {
            Beginning::Found(slices, stripes) => Origin::Found { slices, stripes },
            Beginning::Join => Origin::Join(contacts.iter().map(|place| node_address(*place)).collect()),
            Beginning::Resume => Origin::Resume,
        };
        let disk = Arc::new(self.disk.clone());
        let dice = &mut self.dice;
        let random = || -> Box<dyn FnMut() -> u64> {
            let mut dice = Dice::new(dice.next(), "process");
            Box::new(move || dice.next())
        };
        let node = life::begin(
            &self.folder,
            disk,
            options,
            origin,
            profile(self.place, self.disks),
            random,
            self.clock.now(now),
        );
        let node = node.map_err(|error| error.to_string())?;
        if matches!(self.beginning, Beginning::Resume) && node.topology().network == 0 {
            // It had heard that it was taken in, and its disk failed when that was written: a process asks again then.
            drop(node);
            self.beginning = Beginning::Join;
            return self.start(now, contacts);
        }
        let life = node.replica();
        self.node = Some(node);
        self.life = Some(life);
        self.run += 1;
        if matches!(self.beginning, Beginning::Found(..)) {
            self.beginning = Beginning::Resume;
        }
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
        self.serves.clear();
        self.waiting.clear();
        self.forwards.clear();
        self.copies.clear();
        self.disk.revive();
    }

    /// The power goes: the process is gone, and what was not on disk perhaps, too.
    pub fn cut_power(&mut self, now: Time) {
        self.end();
        self.disk.cut_power(&mut DiskDice::new(self.dice.next()));
        self.machine += 1;
        self.clock.reboot(now, &mut self.dice);
    }

    /// The whole disk is lost. What comes back is another volcano, which asks to be taken in.
    pub fn lose_disk(&mut self) {
        self.end();
        std::fs::remove_dir_all(&self.folder).expect("it is there");
        std::fs::create_dir_all(&self.folder).expect("there is space for a database");
        self.disk = SimDisk::new(&self.folder);
        self.beginning = Beginning::Join;
        self.disks += 1;
    }

    /// Something for the process; lost if too much waits already. What a library sends is held up by its connection instead.
    pub fn put(&mut self, input: Input) {
        let may_be_lost = match &input {
            Input::Message(..) => true,
            Input::Request(route, _) => !route.is_of_library(),
            _ => false,
        };
        if !may_be_lost || self.inbox.len() < BACKLOG {
            self.inbox.push(input);
        }
    }

    /// The last record that its copy of this slice has.
    pub fn last_record(&self, slice: SliceId) -> Seq {
        let position = self.node.as_ref().and_then(|node| node.store().position(slice));
        position.unwrap_or_default().seq
    }

    /// The last records of all its copies.
    pub fn last_records(&self) -> BTreeMap<SliceId, Seq> {
        let copies = self.node.iter().flat_map(|node| node.slices().iter());
        copies.map(|copy| copy.identity().slice).map(|slice| (slice, self.last_record(slice))).collect()
    }

    /// What is known of its copy of this slice.
    pub fn copy(&mut self, slice: SliceId) -> &mut Copy {
        self.copies.entry(slice).or_default()
    }

    /// This life has synced its log up to this record.
    pub fn synced(&self, slice: SliceId) -> Seq {
        self.copies.get(&slice).map_or(Seq(0), |copy| copy.synced)
    }

    /// A sync has ended that was begun at this time, when these were the last records.
    pub fn has_synced(&mut self, purposes: &[SyncFor], begun: (Time, &BTreeMap<SliceId, Seq>)) {
        // Upkeep syncs what it likes. The others sync the log, which is that of all slices.
        if purposes.iter().any(|purpose| *purpose != SyncFor::Upkeep) {
            for (slice, last) in begun.1 {
                let copy = self.copy(*slice);
                copy.synced = copy.synced.max(*last);
            }
        }
        for purpose in purposes {
            if let SyncFor::Primary(slice, ..) = purpose {
                let copy = self.copy(*slice);
                copy.synced_for_primary = copy.synced_for_primary.max(begun.0);
            }
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

    /// The disk is as fast and as large as before.
    pub fn mend(&mut self) {
        self.sync_time = SYNC_TIME;
        self.disk.set_full(false);
        self.is_full = false;
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

    /// The copy of a slice that the process has, if it has one.
    pub fn slice(&self, slice: SliceId) -> Option<SliceRef<'_>> {
        self.node.as_ref()?.slice(slice)
    }

    /// The topology that the process knows; the newest one that its coordinator knows if that is newer.
    pub fn topology(&self) -> Option<&Topology> {
        let node = self.node.as_ref()?;
        let agreed = node.coordinator().topology().filter(|agreed| agreed.version > node.topology().version);
        Some(agreed.unwrap_or_else(|| node.topology())).filter(|topology| topology.network != 0)
    }
}

/// Where the volcano at this place listens for others.
pub fn node_address(place: usize) -> SocketAddr {
    let address = address(place);
    SocketAddr::new(address.ip(), address.port() + NODE_PORT_OFFSET)
}

fn profile(place: usize, disks: u64) -> Profile {
    let address = address(place);
    Profile {
        // No two volcanos have the same, not even those that had the same machine.
        nickname: format!("volcano{place}.{disks}"),
        servername: format!("volcano{place}.intranet"),
        address: address.ip(),
        port: address.port(),
        bandwidth: 0,
        witness: false,
    }
}

/// A set of places, for people.
pub fn list(places: &BTreeSet<usize>) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// How long a volcano waits for the answer to a request that it has passed on.
pub const PATIENCE_OF_FORWARDS: Time = 5 * SECOND;
