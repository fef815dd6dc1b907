//! A volcano's copy of a slice of the keyspace: as primary it turns requests into records and lets the answers go; as a
//! mirror it takes the primary's records.
//!
//! [`Slice`] is a state machine without sockets, threads or clocks:
//!
//! * inputs, each with the time: [`Slice::configure`], [`Slice::request`], [`Slice::cancel`], [`Slice::message`],
//!   [`Slice::batch_end`], [`Slice::synced`], [`Slice::tick`];
//! * outputs: [`Slice::effects`], to be carried out after each input.
//!
//! A request is evaluated at once against the applied state. If it changes something, its changes become one
//! record, applied, appended to the log and sent to the other copies ([`replication`]). Its answer, and every other one, is held
//! at the [`gate`] until all that it may depend on is safe. The [`ledger`] answers retries, the [`session`] table knows who is
//! alive and holds what open, [`waits`] queues requests for locks. Every request gets exactly one answer; when the store
//! fails, or the slice is served by another copy from now on, those that are held hear that too.

pub mod gate;
pub mod ledger;
mod orphans;
mod perform;
pub mod replication;
pub mod report;
mod root;
pub mod session;
mod sessions;
#[cfg(test)]
mod tests;
pub mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::key::Key;
use magma_common::key::KeyRange;
use magma_common::proto::frame::RequestHeader;
use magma_common::proto::{Failure, Reply, Request};
use magma_common::time::Timestamp;
use magma_common::topology::{BootId, Epoch, Replica, Seq, SliceId, Topology, VolcanoId};

use self::gate::{Gate, Need};
use self::ledger::Ledger;
use self::orphans::Search;
use self::replication::Replication;
use self::session::Sessions;
use self::waits::LockWaits;
use crate::coordinator::SliceChange;
use crate::dht::Figures;
use crate::node::message::SliceMessage;
use crate::planted::{Bug, planted};
use crate::store::{BodyRead, Opened, Store, StoreError, SyncBodies, SyncDone, SyncJob};
use crate::view::ReadError;

/// Figures about the volcano are taken anew after this long.
const FIGURES_AGE: Duration = Duration::from_secs(1);

/// Time that passes untold for so long means that the volcano itself was stopped or asleep.
const ABSENCE: Duration = Duration::from_secs(5);
/// Time is told at least this often.
const LONGEST_TICK: Duration = Duration::from_millis(100);
/// What goes on failing is told this often.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// A clock that only goes forward and counts time asleep (`CLOCK_BOOTTIME`).
    pub monotonic: Duration,
    /// The clock that files' times come from.
    pub wall: Timestamp,
}

/// The caller's name for a request, by which its answer is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks, on whose behalf, under which operation id, how safe it must be.
    pub header: RequestHeader,
    /// When the caller gives up, on the monotonic clock.
    pub deadline: Option<Duration>,
    /// What is asked.
    pub request: Request,
    /// Bulk data.
    pub payload: Bytes,
}

/// What a request came to.
pub type Answer = Result<(Reply, Bytes), Failure>;

/// Which slice this is, on which volcano, in which life of it.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The slice.
    pub slice: SliceId,
    /// The volcano.
    pub volcano: VolcanoId,
    /// This life of it.
    pub boot: BootId,
}

impl Identity {
    /// The volcano in this life.
    pub fn replica(&self) -> Replica {
        Replica { volcano: self.volcano, boot: self.boot }
    }
}

/// Who waits for a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFor {
    /// Requests, by the number of the sync.
    Replies(u64),
    /// The primary that this copy follows, and the number by which it asked.
    Primary(Replica, u64),
    /// The store's upkeep.
    Upkeep,
}

/// Something to be done outside.
pub enum Effect {
    /// Deliver an answer.
    Answer(Ticket, Answer),
    /// Run this on another thread and hand the result to [`Slice::synced`], with what it is for.
    Sync(SyncJob, SyncFor),
    /// Run this on another thread and hand the result to [`Slice::read_done`].
    Read(Ticket, BodyRead),
    /// Send this to another copy, under this epoch.
    Tell(Replica, Epoch, SliceMessage),
    /// Ask the coordinator for this change, under this epoch.
    Propose(Epoch, SliceChange),
    /// The store failed: stop serving.
    Stop(String),
}

struct Held {
    ticket: Ticket,
    answer: Answer,
}

struct LockWait {
    ticket: Ticket,
    call: Call,
}

/// What evaluating a request led to.
enum Verdict {
    Answer(Answer, Need),
    Wait(Box<waits::Blocked>),
    /// The reply lacks its payload, which has to be read elsewhere.
    Read(Reply, Box<BodyRead>),
}

impl Verdict {
    /// Reads what is still to be read, on this thread.
    fn read_here(self) -> Result<Self, Trouble> {
        let Self::Read(reply, read) = self else { return Ok(self) };
        match read.run()? {
            Some(data) => Ok(Self::Answer(Ok((reply, data)), Need::Logged)),
            None => Err(Trouble::Fatal("a body changed under its only writer".into())),
        }
    }
}

/// A read whose bytes are being fetched by another thread.
struct PendingRead {
    call: Call,
    reply: Reply,
}

/// Why something could not be done.
enum Trouble {
    /// Nothing was changed; the caller hears this.
    Refused(FlareError),
    /// The store failed: the slice stops serving rather than guess.
    Fatal(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace(_) => Self::Refused(FlareError::NoSpace),
            StoreError::TooLarge(_) => Self::Refused(FlareError::TooBig),
            fatal => Self::Fatal(fatal.to_string()),
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Checksum { .. } => Self::Refused(FlareError::Io),
            fatal => Self::Fatal(fatal.to_string()),
        }
    }
}

/// See the module's documentation.
pub struct Slice {
    identity: Identity,
    topology: Topology,
    store: Store,
    ledger: Ledger,
    sessions: Sessions,
    waits: LockWaits<LockWait>,
    reads: HashMap<Ticket, PendingRead>,
    gate: Gate<Held>,
    effects: Vec<Effect>,
    random: Box<dyn FnMut() -> u64>,
    /// The time of the last record: the next one is not before it.
    last_time: Timestamp,
    /// Flares whose locks changed and whose waiters have not been woken yet.
    locks_changed: BTreeSet<Key>,
    search: Search,
    /// When time was told last, on the monotonic clock.
    ticked: Duration,
    /// When the operator may be warned again that something is put off.
    warn_again: Duration,
    /// How soon the store's upkeep wants to go on.
    again: Duration,
    /// Requests served since the start.
    served: u64,
    replication: Replication,
    /// The epoch in which this copy began to serve: what clients hold open was said to it since then.
    reign: Epoch,
    /// When the other copies heard which outcomes clients have.
    marks_passed: Duration,
    figures: Figures,
    figures_taken: Now,
    /// What other volcanos have told of themselves.
    others: BTreeMap<VolcanoId, Figures>,
    stopped: bool,
}

impl Slice {
    /// Takes over an opened store. It has no role until [`configure`](Self::configure) gives it one.
    pub fn new(
        identity: Identity,
        topology: Topology,
        store: Store,
        opened: Opened,
        random: Box<dyn FnMut() -> u64>,
        now: Now,
    ) -> Self {
        let replication = Replication::new(opened.may_have_lost_unsynced(), opened.doubtful);
        let mut ledger = Ledger::default();
        for retained in opened.outcomes {
            ledger.recover(now.monotonic, retained.seq, retained.outcome);
        }
        let (figures, last_time) = (report::figures(&store, now.wall), store.time(identity.slice));
        Self {
            identity,
            topology,
            store,
            ledger,
            sessions: Sessions::default(),
            waits: LockWaits::default(),
            reads: HashMap::new(),
            gate: Gate::default(),
            effects: Vec::new(),
            random,
            last_time,
            locks_changed: BTreeSet::new(),
            search: Search::from_start(),
            ticked: now.monotonic,
            warn_again: now.monotonic,
            again: Duration::ZERO,
            served: 0,
            replication,
            reign: Epoch(0),
            marks_passed: now.monotonic,
            figures,
            figures_taken: now,
            others: BTreeMap::new(),
            stopped: false,
        }
    }

    /// A request came in. Call [`batch_end`](Self::batch_end) after the last one that was there to be read.
    pub fn request(&mut self, now: Now, ticket: Ticket, call: Call) {
        self.served += 1;
        self.evaluate(now, ticket, call);
        self.wake(now);
    }

    /// Lets those try again who wait for locks that have changed. This ends: a try changes locks when it gets them, and then it
    /// waits no more, or when it gives up what it wants to convert, and then it has nothing left to give up.
    fn wake(&mut self, now: Now) {
        while let Some(flare) = self.locks_changed.pop_first() {
            for LockWait { ticket, call } in self.waits.wake(&flare) {
                // Not a sign of life of the session: it is not the client who tries.
                let served = self.serve_flare(now, &call);
                self.conclude(now, ticket, call, served);
            }
        }
    }

    fn evaluate(&mut self, now: Now, ticket: Ticket, call: Call) {
        if !self.is_serving() {
            self.effects.push(Effect::Answer(ticket, Err(FlareError::Unavailable.into())));
            return;
        }
        let served = self.serve(now, &call);
        self.conclude(now, ticket, call, served);
    }

    fn conclude(&mut self, now: Now, ticket: Ticket, call: Call, served: Result<Verdict, Trouble>) {
        match served {
            Ok(Verdict::Answer(answer, need)) => self.hold(ticket, answer, need),
            Ok(Verdict::Read(reply, read)) => {
                self.reads.insert(ticket, PendingRead { call, reply });
                self.effects.push(Effect::Read(ticket, *read));
            }
            Ok(Verdict::Wait(blocked)) => self.wait_for_lock(now, ticket, call, *blocked),
            Err(Trouble::Refused(error)) => {
                self.keep_refusal(now, &call, error);
                self.hold(ticket, Err(error.into()), Need::Logged);
            }
            Err(Trouble::Fatal(reason)) => {
                self.hold(ticket, Err(FlareError::Unavailable.into()), Need::Logged);
                self.fail(&reason);
            }
        }
    }

    /// Holds an answer until what it needs has happened.
    fn hold(&mut self, ticket: Ticket, answer: Answer, need: Need) {
        if self.stopped {
            self.effects.push(Effect::Answer(ticket, Err(FlareError::Unavailable.into())));
        } else {
            if planted(Bug::ReleaseErrorsEarly) && answer.is_err() {
                return self.effects.push(Effect::Answer(ticket, answer));
            }
            self.gate.hold(Held { ticket, answer }, need, self.position().seq);
        }
    }

    /// A read that was asked for has ended. [`batch_end`](Self::batch_end) lets its answer go.
    pub fn read_done(&mut self, now: Now, ticket: Ticket, read: Result<Option<Bytes>, ReadError>) {
        let Some(PendingRead { call, reply }) = self.reads.remove(&ticket) else { return };
        let served = match read {
            Ok(Some(data)) => Ok(Verdict::Answer(Ok((reply, data)), Need::Logged)),
            // The bytes changed under the reader: once more, as they are now. Here nobody changes them meanwhile, so that
            // a reader of what is written all the time gets its answer, too.
            Ok(None) => self.serve_flare(now, &call).and_then(Verdict::read_here),
            Err(error) => Err(error.into()),
        };
        self.conclude(now, ticket, call, served);
    }

    fn wait_for_lock(&mut self, now: Now, ticket: Ticket, call: Call, blocked: waits::Blocked) {
        let deadline = call.deadline;
        if let Err((refusal, waiter)) = self.waits.wait(blocked, deadline, LockWait { ticket, call }) {
            let error = match refusal {
                waits::Refusal::Deadlock => FlareError::Deadlock,
                waits::Refusal::TooMany => FlareError::NoLocks,
            };
            self.keep_refusal(now, &waiter.call, error);
            self.hold(waiter.ticket, Err(error.into()), Need::Logged);
        }
    }

    /// The caller of this request went away: if it waits for a lock, it stops waiting.
    pub fn cancel(&mut self, ticket: Ticket) {
        for waiter in self.waits.cancel(|waiter| waiter.ticket == ticket) {
            self.effects.push(Effect::Answer(waiter.ticket, Err(FlareError::Interrupted.into())));
        }
    }

    /// Everything that was there to be read has been handed over: the log goes out in one write, what is new goes to the other
    /// copies, and the answers that are safe leave.
    pub fn batch_end(&mut self, now: Now) {
        if self.stopped {
            return;
        }
        if self.gate.wants_log() || self.owes_primary() {
            match self.store.flush() {
                Ok(()) => self.logged(now),
                // A full disk stops nothing: the answers stay held, and the next tick tries again.
                Err(error) => self.trouble(error.into()),
            }
        }
        self.feed(now);
        self.release(now);
    }

    /// The log has been handed over.
    fn logged(&mut self, now: Now) {
        self.gate.logged();
        self.answer_primary();
        if self.gate.wants_sync() {
            self.start_sync(now);
        }
    }

    /// Lets go what is safe.
    fn release(&mut self, now: Now) {
        let Some(safe) = self.safe(now) else { return };
        for held in self.gate.release(safe) {
            self.effects.push(Effect::Answer(held.ticket, held.answer));
        }
    }

    fn start_sync(&mut self, now: Now) {
        let bodies = self.gate.bodies_to_sync();
        match self.store.begin_sync(&SyncBodies::These(bodies.clone())) {
            Ok(job) => {
                let number = self.gate.sync_starts();
                self.effects.push(Effect::Sync(job, SyncFor::Replies(number)));
                self.sync_copies(now, number, bodies);
            }
            // As in `batch_end`: who waits for the disk stays held.
            Err(error) => self.trouble(error.into()),
        }
    }

    /// A sync that was asked for has ended.
    pub fn synced(&mut self, now: Now, done: SyncDone, purpose: SyncFor) {
        if let Err(error) = self.store.finish_sync(done) {
            return self.fail(&error.to_string());
        }
        match purpose {
            SyncFor::Upkeep => {}
            SyncFor::Replies(number) => {
                self.gate.sync_ended(number);
                if self.gate.wants_sync() {
                    self.start_sync(now);
                }
            }
            SyncFor::Primary(primary, number) => {
                if let Err(trouble) = self.synced_for_primary(primary, number) {
                    self.trouble(trouble);
                }
            }
        }
        self.batch_end(now);
    }

    /// How soon [`tick`](Self::tick) should come again; it may always be called sooner.
    pub fn next_tick(&self) -> Duration {
        if self.stopped { LONGEST_TICK } else { self.again.min(LONGEST_TICK) }
    }

    /// Time has passed; to be called some ten times a second, and as soon as [`next_tick`](Self::next_tick) says.
    pub fn tick(&mut self, now: Now) {
        if self.stopped {
            return;
        }
        let absence = now.monotonic.saturating_sub(self.ticked);
        if absence >= ABSENCE {
            tracing::info!(target: "magma::volcano", seconds = absence.as_secs(), "this volcano was stopped or asleep; nobody's silence counts");
            self.sessions.renew(now.monotonic);
            self.ledger.forgive(absence);
        }
        self.ticked = now.monotonic;
        self.ledger.expire(now.monotonic);
        if self.is_serving() {
            for waiter in self.waits.expire(now.monotonic) {
                // Another try of it may wait, too: it must not get the lock when the caller has heard that it has not.
                self.keep_refusal(now, &waiter.call, FlareError::WouldBlock);
                self.hold(waiter.ticket, Err(FlareError::WouldBlock.into()), Need::Logged);
            }
            for done in [self.end_silent_sessions(now), self.bury_some(now)] {
                if let Err(trouble) = done {
                    self.trouble(trouble);
                }
            }
            self.wake(now);
        }
        for done in [self.maintain(now), self.replicate(now)] {
            if let Err(trouble) = done {
                self.trouble(trouble);
            }
        }
        if now.monotonic.saturating_sub(self.figures_taken.monotonic) >= FIGURES_AGE {
            self.take_figures(now);
        }
        self.batch_end(now);
    }

    fn maintain(&mut self, now: Now) -> Result<(), Trouble> {
        self.store.keep_from(self.ledger.oldest_needed().unwrap_or(Seq(u64::MAX)));
        let upkeep = self.store.maintain(now.monotonic)?;
        self.again = upkeep.again;
        self.effects.extend(upkeep.job.map(|job| Effect::Sync(job, SyncFor::Upkeep)));
        Ok(())
    }

    /// Something that the volcano did by itself came to nothing.
    fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Refused(error) => {
                if self.ticked >= self.warn_again {
                    self.warn_again = self.ticked.saturating_add(WARNING_INTERVAL);
                    tracing::warn!(target: "magma::volcano", %error, "housekeeping is put off");
                }
            }
            Trouble::Fatal(reason) => self.fail(&reason),
        }
    }

    /// Something outside that the slice depends on has failed: it stops serving, and nobody who waits hears of a success.
    pub fn fail(&mut self, reason: &str) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        if self.has_other_copies() {
            // They have what was answered, and an operation that is in doubt is done once by whoever serves the slice next.
            self.let_go();
        } else {
            let (for_log, for_disk) = self.gate.give_up();
            // Who waits for the disk must not ask again: a kernel that has reported its failure once calls the next sync a success.
            for held in for_disk {
                self.effects.push(Effect::Answer(held.ticket, Err(FlareError::Io.into())));
            }
            self.tell_unavailable(for_log);
            self.let_go();
        }
        self.effects.push(Effect::Stop(reason.to_owned()));
    }

    /// Nobody who waits here can be told an outcome: they ask again, under the same operation ids, whoever serves the slice then.
    fn let_go(&mut self) {
        let (for_log, for_disk) = self.gate.give_up();
        self.tell_unavailable(for_log);
        self.tell_unavailable(for_disk);
        let for_locks = self.waits.cancel(|_| true).into_iter().map(|waiter| waiter.ticket);
        let mut reading: Vec<Ticket> = self.reads.drain().map(|(ticket, _)| ticket).collect();
        reading.sort_unstable();
        for ticket in for_locks.chain(reading) {
            self.effects.push(Effect::Answer(ticket, Err(FlareError::Unavailable.into())));
        }
        self.locks_changed.clear();
    }

    fn tell_unavailable(&mut self, held: Vec<Held>) {
        for held in held {
            self.effects.push(Effect::Answer(held.ticket, Err(FlareError::Unavailable.into())));
        }
    }

    /// What has to be done outside, in this order.
    pub fn effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// The keys that belong to this slice.
    fn range(&self) -> KeyRange {
        let own = self.topology.slices.iter().find(|slice| slice.id == self.identity.slice);
        own.map_or(KeyRange::ALL, |slice| slice.range)
    }

    /// Stops in order: everything on disk, a clean mark set.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.store.flush()?;
        self.store.close()
    }
}
