//! The copies that a volcano keeps, over one store.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::topology::{Epoch, Replica, Seq, SliceId, Topology, VolcanoId};

use super::across::message::AcrossMessage;
use super::host::Host;
use super::state::{SliceRef, SliceState};
use super::{Answer, Call, Effect, Now, Slice, SyncFor, Ticket, Trouble, report};
use crate::coordinator::{Refusal, SliceChange};
use crate::dht::Figures;
use crate::node::message::SliceMessage;
use crate::store::{Opened, Store, StoreError, SyncBodies, SyncDone};
use crate::view::ReadError;

/// Figures about the volcano are taken anew after this long.
const FIGURES_AGE: Duration = Duration::from_secs(1);
/// Time that passes untold for so long means that the volcano itself was stopped or asleep.
const ABSENCE: Duration = Duration::from_secs(5);
/// Whoever pauses between two tries is looked at this often.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
/// Time is told at least this often.
const LONGEST_TICK: Duration = Duration::from_millis(100);

/// See the documentation of [the module above](super).
pub struct Slices {
    host: Host,
    states: BTreeMap<SliceId, SliceState>,
}

impl Slices {
    /// Takes over an opened store. There are no copies until [`configure`](Self::configure) says which.
    pub fn new(
        own: Replica,
        mut store: Store,
        opened: Opened,
        random: Box<dyn FnMut() -> u64>,
        now: Now,
    ) -> Self {
        store.remove_strays();
        Self { host: Host::new(own, store, opened, random, now), states: BTreeMap::new() }
    }

    /// The topology has changed. A copy that is none any more stays, without a role: what it has may be of use when it joins again.
    pub fn configure(&mut self, now: Now, topology: &Topology) {
        self.host.topology = topology.clone();
        // a slice that is new here may be one that another was divided in
        self.each(|slice| {
            slice.pass_doubts_on();
        });
        let own = self.host.own.volcano;
        for slice in &topology.slices {
            let is_ours = slice.copies().any(|copy| copy.volcano == own)
                || self.host.store.position(slice.id).is_some();
            if is_ours && !self.states.contains_key(&slice.id) {
                let state = SliceState::new(&mut self.host, slice.id, slice.range, now);
                self.states.insert(slice.id, state);
            }
        }
        self.each(|slice| slice.configure(now));
        self.note_told_loss();
    }

    /// Where no former life of this volcano is relied upon any more, nobody need be told what it has lost. Until then every life says so: one
    /// that stopped before it was heard must not make it unheard of.
    fn note_told_loss(&mut self) {
        let own = self.host.own;
        let is_former_life = |copy: Replica| copy.volcano == own.volcano && copy.boot < own.boot;
        let is_relied_upon =
            self.host.topology.slices.iter().any(|slice| slice.in_sync().any(is_former_life));
        if is_relied_upon {
            return;
        }
        if let Err(error) = self.host.store.loss_is_told() {
            self.host.trouble(error.into());
        }
    }

    /// A request about this slice came in. Call [`batch_end`](Self::batch_end) after the last one that was there to be read.
    pub fn request(&mut self, now: Now, id: SliceId, ticket: Ticket, call: Call) {
        self.host.served += 1;
        match self.get_mut(id) {
            Some(mut slice) => slice.request(now, ticket, call),
            None => {
                self.host.effects.push(Effect::Answer(ticket, Answer::Err(FlareError::Unavailable.into())));
            }
        }
    }

    /// The caller of this request went away: if it waits for a lock, it stops waiting.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.each(|slice| slice.cancel(ticket));
    }

    /// A read that was asked for has ended. [`batch_end`](Self::batch_end) lets its answer go.
    pub fn read_done(&mut self, now: Now, ticket: Ticket, read: Result<Option<Bytes>, ReadError>) {
        let asked = self.states.iter().find(|(_, state)| state.reads.contains_key(&ticket));
        if let Some(mut slice) = asked.map(|(id, _)| *id).and_then(|id| self.get_mut(id)) {
            slice.read_done(now, ticket, read);
        }
    }

    /// A volcano was heard from.
    pub fn present(&mut self, now: Now, who: Replica) {
        self.host.present.hear(now.monotonic, who);
    }

    /// Another copy of this slice says something. Call [`batch_end`](Self::batch_end) after the last message that was there to be read.
    pub fn message(&mut self, now: Now, from: Replica, id: SliceId, epoch: Epoch, message: SliceMessage) {
        if let Some(mut slice) = self.get_mut(id) {
            slice.message(now, from, epoch, message);
        }
        self.hand_ledgers_down();
    }

    /// A slice that was divided off by a record which came after it was known by the topology has a state already.
    fn hand_ledgers_down(&mut self) {
        let Self { host, states } = self;
        while let Some((id, ledger)) = host.recovered.take_inherited(|id| states.contains_key(id)) {
            if let Some(state) = states.get_mut(&id) {
                state.ledger = ledger;
            }
        }
    }

    /// Another slice says something to this one. Call [`batch_end`](Self::batch_end) after the last message that was there to be read.
    pub fn across(&mut self, now: Now, id: SliceId, message: AcrossMessage) {
        if let Some(mut slice) = self.get_mut(id) {
            slice.across(now, message);
        }
    }

    /// The coordinator will not make a change of this slice that was asked for under this epoch.
    pub fn refused(&mut self, id: SliceId, epoch: Epoch, change: &SliceChange, refusal: &Refusal) {
        if let Some(mut slice) = self.get_mut(id) {
            slice.refused(epoch, change, refusal);
        }
    }

    /// Everything that was there to be read has been handed over: the log goes out in one write, what is new goes to the other
    /// copies, and the answers that are safe leave.
    pub fn batch_end(&mut self, now: Now) {
        if self.host.stopped {
            return;
        }
        let mut wants_log = false;
        self.each(|slice| wants_log |= slice.wants_log());
        if wants_log {
            match self.host.store.flush() {
                Ok(()) => self.each(|slice| {
                    slice.logged();
                }),
                // A full disk stops nothing: the answers stay held, and the next tick tries again.
                Err(error) => self.host.trouble(error.into()),
            }
        }
        // The other copies hear of the records first, and then that these are to be synced.
        self.each(|slice| slice.pass_on(now));
        self.start_sync(now);
    }

    /// One sync for all who wait for one. Who comes later waits for the next one.
    fn start_sync(&mut self, now: Now) {
        let mut wanted: Option<SyncBodies> = None;
        self.each(|slice| {
            if let Some(bodies) = slice.wants_sync() {
                wanted = Some(match wanted.take() {
                    Some(others) => others.and(bodies),
                    None => bodies,
                });
            }
        });
        let Some(bodies) = wanted else { return };
        match self.host.store.begin_sync(&bodies) {
            Ok(job) => {
                let mut purposes = Vec::new();
                self.each(|slice| purposes.extend(slice.sync_begins(now)));
                self.host.effects.push(Effect::Sync(job, purposes));
            }
            // As in `batch_end`: who waits for the disk stays held.
            Err(error) => self.host.trouble(error.into()),
        }
    }

    /// A sync that was asked for has ended.
    pub fn synced(&mut self, now: Now, done: SyncDone, purposes: Vec<SyncFor>) {
        if let Err(error) = self.host.store.finish_sync(done) {
            return self.fail(&error.to_string());
        }
        for purpose in purposes {
            match purpose {
                SyncFor::Upkeep => {}
                SyncFor::Replies(id, number) => {
                    if let Some(state) = self.states.get_mut(&id) {
                        state.gate.sync_ended(number);
                    }
                }
                SyncFor::Primary(id, primary, number) => {
                    if let Some(mut slice) = self.get_mut(id) {
                        slice.synced_for_primary(primary, number);
                    }
                }
            }
        }
        self.batch_end(now);
    }

    /// How soon [`tick`](Self::tick) should come again; it may always be called sooner.
    pub fn next_tick(&self) -> Duration {
        if self.host.stopped {
            return LONGEST_TICK;
        }
        let is_pausing = self.states.values().any(|state| state.across.is_pausing());
        self.host.again.min(if is_pausing { SHORTEST_PAUSE } else { LONGEST_TICK })
    }

    /// Time has passed; to be called some ten times a second, and as soon as [`next_tick`](Self::next_tick) says.
    pub fn tick(&mut self, now: Now) {
        if self.host.stopped {
            return;
        }
        let absence = now.monotonic.saturating_sub(self.host.warnings.ticked);
        let absence = (absence >= ABSENCE).then_some(absence);
        if let Some(absence) = absence {
            tracing::info!(target: "magma::volcano", seconds = absence.as_secs(), "this volcano was stopped or asleep; nobody's silence counts");
        }
        self.host.warnings.ticked = now.monotonic;
        self.each(|slice| slice.keep_house(now, absence));
        if let Err(trouble) = self.maintain(now) {
            self.host.trouble(trouble);
        }
        self.each(|slice| slice.replicate(now));
        if now.monotonic.saturating_sub(self.host.figures.taken.monotonic) >= FIGURES_AGE {
            self.take_figures(now);
        }
        self.batch_end(now);
    }

    fn maintain(&mut self, now: Now) -> Result<(), Trouble> {
        self.keep_log();
        let upkeep = self.host.store.maintain(now.monotonic)?;
        self.host.again = upkeep.again;
        self.host.effects.extend(upkeep.job.map(|job| Effect::Sync(job, vec![SyncFor::Upkeep])));
        Ok(())
    }

    /// The log keeps the outcomes that a start would have to know. Those that a slice has inherited are in the records of the one
    /// that it was divided off.
    fn keep_log(&mut self) {
        let store = &mut self.host.store;
        let mut oldest: BTreeMap<SliceId, Seq> = BTreeMap::new();
        // a slice has a greater number than the one that it was divided off
        for (id, state) in self.states.iter().rev() {
            let own = state.ledger.oldest_needed().unwrap_or(Seq(u64::MAX));
            let needed = oldest.get(id).map_or(own, |inherited| own.min(*inherited));
            oldest.insert(*id, needed);
            if let Some((parent, divided)) = store.parent(*id).filter(|(_, divided)| needed <= *divided) {
                let of_parent = oldest.entry(parent).or_insert(needed);
                *of_parent = needed.min(divided).min(*of_parent);
            }
        }
        for (id, seq) in oldest {
            store.keep_from(id, seq);
        }
    }

    /// Something outside that the volcano depends on has failed: it stops serving, and nobody who waits hears of a success.
    pub fn fail(&mut self, reason: &str) {
        self.host.fail(reason);
    }

    /// What has to be done outside, in this order.
    pub fn effects(&mut self) -> Vec<Effect> {
        if let Some(reason) = self.host.failure.take() {
            self.each(|slice| {
                slice.give_up();
            });
            self.host.effects.push(Effect::Stop(reason));
        }
        std::mem::take(&mut self.host.effects)
    }

    /// Stops in order: everything on disk, a clean mark set.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.host.store.flush()?;
        self.host.store.close()
    }

    /// Another volcano has told its figures.
    pub fn hear_figures(&mut self, who: VolcanoId, figures: Figures) {
        self.host.figures.others.insert(who, figures);
    }

    /// The figures of the volcanos that were heard from, this one's among them.
    pub fn all_figures(&self) -> Vec<(VolcanoId, Figures)> {
        self.host.all_figures()
    }

    /// This volcano's figures, at most about a second old.
    pub fn figures(&self) -> &Figures {
        &self.host.figures.own
    }

    fn take_figures(&mut self, now: Now) {
        let (started, copies) = (self.host.figures.own.started, self.copy_reports(now));
        self.host.figures.own = Figures { started, copies, ..report::figures(&self.host.store, now.wall) };
        self.host.figures.taken = now;
    }

    /// Says anew what the copies do; the other figures stay.
    pub fn renew_copies(&mut self, now: Now) {
        self.host.figures.own.copies = self.copy_reports(now);
    }

    fn copy_reports(&mut self, now: Now) -> Vec<report::CopyReport> {
        let mut reports = Vec::new();
        self.each(|slice| reports.push(slice.copy_report(now)));
        reports
    }

    /// A random number.
    pub fn draw(&mut self) -> u64 {
        (self.host.random)()
    }

    /// Keeps a small value of the volcano's own on disk.
    pub fn keep_value(&mut self, name: &str, value: &[u8]) {
        if let Err(error) = self.host.store.set_meta(name, value) {
            self.host.trouble(error.into());
        }
    }

    /// The store, to be looked at.
    pub fn store(&self) -> &Store {
        &self.host.store
    }

    /// Requests served since the start.
    pub fn served(&self) -> u64 {
        self.host.served
    }

    /// The copy of this slice, to be looked at.
    pub fn get(&self, id: SliceId) -> Option<SliceRef<'_>> {
        self.states.get(&id).map(|state| SliceRef::new(&self.host, id, state))
    }

    /// All copies, to be looked at.
    pub fn iter(&self) -> impl Iterator<Item = SliceRef<'_>> {
        self.states.iter().map(|(id, state)| SliceRef::new(&self.host, *id, state))
    }

    /// The copy of this slice, to be worked with.
    pub(super) fn get_mut(&mut self, id: SliceId) -> Option<Slice<'_>> {
        let state = self.states.get_mut(&id)?;
        Some(Slice::new(&mut self.host, id, state))
    }

    fn each(&mut self, mut act: impl FnMut(&mut Slice<'_>)) {
        for (id, state) in &mut self.states {
            act(&mut Slice::new(&mut self.host, *id, state));
        }
    }
}
