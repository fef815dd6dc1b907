//! The simulated network.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use magma_common::topology::{Topology, VolcanoId};

use super::alone;
use crate::coordinator::{Change, Coordinator, Output, Proposing, Refusal, Unsaved, Vault};

const STEP: Duration = Duration::from_millis(10);
const SIGN_OF_LIFE: Duration = Duration::from_millis(300);

/// Random numbers from a seed (splitmix64).
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A vault whose content outlives the coordinator.
#[derive(Clone, Default)]
pub(super) struct Kept {
    pub(super) state: Rc<RefCell<Option<Vec<u8>>>>,
    pub(super) broken: Rc<RefCell<bool>>,
    pub(super) saves: Rc<RefCell<u32>>,
}

impl Vault for Kept {
    fn save(&mut self, state: &[u8]) -> Result<(), Unsaved> {
        if *self.broken.borrow() {
            return Err(Unsaved::Failed("the disk is broken".to_owned()));
        }
        *self.saves.borrow_mut() += 1;
        *self.state.borrow_mut() = Some(state.to_vec());
        Ok(())
    }

    fn load(&self) -> Result<Option<Vec<u8>>, String> {
        Ok(self.state.borrow().clone())
    }
}

pub(super) struct Volcano {
    /// None while it is down.
    pub(super) coordinator: Option<Coordinator>,
    pub(super) vault: Kept,
    /// The newest topology that it has heard of in this life.
    pub(super) version: u64,
}

pub(super) struct Network {
    pub(super) now: Duration,
    pub(super) volcanos: BTreeMap<u64, Volcano>,
    random: Random,
    under_way: BTreeMap<(Duration, u64), (u64, u64, Bytes)>,
    sent: u64,
    /// Messages that get lost, of a hundred.
    pub(super) loss: u64,
    /// Volcanos that hear and reach nobody.
    pub(super) cut: BTreeSet<u64>,
    /// Every topology that anybody was told of, by version.
    pub(super) history: BTreeMap<u64, Topology>,
    pub(super) refused: Vec<(Change, Refusal)>,
    /// Nobody forges messages: then topologies are compared.
    pub(super) honest: bool,
    /// Everything that was sent.
    pub(super) trace: Vec<(Duration, u64, u64, Bytes)>,
}

impl Network {
    /// Volcano 1 has founded it; the others up to `count` are running and not taken in.
    pub(super) fn new(seed: u64, count: u64) -> Self {
        let mut network = Self {
            now: Duration::from_secs(1000),
            volcanos: BTreeMap::new(),
            random: Random(seed),
            under_way: BTreeMap::new(),
            sent: 0,
            loss: 0,
            cut: BTreeSet::new(),
            history: BTreeMap::new(),
            refused: Vec::new(),
            honest: true,
            trace: Vec::new(),
        };
        let vault = Kept::default();
        let random = network.randomness();
        let founder =
            Coordinator::found(VolcanoId(1), alone(), Box::new(vault.clone()), random, network.now).unwrap();
        network.history.insert(1, alone());
        network.volcanos.insert(1, Volcano { coordinator: Some(founder), vault, version: 1 });
        for id in 2..=count {
            network.volcanos.insert(id, Volcano { coordinator: None, vault: Kept::default(), version: 0 });
            network.start(id);
        }
        network.collect();
        network
    }

    fn randomness(&mut self) -> Box<dyn FnMut() -> u64> {
        let mut random = Random(self.random.next());
        Box::new(move || random.next())
    }

    pub(super) fn start(&mut self, id: u64) {
        let random = self.randomness();
        let volcano = self.volcanos.get_mut(&id).unwrap();
        let vault = Box::new(volcano.vault.clone());
        volcano.coordinator = Some(Coordinator::open(VolcanoId(id), vault, random, self.now).unwrap());
        volcano.version = 0;
        self.collect();
    }

    pub(super) fn crash(&mut self, id: u64) {
        self.volcanos.get_mut(&id).unwrap().coordinator = None;
    }

    pub(super) fn at(&mut self, id: u64) -> &mut Coordinator {
        self.volcanos.get_mut(&id).unwrap().coordinator.as_mut().unwrap()
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Lets time pass until this holds; fails after a minute.
    pub(super) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while !holds(self) {
            assert!(self.now < end, "{what}: not within a minute");
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let due: Vec<_> = self.under_way.range(..=(self.now, u64::MAX)).map(|(key, _)| *key).collect();
        for key in due {
            let (from, to, bytes) = self.under_way.remove(&key).unwrap();
            if self.cut.contains(&from) || self.cut.contains(&to) {
                continue;
            }
            if let Some(coordinator) = self.volcanos.get_mut(&to).and_then(|v| v.coordinator.as_mut()) {
                coordinator.message(VolcanoId(from), &bytes);
            }
            self.collect();
        }
        let signs = self.now.as_millis().is_multiple_of(SIGN_OF_LIFE.as_millis());
        let up: Vec<u64> =
            self.volcanos.iter().filter(|(_, v)| v.coordinator.is_some()).map(|v| *v.0).collect();
        for id in &up {
            let now = self.now;
            if signs && !self.cut.contains(id) {
                for other in up.iter().filter(|other| *other != id && !self.cut.contains(other)) {
                    let coordinator = self.volcanos.get_mut(id).unwrap().coordinator.as_mut().unwrap();
                    coordinator.alive(VolcanoId(*other), now);
                }
            }
            self.at(*id).tick(now);
            self.collect();
        }
    }

    /// A forged message comes.
    pub(super) fn forge(&mut self, from: u64, to: u64, bytes: &[u8]) {
        self.at(to).message(VolcanoId(from), bytes);
        self.collect();
    }

    /// Takes the outputs of all.
    fn collect(&mut self) {
        for (&id, volcano) in &mut self.volcanos {
            let Some(coordinator) = &mut volcano.coordinator else { continue };
            for output in coordinator.outputs() {
                match output {
                    Output::Send(to, bytes) => {
                        self.trace.push((self.now, id, to.0, bytes.clone()));
                        let copies = match self.random.below(100) {
                            lot if lot < self.loss => 0,
                            lot if lot < self.loss + self.loss / 4 => 2,
                            _ => 1,
                        };
                        for _ in 0..copies {
                            let spread = if self.loss > 0 { 200 } else { 10 };
                            let delay = Duration::from_millis(1 + self.random.below(spread));
                            self.sent += 1;
                            self.under_way.insert((self.now + delay, self.sent), (id, to.0, bytes.clone()));
                        }
                    }
                    Output::Committed(_) if !self.honest => {}
                    Output::Committed(topology) => {
                        assert!(topology.version > volcano.version, "the topology of {id} went back");
                        volcano.version = topology.version;
                        let known =
                            self.history.entry(topology.version).or_insert_with(|| (*topology).clone());
                        assert_eq!(*known, *topology, "two topologies have one version");
                    }
                    Output::Refused(change, refusal) => self.refused.push((change, refusal)),
                }
            }
        }
    }

    /// Who leads in the newest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |v: &&u64| self.volcanos[*v].coordinator.as_ref().is_some_and(Coordinator::is_leader);
        let term = |v: &&u64| self.volcanos[*v].coordinator.as_ref().map(|c| c.node.raft.term);
        self.volcanos.keys().filter(leads).max_by_key(term).copied()
    }

    /// Asks whoever leads.
    pub(super) fn propose(&mut self, change: Change) -> Proposing {
        let now = self.now;
        let Some(leader) = self.leader() else { return Proposing::NotLeader(None) };
        let answer = self.at(leader).propose(now, change);
        self.collect();
        answer
    }

    /// Asks again and again until it is made.
    pub(super) fn insist(&mut self, change: &Change) {
        self.until(&format!("{change:?}"), |network| {
            let made = network.leader().is_some_and(|leader| {
                let mut topology = network.at(leader).topology().unwrap().clone();
                change.apply(&mut topology) == Ok(false)
            });
            if !made {
                network.propose(change.clone());
            }
            made
        });
    }

    /// Everybody's voters are these.
    pub(super) fn vote(&mut self, voters: &[u64]) -> bool {
        let voters: Vec<VolcanoId> = voters.iter().copied().map(VolcanoId).collect();
        let Some(leader) = self.leader() else { return false };
        let applied = self.at(leader).node.raft.store().applied();
        let members = &applied.members;
        let consensus: Vec<VolcanoId> = members.voters.iter().copied().map(VolcanoId).collect();
        let settled = members.outgoing.is_empty() && members.learners.is_empty();
        settled && consensus == voters && applied.topology.as_ref().unwrap().voters == voters
    }

    /// A network in which the volcanos up to `count` are members and `voters` vote.
    pub(super) fn grown(seed: u64, count: u64, voters: &[u64]) -> Self {
        let mut network = Self::new(seed, count);
        for id in 2..=count {
            network.insist(&super::enter(id));
        }
        network.until("the voters are chosen", |network| network.vote(voters));
        network
    }
}
