//! Volcanos with real stores, whose messages all arrive at once: joining, leaving, and what administrators are told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use magma_common::time::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::life::{self, Origin, Profile};
use crate::store::{OpenOptions, RealDisk};

const STEP: Duration = Duration::from_millis(50);
/// So many steps in a row without the condition that is waited for mean that it will not come.
const PATIENCE: u32 = 2000;

struct Ring {
    folders: BTreeMap<u8, TempDir>,
    running: BTreeMap<u8, Node>,
    /// How each of those stopped that have stopped by themselves.
    ended: BTreeMap<u8, &'static str>,
    /// Nothing that is sent to this one arrives.
    deaf: Option<u8>,
    now: Now,
    seed: u64,
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, number], 12001))
}

impl Ring {
    fn founded() -> Self {
        let now =
            Now { monotonic: Duration::from_secs(1000), wall: Timestamp::new(1_795_409_333, 0).unwrap() };
        let mut ring = Self {
            folders: BTreeMap::new(),
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            deaf: None,
            now,
            seed: 1,
        };
        ring.start(1, Origin::Found);
        ring.until(|ring| ring.running[&1].slice().is_serving());
        ring
    }

    /// Three volcanos, of which each votes and the first serves.
    fn of_three() -> Self {
        let mut ring = Self::founded();
        for number in [2, 3] {
            ring.join(number);
        }
        ring.until(|ring| ring.topology().voters.len() == 3);
        ring
    }

    fn start(&mut self, number: u8, origin: Origin) {
        let folder = self.folders.entry(number).or_insert_with(|| tempfile::tempdir().unwrap());
        let node = begin(folder.path(), number, origin, &mut self.seed, self.now);
        self.running.insert(number, node);
    }

    /// Joins through the first volcano, and waits until all copies are in sync.
    fn join(&mut self, number: u8) {
        self.start(number, Origin::Join(vec![address(1)]));
        self.until(|ring| ring.topology().members.len() == ring.running.len() && ring.in_sync() == 2);
    }

    fn topology(&self) -> &Topology {
        let topologies = self.running.values().map(Node::topology);
        topologies.max_by_key(|topology| topology.version).unwrap()
    }

    fn in_sync(&self) -> usize {
        self.topology().slices[0].in_sync().count()
    }

    fn id(&self, number: u8) -> VolcanoId {
        self.running[&number].replica().volcano
    }

    fn propose(&mut self, number: u8, change: &Change) {
        self.running.get_mut(&number).unwrap().propose(self.now, change);
    }

    /// Lets time pass until something is so.
    fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..PATIENCE {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("it does not come about: {:#?}", self.topology());
    }

    fn step(&mut self) {
        self.now.monotonic += STEP;
        self.now.wall =
            Timestamp::new(1_795_409_333 + self.now.monotonic.as_secs().cast_signed(), 0).unwrap();
        let numbers: Vec<u8> = self.running.keys().copied().collect();
        for number in &numbers {
            self.running.get_mut(number).unwrap().tick(self.now);
        }
        while numbers.iter().any(|number| self.carry_out(*number)) {}
    }

    /// Whether there was anything to do.
    fn carry_out(&mut self, number: u8) -> bool {
        let Some(node) = self.running.get_mut(&number) else { return false };
        let effects = node.effects();
        let any = !effects.is_empty();
        for effect in effects {
            match effect {
                Effect::Send(to, _) if self.deaf.is_some_and(|deaf| address(deaf) == to) => {}
                Effect::Send(to, envelope) => {
                    if let Some(other) =
                        self.running.values_mut().find(|other| other.own.node_address() == to)
                    {
                        other.receive(self.now, address(number), *envelope);
                        other.batch_end(self.now);
                    }
                }
                Effect::Sync(job, purpose) => {
                    if let Some(node) = self.running.get_mut(&number) {
                        node.synced(self.now, job.run(), purpose);
                    }
                }
                Effect::Shutdown => self.end(number, "shut down"),
                Effect::Forgotten => self.end(number, "forgotten"),
                Effect::Stop(reason) => panic!("volcano {number} stops: {reason}"),
                Effect::Answer(..) | Effect::Forward(..) | Effect::Read(..) => {}
            }
        }
        any
    }

    fn end(&mut self, number: u8, how: &'static str) {
        if let Some(node) = self.running.remove(&number) {
            node.close().unwrap();
            self.ended.insert(number, how);
        }
    }
}

fn begin(folder: &Path, number: u8, origin: Origin, seed: &mut u64, now: Now) -> Node {
    let profile = Profile {
        nickname: format!("v{number}"),
        servername: String::new(),
        address: address(number).ip(),
        port: 12000,
        bandwidth: 0,
        witness: false,
    };
    let options = OpenOptions { machine_boot: "test".to_owned(), ..OpenOptions::default() };
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

#[test]
fn a_volcano_that_leaves_gives_its_copy_away_and_then_ends() {
    let mut ring = Ring::founded();
    ring.join(2);
    ring.join(3);
    let leaving = ring.id(1);
    ring.propose(3, &Change::Leave(leaving, true));
    ring.until(|ring| ring.ended.get(&1) == Some(&"forgotten"));
    assert_eq!((ring.in_sync(), ring.topology().members.len()), (2, 2));
    assert!(ring.topology().member(leaving).is_none());
}

#[test]
fn a_volcano_that_was_forgotten_while_it_was_down_learns_so_and_does_not_come_back() {
    let mut ring = Ring::founded();
    for number in [2, 3, 4] {
        ring.join(number);
    }
    let gone = ring.id(4);
    ring.running.remove(&4).unwrap().close().unwrap();
    ring.propose(1, &Change::Leave(gone, true));
    ring.until(|ring| ring.topology().member(gone).is_none());
    ring.start(4, Origin::Resume);
    ring.until(|ring| ring.ended.get(&4) == Some(&"forgotten"));
    assert!(ring.topology().member(gone).is_none(), "nor was it taken in by itself");
    ring.start(4, Origin::Resume);
    assert!(ring.running[&4].is_forgotten(), "its folder remembers");
}

#[test]
fn an_administrator_hears_of_a_refusal_wherever_the_coordinator_is() {
    let mut ring = Ring::founded();
    ring.join(2);
    let first = ring.id(1);
    ring.propose(2, &Change::Leave(first, true));
    ring.until(|ring| ring.topology().member(first).is_some_and(|member| member.leaving));
    let second = ring.id(2);
    let change = Change::Leave(second, true);
    for number in [1, 2] {
        let Some(node) = ring.running.get(&number) else { continue };
        assert_eq!(node.refusal(&change), None);
        ring.propose(number, &change);
        ring.until(|ring| ring.running.get(&number).is_none_or(|node| node.refusal(&change).is_some()));
        let Some(node) = ring.running.get(&number) else { continue };
        let refusal = node.refusal(&change).unwrap().to_string();
        assert_eq!(refusal, "v2 cannot leave: no other volcano would keep the data");
        assert_eq!(node.refusal(&Change::Copies(2)), None, "that was not refused");
    }
}

#[test]
fn the_network_stops_as_a_whole_and_goes_on_where_it_was() {
    let mut ring = Ring::founded();
    for number in [2, 3] {
        ring.join(number);
    }
    let verifier = ring.topology().write_verifier();
    ring.running.get_mut(&2).unwrap().shut_down(true);
    ring.until(|ring| ring.ended.len() == 3 || ring.running.is_empty());
    assert!(ring.ended.values().all(|how| *how == "shut down"));
    for number in [1, 2, 3] {
        ring.start(number, Origin::Resume);
    }
    ring.until(|ring| ring.running.values().any(|node| node.slice().is_serving()));
    assert_eq!(ring.topology().write_verifier(), verifier, "clients need not send anything again");
}

/// A primary whose cable had broken in one direction went on sending beacons, so that its mirror went on promising not to take
/// over. Then it had the mirror taken out, which it did not hear any more, and was the only copy: nobody was answered until the
/// cable was mended.
#[test]
fn a_primary_that_hears_nobody_is_replaced_although_all_hear_it() {
    let mut ring = Ring::of_three();
    ring.deaf = Some(1);
    let begin = ring.now.monotonic;
    ring.until(|ring| [2, 3].iter().any(|number| ring.running[number].slice().is_serving()));
    let took = ring.now.monotonic.saturating_sub(begin);
    assert!(took < Duration::from_millis(4500), "it took {took:?}");
    assert!(!ring.running[&1].slice().is_serving());
    ring.deaf = None;
    ring.until(|ring| ring.in_sync() == 2 && ring.topology().slices[0].joining.is_empty());
    assert!(!ring.running[&1].slice().is_serving());
}

/// A mirror whose cable had broken in one direction took over from a primary that worked, and heard nobody who asked it anything.
#[test]
fn a_mirror_that_hears_nobody_does_not_take_over() {
    let mut ring = Ring::of_three();
    let mirror = ring.topology().slices[0].mirrors[0].volcano;
    let number = [2, 3].into_iter().find(|number| ring.id(*number) == mirror).unwrap();
    ring.deaf = Some(number);
    let is_out = |ring: &Ring| !ring.topology().slices[0].copies().any(|copy| copy.volcano == mirror);
    ring.until(is_out);
    ring.until(|ring| ring.in_sync() == 2 && ring.running[&1].slice().is_serving());
    assert_eq!(ring.topology().slices[0].primary.volcano, ring.id(1));
}

#[test]
fn all_know_who_coordinates_and_who_is_silent() {
    let mut ring = Ring::founded();
    ring.join(2);
    let (first, second) = (ring.id(1), ring.id(2));
    for _ in 0..20 {
        ring.step();
    }
    let now = ring.now.monotonic;
    assert_eq!(ring.running[&1].leader(now), Some(first));
    assert_eq!(ring.running[&2].leader(now), Some(first), "it has no vote and knows it from the other");
    assert!(ring.running[&1].silences(now).iter().all(|(_, silence)| *silence < Duration::from_secs(1)));
    drop(ring.running.remove(&2));
    for _ in 0..100 {
        ring.step();
    }
    let silences = ring.running[&1].silences(ring.now.monotonic);
    assert!(matches!(silences[..], [(who, silence)] if who == second && silence >= Duration::from_secs(5)));
}
