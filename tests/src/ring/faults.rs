//! What goes wrong, and how it is put right again.
//!
//! In a careful world no more than all in-sync copies but one are down at a time, except when everybody is: then nothing that was
//! acknowledged may be lost. In others anything may happen, and the oracle says afterwards what may have been lost.
//!
//! A disk is only lost for ever while another in-sync copy runs, and a majority of the voters; until the slice and the voters
//! go on without it, nothing else fails.

use std::collections::BTreeSet;

use magma_common::key::Key;
use magma_common::topology::{Replica, Slice as Config, SliceId, VolcanoId};
use magma_volcano::coordinator::Change;
use magma_volcano::slice::across::message::AcrossMessage;

use super::clock::{MILLISECOND, SECOND, Time};
use super::dice::Dice;
use super::history::{Violation, violation};
use super::moment::Moment;
use super::network::Host;
use super::scenario::Kind;
use super::volcano::{Beginning, Input, list};
use super::world::{Event, World};

/// No faults before everything has begun.
const PEACE: Time = 8 * SECOND;
/// All have stopped so long after they were told to, unless one of them stands still.
const STOPPING: Time = 60 * SECOND;
/// Most machines in a world.
const MOST_MACHINES: usize = 7;

/// A fault begins or ends.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// Time for the next fault.
    Next,
    /// Time for the next change of the slices.
    Reshape,
    /// A process is started.
    Start(usize),
    /// A stopped process goes on.
    Resume(usize, u64),
    /// All lines are up again.
    Heal(u64),
    /// A disk is as fast and as large as before.
    Mend(usize),
    /// The administrator wants so many copies.
    Copies(u8),
    /// A copy of a slice that is new in sync is compared with the primary's, as soon as both stand at the same record; so many tries
    /// are left.
    Compare(SliceId, Replica, u32),
    /// The administrator looks after who leaves and who is lost.
    Administrate,
}

/// The state of the faults.
pub(super) struct Faults {
    dice: Dice,
    /// Decides about changes of the slices.
    pub(super) reshaping: Dice,
    /// Faults are over.
    pub(super) is_over: bool,
    /// Counts the faults of the network.
    cuts: u64,
    /// Volcanos that are to be forgotten.
    leaving: BTreeSet<VolcanoId>,
    /// A volcano whose disk was lost.
    lost: Option<VolcanoId>,
    /// When all were told to stop last.
    told_to_stop: Option<Time>,
    /// Somebody is to die when such a message is sent.
    moment: Option<Moment>,
}

impl Faults {
    pub(super) fn new(dice: Dice, reshaping: Dice) -> Self {
        Self {
            dice,
            reshaping,
            is_over: false,
            cuts: 0,
            leaving: BTreeSet::new(),
            lost: None,
            told_to_stop: None,
            moment: None,
        }
    }
}

type Done = Result<(), Violation>;

impl World {
    pub(super) fn begin_troubles(&mut self) {
        self.after(SECOND, Event::Trouble(Trouble::Copies(self.scenario.copies)));
        self.after(PEACE, Event::Trouble(Trouble::Next));
        self.after(PEACE, Event::Trouble(Trouble::Administrate));
        if self.scenario.reshaping.is_some() {
            self.after(PEACE, Event::Trouble(Trouble::Reshape));
        }
    }

    /// Everything is put right, and nothing more goes wrong.
    pub fn end_troubles(&mut self) {
        self.trace.say(self.now, || "faults are over".into());
        self.faults.is_over = true;
        self.faults.moment = None;
        self.note_fault();
        self.network.calm();
        for place in 0..self.volcanos.len() {
            self.volcanos[place].mend();
            self.resume(place);
            if !self.volcanos[place].is_up() && !self.volcanos[place].is_gone {
                self.after(
                    self.volcanos[place].place as Time * MILLISECOND,
                    Event::Trouble(Trouble::Start(place)),
                );
            }
        }
    }

    fn note_fault(&mut self) {
        self.oracle.last_fault = self.now;
    }

    pub(super) fn trouble(&mut self, trouble: Trouble) -> Done {
        match trouble {
            Trouble::Next => return self.next_fault(),
            Trouble::Reshape => self.reshape(),
            Trouble::Start(place) => return self.start(place),
            Trouble::Resume(place, run) if self.volcanos[place].run == run => self.resume(place),
            Trouble::Resume(..) => {}
            Trouble::Heal(cut) if self.faults.cuts == cut => {
                self.trace.say(self.now, || "the network is whole again".into());
                self.note_fault();
                self.network.heal();
            }
            Trouble::Heal(_) => {}
            Trouble::Mend(place) => {
                self.note_fault();
                self.volcanos[place].mend();
            }
            Trouble::Copies(copies) => self.put(0, Input::Wanted(Change::Copies(copies))),
            Trouble::Compare(slice, copy, tries) => return self.compare(slice, copy, tries),
            Trouble::Administrate => self.administrate(),
        }
        Ok(())
    }

    fn start(&mut self, place: usize) -> Done {
        if self.volcanos[place].is_up() || self.volcanos[place].is_gone {
            return Ok(());
        }
        self.note_fault();
        let contacts: Vec<usize> = (0..self.volcanos.len()).filter(|other| *other != place).collect();
        let was_failing = std::mem::take(&mut self.volcanos[place].is_failing);
        let life = match self.volcanos[place].start(self.now, &contacts) {
            Ok(life) => life,
            // Whoever keeps it running tries again.
            Err(_) if was_failing || self.volcanos[place].is_full => {
                self.start_later(place);
                return Ok(());
            }
            Err(error) => return violation(format!("restart: volcano {place} does not start: {error}")),
        };
        self.trace.say(self.now, || format!("volcano {place} starts, life {}", life.boot.0 >> 32));
        self.oracle.lives.begins(life);
        let run = self.volcanos[place].run;
        self.after(MILLISECOND, Event::Tick(place, run));
        self.settle(place)
    }

    /// A process is gone, but what it handed to the kernel is there.
    pub(super) fn crash(&mut self, place: usize, how: &str) {
        if !self.volcanos[place].is_up() {
            return;
        }
        self.trace.say(self.now, || format!("volcano {place} dies {how}"));
        self.note_fault();
        self.volcanos[place].end();
        if let Some(life) = self.volcanos[place].life {
            self.oracle.lives.ends(life, self.now);
        }
        self.start_later(place);
    }

    fn start_later(&mut self, place: usize) {
        let longest = if self.faults.is_over { 20 * MILLISECOND } else { self.scenario.longest_outage };
        let delay = self.faults.dice.magnitude(10 * MILLISECOND, longest);
        self.after(delay, Event::Trouble(Trouble::Start(place)));
    }

    fn cut_power(&mut self, place: usize) {
        self.trace.say(self.now, || format!("volcano {place} loses power"));
        self.note_fault();
        let was_up = self.volcanos[place].is_up();
        self.volcanos[place].cut_power(self.now);
        if let Some(life) = self.volcanos[place].life {
            self.oracle.lives.ends(life, self.now);
            self.oracle.lives.loses(life.volcano);
        }
        if was_up {
            self.start_later(place);
        }
    }

    /// All in-sync copies of a slice lose power.
    fn cut_slice(&mut self, slice: SliceId) {
        let copies: Vec<Replica> = self.oracle.config(slice).into_iter().flat_map(Config::in_sync).collect();
        for place in 0..self.volcanos.len() {
            if self.volcanos[place].life.is_some_and(|life| copies.contains(&life)) {
                self.cut_power(place);
            }
        }
    }

    /// A message to the slice of this flare has left a volcano: it may be the moment for somebody to die.
    pub(super) fn strike(&mut self, place: usize, to: &Key, message: &AcrossMessage) {
        if self.faults.moment.is_none() || self.faults.moment != Moment::of(message) {
            return;
        }
        self.trace.say(self.now, || format!("the moment: {:?} of volcano {place}", Moment::of(message)));
        self.faults.moment = None;
        match self.faults.dice.below(5) {
            0 if self.may_go(place) => self.crash(place, "in the middle of an operation across slices"),
            1 if self.may_go(place) => self.cut_power(place),
            2 if self.faults.lost.is_none() => {
                let driven = self.oracle.configs().find(|config| config.range.contains(to));
                if let Some(slice) = driven.map(|config| config.id) {
                    self.cut_slice(slice);
                }
            }
            3 if self.faults.lost.is_none() => {
                for place in 0..self.volcanos.len() {
                    self.cut_power(place);
                }
            }
            _ => {}
        }
    }

    /// The process has stopped by itself: its disk has failed.
    pub(super) fn stopped(&mut self, place: usize, reason: &str) -> Done {
        // A full disk is no reason: it stops nobody.
        if !self.volcanos[place].is_failing {
            return violation(format!("stop: volcano {place} stops without need: {reason}"));
        }
        if let Some(life) = self.volcanos[place].life {
            self.oracle.lives.loses(life.volcano);
        }
        self.crash(place, &format!("by itself: {reason}"));
        Ok(())
    }

    /// The process stops in order.
    pub(super) fn close(&mut self, place: usize) -> Done {
        let volcano = &mut self.volcanos[place];
        let Some(node) = volcano.node.take() else { return Ok(()) };
        self.trace.say(self.now, || format!("volcano {place} stops in order"));
        let closed = node.close();
        let failed = closed.is_err() && !self.volcanos[place].disk.is_killed();
        self.volcanos[place].end();
        if let Some(life) = self.volcanos[place].life {
            self.oracle.lives.ends(life, self.now);
        }
        self.note_fault();
        self.start_later(place);
        match closed {
            // On a full disk it ends as by a crash: without the mark that nothing has to be looked at at the next start.
            Err(error) if failed && !self.volcanos[place].is_failing && !self.volcanos[place].is_full => {
                violation(format!("shutdown: volcano {place} cannot be closed: {error}"))
            }
            _ => Ok(()),
        }
    }

    fn resume(&mut self, place: usize) {
        let volcano = &mut self.volcanos[place];
        let Some(since) = volcano.paused.take() else { return };
        self.trace.say(self.now, || format!("volcano {place} goes on"));
        if self.scenario.frozen_clocks {
            volcano.clock.freeze(since, self.now);
        }
        let run = volcano.run;
        if std::mem::take(&mut volcano.missed_tick) {
            self.after(MILLISECOND, Event::Tick(place, run));
        }
        self.note_fault();
        self.call(place, 0);
    }

    // ---- choosing ----

    /// The volcanos that serve something.
    fn serving(&self) -> Vec<usize> {
        let serving = self.volcanos.iter().filter(|volcano| !volcano.serves.is_empty());
        serving.map(|volcano| volcano.place).collect()
    }

    fn running(&self, copy: Replica) -> bool {
        let of_copy = |volcano: &super::volcano::Volcano| {
            volcano.life == Some(copy) && volcano.is_up() && volcano.paused.is_none()
        };
        self.volcanos.iter().any(of_copy)
    }

    /// Whether a process may go without anything that was acknowledged going with it.
    fn may_go(&self, place: usize) -> bool {
        if self.faults.lost.is_some() {
            return false;
        }
        if !self.scenario.is_careful {
            return true;
        }
        let life = self.volcanos[place].life;
        let mut configs = self.oracle.configs().peekable();
        configs.peek().is_some()
            && configs.all(|config| {
                let is_copy = config.in_sync().any(|copy| Some(copy) == life);
                !is_copy || config.in_sync().any(|copy| Some(copy) != life && self.running(copy))
            })
    }

    fn any_place(&mut self) -> usize {
        let there: Vec<usize> =
            (0..self.volcanos.len()).filter(|place| !self.volcanos[*place].is_gone).collect();
        *self.faults.dice.pick(&there)
    }

    fn next_fault(&mut self) -> Done {
        if self.faults.is_over {
            return Ok(());
        }
        let pause = self.faults.dice.below(2 * self.scenario.pause) + 1;
        self.after(pause, Event::Trouble(Trouble::Next));
        let weights: Vec<u32> = self.scenario.faults.iter().map(|(_, weight)| *weight).collect();
        let Some(at) = self.faults.dice.weighted(&weights) else { return Ok(()) };
        let kind = self.scenario.faults[at].0;
        let place = self.any_place();
        self.trace.say(self.now, || format!("fault: {kind:?} ({place})"));
        self.begin_fault(kind, place)
    }

    fn begin_fault(&mut self, kind: Kind, place: usize) -> Done {
        match kind {
            Kind::Crash if self.may_go(place) => self.crash(place, "of a crash"),
            Kind::Kill if self.may_go(place) => {
                let after = self.faults.dice.range(1, 100);
                self.volcanos[place].disk.kill_after(after);
            }
            Kind::PowerCut if self.may_go(place) => self.cut_power(place),
            Kind::CrashLeader => {
                let leads = |volcano: &super::volcano::Volcano| {
                    volcano.node.as_ref().is_some_and(|node| node.coordinator().is_leader())
                };
                if let Some(place) = self.volcanos.iter().position(leads).filter(|place| self.may_go(*place))
                {
                    self.crash(place, "of a crash");
                }
            }
            Kind::CrashPrimary => {
                let serving = self.serving();
                let serving = match serving.as_slice() {
                    [] => None,
                    [one] => Some(*one),
                    several => Some(*self.faults.dice.pick(several)),
                };
                if let Some(place) = serving.filter(|place| self.may_go(*place)) {
                    if self.faults.dice.one_in(2) {
                        self.crash(place, "of a crash")
                    } else {
                        self.cut_power(place)
                    }
                }
            }
            Kind::PowerCutAll if self.faults.lost.is_none() => {
                for place in 0..self.volcanos.len() {
                    self.cut_power(place);
                }
            }
            Kind::PowerCutSlice if self.faults.lost.is_none() => {
                let slices: Vec<SliceId> = self.oracle.configs().map(|config| config.id).collect();
                if !slices.is_empty() {
                    let slice = *self.faults.dice.pick(&slices);
                    self.cut_slice(slice);
                }
            }
            Kind::Moment => self.faults.moment = Some(*self.faults.dice.pick(&Moment::ALL)),
            Kind::CrashAll if self.faults.lost.is_none() => {
                for place in 0..self.volcanos.len() {
                    self.crash(place, "with all others");
                }
            }
            Kind::Shutdown if self.faults.lost.is_none() && self.volcanos[place].is_up() => {
                self.faults.told_to_stop = Some(self.now);
                self.put(place, Input::ShutDown);
            }
            Kind::Pause => self.pause(place),
            Kind::SlowDisk | Kind::FullDisk => self.spoil_disk(kind, place),
            Kind::FailSync if self.may_go(place) && self.volcanos[place].is_up() => {
                self.note_fault();
                self.volcanos[place].is_failing = true;
                self.volcanos[place].disk.fail_next_sync();
            }
            Kind::LoseDisk => self.lose_disk(place),
            Kind::Split | Kind::OneWay | Kind::Holes => self.cut_network(kind),
            Kind::Clocks => self.volcanos[place].disturb_clock(self.now),
            Kind::Join if self.volcanos.len() < MOST_MACHINES => {
                let new = self.add_volcano(Beginning::Join);
                return self.start(new);
            }
            Kind::Leave => self.leave(place),
            Kind::Copies if self.volcanos[place].is_up() => {
                let copies = self.faults.dice.range(1, 4) as u8;
                self.note_fault();
                self.put(place, Input::Wanted(Change::Copies(copies)));
            }
            Kind::Client => {
                let client = self.faults.dice.below(self.clients.len() as u64) as usize;
                let working =
                    self.clients.iter().filter(|c| c.phase() == super::client::Phase::Working).count();
                if working > 2 {
                    self.clients[client].vanish();
                    self.forget_library(client);
                }
            }
            Kind::Idle => {
                let until = self.now + self.faults.dice.magnitude(SECOND, 40 * SECOND);
                self.clients.iter_mut().for_each(|client| client.idle_until(until));
            }
            _ => {}
        }
        Ok(())
    }

    fn pause(&mut self, place: usize) {
        if !self.volcanos[place].is_up() || self.volcanos[place].paused.is_some() {
            return;
        }
        self.note_fault();
        self.volcanos[place].paused = Some(self.now);
        let run = self.volcanos[place].run;
        let duration = self.faults.dice.magnitude(100 * MILLISECOND, 16 * SECOND);
        self.after(duration, Event::Trouble(Trouble::Resume(place, run)));
    }

    fn spoil_disk(&mut self, kind: Kind, place: usize) {
        self.note_fault();
        if kind == Kind::FullDisk {
            self.volcanos[place].disk.set_full(true);
            self.volcanos[place].is_full = true;
        } else {
            self.volcanos[place].sync_time = self.faults.dice.magnitude(100 * MILLISECOND, 10 * SECOND);
        }
        let duration = self.faults.dice.magnitude(SECOND, 30 * SECOND);
        self.after(duration, Event::Trouble(Trouble::Mend(place)));
    }

    fn lose_disk(&mut self, place: usize) {
        let Some(id) = self.volcanos[place].life.map(|life| life.volcano) else { return };
        // One that is stopped may find, when it goes on, that it has been asked to make the lost one primary. One that is about to die would
        // start anew before it has taken the lost one out, and wait for it.
        let runs = |slice: SliceId| {
            let is_serving = |volcano: &&super::volcano::Volcano| volcano.serves.contains_key(&slice);
            let stays = |primary: &super::volcano::Volcano| {
                primary.place != place && primary.paused.is_none() && !primary.disk.is_doomed()
            };
            self.volcanos.iter().find(is_serving).is_some_and(stays)
        };
        let are_all_served = self.oracle.configs().all(|config| runs(config.id));
        let primary = self.serving().first().copied().filter(|_| are_all_served);
        // All that are about to stop would wait for the lost one when they are started again.
        let is_stopping = self.faults.told_to_stop.is_some_and(|told| self.now < told + STOPPING);
        let Some(primary) = primary.filter(|_| self.faults.lost.is_none() && !is_stopping) else { return };
        let Some(topology) = self.volcanos[primary].topology().cloned() else { return };
        let is_known = topology.version == self.oracle.version();
        let is_up = |voter: &VolcanoId| {
            let of_voter = |life: Replica| life.volcano == *voter;
            self.volcanos.iter().any(|volcano| {
                volcano.life.is_some_and(of_voter) && volcano.is_up() && volcano.paused.is_none()
            })
        };
        let others = topology.voters.iter().filter(|voter| **voter != id && is_up(voter)).count();
        let is_voter = topology.voters.contains(&id);
        if !is_known || topology.member(id).is_none() || (is_voter && others <= topology.voters.len() / 2) {
            return;
        }
        self.trace.say(self.now, || format!("volcano {place} loses its disk"));
        self.note_fault();
        if let Some(life) = self.volcanos[place].life {
            self.oracle.lives.ends(life, self.now);
            self.oracle.lives.loses(life.volcano);
        }
        self.network.heal();
        self.volcanos[place].lose_disk();
        self.faults.lost = Some(id);
        self.faults.leaving.insert(id);
        self.start_later(place);
    }

    fn leave(&mut self, place: usize) {
        let Some(id) = self.volcanos[place].life.map(|life| life.volcano) else { return };
        let Some(topology) = self.volcanos[place].topology() else { return };
        let staying = topology.members.iter().filter(|member| !member.leaving && member.id != id).count();
        if staying >= 1 && topology.member(id).is_some() && self.faults.leaving.is_empty() {
            self.note_fault();
            self.faults.leaving.insert(id);
        }
    }

    fn cut_network(&mut self, kind: Kind) {
        if self.faults.lost.is_some() {
            return;
        }
        self.note_fault();
        let volcanos = (0..self.volcanos.len()).map(Host::Volcano);
        let hosts: Vec<Host> = volcanos.chain((0..self.clients.len()).map(Host::Client)).collect();
        let dice = &mut self.faults.dice;
        let some: BTreeSet<usize> = (0..hosts.len()).filter(|_| dice.one_in(3)).collect();
        for (from, host) in hosts.iter().enumerate() {
            for (to, other) in hosts.iter().enumerate() {
                let is_cut = match kind {
                    Kind::Split => some.contains(&from) != some.contains(&to),
                    Kind::OneWay => some.contains(&from) && !some.contains(&to),
                    _ => dice.one_in(6),
                };
                if is_cut {
                    self.network.cut(*host, *other);
                }
            }
        }
        self.faults.cuts += 1;
        let (cut, duration) = (self.faults.cuts, dice.magnitude(300 * MILLISECOND, 30 * SECOND));
        self.trace.say(self.now, || format!("apart: {}", list(&some)));
        self.after(duration, Event::Trouble(Trouble::Heal(cut)));
    }

    /// Who leaves is forgotten when nothing depends on it any more; what is lost is lost.
    fn administrate(&mut self) {
        self.after(SECOND, Event::Trouble(Trouble::Administrate));
        let newest = self
            .volcanos
            .iter()
            .filter_map(|volcano| volcano.topology())
            .max_by_key(|topology| topology.version);
        let Some(newest) = newest.cloned() else { return };
        let depends = |id: VolcanoId| {
            newest.voters.contains(&id)
                || newest.slices.iter().any(|slice| slice.copies().any(|copy| copy.volcano == id))
        };
        if self.faults.lost.is_some_and(|id| !depends(id)) {
            self.faults.lost = None;
        }
        for id in self.faults.leaving.clone() {
            let place =
                self.volcanos.iter().position(|volcano| volcano.life.is_some_and(|life| life.volcano == id));
            let Some(member) = newest.member(id) else {
                self.faults.leaving.remove(&id);
                if let Some(place) = place {
                    self.trace.say(self.now, || format!("volcano {place} has left"));
                    self.volcanos[place].end();
                    self.volcanos[place].is_gone = true;
                    if let Some(life) = self.volcanos[place].life {
                        self.oracle.lives.ends(life, self.now);
                    }
                }
                continue;
            };
            let change =
                if member.leaving && !depends(id) { Change::Forget(id) } else { Change::Leave(id, true) };
            if member.leaving && depends(id) {
                continue;
            }
            for other in 0..self.volcanos.len() {
                if self.volcanos[other].is_up() && Some(other) != place {
                    self.put(other, Input::Wanted(change.clone()));
                }
            }
        }
    }
}
