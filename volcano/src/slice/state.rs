//! What is one copy's own.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use magma_common::key::{Key, KeyRange};
use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Seq, SliceId, VolcanoId};

use super::across::Across;
use super::gate::Gate;
use super::host::Host;
use super::ledger::Ledger;
use super::orphans::Search;
use super::replication::Replication;
use super::session::Sessions;
use super::shedding::Shedding;
use super::waits::LockWaits;
use super::{Held, Identity, LockWait, Now, PendingRead, Slice, Ticket};
use crate::store::Store;

/// See the module's documentation.
pub(super) struct SliceState {
    pub(super) ledger: Ledger,
    pub(super) sessions: Sessions,
    pub(super) waits: LockWaits<LockWait>,
    pub(super) reads: HashMap<Ticket, PendingRead>,
    pub(super) gate: Gate<Held>,
    /// The time of the last record: the next one is not before it.
    last_time: Timestamp,
    /// Flares whose locks changed and whose waiters have not been woken yet.
    locks_changed: BTreeSet<Key>,
    search: Search,
    shedding: Shedding,
    pub(super) replication: Replication,
    pub(super) across: Across,
    /// The epoch in which this copy began to serve: what clients hold open was said to it since then.
    reign: Epoch,
    /// When the other copies heard which outcomes clients have.
    marks_recorded: Duration,
    /// What the other copies can still take, in bytes: no more is promised here.
    space_elsewhere: u64,
}

impl SliceState {
    /// A copy of these keys that has no role yet, with what the store has of it.
    pub(super) fn new(host: &mut Host, slice: SliceId, range: KeyRange, now: Now) -> Self {
        let recovered = &mut host.recovered;
        let replication = Replication::new(recovered.may_have_lost, recovered.take_doubts(range));
        let ledger = recovered.take_ledger(slice, now.monotonic);
        Self {
            ledger,
            sessions: Sessions::default(),
            waits: LockWaits::default(),
            reads: HashMap::new(),
            gate: Gate::default(),
            last_time: host.store.time(slice),
            locks_changed: BTreeSet::new(),
            search: Search::from_start(),
            shedding: Shedding::default(),
            replication,
            across: Across::new(Seq(0), now.monotonic),
            reign: Epoch(0),
            marks_recorded: now.monotonic,
            space_elsewhere: u64::MAX,
        }
    }

    /// Outcomes kept for retries, answers held, requests waiting for locks.
    pub(super) fn held(&self) -> (usize, usize, usize) {
        (self.ledger.len(), self.gate.len(), self.waits.len())
    }
}

impl<'a> Slice<'a> {
    /// A copy at work on this volcano.
    pub(super) fn new(host: &'a mut Host, slice: SliceId, state: &'a mut SliceState) -> Self {
        let SliceState {
            ledger,
            sessions,
            waits,
            reads,
            gate,
            last_time,
            locks_changed,
            search,
            shedding,
            replication,
            across,
            reign,
            marks_recorded,
            space_elsewhere,
        } = state;
        Self {
            identity: Identity { slice, volcano: host.own.volcano, boot: host.own.boot },
            ledger,
            sessions,
            waits,
            reads,
            gate,
            last_time,
            locks_changed,
            search,
            shedding,
            replication,
            across,
            reign,
            marks_recorded,
            space_elsewhere,
            store: &mut host.store,
            topology: &host.topology,
            random: &mut host.random,
            effects: &mut host.effects,
            present: &host.present,
            figures: &host.figures,
            warnings: &mut host.warnings,
            recovered: &mut host.recovered,
            stopped: &mut host.stopped,
            failure: &mut host.failure,
        }
    }
}

/// A copy, to be looked at.
#[derive(Clone, Copy)]
pub struct SliceRef<'a> {
    slice: SliceId,
    host: &'a Host,
    state: &'a SliceState,
}

impl<'a> SliceRef<'a> {
    pub(super) fn new(host: &'a Host, slice: SliceId, state: &'a SliceState) -> Self {
        Self { slice, host, state }
    }

    /// Which slice this is, on which volcano, in which life of it.
    pub fn identity(&self) -> Identity {
        let own = self.host.own;
        Identity { slice: self.slice, volcano: own.volcano, boot: own.boot }
    }

    /// Whether this copy is the primary and evaluates requests.
    pub fn is_serving(&self) -> bool {
        !self.host.stopped && self.state.replication.is_serving()
    }

    /// Whether this copy is the primary and divides its slice, or begins to serve one that was divided off a moment ago: who waits for some
    /// milliseconds is served.
    pub fn is_dividing(&self) -> bool {
        let is_new = || {
            let topology = self.host.topology.slices.iter().find(|slice| slice.id == self.slice);
            topology.is_some_and(|slice| slice.epoch == slice.reign)
                && self.host.store.parent(self.slice).is_some()
        };
        !self.host.stopped && self.state.replication.is_dividing(is_new)
    }

    /// Whether an answer might leave this copy now, were there one: it serves, and holds the lease.
    pub fn may_answer(&self, now: Now) -> bool {
        !self.host.stopped && self.state.replication.may_answer(now.monotonic)
    }

    /// For whom the slice waits, after a start of everybody; empty when it does not.
    pub fn waits_for(&self) -> Vec<VolcanoId> {
        self.state.replication.waits_for(self.host.own)
    }

    /// The epoch of the slice's members as this copy knows them.
    pub fn known_epoch(&self) -> Epoch {
        self.state.replication.epoch()
    }

    /// The epoch in which this copy began to serve.
    pub fn reign(&self) -> Epoch {
        self.state.reign
    }

    /// The sessions, to be looked at.
    pub fn sessions(&self) -> &'a Sessions {
        &self.state.sessions
    }

    /// The store of all copies of this volcano.
    pub fn store(&self) -> &'a Store {
        &self.host.store
    }

    /// Outcomes kept for retries, answers held, requests waiting for locks.
    pub fn held(&self) -> (usize, usize, usize) {
        self.state.held()
    }
}
