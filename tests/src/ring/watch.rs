//! What must hold at every moment, seen from outside: when an answer leaves, when a copy begins to serve, when the members of the
//! slice change, when a message is sent.
//!
//! The oracle sees that something was lost, and the search that an answer makes no sense. For either something must go wrong
//! after the mistake, within moments, and somebody must have looked. These checks see the mistake itself.

use magma_common::topology::{Replica, Seq, Slice as Config};
use magma_volcano::coordinator::{Change, SliceChange};
use magma_volcano::node::message::{Message, SliceMessage};

use super::clock::{MILLISECOND, Time};
use super::faults::Trouble;
use super::history::{Violation, describe, violation};
use super::invariants;
use super::volcano::{Route, SLICE, Volcano};
use super::world::{Event, World};

/// Clients and copies are given this time before a new copy is looked at.
const COMPARE_AFTER: Time = 5 * MILLISECOND;
/// Then it is tried this often to find it and the primary at the same record ...
const COMPARE_TRIES: u32 = 30;
/// ... with so much time in between.
const COMPARE_AGAIN: Time = 17 * MILLISECOND;

type Done = Result<(), Violation>;

impl World {
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
        let known = node.topology().slices.first();
        let newest = self.oracle.config();
        let configs = known.into_iter().chain(newest).filter(|config| config.primary == life);
        let (epoch, proposed) = &volcano.proposed_copies;
        let proposed =
            proposed.iter().filter(|_| Some(*epoch) == node.slice(SLICE).map(|slice| slice.known_epoch()));
        let copies = configs.flat_map(Config::in_sync).chain(proposed.copied());
        for copy in copies.filter_map(|copy| self.process_of(copy)) {
            let (last, on_disk) = (copy.last_record(), copy.synced);
            if last < route.at {
                return violation(format!(
                    "answers: volcano {place} answers what saw record {}, and the copy of volcano {} ends at {}: {}",
                    route.at.0,
                    copy.place,
                    last.0,
                    describe(asked)
                ));
            }
            if is_stable && on_disk < route.at {
                return violation(format!(
                    "stable answers: volcano {place} calls record {} durable, and volcano {} has synced up to {}: {}",
                    route.at.0,
                    copy.place,
                    on_disk.0,
                    describe(asked)
                ));
            }
        }
        Ok(())
    }

    /// A copy begins to serve: nobody else may answer, and all other in-sync copies stand where it does.
    pub(super) fn check_reign(&mut self, place: usize) -> Done {
        let volcano = &self.volcanos[place];
        let (Some(node), Some(reign)) = (&volcano.node, volcano.serves) else { return Ok(()) };
        // Whose clock stood still while it was stopped cannot know, and may answer readers for a moment.
        let others =
            self.volcanos.iter().filter(|other| other.place != place && !self.scenario.frozen_clocks);
        for other in others {
            let Some(answering) = &other.node else { continue };
            if answering.slice(SLICE).is_some_and(|slice| slice.may_answer(other.clock.now(self.now))) {
                return violation(format!(
                    "one primary: volcano {place} begins to serve, reign {}, while volcano {} may answer under {}",
                    reign.0,
                    other.place,
                    answering.slice(SLICE).map_or(0, |slice| slice.reign().0)
                ));
            }
        }
        let store = node.store();
        let history = store.history(SLICE);
        let Some(first) = history.iter().find(|first| first.epoch == reign) else { return Ok(()) };
        let config = node.topology().slices.first().filter(|config| config.epoch == reign);
        for copy in config.into_iter().flat_map(Config::in_sync).filter_map(|copy| self.process_of(copy)) {
            let found = copy.node.as_ref().and_then(|node| node.store().position_at(SLICE, first.seq));
            if found != Some(*first) {
                return violation(format!(
                    "leveling: volcano {place} serves, reign {}, and volcano {} does not have its first record, {}",
                    reign.0, copy.place, first.seq.0
                ));
            }
        }
        Ok(())
    }

    /// A copy that is new in sync holds what the primary holds.
    pub(super) fn compare(&mut self, copy: Replica, tries: u32) -> Done {
        let Some(config) = self.oracle.config().filter(|config| config.mirrors.contains(&copy)) else {
            return Ok(());
        };
        let (Some(new), Some(primary)) = (self.process_of(copy), self.process_of(config.primary)) else {
            return Ok(());
        };
        if new.last_record() == primary.last_record() {
            return invariants::equal(primary, new);
        }
        if tries > 0 {
            self.after(COMPARE_AGAIN, Event::Trouble(Trouble::Compare(copy, tries - 1)));
        }
        Ok(())
    }

    /// The members have changed: who is new in sync has on its disk all that is called durable; after a start of everybody
    /// the longest log leads.
    pub(super) fn check_change(&mut self, before: &Config, config: &Config) -> Done {
        if before.epoch == config.epoch {
            return Ok(());
        }
        for copy in config.mirrors.iter().filter(|copy| before.joining.contains(copy)) {
            self.after(COMPARE_AFTER, Event::Trouble(Trouble::Compare(*copy, COMPARE_TRIES)));
            let Some(process) = self.process_of(*copy) else { continue };
            let joined = self.oracle.joined(*copy).unwrap_or(0);
            if process.synced_for_primary < joined || process.synced < Seq(self.oracle.stable) {
                return violation(format!(
                    "new copies: volcano {} counts as in sync in epoch {}, has synced up to {}, and all up to {} is called durable",
                    process.place, config.epoch.0, process.synced.0, self.oracle.stable
                ));
            }
        }
        let is_cold = before.in_sync().all(|copy| copy != config.primary);
        let Some(primary) = self.process_of(config.primary).filter(|_| is_cold) else { return Ok(()) };
        let stands = |volcano: &Volcano| {
            volcano.node.as_ref().and_then(|node| node.store().position(SLICE)).unwrap_or_default()
        };
        for mirror in config.mirrors.iter().filter_map(|copy| self.process_of(*copy)) {
            if stands(mirror) > stands(primary) {
                return violation(format!(
                    "cold start: volcano {} is to serve from {:?}, and volcano {} stands at {:?}",
                    primary.place,
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
        match message {
            Message::Propose(Change::Slice(_, epoch, SliceChange::Promote(who)))
                if Some(*who) == volcano.life =>
            {
                volcano.proposed_itself = Some(*epoch);
            }
            Message::Propose(Change::Slice(_, epoch, SliceChange::InSync(who))) => {
                let (under, copies) = &mut volcano.proposed_copies;
                if *under != *epoch {
                    copies.clear();
                }
                *under = *epoch;
                copies.push(*who);
            }
            Message::Slice(_, epoch, SliceMessage::Standing { .. })
                if volcano.proposed_itself == Some(*epoch) =>
            {
                return violation(format!(
                    "promises: volcano {place} has proposed itself in epoch {}, and answers beacons",
                    epoch.0
                ));
            }
            Message::Slice(_, epoch, SliceMessage::Standing { beacon, .. })
                if *beacon > volcano.heard.get(&target).copied().unwrap_or(0) =>
            {
                return violation(format!(
                    "epochs: volcano {place} answers beacon {beacon} of volcano {target} in epoch {}, and was not asked under an epoch of its own",
                    epoch.0
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// A message arrives: a beacon is to be answered if it comes under the epoch that its hearer knows.
    pub(super) fn note_beacon(&mut self, place: usize, from: usize, message: &Message) {
        let volcano = &mut self.volcanos[place];
        let known = volcano.node.as_ref().and_then(|node| node.slice(SLICE)).map(|slice| slice.known_epoch());
        let Message::Slice(_, epoch, message) = message else { return };
        if let SliceMessage::Records { beacon, .. }
        | SliceMessage::WhereAreYou { beacon }
        | SliceMessage::Rewind { beacon, .. }
        | SliceMessage::Place { beacon, .. } = message
            && Some(*epoch) == known
        {
            let heard = volcano.heard.entry(from).or_default();
            *heard = (*heard).max(*beacon);
        }
    }
}
