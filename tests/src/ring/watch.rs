//! What must hold at every moment, seen from outside: when an answer leaves, when a copy begins to serve, when the members of the
//! slice change, when a message is sent.
//!
//! The oracle sees that something was lost, and the search that an answer makes no sense. For either something must go wrong
//! after the mistake, within moments, and somebody must have looked. These checks see the mistake itself.

use std::collections::BTreeMap;

use magma_common::topology::{Epoch, Replica, Seq, Slice as Config, SliceId, Topology};
use magma_volcano::coordinator::{Change, SliceChange};
use magma_volcano::node::message::{Message, SliceMessage};
use magma_volcano::slice::across::message::AcrossMessage;

use super::clock::{MILLISECOND, Time};
use super::faults::Trouble;
use super::history::{Violation, describe, violation};
use super::invariants;
use super::trace::show_topology;
use super::volcano::{Beginning, Route, Volcano};
use super::world::{Event, World};

/// Clients and copies are given this time before a new copy is looked at.
const COMPARE_AFTER: Time = 5 * MILLISECOND;
/// Then it is tried this often to find it and the primary at the same record ...
const COMPARE_TRIES: u32 = 30;
/// ... with so much time in between.
const COMPARE_AGAIN: Time = 17 * MILLISECOND;

type Done = Result<(), Violation>;

impl World {
    /// What the process knows of the topology. It is looked at first: it says what the records mean that come after it.
    pub(super) fn watch_topology(&mut self, place: usize) -> Done {
        let is_troubled = !self.network.is_whole() || self.volcanos.iter().any(Volcano::is_troubled);
        let volcano = &mut self.volcanos[place];
        let version = volcano.topology().map_or(0, |topology| topology.version);
        if version > volcano.shown {
            volcano.shown = version;
            volcano.beginning = Beginning::Resume;
            let topology = volcano.topology().cloned().unwrap_or_default();
            if version > self.oracle.version() {
                self.trace.say(self.now, || format!("volcano {place} knows {}", show_topology(&topology)));
            }
            let is_new = version > self.oracle.version();
            let before: Vec<Config> = self.oracle.configs().filter(|_| is_new).cloned().collect();
            self.oracle.topology(self.now, &topology, is_troubled)?;
            for before in before {
                if let Some(config) = topology.slices.iter().find(|slice| slice.id == before.id) {
                    self.check_change(&before, config)?;
                }
                self.check_division(&before, &topology)?;
            }
        }
        Ok(())
    }

    /// Who serves what.
    pub(super) fn watch_reigns(&mut self, place: usize) -> Done {
        let volcano = &mut self.volcanos[place];
        let (Some(node), Some(life)) = (&volcano.node, volcano.life) else { return Ok(()) };
        let now = volcano.clock.now(self.now);
        let serving = node.slices().iter().filter(|slice| slice.may_answer(now));
        let serves: BTreeMap<SliceId, Epoch> =
            serving.map(|slice| (slice.identity().slice, slice.reign())).collect();
        let before = std::mem::replace(&mut volcano.serves, serves.clone());
        for slice in before.keys().filter(|slice| !serves.contains_key(slice)) {
            self.trace.say(self.now, || format!("volcano {place} serves slice {} no more", slice.0));
        }
        for (slice, reign) in serves {
            if before.get(&slice) == Some(&reign) {
                continue;
            }
            let Some(node) = &self.volcanos[place].node else { return Ok(()) };
            let store = node.store();
            let last = store.position(slice).unwrap_or_default();
            self.trace.say(self.now, || {
                format!("volcano {place} serves slice {}, reign {}, last record {last:?}", slice.0, reign.0)
            });
            let name = |seq| store.position_at(slice, seq);
            self.oracle.serves(self.now, slice, (life, reign), name, last.seq)?;
            self.check_reign(place, slice, reign)?;
        }
        Ok(())
    }

    /// The volcano whose process is this copy.
    fn process_of(&self, copy: Replica) -> Option<&Volcano> {
        self.volcanos.iter().find(|volcano| volcano.life == Some(copy) && volcano.is_up())
    }

    /// An answer leaves: every copy that may be in sync has what it saw, on its disk if it says so.
    pub(super) fn check_answer(&mut self, place: usize, route: &Route, is_success: bool) -> Done {
        let volcano = &self.volcanos[place];
        let (Some(node), Some(life)) = (&volcano.node, volcano.life) else { return Ok(()) };
        let asked = &self.history.operations[route.operation].asked;
        if matches!(asked.request, magma_common::proto::Request::FetchTopology(_)) {
            return Ok(());
        }
        let is_stable = is_success && asked.is_stable();
        let slice = route.slice;
        // Whatever else became due with the request was done after it.
        let made = asked.id.and_then(|id| self.oracle.chronicle.of(id)).filter(|made| made.slice == slice);
        let saw = made.map_or(route.at, |made| route.at.max(Seq(made.seq)));
        let known = node.topology().slices.iter().find(|config| config.id == slice);
        let newest = self.oracle.config(slice);
        let configs = known.into_iter().chain(newest).filter(|config| config.primary == life);
        let epoch = node.slice(slice).map(|slice| slice.known_epoch());
        let proposed = volcano.copies.get(&slice).map(|copy| &copy.proposed_copies);
        let proposed = proposed.filter(|(under, _)| Some(*under) == epoch);
        let proposed = proposed.into_iter().flat_map(|(_, copies)| copies);
        let copies = configs.flat_map(Config::in_sync).chain(proposed.copied());
        for copy in copies.filter_map(|copy| self.process_of(copy)) {
            let (last, on_disk) = (copy.last_record(slice), self.synced(copy, slice));
            if last < saw {
                return violation(format!(
                    "answers: volcano {place} answers what saw record {} of slice {}, and the copy of volcano {} ends at {}: {}",
                    saw.0,
                    slice.0,
                    copy.place,
                    last.0,
                    describe(asked)
                ));
            }
            if is_stable && on_disk < saw {
                return violation(format!(
                    "stable answers: volcano {place} calls record {} of slice {} durable, and volcano {} has synced up to {}: {}",
                    saw.0,
                    slice.0,
                    copy.place,
                    on_disk.0,
                    describe(asked)
                ));
            }
        }
        Ok(())
    }

    /// The process has synced its copy of a slice up to this record, perhaps before that was divided off another one.
    fn synced(&self, copy: &Volcano, slice: SliceId) -> Seq {
        let whole =
            self.oracle.division(slice).map_or(Seq(0), |(whole, at)| self.synced(copy, whole).min(at));
        copy.synced(slice).max(whole)
    }

    /// A slice has been divided: both halves have the copies that it had, which hold the same of the new one, and have it on their disks.
    pub(super) fn check_division(&mut self, before: &Config, topology: &Topology) -> Done {
        let Some(division) = before.dividing else { return Ok(()) };
        let Some(half) = topology.slices.iter().find(|slice| slice.id == division.new) else { return Ok(()) };
        let Some((_, at)) = self.oracle.division(half.id) else { return Ok(()) };
        for copy in half.in_sync() {
            self.after(COMPARE_AFTER, Event::Trouble(Trouble::Compare(half.id, copy, COMPARE_TRIES)));
            let Some(process) = self.process_of(copy) else { continue };
            if self.synced(process, before.id) < at {
                return violation(format!(
                    "division: slice {} is there, and volcano {} does not have record {} of slice {} on its disk, which divided it off",
                    half.id.0, process.place, at.0, before.id.0
                ));
            }
        }
        let is_next = |slice: &&Config| slice.id == before.id && slice.epoch == half.epoch;
        if let Some(kept) = topology.slices.iter().find(is_next)
            && (kept.range.common(half.range).is_some() || !kept.in_sync().eq(half.in_sync()))
        {
            return violation(format!(
                "division: the halves of slice {} are not like the whole",
                before.id.0
            ));
        }
        Ok(())
    }

    /// A copy begins to serve: nobody else may answer, and all other in-sync copies stand where it does.
    pub(super) fn check_reign(&mut self, place: usize, slice: SliceId, reign: Epoch) -> Done {
        let volcano = &self.volcanos[place];
        let Some(node) = &volcano.node else { return Ok(()) };
        // Whose clock stood still while it was stopped cannot know, and may answer readers for a moment.
        let others =
            self.volcanos.iter().filter(|other| other.place != place && !self.scenario.frozen_clocks);
        for other in others {
            let Some(answering) = &other.node else { continue };
            let answering = answering.slice(slice);
            if let Some(answering) = answering.filter(|slice| slice.may_answer(other.clock.now(self.now))) {
                return violation(format!(
                    "one primary: volcano {place} begins to serve slice {}, reign {}, while volcano {} may answer under {}",
                    slice.0,
                    reign.0,
                    other.place,
                    answering.reign().0
                ));
            }
        }
        let store = node.store();
        let history = store.history(slice);
        let Some(first) = history.iter().find(|first| first.epoch == reign) else { return Ok(()) };
        let is_of_reign = |config: &&Config| config.id == slice && config.epoch == reign;
        let config = node.topology().slices.iter().find(is_of_reign);
        for copy in config.into_iter().flat_map(Config::in_sync).filter_map(|copy| self.process_of(copy)) {
            let found = copy.node.as_ref().and_then(|node| node.store().position_at(slice, first.seq));
            if found != Some(*first) {
                return violation(format!(
                    "leveling: volcano {place} serves slice {}, reign {}, and volcano {} does not have its first record, {}",
                    slice.0, reign.0, copy.place, first.seq.0
                ));
            }
        }
        Ok(())
    }

    /// A copy that is new in sync holds what the primary holds.
    pub(super) fn compare(&mut self, slice: SliceId, copy: Replica, tries: u32) -> Done {
        let config = self.oracle.config(slice).filter(|config| config.mirrors.contains(&copy));
        let Some(config) = config else { return Ok(()) };
        let (Some(new), Some(primary)) = (self.process_of(copy), self.process_of(config.primary)) else {
            return Ok(());
        };
        // One that has not begun to serve, after a loss of power, may have other bytes: it has yet to say which ones are true.
        let is_begun = primary.serves.contains_key(&slice);
        if is_begun && new.last_record(slice) == primary.last_record(slice) {
            return invariants::equal(slice, primary, new);
        }
        if tries > 0 {
            self.after(COMPARE_AGAIN, Event::Trouble(Trouble::Compare(slice, copy, tries - 1)));
        }
        Ok(())
    }

    /// The members have changed: who is new in sync has on its disk all that is called durable; after a start of everybody
    /// the longest log leads.
    pub(super) fn check_change(&mut self, before: &Config, config: &Config) -> Done {
        if before.epoch == config.epoch {
            return Ok(());
        }
        let slice = config.id;
        for copy in config.mirrors.iter().filter(|copy| before.joining.contains(copy)) {
            self.after(COMPARE_AFTER, Event::Trouble(Trouble::Compare(slice, *copy, COMPARE_TRIES)));
            let Some(process) = self.process_of(*copy) else { continue };
            let Some(line) = self.oracle.line(slice) else { continue };
            let joined = line.joined(*copy).unwrap_or(0);
            let synced_for_primary = process.copies.get(&slice).map_or(0, |copy| copy.synced_for_primary);
            if synced_for_primary < joined || self.synced(process, slice) < Seq(line.stable) {
                return violation(format!(
                    "new copies: volcano {} counts as in sync with slice {} in epoch {}, has synced up to {}, and all up to {} is called durable",
                    process.place,
                    slice.0,
                    config.epoch.0,
                    process.synced(slice).0,
                    line.stable
                ));
            }
        }
        let is_cold = before.in_sync().all(|copy| copy != config.primary);
        let Some(primary) = self.process_of(config.primary).filter(|_| is_cold) else { return Ok(()) };
        let stands = |volcano: &Volcano| {
            volcano.node.as_ref().and_then(|node| node.store().position(slice)).unwrap_or_default()
        };
        for mirror in config.mirrors.iter().filter_map(|copy| self.process_of(*copy)) {
            if stands(mirror) > stands(primary) {
                return violation(format!(
                    "cold start: volcano {} is to serve slice {} from {:?}, and volcano {} stands at {:?}",
                    primary.place,
                    slice.0,
                    stands(primary),
                    mirror.place,
                    stands(mirror)
                ));
            }
        }
        Ok(())
    }

    /// A message leaves a volcano: one that has proposed itself as primary answers no beacons under that epoch.
    ///
    /// And nobody answers what was said to it under another epoch.
    pub(super) fn check_message(&mut self, place: usize, target: usize, message: &Message) -> Done {
        let volcano = &mut self.volcanos[place];
        let life = volcano.life;
        match message {
            Message::Propose(Change::Slice(slice, epoch, SliceChange::Promote(who)))
                if Some(*who) == life =>
            {
                volcano.copy(*slice).proposed_itself = Some(*epoch);
            }
            Message::Propose(Change::Slice(slice, epoch, SliceChange::InSync(who))) => {
                let (under, copies) = &mut volcano.copy(*slice).proposed_copies;
                if *under != *epoch {
                    copies.clear();
                }
                *under = *epoch;
                copies.push(*who);
            }
            Message::Slice(slice, epoch, SliceMessage::Standing { beacon, .. }) => {
                let copy = volcano.copy(*slice);
                if copy.proposed_itself == Some(*epoch) {
                    return violation(format!(
                        "promises: volcano {place} has proposed itself for slice {} in epoch {}, and answers beacons",
                        slice.0, epoch.0
                    ));
                }
                if *beacon > copy.heard.get(&target).copied().unwrap_or(0) {
                    return violation(format!(
                        "epochs: volcano {place} answers beacon {beacon} of volcano {target} for slice {} in epoch {}, and was not asked under an epoch of its own",
                        slice.0, epoch.0
                    ));
                }
            }
            Message::Across(_, message) => return self.check_commit(place, message),
            _ => {}
        }
        Ok(())
    }

    /// A participant hears that a transaction has happened when all copies of the driver have its record.
    fn check_commit(&self, place: usize, message: &AcrossMessage) -> Done {
        let AcrossMessage::Commit { transaction, .. } = message else { return Ok(()) };
        let life = self.volcanos[place].life;
        let configs = self.oracle.configs().filter(|config| Some(config.primary) == life);
        let driver = transaction.attempt.driver;
        let Some(config) = configs.into_iter().find(|config| config.range.contains(&driver)) else {
            return Ok(());
        };
        for copy in config.in_sync().filter_map(|copy| self.process_of(copy)) {
            let last = copy.last_record(config.id);
            if last < transaction.committed.seq {
                return violation(format!(
                    "commits: volcano {place} tells of {:?}, which is record {} of slice {}, and the copy of volcano {} ends at {}",
                    transaction.attempt, transaction.committed.seq.0, config.id.0, copy.place, last.0
                ));
            }
        }
        Ok(())
    }

    /// A message arrives: a beacon is to be answered if it comes under the epoch that its hearer knows.
    pub(super) fn note_beacon(&mut self, place: usize, from: usize, message: &Message) {
        let Message::Slice(slice, epoch, message) = message else { return };
        let volcano = &mut self.volcanos[place];
        let known = volcano.slice(*slice).map(|slice| slice.known_epoch());
        if let SliceMessage::Records { beacon, .. }
        | SliceMessage::WhereAreYou { beacon }
        | SliceMessage::Rewind { beacon, .. }
        | SliceMessage::Place { beacon, .. } = message
            && Some(*epoch) == known
        {
            let heard = volcano.copy(*slice).heard.entry(from).or_default();
            *heard = (*heard).max(*beacon);
        }
    }
}
