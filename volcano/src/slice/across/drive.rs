//! Driving an operation across slices: it is planned, what is missing is asked for, steps elsewhere are prepared, and it is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::key::Key;
use magma_common::proto::{OpId, Reply};
use magma_common::time::Timestamp;
use magma_common::topology::Position;

use super::asking::Questions;
use super::facts::{Facts, Known, Wanted};
use super::message::{AcrossMessage, Objection, Preparation};
use super::parked::Waiting;
use super::settle::Driven;
use super::snapshot::Snapshot;
use super::view::AcrossView;
use super::{MAX_ATTEMPTS, MAX_UNSETTLED, SAY_AGAIN};
use crate::namespace::{self, Moment, Plan, Planned, Steps, Stop};
use crate::planted::{Bug, planted};
use crate::record::Change;
use crate::slice::gate::Need;
use crate::slice::perform::set_verifier;
use crate::slice::{Answer, Call, Now, Slice, SliceView, Ticket, Trouble};
use crate::transaction::{Attempt, Part, Participant, Step, Transaction, TransactionRow};

/// So many times an operation is begun anew without a pause.
const AT_ONCE: u32 = 2;
/// The pause after the first refusal is up to this long; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// An operation that has not come to an end by then is given up; its caller asks again.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same request may have been sent so often.
const MAX_TICKETS: usize = 16;

/// What is asked of a participant.
pub(super) struct Asked {
    part: Participant,
    is_prepared: bool,
}

/// An operation that needs other slices and is not committed.
pub(super) struct Running {
    pub(super) call: Call,
    id: Option<OpId>,
    pub(super) tickets: Vec<Ticket>,
    began: Duration,
    pub(super) known: Known,
    pub(super) snapshot: Snapshot,
    pub(super) questions: Questions,
    pub(super) asked: BTreeMap<Key, Asked>,
    /// All flares that take part, as participants were told.
    parties: Vec<Key>,
    /// All is prepared, but what its own steps stand on is not on disk.
    waits_for_disk: bool,
    /// When it happens, from the first step that is asked for.
    time: Option<Timestamp>,
    /// It has been overtaken by one of this time, and happens later.
    overtaken_by: Timestamp,
    /// Random numbers that it has drawn: planned again, it draws the same ones.
    draws: Vec<u64>,
    generation: u64,
    refusals: u32,
    /// It goes on at this time.
    pause: Option<Duration>,
    /// When its questions and requests were said last.
    pub(super) said: Duration,
}

impl Running {
    /// The flare whose slice drives it.
    fn driver(&self) -> Key {
        self.call.request.key().unwrap_or(Handle::root().key)
    }

    /// Whether this participant has not said that it is prepared.
    fn lacks(&self, part: &Participant) -> bool {
        self.asked.get(&part.key).is_none_or(|asked| !asked.is_prepared)
    }

    /// When it may happen at the earliest.
    fn earliest(&self, now: Timestamp) -> Timestamp {
        now.max(self.known.latest().max(self.overtaken_by).next())
    }

    pub(super) fn is_pausing(&self) -> bool {
        self.pause.is_some()
    }
}

/// What planning came to.
struct Attempted {
    done: Result<(Reply, Bytes), Stop>,
    planned: Planned,
    wanted: Wanted,
}

impl Slice<'_> {
    /// Takes on a request that cannot be done here alone, of a caller who waits for its answer, or of the slice itself.
    pub(in crate::slice) fn drive_call(&mut self, now: Now, ticket: Option<Ticket>, call: Call) {
        let id = call.header.op_id().filter(|_| call.request.mutates());
        if let Some(number) = id.and_then(|id| self.across.by_operation.get(&id))
            && let Some(running) = self.across.running.get_mut(number)
        {
            let Some(ticket) = ticket else { return };
            if running.tickets.len() < MAX_TICKETS {
                running.tickets.push(ticket);
            } else {
                self.tell_later(ticket);
            }
            return;
        }
        if self.across.running.len() >= MAX_ATTEMPTS || self.across.unsettled() >= MAX_UNSETTLED {
            return ticket.into_iter().for_each(|ticket| self.tell_later(ticket));
        }
        let number = self.next_attempt();
        let Moment { generation, .. } = self.moment(now, Self::OWN_OPERATION);
        let running = Running {
            call,
            id,
            tickets: ticket.into_iter().collect(),
            began: now.monotonic,
            known: Known::default(),
            snapshot: Snapshot::default(),
            questions: Questions::default(),
            asked: BTreeMap::new(),
            parties: Vec::new(),
            waits_for_disk: false,
            time: None,
            overtaken_by: Timestamp::default(),
            draws: Vec::new(),
            generation,
            refusals: 0,
            pause: None,
            said: now.monotonic,
        };
        self.across.running.insert(number, running);
        self.across.by_operation.extend(id.map(|id| (id, number)));
        if let Err(trouble) = self.drive(now, number) {
            self.trouble(trouble);
        }
    }

    /// Whether this operation is being driven.
    pub(in crate::slice) fn is_driving(&self, id: OpId) -> bool {
        self.across.by_operation.contains_key(&id)
    }

    fn next_attempt(&mut self) -> u64 {
        self.across.attempts += 1;
        self.across.attempts
    }

    pub(super) fn name(&self, number: u64) -> Option<Attempt> {
        let running = self.across.running.get(&number)?;
        Some(Attempt { driver: running.driver(), reign: *self.reign, number })
    }

    /// The number of an attempt that is being driven.
    pub(super) fn number_of(&self, attempt: Attempt) -> Option<u64> {
        (self.name(attempt.number)? == attempt).then_some(attempt.number)
    }

    /// Plans an attempt on what is known, and takes the next step.
    pub(super) fn drive(&mut self, now: Now, number: u64) -> Result<(), Trouble> {
        let Some(Attempted { done, planned, wanted }) = self.plan_attempt(now, number) else {
            return Ok(());
        };
        match done {
            Ok(reply) if planned.elsewhere.is_empty() && planned.changes.is_empty() => {
                self.answer_snapshot(now, number, Ok(reply))
            }
            Ok(reply) if planned.elsewhere.is_empty() => self.finish_here(now, number, planned, reply),
            Ok(reply) => self.go_on_with(now, number, planned, reply),
            Err(Stop::Elsewhere) => {
                self.note_own_flare(number)?;
                self.ask_facts(now, number, wanted);
                Ok(())
            }
            Err(Stop::Held) => self.wait_for_flare(now, number, wanted.held),
            Err(Stop::Failure(failure)) => self.answer_snapshot(now, number, Err(*failure)),
            Err(Stop::Store(error)) => Err(error.into()),
        }
    }

    fn plan_attempt(&mut self, now: Now, number: u64) -> Option<Attempted> {
        let attempt = self.name(number)?;
        // It is out of the table while it is planned, since the plan borrows what the table belongs to.
        let mut running = self.across.running.remove(&number)?;
        let moment = self.moment(now, running.id.unwrap_or(Self::OWN_OPERATION));
        let time = running.time.unwrap_or_else(|| running.earliest(moment.now));
        let moment = Moment { now: time, generation: running.generation, ..moment };
        let range = self.range();
        let store = SliceView::new(self.store, self.identity.slice, range, *self.space_elsewhere);
        let holding = self.across.holding(Some(attempt));
        let view = AcrossView::new(&store, range, &holding, &running.known);
        let mut drawn = 0;
        let draws = &mut running.draws;
        let random = &mut *self.random;
        let mut draw = || {
            if drawn == draws.len() {
                draws.push(random());
            }
            drawn += 1;
            draws.get(drawn - 1).copied().unwrap_or_default()
        };
        let caller = running.call.caller();
        let mut plan = Plan::new(&view, &*self.sessions, moment, &mut draw);
        let done = namespace::execute(&mut plan, &caller, &running.call.request, &running.call.payload);
        let planned = if done.is_ok() { plan.finish() } else { Planned::default() };
        let wanted = view.into_wanted();
        self.across.running.insert(number, running);
        Some(Attempted { done, planned, wanted })
    }

    /// A flare here is held by another transaction. Nobody waits who has something prepared.
    fn wait_for_flare(&mut self, now: Now, number: u64, held: Option<Key>) -> Result<(), Trouble> {
        let is_prepared = self.across.running.get(&number).is_some_and(|running| !running.asked.is_empty());
        match held {
            Some(key) if !is_prepared => {
                self.park(key, Waiting::Running(number));
                Ok(())
            }
            _ => self.begin_again(now, number, true),
        }
    }

    /// The plan has steps elsewhere: they are asked for, or all are prepared and it is committed.
    fn go_on_with(
        &mut self,
        now: Now,
        number: u64,
        planned: Planned,
        reply: (Reply, Bytes),
    ) -> Result<(), Trouble> {
        let time = self.moment(now, Self::OWN_OPERATION).now;
        let Some(running) = self.across.running.get_mut(&number) else { return Ok(()) };
        let wanted = participants(&planned.elsewhere, &running.known);
        let parties: Vec<Key> = wanted.iter().map(|part| part.key).chain([running.driver()]).collect();
        let fits = |part: &Participant| running.asked.get(&part.key).is_none_or(|asked| asked.part == *part);
        let is_superfluous = |key: &Key| wanted.iter().all(|part| part.key != *key);
        let are_others = !running.parties.is_empty() && running.parties != parties;
        if are_others || !wanted.iter().all(fits) || running.asked.keys().any(is_superfluous) {
            return self.begin_again(now, number, false);
        }
        let is_ready = !wanted.iter().any(|part| running.lacks(part));
        let stands_on = self.stands_on_unsynced(&participants_here(&planned.here), &parties);
        if let Some(unsynced) = stands_on {
            self.sync_through(now, unsynced);
        }
        let Some(running) = self.across.running.get_mut(&number) else { return Ok(()) };
        if is_ready {
            running.waits_for_disk = stands_on.is_some();
            return if running.waits_for_disk {
                Ok(())
            } else {
                self.commit(now, number, planned, wanted, reply)
            };
        }
        // Who moves a directory is alone with that first.
        let first =
            wanted.iter().find(|part| part.steps.contains(&Step::MoveDirectory) && running.lacks(part));
        let asking: Vec<Participant> = if let Some(first) = first {
            vec![first.clone()]
        } else {
            let earliest = running.earliest(time);
            running.time.get_or_insert(earliest);
            running.parties = parties;
            wanted
        };
        running.said = now.monotonic;
        for part in asking {
            running.asked.entry(part.key).or_insert(Asked { part, is_prepared: false });
        }
        self.say_preparations(number);
        Ok(())
    }

    /// Asks for the steps that are not prepared.
    fn say_preparations(&mut self, number: u64) {
        let (Some(attempt), Some(running)) = (self.name(number), self.across.running.get(&number)) else {
            return;
        };
        let transaction = Transaction {
            attempt,
            op: running.id.unwrap_or(Self::OWN_OPERATION),
            time: running.time.unwrap_or(running.known.latest()),
            own: Vec::new(),
            participants: Vec::new(),
            outcome: None,
            committed: Position::default(),
        };
        let unprepared = running.asked.values().filter(|asked| !asked.is_prepared);
        let preparation =
            |part| Preparation { transaction: transaction.only(part), parties: running.parties.clone() };
        let messages: Vec<_> = unprepared.map(|asked| (asked.part.key, preparation(&asked.part))).collect();
        for (key, message) in messages {
            self.say(key, AcrossMessage::Prepare(Box::new(message)));
        }
    }

    /// Something is on the disks that was not: operations that waited for that go on.
    pub(super) fn drive_on(&mut self, now: Now) -> Result<(), Trouble> {
        let waiting = self.across.running.iter_mut().filter(|(_, running)| running.waits_for_disk);
        let numbers: Vec<u64> = waiting
            .map(|(number, running)| {
                running.waits_for_disk = false;
                *number
            })
            .collect();
        numbers.into_iter().try_for_each(|number| self.drive(now, number))
    }

    /// A participant is prepared.
    pub(super) fn hear_prepared(
        &mut self,
        now: Now,
        attempt: Attempt,
        key: Key,
        facts: Option<Box<Facts>>,
    ) -> Result<(), Trouble> {
        let Some(number) = self.number_of(attempt) else {
            if !self.across.driven.contains_key(&attempt) {
                self.say_safely(key, AcrossMessage::Dead { attempt, key }, Need::Logged);
            }
            return Ok(());
        };
        let Some(running) = self.across.running.get_mut(&number) else { return Ok(()) };
        let Some(asked) = running.asked.get_mut(&key) else { return Ok(()) };
        if std::mem::replace(&mut asked.is_prepared, true) {
            return Ok(());
        }
        if asked.part.moves_directory() {
            return self.look_again(now, number);
        }
        if let Some(facts) = facts {
            // It may have changed since its facts were told, in what the operation does not depend on but its answer shows.
            running.known.learn_held(key, *facts);
        }
        let is_ready = running.questions.is_empty() && running.asked.values().all(|asked| asked.is_prepared);
        if is_ready { self.drive(now, number) } else { Ok(()) }
    }

    /// A participant cannot be prepared.
    pub(super) fn hear_unfit(
        &mut self,
        now: Now,
        attempt: Attempt,
        key: Key,
        why: Objection,
    ) -> Result<(), Trouble> {
        let Some(number) = self.number_of(attempt) else { return Ok(()) };
        let Some(running) = self.across.running.get_mut(&number) else { return Ok(()) };
        match why {
            Objection::Refused(error) => {
                let call = running.call.clone();
                self.keep_refusal(now, &call, error);
                self.end(number, &Err(error.into()), &Need::Logged);
                Ok(())
            }
            Objection::KeyTaken => {
                running.known.learn_taken(key);
                self.begin_again(now, number, false)
            }
            Objection::Changed => self.begin_again(now, number, false),
            Objection::Busy => self.begin_again(now, number, true),
        }
    }

    /// The attempt is dead. Another one follows: at once the first times, unless somebody was in the way, else after a pause.
    fn begin_again(&mut self, now: Now, number: u64, was_in_the_way: bool) -> Result<(), Trouble> {
        let Some(attempt) = self.name(number) else { return Ok(()) };
        let Some(mut running) = self.across.running.remove(&number) else { return Ok(()) };
        let next = self.next_attempt();
        let prepared: BTreeSet<Key> = std::mem::take(&mut running.asked).into_keys().collect();
        running.parties.clear();
        running.waits_for_disk = false;
        running.known.forget_flares();
        running.snapshot = Snapshot::default();
        running.questions.clear();
        running.draws.clear();
        running.time = None;
        running.refusals += 1;
        let pauses = was_in_the_way || running.refusals > AT_ONCE;
        if pauses {
            let longest = FIRST_PAUSE.saturating_mul(1 << running.refusals.min(10)).min(LONGEST_PAUSE);
            let micros = (self.random)() % u64::try_from(longest.as_micros()).unwrap_or(1).max(1);
            running.pause = Some(now.monotonic.saturating_add(Duration::from_micros(micros)));
        }
        if let Some(id) = running.id {
            self.across.by_operation.insert(id, next);
        }
        self.across.running.insert(next, running);
        for key in prepared {
            self.say(key, AcrossMessage::Dead { attempt, key });
        }
        if pauses { Ok(()) } else { self.drive(now, next) }
    }

    /// Everything elsewhere is prepared: the operation happens.
    fn commit(
        &mut self,
        now: Now,
        number: u64,
        planned: Planned,
        participants: Vec<Participant>,
        (mut reply, payload): (Reply, Bytes),
    ) -> Result<(), Trouble> {
        let (Some(attempt), Some(running)) = (self.name(number), self.across.running.get(&number)) else {
            return Ok(());
        };
        let Some(op) = running.id else {
            self.end(number, &Err(FlareError::BadRequest.into()), &Need::Logged);
            return Ok(());
        };
        let call = running.call.clone();
        let time = running.time.unwrap_or(running.known.latest());
        set_verifier(&mut reply, self.topology.write_verifier());
        let outcome = Self::outcome(&call, op, &reply)?;
        let own = participants_here(&planned.here);
        let committed = self.next_position(now);
        let transaction =
            Transaction { attempt, op, time, own, participants, outcome: outcome.clone(), committed };
        if let Some(time) = self.overtaken_by(&transaction) {
            if let Some(running) = self.across.running.get_mut(&number) {
                running.overtaken_by = time;
            }
            return self.begin_again(now, number, false);
        }
        let row =
            TransactionRow { key: attempt.driver, part: Part::Driven, transaction: transaction.clone() };
        let mut planned = planned;
        planned.changes.push(Change::PutTransaction(Box::new(row)));
        if let Err(trouble) = self.record_planned(now, planned, outcome) {
            if let Trouble::Refused(error) = trouble {
                self.end(number, &Err(error.into()), &Need::Logged);
                return Ok(());
            }
            return Err(trouble);
        }
        self.note_open(&call, &reply);
        let need = self.need(&call)?;
        let keys: Vec<Key> = transaction.participants.iter().map(|part| part.key).collect();
        self.across.driven.insert(attempt, Driven::new(transaction.clone(), now.monotonic));
        // It is not running any more, so that nobody is told that it is dead.
        if let Some(running) = self.forget_running(number) {
            for ticket in running.tickets {
                self.hold(ticket, Ok((reply.clone(), payload.clone())), need.clone());
            }
        }
        for key in keys {
            if planted(Bug::CommitBeforeMirrors) {
                let transaction = Box::new(transaction.clone());
                self.say(key, AcrossMessage::Commit { transaction, key, secure: false });
            } else {
                self.say_commit(transaction.clone(), key, false);
            }
        }
        Ok(())
    }

    /// The time of the latest operation on one of the same stripes, if it is later than this one's and has happened already: if they are done
    /// again after a loss of power, it is in the order of their times. Other flares tell those times with their facts.
    fn overtaken_by(&self, transaction: &Transaction) -> Option<Timestamp> {
        if !transaction.concerns_stripes() {
            return None;
        }
        let has = |key: Key| transaction.participants.iter().any(|part| part.key == key);
        let driven = self.across.driven.values().map(|driven| &driven.transaction);
        let others = driven.filter(|other| other.participants.iter().any(|part| has(part.key)));
        others.map(|other| other.time).max().filter(|time| *time >= transaction.time)
    }

    /// It needs no steps elsewhere after all, or is a read.
    pub(super) fn finish_here(
        &mut self,
        now: Now,
        number: u64,
        planned: Planned,
        (mut reply, payload): (Reply, Bytes),
    ) -> Result<(), Trouble> {
        let Some(running) = self.across.running.get(&number) else { return Ok(()) };
        let (call, id) = (running.call.clone(), running.id);
        set_verifier(&mut reply, self.topology.write_verifier());
        self.add_internal(&call.request, &mut reply)?;
        let outcome = match id {
            Some(id) => Self::outcome(&call, id, &reply)?,
            None => None,
        };
        match self.record_planned(now, planned, outcome) {
            Ok(()) => {}
            Err(Trouble::Refused(error)) => {
                self.end(number, &Err(error.into()), &Need::Logged);
                return Ok(());
            }
            Err(fatal) => return Err(fatal),
        }
        self.note_open(&call, &reply);
        let need = self.need(&call)?;
        self.end(number, &Ok((reply, payload)), &need);
        Ok(())
    }

    /// The operation is over: whoever asked for it is answered. What is prepared elsewhere is not needed.
    pub(super) fn end(&mut self, number: u64, answer: &Answer, need: &Need) {
        let attempt = self.name(number);
        let Some(running) = self.forget_running(number) else { return };
        for ticket in running.tickets {
            self.hold(ticket, answer.clone(), need.clone());
        }
        if let Some(attempt) = attempt {
            for key in running.asked.into_keys() {
                self.say(key, AcrossMessage::Dead { attempt, key });
            }
        }
    }

    /// The operation is given up; its callers ask again.
    pub(super) fn end_unanswered(&mut self, number: u64) {
        let attempt = self.name(number);
        let Some(running) = self.forget_running(number) else { return };
        for ticket in running.tickets {
            self.tell_later(ticket);
        }
        if let Some(attempt) = attempt {
            for key in running.asked.into_keys() {
                self.say(key, AcrossMessage::Dead { attempt, key });
            }
        }
    }

    fn forget_running(&mut self, number: u64) -> Option<Running> {
        let running = self.across.running.remove(&number)?;
        if let Some(id) = running.id {
            self.across.by_operation.remove(&id);
        }
        Some(running)
    }

    /// Attempts that must not be committed any more, since a participant's slice may have lost what it had prepared.
    pub(super) fn break_off(&mut self, now: Now, range: magma_common::key::KeyRange) -> Result<(), Trouble> {
        let concerned = |running: &Running| running.asked.keys().any(|key| range.contains(key));
        let numbers: Vec<u64> =
            self.across.running.iter().filter(|(_, running)| concerned(running)).map(|(n, _)| *n).collect();
        numbers.into_iter().try_for_each(|number| self.begin_again(now, number, true))
    }

    /// What was not answered is said again; who has paused goes on; who has taken too long is given up.
    pub(super) fn go_on_driving(&mut self, now: Now) -> Result<(), Trouble> {
        let numbers: Vec<u64> = self.across.running.keys().copied().collect();
        for number in numbers {
            let Some(running) = self.across.running.get_mut(&number) else { continue };
            if now.monotonic.saturating_sub(running.began) >= PATIENCE {
                self.end_unanswered(number);
                continue;
            }
            if let Some(until) = running.pause {
                if until > now.monotonic {
                    continue;
                }
                running.pause = None;
                self.drive(now, number)?;
                continue;
            }
            if now.monotonic.saturating_sub(running.said) >= SAY_AGAIN {
                running.said = now.monotonic;
                self.say_questions(number);
                self.say_preparations(number);
            }
        }
        Ok(())
    }
}

fn participants(elsewhere: &[Steps], known: &Known) -> Vec<Participant> {
    let part = |(key, steps): &Steps| {
        let moves_only = steps.iter().all(|step| *step == Step::MoveDirectory);
        let seen = if moves_only { None } else { known.seen(key) };
        Participant { key: *key, seen, steps: steps.clone() }
    };
    elsewhere.iter().map(part).collect()
}

fn participants_here(here: &[Steps]) -> Vec<Participant> {
    let part = |(key, steps): &Steps| Participant { key: *key, seen: None, steps: steps.clone() };
    here.iter().map(part).collect()
}
