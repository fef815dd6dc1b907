//! The copy that serves: from its appointment to its first answer, and what it may answer from then on.

use std::collections::BTreeMap;
use std::time::Duration;

use magma_common::topology::{Epoch, Position, Replica, Seq, Slice as Config};

use super::dividing;
use super::progress::{PART_PATIENCE, Progress, Stage};
use super::{Replication, Role};
use crate::coordinator::SliceChange;
use crate::node::message::{SliceMessage, Stand};
use crate::planted::{Bug, planted};
use crate::rows::BodyId;
use crate::slice::gate::Safe;
use crate::slice::orphans::Search;
use crate::slice::{Now, Slice, Trouble};

/// A copy that counts and has been silent for this long is taken out, so that the others can go on.
const SILENCE: Duration = Duration::from_millis(2800);
/// So is one that answers, but gets no nearer to what it owes for this long: a disk that stalls for less costs no copy.
const STUCK: Duration = Duration::from_millis(4500);
/// Who knows for so long that its lease has run out has heard what had come before. It is little against what the mirrors' promises last.
const TAKE_IN: Duration = Duration::from_millis(250);
/// A joining copy, for which nobody waits, may be silent for longer.
const JOINING_SILENCE: Duration = Duration::from_secs(10);

/// How far a primary has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It asks the mirrors where they stand: one that has more than it has becomes primary in its place.
    Comparing,
    /// It waits for all mirrors to have this record, the last of those with which its epoch begins.
    Leveling(Seq),
    /// It asks the other slices what they know of operations that were lost here.
    Recalling,
    /// It serves.
    Serving,
    /// The slice is divided in two: it evaluates nothing until all copies have done it.
    Dividing(dividing::Stage),
    /// It gives the slice to this mirror: it evaluates nothing more, and asks for the change when all that it has evaluated has
    /// left and the mirror has every record.
    Giving(Replica),
}

/// The state of a primary.
#[derive(Debug)]
pub(in crate::slice) struct Primary {
    pub(super) phase: Phase,
    /// The other copies.
    pub(super) copies: BTreeMap<Replica, Progress>,
    /// Syncs that some copy has not confirmed: the records and bodies that each covers.
    pub(super) syncs: BTreeMap<u64, (Seq, Vec<BodyId>)>,
    /// When the copies were asked for them last.
    pub(super) syncs_asked: Duration,
    /// Since when it has been primary.
    pub(super) since: Duration,
    /// Since when it is known that the lease has run out: some copy that counts does not answer. Another one may serve the slice by now.
    pub(super) cut_off: Option<Duration>,
    /// It hears nobody, and has released its mirrors from their promises up to this beacon.
    pub(super) released: Option<u64>,
}

impl Primary {
    /// Copies that count.
    pub(super) fn counted(&self) -> impl Iterator<Item = &Progress> {
        self.copies
            .values()
            .filter(|copy| (copy.is_mirror || !planted(Bug::ProposeWithoutWaiting)) && copy.counts())
    }

    /// What may leave by what the other copies have; nothing without the lease.
    fn safe(&self, now: Duration) -> Option<Safe> {
        let holds = self.counted().all(|copy| copy.leases(now)) || planted(Bug::ServeAfterLease);
        if !holds {
            return None;
        }
        let mut safe = Safe::ALONE;
        for copy in self.counted() {
            safe.copied = safe.copied.min(copy.acked);
            safe.synced = safe.synced.min(copy.synced);
        }
        if planted(Bug::AcknowledgeBeforeMirror) {
            safe.copied = Safe::ALONE.copied;
        }
        if planted(Bug::StableWithoutMirrors) {
            safe.synced = Safe::ALONE.synced;
        }
        Some(safe)
    }
}

impl Replication {
    /// Whether this copy is the primary and may evaluate requests.
    pub(in crate::slice) fn is_serving(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.phase == Phase::Serving && primary.cut_off.is_none())
    }

    /// Whether this copy is a primary that divides its slice, or one that prepares to serve, and its slice is new.
    pub(in crate::slice) fn is_dividing(&self, is_new: impl Fn() -> bool) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        primary.cut_off.is_none()
            && match primary.phase {
                Phase::Dividing(_) => true,
                Phase::Comparing | Phase::Leveling(_) => is_new(),
                Phase::Recalling | Phase::Serving | Phase::Giving(_) => false,
            }
    }

    /// Whether an answer might leave this copy now, were there one: it serves, and holds the lease.
    pub(in crate::slice) fn may_answer(&self, now: Duration) -> bool {
        self.is_serving() && matches!(&self.role, Role::Primary(primary) if primary.safe(now).is_some())
    }
}

impl Slice<'_> {
    /// Whether this copy is the primary and evaluates requests.
    pub(in crate::slice) fn is_serving(&self) -> bool {
        !*self.stopped && self.replication.is_serving()
    }

    /// The topology makes this copy the primary, or changes the others under it.
    pub(super) fn lead(&mut self, now: Now, config: &Config) {
        let now = now.monotonic;
        if let Role::Primary(primary) = &mut self.replication.role {
            primary.copies.retain(|copy, _| config.copies().any(|member| member == *copy));
            for progress in primary.copies.values_mut() {
                // What was sent under the former epoch is not listened to any more, and neither are its answers.
                progress.send_again();
                progress.is_proposed = false;
                progress.refreshing = None;
            }
            if matches!(primary.phase, Phase::Giving(_)) {
                primary.phase = Phase::Serving;
            }
        } else {
            self.step_down();
            let primary = Primary {
                phase: Phase::Comparing,
                copies: BTreeMap::new(),
                syncs: BTreeMap::new(),
                syncs_asked: now,
                since: now,
                cut_off: None,
                released: None,
            };
            self.replication.role = Role::Primary(Box::new(primary));
            self.replication.recent.clear();
        }
        let Role::Primary(primary) = &mut self.replication.role else { return };
        for copy in config.mirrors.iter().chain(&config.joining) {
            let is_mirror = config.mirrors.contains(copy);
            primary.copies.entry(*copy).or_insert_with(|| Progress::new(is_mirror, now)).is_mirror =
                is_mirror;
        }
        self.heed_space();
    }

    /// Whatever this copy was, it is that no more: nobody who waits can be told a success by it.
    pub(super) fn step_down(&mut self) {
        if matches!(self.replication.role, Role::Primary(_)) {
            tracing::info!(target: "magma::routing", slice = self.identity.slice.0, "this volcano serves the slice no more");
            self.let_go();
            *self.sessions = crate::slice::Sessions::default();
            *self.space_elsewhere = u64::MAX;
        }
        self.replication.role = Role::Outside(super::Cold::default());
    }

    /// What is due for a primary.
    pub(super) fn lead_on(&mut self, now: Now) {
        self.heed_lease(now);
        self.heed_deafness(now);
        self.replace_the_silent(now);
        self.advance(now);
        self.feed(now);
        self.keep_copies(now);
    }

    /// Without the lease nobody can be told anything, so nobody is kept waiting: whoever asks is sent away, and finds the copy that
    /// serves the slice by then, or comes back.
    fn heed_lease(&mut self, now: Now) {
        let Role::Primary(primary) = &mut self.replication.role else { return };
        if !matches!(primary.phase, Phase::Serving | Phase::Recalling | Phase::Dividing(_)) {
            return;
        }
        if primary.safe(now.monotonic).is_some() {
            primary.cut_off = None;
        } else if primary.cut_off.is_none() {
            primary.cut_off = Some(now.monotonic);
            tracing::warn!(target: "magma::routing", slice = self.identity.slice.0, "the other copies do not answer: nobody is served until they do, or are replaced");
            if primary.phase == Phase::Dividing(dividing::Stage::Securing) {
                // what waits for the disks is given up, too
                primary.phase = Phase::Dividing(dividing::Stage::Recorded);
            }
            self.let_go();
        }
    }

    /// Who hears nobody, but is perhaps heard, can use no promise of a mirror. So it releases them, and one of them takes over at once. Not
    /// before it has had the time to take in what had come while its process was stopped.
    fn heed_deafness(&mut self, now: Now) {
        let Role::Primary(primary) = &mut self.replication.role else { return };
        let is_sure = |since: Duration| now.monotonic.saturating_sub(since) >= TAKE_IN;
        if !(primary.cut_off.is_some_and(is_sure) && self.present.is_deaf(now.monotonic)) {
            primary.released = None;
            return;
        }
        if primary.released.is_none() {
            tracing::warn!(target: "magma::routing", slice = self.identity.slice.0, "this volcano hears nobody: its mirrors need not wait for it");
        }
        for progress in primary.copies.values_mut() {
            progress.release();
            if primary.released.is_none() {
                // they are told now, not when the next beacon is due
                progress.told = Duration::ZERO;
            }
        }
        primary.released = Some(self.replication.beacons.void());
    }

    /// Goes through the phases as far as possible now.
    pub(super) fn advance(&mut self, now: Now) {
        if *self.stopped {
            return;
        }
        let Role::Primary(primary) = &self.replication.role else { return };
        match primary.phase {
            Phase::Comparing => {
                let compared = primary.copies.values().filter(|copy| copy.is_mirror);
                let mut compared = compared.map(|copy| copy.stage == Stage::Streaming);
                if compared.all(|is_known| is_known)
                    && let Err(trouble) = self.begin_epoch(now)
                {
                    self.trouble(trouble);
                }
            }
            Phase::Leveling(first) => {
                let level = primary.counted().all(|copy| copy.acked >= first && copy.leases(now.monotonic));
                if (level || planted(Bug::ServeBeforeLeveling)) && self.store.flush().is_ok() {
                    if self.is_divided_here() {
                        self.go_on_dividing(now, dividing::Stage::Recorded);
                    } else {
                        self.begin_serving(now);
                    }
                }
            }
            Phase::Recalling => self.recall_or_serve(now),
            Phase::Giving(to) => {
                let last = self.position().seq;
                let has_all = primary.copies.get(&to).is_some_and(|copy| copy.acked == last);
                if has_all && self.gate.is_empty() {
                    self.propose(now, SliceChange::HandOver(to));
                }
            }
            Phase::Serving => self.divide_if_due(now),
            Phase::Dividing(stage) => self.go_on_dividing(now, stage),
        }
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        if let Role::Primary(primary) = &mut self.replication.role {
            primary.phase = phase;
        }
    }

    /// Every mirror stands at or before this copy's last record: the first record of the epoch follows it.
    fn begin_epoch(&mut self, now: Now) -> Result<(), Trouble> {
        self.found()?;
        let changes = self.founding_changes(now)?;
        *self.last_time = (*self.last_time).max(self.store.time(self.identity.slice));
        self.record(now, changes, None)?;
        self.settle_doubts(now)?;
        let first = self.position().seq;
        self.store.flush()?;
        if let Role::Primary(primary) = &mut self.replication.role {
            primary.phase = Phase::Leveling(first);
        }
        self.feed(now);
        self.advance(now);
        Ok(())
    }

    pub(super) fn begin_serving(&mut self, now: Now) {
        let rows = match self.store.sessions_of(self.identity.slice) {
            Ok(rows) => rows,
            Err(error) => return self.fail(&error.to_string()),
        };
        if let Err(trouble) = self.begin_across(now) {
            return self.trouble(trouble);
        }
        *self.sessions = crate::slice::Sessions::default();
        for row in rows {
            self.ledger.settle(row.id, row.acknowledged);
            self.sessions.recover(row, now.monotonic);
        }
        if planted(Bug::ForgetLedgerAtFailover) {
            self.ledger.clear();
        }
        self.ledger.keep_known(self.sessions);
        *self.search = Search::from_start();
        let config = self.replication.config.as_ref();
        *self.reign = config.map_or(Epoch(0), |config| config.reign);
        let is_recalling = config.is_some_and(|config| config.recalling);
        if let Role::Primary(primary) = &mut self.replication.role {
            let took = now.monotonic.saturating_sub(primary.since);
            tracing::info!(
                target: "magma::routing", slice = self.identity.slice.0, reign = self.reign.0, ms = took.as_millis(),
                sessions = self.sessions.len(), "this volcano serves the slice"
            );
            primary.phase = if is_recalling { Phase::Recalling } else { Phase::Serving };
        }
        self.advance(now);
    }

    /// Asks the other slices what was lost here. When everything is done again, the coordinator hears of it, and the slice serves.
    fn recall_or_serve(&mut self, now: Now) {
        if !self.replication.config.as_ref().is_some_and(|config| config.recalling) {
            self.set_phase(Phase::Serving);
            return self.divide_if_due(now);
        }
        if self.replication.proposal.is_some() {
            return;
        }
        match self.recall(now) {
            Ok(true) => self.propose(now, SliceChange::Recalled),
            Ok(false) => {}
            Err(trouble) => self.trouble(trouble),
        }
    }

    /// Whether this copy is the primary and all copies stand where it does, so that what it says of the slice is true.
    pub(in crate::slice) fn is_level(&self) -> bool {
        !*self.stopped
            && matches!(&self.replication.role, Role::Primary(primary)
                if matches!(primary.phase, Phase::Serving | Phase::Recalling) && primary.cut_off.is_none())
    }

    /// A copy answers.
    pub(super) fn hear_copy(
        &mut self,
        now: Now,
        from: Replica,
        message: SliceMessage,
    ) -> Result<(), Trouble> {
        let last = self.position().seq;
        let Role::Primary(primary) = &mut self.replication.role else { return Ok(()) };
        let Some(copy) = primary.copies.get_mut(&from) else { return Ok(()) };
        match message {
            SliceMessage::Standing { beacon, position, synced, incomplete, refreshed, space } => {
                copy.answered(&self.replication.beacons, beacon, now.monotonic);
                copy.space = space;
                if !copy.is_past_orders(beacon) {
                    return Ok(());
                }
                copy.has_synced(synced, primary.syncs.keys().next_back().copied(), now.monotonic);
                if copy.stage == Stage::Streaming {
                    // It lacks something just as it should, or nothing any more since it has the part that was sent last.
                    let has_part = copy.refreshing.as_ref().is_some_and(|part| part.number == refreshed);
                    if incomplete != copy.missing.is_empty() || !incomplete && has_part {
                        copy.stands_at(position.seq, last, now.monotonic);
                        confirm_part(copy, refreshed);
                    } else {
                        copy.stage = Stage::Asking;
                    }
                }
            }
            SliceMessage::Stand(stand) => {
                copy.heard = now.monotonic;
                self.place_copy(now, from, *stand)?;
            }
            _ => {}
        }
        self.heed_space();
        self.advance(now);
        Ok(())
    }

    /// What a copy that counts cannot store is refused here, before it is half-written.
    fn heed_space(&mut self) {
        let Role::Primary(primary) = &self.replication.role else { return };
        let least = primary.counted().map(|copy| copy.space).min();
        *self.space_elsewhere = least.unwrap_or(u64::MAX);
    }

    /// A mirror whose log is longer than this copy's: it becomes primary in its place. Nothing was served in between.
    pub(super) fn yield_to_longer(&mut self, now: Now, from: Replica, stand: &Stand) -> bool {
        let own: Position = self.position();
        let Role::Primary(primary) = &self.replication.role else { return false };
        let is_longer = primary.phase == Phase::Comparing && stand.position > own && stand.missing.is_empty();
        if is_longer {
            self.propose(now, SliceChange::HandOver(from));
        }
        is_longer
    }

    /// A copy that counts and does not answer is taken out of the group before the primary goes on without it.
    fn replace_the_silent(&mut self, now: Now) {
        let Role::Primary(primary) = &self.replication.role else { return };
        let last = self.position().seq;
        let is_lost = |(who, copy): &(&Replica, &Progress)| {
            self.present.has_restarted(**who)
                || now.monotonic.saturating_sub(copy.heard) >= SILENCE
                || copy.stuck_for(last, now.monotonic) >= STUCK
        };
        let lost = primary.copies.iter().filter(|(_, copy)| copy.counts()).find(is_lost);
        let lost = lost.or_else(|| {
            let gone = |(who, copy): &(&Replica, &Progress)| {
                self.present.has_restarted(**who)
                    || now.monotonic.saturating_sub(copy.heard) >= JOINING_SILENCE
            };
            primary.copies.iter().find(gone)
        });
        if let Some((&who, _)) = lost {
            self.replication.policy.lost(who.volcano, now.monotonic);
            self.propose(now, SliceChange::Remove(who));
        }
    }

    /// What may leave now, by what the other copies have.
    pub(in crate::slice) fn safe(&self, now: Now) -> Option<Safe> {
        match &self.replication.role {
            Role::Primary(primary) if !matches!(primary.phase, Phase::Comparing | Phase::Leveling(_)) => {
                primary.safe(now.monotonic)
            }
            _ => None,
        }
    }
}

/// The copy has taken the part with this number.
fn confirm_part(copy: &mut Progress, refreshed: u64) {
    if let Some(part) = copy.refreshing.take_if(|part| part.number == refreshed) {
        copy.part_patience = PART_PATIENCE;
        if part.last {
            copy.missing.remove(part.range);
        }
        copy.inside = part.inside;
    }
}
