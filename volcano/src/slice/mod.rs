//! A volcano's copy of a slice of the keyspace: as primary it turns requests into records and lets the answers go; as a
//! mirror it takes the primary's records.
//!
//! A volcano keeps copies of several slices over one store: [`Slices`], a state machine without sockets, threads or clocks:
//!
//! * inputs, each with the time: [`Slices::configure`], [`Slices::request`], [`Slices::cancel`], [`Slices::message`],
//!   [`Slices::batch_end`], [`Slices::synced`], [`Slices::tick`];
//! * outputs: [`Slices::effects`], to be carried out after each input.
//!
//! What belongs to one copy is its [`SliceState`](state::SliceState), what they share is the [`Host`](host::Host). [`Slice`] is one
//! copy at work: it borrows both, and it is where everything is decided that concerns one slice.
//!
//! A request is evaluated at once against the applied state. If it changes something, its changes become one
//! record, applied, appended to the log and sent to the other copies ([`replication`]). Its answer, and every other one, is held
//! at the [`gate`] until all that it may depend on is safe. The [`ledger`] answers retries, the [`session`] table knows who is
//! alive and holds what open, [`waits`] queues requests for locks. Every request gets exactly one answer; when the store
//! fails, or the slice is served by another copy from now on, those that are held hear that too.

pub mod across;
mod capacity;
pub mod gate;
mod host;
pub mod ledger;
mod orphans;
mod perform;
mod presence;
pub mod replication;
pub mod report;
mod root;
pub mod session;
mod sessions;
mod shedding;
mod slices;
mod state;
#[cfg(test)]
mod tests;
mod view;
pub mod waits;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::key::Key;
use magma_common::key::KeyRange;
use magma_common::proto::frame::RequestHeader;
use magma_common::proto::{Durability, Failure, Reply, Request};
use magma_common::time::Timestamp;
use magma_common::topology::{BootId, Epoch, Replica, Seq, SliceId, Topology, VolcanoId};

use self::across::Across;
use self::across::message::AcrossMessage;
use self::gate::{Gate, Need};
use self::host::{AllFigures, Recovered, Warnings};
use self::ledger::Ledger;
use self::orphans::Search;
use self::presence::Presence;
use self::replication::Replication;
use self::session::Sessions;
use self::shedding::Shedding;
pub use self::slices::Slices;
pub use self::state::SliceRef;
pub use self::view::SliceView;
use self::waits::LockWaits;
use crate::coordinator::SliceChange;
use crate::namespace::Caller;
use crate::node::message::SliceMessage;
use crate::planted::{Bug, planted};
use crate::store::{BodyRead, Store, StoreError, SyncBodies, SyncJob};
use crate::transaction::Attempt;
use crate::view::ReadError;

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

impl Call {
    /// Whether what it does has to be on disk before it is answered.
    fn is_stable(&self) -> bool {
        self.header.durability == Durability::Stable && self.request.mutates()
    }

    /// On whose behalf it is done.
    fn caller(&self) -> Caller<'_> {
        let (credentials, session) = (&self.header.credentials, self.header.session);
        Caller { credentials, session, stable: self.is_stable() }
    }
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
    /// Requests to this slice, by the number of the sync.
    Replies(SliceId, u64),
    /// The primary that the copy of this slice follows, and the number by which it asked.
    Primary(SliceId, Replica, u64),
    /// The store's upkeep.
    Upkeep,
}

/// Something to be done outside.
pub enum Effect {
    /// Deliver an answer.
    Answer(Ticket, Answer),
    /// Run this on another thread and hand the result to [`Slices::synced`], with what it is for.
    Sync(SyncJob, Vec<SyncFor>),
    /// Run this on another thread and hand the result to [`Slices::read_done`].
    Read(Ticket, BodyRead),
    /// Send this to another copy of this slice, under this epoch.
    Tell(SliceId, Replica, Epoch, SliceMessage),
    /// Ask the coordinator for this change of this slice, under this epoch.
    Propose(SliceId, Epoch, SliceChange),
    /// Send this to the slice of this flare.
    Across(Key, AcrossMessage),
    /// The store failed: stop serving.
    Stop(String),
}

/// What waits at the gate.
enum Held {
    /// An answer to a client.
    Answer(Ticket, Answer),
    /// A message to the slice of this flare.
    Message(Key, AcrossMessage),
    /// These transactions are secured when it leaves.
    Secured(Vec<Attempt>),
    /// The division of the slice is on all disks when it leaves.
    Divided,
    /// All records up to this one are on all disks when it leaves.
    Synced(Seq),
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
    /// It needs other slices.
    Across,
    /// A transaction holds this flare.
    Held(Key),
    /// Its session is not known here.
    Stranger,
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

/// One copy at work: what is its own and what it shares with the other copies of this volcano. It is made for one input.
pub struct Slice<'a> {
    identity: Identity,
    ledger: &'a mut Ledger,
    sessions: &'a mut Sessions,
    waits: &'a mut LockWaits<LockWait>,
    reads: &'a mut HashMap<Ticket, PendingRead>,
    gate: &'a mut Gate<Held>,
    last_time: &'a mut Timestamp,
    locks_changed: &'a mut BTreeSet<Key>,
    search: &'a mut Search,
    shedding: &'a mut Shedding,
    replication: &'a mut Replication,
    across: &'a mut Across,
    reign: &'a mut Epoch,
    marks_recorded: &'a mut Duration,
    space_elsewhere: &'a mut u64,
    // Of the volcano, from here on.
    store: &'a mut Store,
    topology: &'a Topology,
    random: &'a mut Box<dyn FnMut() -> u64>,
    effects: &'a mut Vec<Effect>,
    present: &'a Presence,
    figures: &'a AllFigures,
    warnings: &'a mut Warnings,
    recovered: &'a mut Recovered,
    stopped: &'a mut bool,
    failure: &'a mut Option<String>,
}

impl Slice<'_> {
    /// A request came in.
    fn request(&mut self, now: Now, ticket: Ticket, call: Call) {
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
            Ok(Verdict::Across) => self.drive_call(now, Some(ticket), call),
            Ok(Verdict::Held(key)) => self.park_call(key, ticket, call),
            Ok(Verdict::Stranger) => self.wait_for_session(now, ticket, call),
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
        if *self.stopped {
            self.effects.push(Effect::Answer(ticket, Err(FlareError::Unavailable.into())));
        } else {
            if planted(Bug::ReleaseErrorsEarly) && answer.is_err() {
                return self.effects.push(Effect::Answer(ticket, answer));
            }
            let at = self.position().seq;
            self.gate.hold(Held::Answer(ticket, answer), need, at);
        }
    }

    /// A read that was asked for has ended.
    fn read_done(&mut self, now: Now, ticket: Ticket, read: Result<Option<Bytes>, ReadError>) {
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
    fn cancel(&mut self, ticket: Ticket) {
        for waiter in self.waits.cancel(|waiter| waiter.ticket == ticket) {
            self.effects.push(Effect::Answer(waiter.ticket, Err(FlareError::Interrupted.into())));
        }
        if self.across.cancel(ticket) {
            self.effects.push(Effect::Answer(ticket, Err(FlareError::Interrupted.into())));
        }
    }

    /// Whether somebody waits for the log to be handed over.
    fn wants_log(&self) -> bool {
        self.gate.wants_log() || self.owes_primary()
    }

    /// The log has been handed over.
    fn logged(&mut self) {
        self.gate.logged();
        self.answer_primary();
    }

    /// The bodies that a sync has to cover which somebody waits for, if it can begin.
    fn wants_sync(&self) -> Option<SyncBodies> {
        let for_replies = self.gate.wants_sync().then(|| SyncBodies::These(self.gate.bodies_to_sync()));
        match (for_replies, self.wanted_sync()) {
            (Some(one), Some(other)) => Some(one.and(other)),
            (one, other) => one.or(other),
        }
    }

    /// A sync begins that covers what [`wants_sync`](Self::wants_sync) said.
    fn sync_begins(&mut self, now: Now) -> Vec<SyncFor> {
        let slice = self.identity.slice;
        let mut purposes = Vec::new();
        if self.gate.wants_sync() {
            let bodies = self.gate.bodies_to_sync();
            let number = self.gate.sync_starts();
            self.sync_copies(now, number, bodies);
            purposes.push(SyncFor::Replies(slice, number));
        }
        purposes.extend(self.wanted_sync_begins());
        purposes
    }

    /// What is new goes to the other copies, and the answers that are safe leave.
    fn pass_on(&mut self, now: Now) {
        if *self.stopped {
            return;
        }
        self.feed(now);
        self.release(now);
    }

    /// Lets go what is safe.
    fn release(&mut self, now: Now) {
        let Some(safe) = self.safe(now) else { return };
        for held in self.gate.release(safe) {
            match held {
                Held::Answer(ticket, answer) => self.effects.push(Effect::Answer(ticket, answer)),
                Held::Message(to, message) => self.effects.push(Effect::Across(to, message)),
                Held::Secured(attempts) => self.secured_here(attempts),
                Held::Divided => self.division_is_secured(now),
                Held::Synced(seq) => {
                    if let Err(trouble) = self.synced_up_to(now, seq) {
                        self.trouble(trouble);
                    }
                }
            }
        }
    }

    /// Time has passed: what the copy that serves does by itself. The volcano may have been away for some of it.
    fn keep_house(&mut self, now: Now, absence: Option<Duration>) {
        if let Some(absence) = absence {
            self.sessions.renew(now.monotonic);
            self.ledger.forgive(absence);
        }
        self.ledger.expire(now.monotonic);
        if self.is_serving() {
            for waiter in self.waits.expire(now.monotonic) {
                // Another try of it may wait, too: it must not get the lock when the caller has heard that it has not.
                self.keep_refusal(now, &waiter.call, FlareError::WouldBlock);
                self.hold(waiter.ticket, Err(FlareError::WouldBlock.into()), Need::Logged);
            }
            for done in [
                self.record_marks(now),
                self.end_silent_sessions(now),
                self.bury_some(now),
                self.shed_some(now),
            ] {
                if let Err(trouble) = done {
                    self.trouble(trouble);
                }
            }
            if let Err(trouble) = self.tick_across(now) {
                self.trouble(trouble);
            }
            self.wake(now);
        }
    }

    /// Something that the volcano did by itself came to nothing.
    fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Refused(error) => self.warnings.put_off(error),
            Trouble::Fatal(reason) => self.fail(&reason),
        }
    }

    /// Something that the volcano depends on has failed: it stops serving, and nobody who waits hears of a success. The other slices
    /// hear of it before anything leaves.
    fn fail(&mut self, reason: &str) {
        if *self.stopped {
            return;
        }
        *self.stopped = true;
        *self.failure = Some(reason.to_owned());
        self.give_up();
    }

    /// The volcano stops serving: whoever waits here hears so.
    fn give_up(&mut self) {
        if !self.has_other_copies() {
            let (for_log, for_disk) = self.gate.give_up();
            // Who waits for the disk must not ask again: a kernel that has reported its failure once calls the next sync a success.
            self.turn_away(for_disk, FlareError::Io);
            self.turn_away(for_log, FlareError::Unavailable);
        }
        // The other copies have what was answered, and an operation that is in doubt is done once by whoever serves the slice next.
        self.let_go();
    }

    /// Nobody who waits here can be told an outcome: they ask again, under the same operation ids, whoever serves the slice then.
    fn let_go(&mut self) {
        let (for_log, for_disk) = self.gate.give_up();
        self.turn_away(for_log, FlareError::Unavailable);
        self.turn_away(for_disk, FlareError::Unavailable);
        self.let_go_across();
        let for_locks = self.waits.cancel(|_| true).into_iter().map(|waiter| waiter.ticket);
        let mut reading: Vec<Ticket> = self.reads.drain().map(|(ticket, _)| ticket).collect();
        reading.sort_unstable();
        for ticket in for_locks.chain(reading) {
            self.effects.push(Effect::Answer(ticket, Err(FlareError::Unavailable.into())));
        }
        self.locks_changed.clear();
    }

    /// Tells clients, instead of what was held for them, that it came to nothing. What was held for other slices will be said again.
    fn turn_away(&mut self, held: Vec<Held>, error: FlareError) {
        for held in held {
            if let Held::Answer(ticket, _) = held {
                self.effects.push(Effect::Answer(ticket, Err(error.into())));
            }
        }
    }

    /// The keys that belong to this slice.
    fn range(&self) -> KeyRange {
        let own = self.topology.slices.iter().find(|slice| slice.id == self.identity.slice);
        own.map_or(KeyRange::ALL, |slice| slice.range)
    }

    /// The state of this slice alone.
    fn view(&self) -> SliceView<'_> {
        SliceView::new(self.store, self.identity.slice, self.range(), *self.space_elsewhere)
    }
}
