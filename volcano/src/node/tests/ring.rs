//! A ring of volcanos with real stores and a simulated clock, whose messages arrive at once or after a pace.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use magma_common::proto::frame::{RequestHeader, Tag};
use magma_common::proto::{Credentials, Durability, SessionId};
use magma_common::time::Timestamp;
use magma_common::topology::{Slice, VolcanoId};
use tempfile::TempDir;

use super::super::*;
use crate::life::{self, Origin, Profile};
use crate::store::{OpenOptions, RealDisk};

pub(super) const STEP: Duration = Duration::from_millis(50);
/// So many steps in a row without the condition that is waited for mean that it will not come.
pub(super) const PATIENCE: u32 = 2000;
/// So often in a row, at one time, volcanos have more to do.
const MAX_ROUNDS: u32 = 10_000;

pub(super) struct Ring {
    pub(super) folders: BTreeMap<u8, TempDir>,
    pub(super) running: BTreeMap<u8, Node>,
    /// How each of those stopped that have stopped by themselves.
    pub(super) ended: BTreeMap<u8, &'static str>,
    /// What requests were answered, and where they were passed on to.
    pub(super) answers: BTreeMap<Ticket, Answer>,
    pub(super) forwards: BTreeMap<Ticket, SocketAddr>,
    /// Messages that do not arrive.
    pub(super) is_lost: fn(&Message) -> bool,
    /// Nothing that is sent to this one arrives.
    pub(super) deaf: Option<u8>,
    /// This one's disk does nothing.
    pub(super) stalled: Option<u8>,
    /// Messages take so long, and time is told to volcanos when they want to be told. Otherwise messages arrive at once.
    pub(super) pace: Option<Duration>,
    /// From whom, where to.
    pub(super) under_way: Vec<(u8, SocketAddr, Envelope)>,
    pub(super) ticked: BTreeMap<u8, Duration>,
    /// For how long nobody could have answered about this slice, now and at most.
    pub(super) watched: Option<(SliceId, Duration, Duration)>,
    pub(super) now: Now,
    pub(super) seed: u64,
    /// Runs of the machines: who starts in another one has lost power.
    pub(super) machine: u32,
}

pub(super) fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, number], 12001))
}

/// The header of root's request with this number in a session.
pub(super) fn header(session: SessionId, sequence: u64) -> RequestHeader {
    RequestHeader {
        tag: Tag(0),
        durability: Durability::Replicated,
        topology_version: 1,
        session,
        sequence,
        acknowledged: 0,
        call: None,
        deadline_ms: None,
        forwarded: false,
        credentials: Credentials::ROOT,
    }
}

impl Ring {
    pub(super) fn founded() -> Self {
        Self::founded_with(1)
    }

    pub(super) fn founded_with(slices: u32) -> Self {
        let now =
            Now { monotonic: Duration::from_secs(1000), wall: Timestamp::new(1_795_409_333, 0).unwrap() };
        let mut ring = Self {
            folders: BTreeMap::new(),
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            answers: BTreeMap::new(),
            forwards: BTreeMap::new(),
            is_lost: |_| false,
            deaf: None,
            stalled: None,
            pace: None,
            under_way: Vec::new(),
            ticked: BTreeMap::new(),
            watched: None,
            now,
            seed: 1,
            machine: 1,
        };
        ring.start(1, Origin::Found { slices, stripes: None });
        ring.until(Self::all_served);
        ring
    }

    pub(super) fn start(&mut self, number: u8, origin: Origin) {
        let folder = self.folders.entry(number).or_insert_with(|| tempfile::tempdir().unwrap());
        let node = begin(folder.path(), number, origin, &mut self.seed, (self.machine, self.now));
        self.running.insert(number, node);
    }

    /// Everybody loses power, and starts anew. By chance everything is on disk, which nobody can know.
    pub(super) fn cut_power(&mut self) {
        let numbers: Vec<u8> = std::mem::take(&mut self.running).into_keys().collect();
        self.machine += 1;
        for number in numbers {
            self.start(number, Origin::Resume);
        }
        self.until(Self::all_served);
    }

    /// Joins through the first volcano, and waits until all copies are in sync.
    pub(super) fn join(&mut self, number: u8) {
        self.start(number, Origin::Join(vec![address(1)]));
        self.until(|ring| ring.topology().members.len() == ring.running.len() && ring.in_sync() == 2);
    }

    pub(super) fn topology(&self) -> &Topology {
        let topologies = self.running.values().map(Node::topology);
        topologies.max_by_key(|topology| topology.version).unwrap()
    }

    /// In-sync copies of the slice that has the fewest.
    pub(super) fn in_sync(&self) -> usize {
        self.topology().slices.iter().map(|slice| slice.in_sync().count()).min().unwrap()
    }

    /// Whether each slice is served by the one volcano that the topology names.
    pub(super) fn all_served(&self) -> bool {
        let is_served = |slice: &Slice| {
            let serving = self.running.values().filter(|node| serves(node, slice.id));
            serving.map(Node::replica).eq([slice.primary])
        };
        !self.topology().slices.is_empty() && self.topology().slices.iter().all(is_served)
    }

    /// Asks a volcano something without a session. Afterwards it was answered or passed on.
    pub(super) fn ask(&mut self, number: u8, request: impl Into<Request>, forwarded: bool) -> Ticket {
        let ticket = Ticket(self.seed);
        self.seed += 1;
        let header = RequestHeader { forwarded, ..header(SessionId::NONE, 0) };
        let call = Call { header, deadline: None, request: request.into(), payload: Bytes::new() };
        let node = self.running.get_mut(&number).unwrap();
        node.request(self.now, ticket, call);
        node.batch_end(self.now);
        self.until(|ring| ring.answers.contains_key(&ticket) || ring.forwards.contains_key(&ticket));
        ticket
    }

    pub(super) fn id(&self, number: u8) -> VolcanoId {
        self.running[&number].replica().volcano
    }

    pub(super) fn propose(&mut self, number: u8, change: &Change) {
        self.running.get_mut(&number).unwrap().propose(self.now, change);
    }

    /// Lets time pass until something is so.
    pub(super) fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..PATIENCE {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("it does not come about: {:#?}", self.topology());
    }

    pub(super) fn step(&mut self) {
        self.now.monotonic += self.pace.unwrap_or(STEP);
        self.now.wall =
            Timestamp::new(1_795_409_333 + self.now.monotonic.as_secs().cast_signed(), 0).unwrap();
        let numbers: Vec<u8> = self.running.keys().copied().collect();
        for (from, to, envelope) in std::mem::take(&mut self.under_way) {
            self.arrive(from, to, envelope);
        }
        for number in &numbers {
            let node = self.running.get_mut(number).unwrap();
            let last = self.ticked.get(number).copied().unwrap_or_default();
            if self.pace.is_none() || self.now.monotonic.saturating_sub(last) >= node.next_tick() {
                self.ticked.insert(*number, self.now.monotonic);
                node.tick(self.now);
            }
        }
        let mut rounds = 0;
        while numbers.iter().any(|number| self.carry_out(*number)) {
            rounds += 1;
            assert!(rounds < MAX_ROUNDS, "they talk without end, and no time passes");
        }
        self.watch();
    }

    pub(super) fn watch(&mut self) {
        let Some((id, pause, longest)) = self.watched else { return };
        let may_answer = |node: &Node| node.slice(id).is_some_and(|slice| slice.may_answer(self.now));
        let is_answered = self.running.values().any(may_answer);
        let pause = if is_answered { Duration::ZERO } else { pause + self.pace.unwrap_or(STEP) };
        self.watched = Some((id, pause, longest.max(pause)));
    }

    /// Whether there was anything to do.
    pub(super) fn carry_out(&mut self, number: u8) -> bool {
        let Some(node) = self.running.get_mut(&number) else { return false };
        let effects = node.effects();
        let any = !effects.is_empty();
        for effect in effects {
            match effect {
                Effect::Send(_, envelope) if (self.is_lost)(&envelope.message) => {}
                Effect::Send(to, _) if self.deaf.is_some_and(|deaf| address(deaf) == to) => {}
                Effect::Send(to, envelope) if self.pace.is_some() => {
                    self.under_way.push((number, to, *envelope));
                }
                Effect::Sync(..) if self.stalled == Some(number) => {}
                Effect::Send(to, envelope) => self.arrive(number, to, *envelope),
                Effect::Sync(job, purpose) => {
                    if let Some(node) = self.running.get_mut(&number) {
                        node.synced(self.now, job.run(), purpose);
                    }
                }
                Effect::Shutdown => self.end(number, "shut down"),
                Effect::Forgotten => self.end(number, "forgotten"),
                Effect::Stop(reason) => panic!("volcano {number} stops: {reason}"),
                Effect::Answer(ticket, answer) => drop(self.answers.insert(ticket, answer)),
                Effect::Forward(ticket, to, _) => drop(self.forwards.insert(ticket, to)),
                Effect::Read(ticket, read) => {
                    if let Some(node) = self.running.get_mut(&number) {
                        node.read_done(self.now, ticket, read.run());
                    }
                }
            }
        }
        any
    }

    pub(super) fn arrive(&mut self, from: u8, to: SocketAddr, envelope: Envelope) {
        if let Some(other) = self.running.values_mut().find(|other| other.own.node_address() == to) {
            other.receive(self.now, address(from), envelope);
            other.batch_end(self.now);
        }
    }

    pub(super) fn deliver(&mut self, to: u8, envelope: Envelope) {
        let node = self.running.get_mut(&to).unwrap();
        node.receive(self.now, address(3 - to), envelope);
        node.batch_end(self.now);
    }

    pub(super) fn end(&mut self, number: u8, how: &'static str) {
        if let Some(node) = self.running.remove(&number) {
            node.close().unwrap();
            self.ended.insert(number, how);
        }
    }
}

pub(super) fn serves(node: &Node, slice: SliceId) -> bool {
    node.slice(slice).is_some_and(|slice| slice.is_serving())
}

pub(super) fn begin(
    folder: &Path,
    number: u8,
    origin: Origin,
    seed: &mut u64,
    (machine, now): (u32, Now),
) -> Node {
    let profile = Profile {
        nickname: format!("v{number}"),
        servername: String::new(),
        address: address(number).ip(),
        port: 12000,
        bandwidth: 0,
        witness: false,
    };
    let options = OpenOptions { machine_boot: format!("run {machine}"), ..OpenOptions::default() };
    let random = || -> Box<dyn FnMut() -> u64> {
        *seed += 1;
        let mut state = *seed;
        Box::new(move || {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        })
    };
    life::begin(folder, Arc::new(RealDisk), options, origin, profile, random, now).unwrap()
}

/// Three volcanos that vote, the founder of which serves this many slices.
pub(super) fn three_with(slices: u32) -> Ring {
    let mut ring = Ring::founded_with(slices);
    for number in [2, 3] {
        ring.join(number);
    }
    ring.until(|ring| ring.topology().voters.len() == 3);
    ring
}
