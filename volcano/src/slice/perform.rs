//! Evaluating one request: from the ledger, or by a plan that becomes a record.

use bytes::Bytes;
use magma_common::attr::Wcc;
use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::proto::operation::{Outcome, WriteReply};
use magma_common::proto::{OpId, Reply, Request};
use magma_common::topology::{Position, Seq};

use super::across::facts::Known;
use super::across::view::AcrossView;
use super::gate::Need;
use super::ledger::{Done, Finding};
use super::orphans::Search;
use super::waits::Blocked;
use super::{Call, Now, Slice, SliceView, Trouble, Verdict};
use crate::dht::{self, DhtState};
use crate::namespace::{self, Moment, Plan, Planned, Stop};
use crate::planted::{Bug, planted};
use crate::record::{Change, Record};
use crate::rows::{BodyId, Content};
use crate::view::View;

/// Bits of a generation number that hold the position in the log; the epoch stands above them.
const POSITION_BITS: u32 = 40;

impl Slice<'_> {
    /// Evaluates a request; an error means that the store failed.
    pub(super) fn serve(&mut self, now: Now, call: &Call) -> Result<Verdict, Trouble> {
        let answer = match &call.request {
            Request::OpenSession(request) => self.open_session(now, request)?,
            Request::FetchTopology(_) => Ok((Reply::FetchTopology(self.topology.clone()), Bytes::new())),
            _ if !self.sessions.hear(call.header.session, now.monotonic) => {
                if !self.is_home() {
                    return Ok(Verdict::Stranger);
                }
                Err(FlareError::SessionEnded.into())
            }
            request => {
                self.ledger.acknowledge(call.header.session, call.header.acknowledged);
                match request {
                    Request::KeepAlive(keep_alive) => {
                        self.ledger.acknowledge(call.header.session, keep_alive.acknowledged);
                        Ok((self.keep_alive(), Bytes::new()))
                    }
                    Request::ReclaimOpens(request) => {
                        self.reclaim_opens(now, call.header.session, request)?
                    }
                    Request::EndSession(_) => {
                        self.end_session(now, call.header.session)?;
                        Ok((Reply::EndSession(()), Bytes::new()))
                    }
                    _ => return self.serve_flare(now, call),
                }
            }
        };
        Ok(Verdict::Answer(answer, Need::Logged))
    }

    pub(super) fn serve_flare(&mut self, now: Now, call: &Call) -> Result<Verdict, Trouble> {
        if dht::concerns(&call.request) {
            return self.serve_internal(&call.request);
        }
        if !call.request.mutates() {
            return self.perform(now, call, Self::OWN_OPERATION);
        }
        let Some(id) = call.header.op_id() else { return Ok(refused(FlareError::BadRequest)) };
        match self.ledger.find(id) {
            _ if planted(Bug::IgnoreLedger) => self.perform(now, call, id),
            Finding::New if self.is_driving(id) => Ok(Verdict::Across),
            Finding::New => self.perform(now, call, id),
            Finding::Full => Ok(refused(FlareError::TooManyOutstanding)),
            Finding::Acknowledged => Ok(refused(FlareError::BadRequest)),
            Finding::Done(done) if done.opcode != call.request.opcode() => {
                Ok(refused(FlareError::BadRequest))
            }
            Finding::Done(done) => {
                let done = done.clone();
                self.answer_again(call, &done)
            }
        }
    }

    /// Answers a retry as the first try was answered.
    fn answer_again(&mut self, call: &Call, done: &Done) -> Result<Verdict, Trouble> {
        let reply = match &done.result {
            Ok(reply) => Reply::decode(done.opcode, reply),
            Err(error) => return Ok(refused(*error)),
        };
        if done.recovered
            && let Ok(reply) = &reply
            && let Some(handle) = opened(call, reply)
            && self.range().contains(&handle.key)
            && !self.sessions.holds(call.header.session, &handle)
        {
            // Its first try opened the flare before the restart; the caller had no answer and could not reclaim it.
            self.sessions.open(call.header.session, handle, 1);
        }
        let need = self.need(call)?;
        Ok(Verdict::Answer(reply.map(|reply| (reply, Bytes::new())).map_err(Into::into), need))
    }

    /// Keeps why an operation was refused, unless the caller is meant to try again under the same id.
    pub(super) fn keep_refusal(&mut self, now: Now, call: &Call, error: FlareError) {
        let passing = [FlareError::Unavailable, FlareError::NotOwner, FlareError::TooManyOutstanding];
        if let Some(id) = call.header.op_id().filter(|_| call.request.mutates())
            && !passing.contains(&error)
            // It is tried again by the next layout.
            && !(matches!(call.request, Request::WriteStripe(_)) && error == FlareError::Stale)
            && self.ledger.find(id) == Finding::New
        {
            self.ledger.refuse(now.monotonic, id, call.request.opcode(), error);
        }
    }

    /// Answers a request about `/.dht`.
    fn serve_internal(&self, request: &Request) -> Result<Verdict, Trouble> {
        let answer = self.with_dht(|state| dht::answer(state, request))?;
        Ok(Verdict::Answer(answer.unwrap_or_else(|| Err(FlareError::NotSupported.into())), Need::Logged))
    }

    fn with_dht<T>(&self, answer: impl FnOnce(&DhtState<'_>) -> T) -> Result<T, Trouble> {
        let root = self.store.flare(&Handle::root().key)?.ok_or_else(no_root)?;
        let figures = self.figures.of_members(self.topology, self.identity.volcano);
        Ok(answer(&DhtState {
            topology: self.topology,
            figures: &figures,
            taken: self.figures.taken.wall,
            root: &root.attr(0),
        }))
    }

    /// A `StatMany` may name flares of `/.dht` beside stored ones.
    pub(super) fn add_internal(&self, request: &Request, reply: &mut Reply) -> Result<(), Trouble> {
        let (Request::StatMany(many), Reply::StatMany(attrs)) = (request, reply) else { return Ok(()) };
        if many.handles.iter().any(|handle| handle.birth == BirthNumber::INTERNAL) {
            self.with_dht(|state| {
                for (attr, handle) in attrs.iter_mut().zip(&many.handles) {
                    if let Some(internal) = dht::attr(state, handle) {
                        *attr = internal;
                    }
                }
            })?;
        }
        Ok(())
    }

    fn perform(&mut self, now: Now, call: &Call, id: OpId) -> Result<Verdict, Trouble> {
        if let Some(key) = call.request.key()
            && self.topology.slice_of(&key).is_none_or(|slice| slice.id != self.identity.slice)
        {
            return Ok(refused(FlareError::NotOwner));
        }
        if call.request.opens() && !self.sessions.may_open(call.header.session) {
            return Ok(refused(FlareError::TooManyOpen));
        }
        let last_release = self.last_release(call);
        let caller = call.caller();
        let moment = self.moment(now, id);
        let (known, range) = (Known::default(), self.range());
        let store = SliceView::new(self.store, self.identity.slice, range, *self.space_elsewhere);
        let holding = self.across.holding(None);
        let view = AcrossView::new(&store, range, &holding, &known);
        let opens = self.sessions.without(last_release);
        let mut plan = Plan::new(&view, &opens, moment, &mut *self.random).leaving_reads();
        let executed =
            namespace::execute(&mut plan, &caller, &call.request, &call.payload).and_then(|reply| {
                match last_release {
                    Some(handle) => namespace::release_last(&mut plan, handle).map(|()| reply),
                    None => Ok(reply),
                }
            });
        let planned = plan.finish();
        let held = view.into_wanted().held;
        // What is held is performed once more, and what was opened meanwhile would be given back for it.
        if !matches!(executed, Err(Stop::Held)) {
            self.note_release(call);
        }
        let (mut reply, mut payload) = match executed {
            Ok(done) => done,
            Err(Stop::Store(error)) => return Err(error.into()),
            Err(Stop::Elsewhere) => return Ok(Verdict::Across),
            Err(Stop::Held) => {
                return held.map(Verdict::Held).ok_or(Trouble::Refused(FlareError::Unavailable));
            }
            Err(Stop::Failure(failure)) => {
                if failure.error == FlareError::WouldBlock
                    && let Some(blocked) = self.blocked(call)?
                {
                    self.release_before_waiting(now, call)?;
                    return Ok(Verdict::Wait(Box::new(blocked)));
                }
                self.keep_refusal(now, call, failure.error);
                return Ok(Verdict::Answer(Err(*failure), Need::Logged));
            }
        };
        if !planned.elsewhere.is_empty() {
            return Ok(Verdict::Across);
        }
        let read = planned.read;
        set_verifier(&mut reply, self.topology.write_verifier());
        self.tell_capacity(now, &mut reply);
        self.add_internal(&call.request, &mut reply)?;
        let outcome = Self::outcome(call, id, &reply)?;
        let kept = self.record_planned(now, planned, outcome);
        if kept.is_err() && last_release.is_some() {
            // The open is given back all the same; its flare is buried when there is space again.
            *self.search = Search::from_start();
        }
        kept?;
        self.note_open(call, &reply);
        if let Some(range) = read {
            match self.store.plan_body_read(range.body, range.offset, range.length)?.run_if_quick() {
                Ok(Ok(Some(data))) => payload = data,
                Ok(Ok(None)) => return Err(Trouble::Fatal("a body changed under its only writer".into())),
                Ok(Err(error)) => return Err(error.into()),
                Err(read) => return Ok(Verdict::Read(reply, Box::new(read))),
            }
        }
        let need = self.need(call)?;
        Ok(Verdict::Answer(Ok((reply, payload)), need))
    }

    /// What the ledger keeps of a request's answer.
    pub(super) fn outcome(call: &Call, id: OpId, reply: &Reply) -> Result<Option<Outcome>, Trouble> {
        if !call.request.mutates() {
            return Ok(None);
        }
        let reply = storable(reply).encode().map_err(|error| Trouble::Fatal(error.to_string()))?;
        Ok(Some(Outcome { id, opcode: call.request.opcode(), reply: reply.into() }))
    }

    /// Turns what was planned into a record that carries the outcome; without changes the outcome is kept in memory only.
    pub(super) fn record_planned(
        &mut self,
        now: Now,
        planned: Planned,
        outcome: Option<Outcome>,
    ) -> Result<(), Trouble> {
        for (body, offset, data) in &planned.appends {
            self.store.write_append(*body, *offset, data)?;
        }
        let appended = planned.appends.into_iter().map(|(.., data)| data).collect();
        if !planned.changes.is_empty() {
            self.record_with(now, planned.changes, appended, outcome)?;
        } else if let Some(outcome) = outcome {
            self.ledger.keep(now.monotonic, None, outcome);
        }
        Ok(())
    }

    /// Appends a record without bytes for bodies to the log and applies it.
    pub(super) fn record(
        &mut self,
        now: Now,
        changes: Vec<Change>,
        outcome: Option<Outcome>,
    ) -> Result<(), Trouble> {
        self.record_with(now, changes, Vec::new(), outcome)
    }

    /// Appends a record to the log and applies it; the other copies will get it. `appended`: the bytes of its appends, which have been written.
    fn record_with(
        &mut self,
        now: Now,
        changes: Vec<Change>,
        appended: Vec<Bytes>,
        outcome: Option<Outcome>,
    ) -> Result<(), Trouble> {
        let record = self.next_record(now, changes, outcome);
        self.store.append(&record)?;
        crate::observed::note(true, &record);
        *self.last_time = record.time;
        for change in &record.changes {
            if let Change::PutLocks { flare, .. } | Change::DeleteFlare(flare) = change {
                self.locks_changed.insert(*flare);
            }
        }
        if let Some(outcome) = record.outcome.clone() {
            self.ledger.keep(now.monotonic, Some(record.seq), outcome);
        }
        if self.topology.slices.len() > 1 {
            self.across.note(&record);
        }
        self.remember(record, appended);
        Ok(())
    }

    pub(super) fn next_record(&self, now: Now, changes: Vec<Change>, outcome: Option<Outcome>) -> Record {
        let Moment { now: time, seq, epoch, .. } = self.moment(now, Self::OWN_OPERATION);
        Record { slice: self.identity.slice, epoch, seq, time, changes, outcome }
    }

    /// The name of the record that comes next.
    pub(super) fn next_position(&self, now: Now) -> Position {
        let Moment { seq, epoch, .. } = self.moment(now, Self::OWN_OPERATION);
        Position { epoch, seq }
    }

    /// The time, place and id of the record that comes next. Times of a slice never go back, whatever the clock does.
    pub(super) fn moment(&self, now: Now, op: OpId) -> Moment {
        let (seq, epoch) = (self.position().seq.0 + 1, self.epoch());
        Moment {
            now: now.wall.max(*self.last_time),
            seq: Seq(seq),
            epoch,
            op,
            generation: (epoch.0 << POSITION_BITS).wrapping_add(seq),
            stripes: self.topology.stripes,
        }
    }

    /// The changes of something that the volcano does by itself.
    pub(super) fn plan_internal(
        &mut self,
        now: Now,
        steps: impl FnOnce(&mut Plan<'_>) -> Result<(), Stop>,
    ) -> Result<Vec<Change>, Trouble> {
        let moment = self.moment(now, Self::OWN_OPERATION);
        let view = SliceView::new(self.store, self.identity.slice, self.range(), *self.space_elsewhere);
        let mut plan = Plan::new(&view, &*self.sessions, moment, &mut self.random);
        match steps(&mut plan) {
            Ok(()) => Ok(plan.finish().changes),
            Err(Stop::Store(error)) => Err(error.into()),
            Err(Stop::Elsewhere | Stop::Held) => Err(Trouble::Refused(FlareError::Unavailable)),
            Err(Stop::Failure(failure)) => Err(Trouble::Refused(failure.error)),
        }
    }

    /// What must have happened before this request may be answered.
    pub(super) fn need(&self, call: &Call) -> Result<Need, Trouble> {
        let commits = matches!(call.request, Request::Commit(_) | Request::CommitPart(_));
        if !commits && !call.is_stable() {
            return Ok(Need::Logged);
        }
        let handle = match &call.request {
            Request::Commit(op) => Some(op.handle),
            Request::Write(op) => Some(op.handle),
            Request::WriteStripe(op) => Some(op.stripe),
            Request::WriteDone(op) => Some(op.handle),
            Request::CommitPart(op) => Some(op.part),
            Request::Setattr(op) => Some(op.handle),
            Request::Allocate(op) => Some(op.handle),
            _ => None,
        };
        Ok(Need::OnDisk(handle.map_or(Ok(None), |handle| self.body_of(handle))?.into_iter().collect()))
    }

    fn body_of(&self, handle: Handle) -> Result<Option<BodyId>, Trouble> {
        let row = self.store.flare(&handle.key)?;
        Ok(row.and_then(|row| match row.content {
            Content::Body { body, .. } => Some(body),
            Content::Inline => None,
        }))
    }

    /// Whom a lock request that may wait is blocked by.
    fn blocked(&self, call: &Call) -> Result<Option<Blocked>, Trouble> {
        let Request::Lock(lock) = &call.request else { return Ok(None) };
        if !lock.wait {
            return Ok(None);
        }
        let locks = self.store.locks(&lock.handle.key)?;
        Ok(namespace::conflict(&locks, call.header.session, lock).map(|conflict| Blocked {
            flare: lock.handle,
            family: lock.family,
            who: (call.header.session, lock.owner.owner),
            by: (conflict.session, conflict.owner.owner),
        }))
    }

    /// A flock that is converted is given up before the new one is waited for, so that two who convert do not block each other.
    fn release_before_waiting(&mut self, now: Now, call: &Call) -> Result<(), Trouble> {
        let Request::Lock(lock) = &call.request else { return Ok(()) };
        let session = call.header.session;
        let changes =
            self.plan_internal(now, |plan| namespace::release_before_waiting(plan, session, lock))?;
        if changes.is_empty() { Ok(()) } else { self.record(now, changes, None) }
    }

    pub(super) fn note_open(&mut self, call: &Call, reply: &Reply) {
        if let Some(handle) = opened(call, reply)
            && self.range().contains(&handle.key)
        {
            self.sessions.open(call.header.session, handle, 1);
        }
    }

    /// The flare that nobody has open any more when this request is done.
    fn last_release(&self, call: &Call) -> Option<Handle> {
        let Request::Release(release) = &call.request else { return None };
        let closes = self.sessions.would_close(call.header.session, &release.handle, release.count);
        closes.then_some(release.handle)
    }

    fn note_release(&mut self, call: &Call) {
        if let Request::Release(release) = &call.request {
            self.sessions.release(call.header.session, release.handle, release.count);
        }
    }
}

/// The flare that a request has opened.
pub(super) fn opened(call: &Call, reply: &Reply) -> Option<Handle> {
    match reply {
        _ if !call.request.opens() => None,
        Reply::Open(attr) => Some(attr.handle),
        Reply::Create(made) => Some(made.attr.handle),
        _ => None,
    }
}

fn no_root() -> Trouble {
    Trouble::Fatal("the root directory is missing from the store".into())
}

fn refused(error: FlareError) -> Verdict {
    Verdict::Answer(Err(error.into()), Need::Logged)
}

pub(super) fn set_verifier(reply: &mut Reply, verifier: u64) {
    match reply {
        Reply::Write(write) | Reply::WriteDone(write) => write.verifier = verifier,
        Reply::WriteStripe(write) => write.verifier = verifier,
        Reply::Commit(commit) | Reply::CommitPart(commit) => commit.verifier = verifier,
        _ => {}
    }
}

/// What the ledger keeps of a reply: a write's attributes are not worth their space.
fn storable(reply: &Reply) -> Reply {
    match reply {
        Reply::Write(write) => Reply::Write(WriteReply { wcc: Wcc::default(), ..write.clone() }),
        Reply::WriteDone(write) => Reply::WriteDone(WriteReply { wcc: Wcc::default(), ..write.clone() }),
        other => other.clone(),
    }
}
