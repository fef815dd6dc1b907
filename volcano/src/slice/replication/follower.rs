//! A copy that follows the primary: it takes records in order, answers beacons, and takes over when they stay away.

use std::collections::BTreeSet;
use std::time::Duration;

use magma_common::topology::{Position, Replica, Seq, Slice as Config};

use super::Role;
use super::history::History;
use super::lease::{NO_PROMISE, PROMISE};
use crate::coordinator::SliceChange;
use crate::node::message::{Part, SentRecord, SliceMessage};
use crate::planted::{Bug, planted};
use crate::record::Change;
use crate::rows::BodyId;
use crate::slice::{Now, Slice, SyncFor, Trouble};
use crate::store::{Imported, Rewound, StoreError, SyncBodies};
use crate::view::View;

/// Bodies that a sync names before it covers all instead.
const MAX_NAMED_BODIES: usize = 4096;

/// The bodies that a sync is to cover.
#[derive(Clone, Debug)]
enum Bodies {
    These(BTreeSet<BodyId>),
    All,
}

/// A sync that the primary has asked for.
#[derive(Clone, Debug)]
struct WantedSync {
    number: u64,
    bodies: Bodies,
    /// Not before time has passed: it has to cover what the store's upkeep does meanwhile.
    is_put_off: bool,
}

/// The state of a copy that follows.
#[derive(Debug)]
pub(in crate::slice) struct Follower {
    primary: Replica,
    is_mirror: bool,
    /// It does not take over before then.
    promised: Duration,
    /// It has proposed itself as primary and answers nothing until the outcome is known.
    is_proposing: bool,
    /// The newest beacon seen, and whether it is to be answered.
    beacon: u64,
    owes_answer: bool,
    /// The syncs up to this number are done.
    synced: u64,
    wanted: Option<WantedSync>,
    /// The newest sync that covers records which have not come yet: its number, the last of them, and the bodies.
    early: Option<(u64, Seq, Option<Vec<BodyId>>)>,
    syncing: Option<u64>,
    /// The number of the last part that was taken.
    refreshed: u64,
    /// A record did not fit what is here: nothing of this copy can be relied upon.
    is_broken: bool,
}

impl Follower {
    fn new(primary: Replica, is_mirror: bool, now: Duration) -> Self {
        Self {
            primary,
            is_mirror,
            promised: now.saturating_add(PROMISE),
            is_proposing: false,
            beacon: 0,
            owes_answer: false,
            synced: 0,
            wanted: None,
            early: None,
            syncing: None,
            refreshed: 0,
            is_broken: false,
        }
    }

    pub(super) fn follows(&self, who: Replica) -> bool {
        self.primary == who
    }

    pub(super) fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    /// A copy that has proposed itself may be primary already, so it lets nobody else answer.
    fn is_silent(&self) -> bool {
        self.is_proposing && !planted(Bug::AnswerWhileProposing)
    }
}

impl Slice<'_> {
    /// The topology makes this copy a mirror, or lets it join.
    pub(super) fn follow(&mut self, now: Now, config: &Config) {
        let is_mirror = config.mirrors.contains(&self.identity.replica());
        match &mut self.replication.role {
            Role::Follower(follower) if follower.primary == config.primary => {
                follower.is_mirror = is_mirror;
                follower.is_proposing = false;
                follower.promised = follower.promised.max(now.monotonic.saturating_add(PROMISE));
            }
            _ => {
                self.step_down();
                self.replication.role =
                    Role::Follower(Follower::new(config.primary, is_mirror, now.monotonic));
            }
        }
        if !is_mirror && let Err(trouble) = self.resolve_doubts() {
            self.trouble(trouble);
        }
    }

    pub(super) fn hear_primary(&mut self, now: Now, message: SliceMessage) -> Result<(), Trouble> {
        let Role::Follower(follower) = &mut self.replication.role else { return Ok(()) };
        if follower.is_silent() {
            return Ok(());
        }
        if !follower.is_mirror {
            // If that came to nothing when it began to join, nothing is said or taken before it has not.
            self.resolve_doubts()?;
        }
        match message {
            SliceMessage::Records { beacon, after, records } => {
                self.beacon(now, beacon);
                self.take_records(now, after, records)?;
            }
            SliceMessage::WhereAreYou { beacon } => {
                self.beacon(now, beacon);
                if !self.awaits_division() {
                    self.store.flush()?;
                    self.say_stand();
                }
            }
            SliceMessage::Released { upto } => self.released(now, upto),
            SliceMessage::Sync { number, through, bodies } => self.want_sync(number, through, bodies),
            SliceMessage::Rewind { beacon, to } if self.may_be_cut(beacon) => self.cut_to(to)?,
            SliceMessage::Place { .. } if self.awaits_division() => {}
            SliceMessage::Place { beacon, position, history, outcomes } if self.may_be_cut(beacon) => {
                let (slice, range) = (self.identity.slice, self.range());
                self.ledger.clear();
                for (seq, outcome) in &outcomes {
                    self.ledger.recover(now.monotonic, *seq, outcome.clone());
                }
                self.store.place(slice, range, position, &history, &outcomes)?;
                self.store.remove_strays();
                self.after_cut()?;
            }
            SliceMessage::Refresh { number, at, part } => self.take_part(number, at, &part)?,
            SliceMessage::Rewind { .. }
            | SliceMessage::Place { .. }
            | SliceMessage::Standing { .. }
            | SliceMessage::Stand(_) => {}
        }
        Ok(())
    }

    /// A sign of life of the primary, to be answered.
    fn beacon(&mut self, now: Now, beacon: u64) {
        let Role::Follower(follower) = &mut self.replication.role else { return };
        follower.owes_answer = true;
        if beacon != NO_PROMISE {
            follower.beacon = follower.beacon.max(beacon);
            follower.promised = now.monotonic.saturating_add(PROMISE);
        }
    }

    /// The primary hears nobody and does without what was promised up to this beacon. It is asked for nothing but a sign of life.
    fn released(&mut self, now: Now, upto: u64) {
        self.beacon(now, NO_PROMISE);
        let Role::Follower(follower) = &mut self.replication.role else { return };
        // A later promise was asked for by a primary that hears again.
        if follower.beacon <= upto {
            follower.promised = now.monotonic;
        }
    }

    /// Whether this copy may be taken back. A mirror may not: it is in sync, and others rely on it. Neither may an order that
    /// others have overtaken.
    fn may_be_cut(&mut self, beacon: u64) -> bool {
        let Role::Follower(follower) = &mut self.replication.role else { return false };
        let may = !follower.is_mirror && beacon > follower.beacon;
        follower.beacon = follower.beacon.max(beacon);
        may
    }

    fn take_records(&mut self, now: Now, after: Position, records: Vec<SentRecord>) -> Result<(), Trouble> {
        let Role::Follower(follower) = &self.replication.role else { return Ok(()) };
        // Before this copy has been placed, and after it was found to be broken, its number 0 means nothing.
        if follower.is_broken || records.is_empty() {
            return Ok(());
        }
        if after.seq > self.position().seq {
            // Some records are still on their way, or lost; the primary sees from the answer what is missing.
            return Ok(());
        }
        let history = self.store.history(self.identity.slice);
        let here = History { epochs: &history, last: self.position() };
        if after.seq != Seq(0) && here.at(after.seq) != Some(after) {
            self.say_stand();
            return Ok(());
        }
        for sent in records {
            let position = self.position();
            let name = Position { epoch: sent.record.epoch, seq: sent.record.seq };
            if name.seq <= position.seq {
                let history = self.store.history(self.identity.slice);
                if (History { epochs: &history, last: position }).at(name.seq) != Some(name) {
                    self.say_stand();
                    return Ok(());
                }
            } else if !self.take_record(now, sent)? {
                return Ok(());
            }
        }
        self.want_early_sync();
        Ok(())
    }

    /// The records have come that a sync covers which had overtaken them.
    fn want_early_sync(&mut self) {
        let position = self.position();
        let Role::Follower(follower) = &mut self.replication.role else { return };
        if let Some((number, through, bodies)) =
            follower.early.take_if(|(_, through, _)| *through <= position.seq)
        {
            self.want_sync(number, through, bodies);
        }
    }

    /// Takes the next record; false if it was not taken.
    fn take_record(&mut self, now: Now, sent: SentRecord) -> Result<bool, Trouble> {
        let SentRecord { record, appended } = sent;
        match self.store.receive(&record, &appended) {
            Ok(_) => crate::observed::note(false, &record),
            Err(StoreError::Rejected { reason, .. }) => {
                self.is_unfit("a record", &reason);
                return Ok(false);
            }
            // What the primary could store and this copy cannot waits; the answer says how much space there is.
            Err(StoreError::NoSpace(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        *self.last_time = record.time;
        if let Some(division) = record.division() {
            self.recovered.inherit(division.new, self.ledger.heir());
        }
        if let Some(outcome) = record.outcome {
            // Whatever it opened is known to the primary alone.
            self.ledger.recover(now.monotonic, record.seq, outcome);
        }
        for change in &record.changes {
            match change {
                Change::PutSession(row) => self.ledger.settle(row.id, row.acknowledged),
                Change::EndSession(session) => self.ledger.end(*session),
                _ => {}
            }
        }
        Ok(true)
    }

    /// What the primary sends does not fit this copy, which stands nowhere then: the primary hears that, and places it anew.
    fn is_unfit(&mut self, what: &str, reason: &str) {
        tracing::error!(
            target: "magma::volcano", slice = self.identity.slice.0, %reason,
            "{what} does not fit this copy: it is to be copied anew"
        );
        if let Role::Follower(follower) = &mut self.replication.role {
            follower.is_broken = true;
        }
    }

    fn take_part(&mut self, number: u64, at: Position, part: &Part) -> Result<(), Trouble> {
        let Role::Follower(follower) = &self.replication.role else { return Ok(()) };
        let is_next = number > follower.refreshed && !follower.is_mirror && !follower.is_broken;
        if !is_next || at != self.position() {
            return Ok(());
        }
        match self.store.import(self.identity.slice, part) {
            Ok(Imported::Done) => {
                if let Role::Follower(follower) = &mut self.replication.role {
                    follower.refreshed = number;
                    follower.owes_answer = true;
                }
            }
            Ok(Imported::Later) | Err(StoreError::NoSpace(_)) => {}
            // The primary hears what is still missing and begins that anew.
            Ok(Imported::OutOfPlace) => {
                self.store.flush()?;
                self.say_stand();
            }
            Err(StoreError::Rejected { reason, .. }) => self.is_unfit("a part", &reason),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn cut_to(&mut self, to: Position) -> Result<(), Trouble> {
        if planted(Bug::SkipRewind) {
            return Ok(());
        }
        let reason = match self.store.rewind(self.identity.slice, to) {
            Ok(Rewound::Done) => {
                self.ledger.cut(to.seq);
                return self.after_cut();
            }
            Ok(Rewound::NotInLog) => "the log does not reach back that far".to_owned(),
            Err(StoreError::Rejected { reason, .. }) => reason,
            Err(error) => return Err(error.into()),
        };
        self.is_unfit("a rewind", &reason);
        self.say_stand();
        Ok(())
    }

    /// A copy that has been cut, or has begun anew, says so only when that cannot come undone.
    fn after_cut(&mut self) -> Result<(), Trouble> {
        self.store.sync_now(SyncBodies::None)?;
        *self.last_time = self.store.time(self.identity.slice);
        if let Role::Follower(follower) = &mut self.replication.role
            && !self.store.missing(self.identity.slice).is_empty()
        {
            follower.is_broken = false;
        }
        self.say_stand();
        Ok(())
    }

    fn say_stand(&mut self) {
        let Role::Follower(follower) = &self.replication.role else { return };
        let primary = follower.primary;
        let stand = if follower.is_broken { crate::node::message::Stand::default() } else { self.stand() };
        self.tell(primary, SliceMessage::Stand(Box::new(stand)));
    }

    fn want_sync(&mut self, number: u64, through: Seq, bodies: Option<Vec<BodyId>>) {
        let position = self.position();
        let Role::Follower(follower) = &mut self.replication.role else { return };
        if follower.is_broken {
            return;
        }
        if through > position.seq {
            // It has overtaken the records. Each asks for what the earlier ones did, too.
            if follower.early.as_ref().is_none_or(|(early, ..)| *early < number) {
                follower.early = Some((number, through, bodies));
            }
            return;
        }
        follower.owes_answer = true;
        if number <= follower.synced || follower.syncing.is_some_and(|syncing| number <= syncing) {
            return;
        }
        if planted(Bug::StableWithoutSync) {
            follower.synced = number;
            return;
        }
        let earlier = follower.wanted.take().map(|wanted| wanted.bodies);
        let bodies = match (bodies, earlier) {
            (Some(named), None) => Bodies::These(named.into_iter().collect()),
            (Some(named), Some(Bodies::These(mut bodies)))
                if bodies.len() + named.len() <= MAX_NAMED_BODIES =>
            {
                bodies.extend(named);
                Bodies::These(bodies)
            }
            _ => Bodies::All,
        };
        follower.wanted = Some(WantedSync { number, bodies, is_put_off: false });
    }

    /// Time has passed: a sync that was put off may begin.
    pub(super) fn go_on_syncing(&mut self) {
        if let Role::Follower(follower) = &mut self.replication.role
            && let Some(wanted) = &mut follower.wanted
        {
            wanted.is_put_off = false;
        }
    }

    /// The bodies of the sync that the primary has asked for, if it can begin.
    pub(in crate::slice) fn wanted_sync(&self) -> Option<SyncBodies> {
        let Role::Follower(follower) = &self.replication.role else { return None };
        let wanted = follower.wanted.as_ref().filter(|wanted| !wanted.is_put_off)?;
        follower.syncing.is_none().then(|| match &wanted.bodies {
            Bodies::These(bodies) => SyncBodies::These(bodies.iter().copied().collect()),
            Bodies::All => SyncBodies::All,
        })
    }

    /// That sync begins, if it can. If none can begin, on a full disk, it stays wanted.
    pub(in crate::slice) fn wanted_sync_begins(&mut self) -> Option<SyncFor> {
        let Role::Follower(follower) = &mut self.replication.role else { return None };
        if follower.syncing.is_some() {
            return None;
        }
        let WantedSync { number, .. } = follower.wanted.take_if(|wanted| !wanted.is_put_off)?;
        follower.syncing = Some(number);
        Some(SyncFor::Primary(self.identity.slice, follower.primary, number))
    }

    /// A sync that the primary asked for is done.
    pub(in crate::slice) fn synced_for_primary(&mut self, primary: Replica, number: u64) {
        let Role::Follower(follower) = &mut self.replication.role else { return };
        if follower.primary != primary || follower.syncing != Some(number) {
            return;
        }
        follower.syncing = None;
        if self.store.missing(self.identity.slice).is_empty() && !self.store.is_complete(self.identity.slice)
        {
            // What was brought in is on disk, but not yet that it is: once more, when the log says so.
            follower.wanted.get_or_insert(WantedSync { number, bodies: Bodies::All, is_put_off: true });
            return;
        }
        follower.synced = follower.synced.max(number);
        follower.owes_answer = true;
    }

    /// The log has been handed over: the primary may hear how far this copy has come.
    pub(in crate::slice) fn answer_primary(&mut self) {
        let position = self.position();
        let is_incomplete = !self.store.missing(self.identity.slice).is_empty();
        let Role::Follower(follower) = &mut self.replication.role else { return };
        if follower.is_silent() || !std::mem::take(&mut follower.owes_answer) || follower.is_broken {
            return;
        }
        let (beacon, synced, refreshed) = (follower.beacon, follower.synced, follower.refreshed);
        let primary = follower.primary;
        let space = self.store.space().available;
        let incomplete = is_incomplete && !planted(Bug::CountIncomplete);
        self.tell(primary, SliceMessage::Standing { beacon, position, synced, incomplete, refreshed, space });
    }

    /// Whether this copy has an answer to give once its log has been handed over.
    pub(in crate::slice) fn owes_primary(&self) -> bool {
        matches!(&self.replication.role, Role::Follower(follower) if follower.owes_answer)
    }

    /// A mirror that hears no beacons takes over when its promise has run out, or at once when the primary's process is
    /// known to have ended.
    pub(super) fn consider_promotion(&mut self, now: Now) {
        let me = self.identity.replica();
        let Role::Follower(follower) = &self.replication.role else { return };
        let has_run_out = now.monotonic >= follower.promised || planted(Bug::PromoteWithinPromise);
        let may = follower.is_mirror
            && !follower.is_broken
            && (has_run_out || self.present.has_restarted(follower.primary))
            && self.store.missing(self.identity.slice).is_empty();
        if !may {
            return;
        }
        if let Role::Follower(follower) = &mut self.replication.role {
            follower.is_proposing = true;
        }
        self.propose(now, SliceChange::Promote(me));
    }
}
