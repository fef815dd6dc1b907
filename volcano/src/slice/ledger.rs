//! The ledger: what became of the operations that clients may still ask about.
//!
//! It is an index over the recent log, not a table of its own: every record carries
//! the outcome of the operation that made it, and a start reads the retained
//! segments again. Operations that changed nothing durable (an open, the release
//! of one) are kept in memory only: what they did is gone after a restart too. So are refusals: a second
//! copy of a call that was refused, arriving late, must not be carried out after its caller has gone on.
//!
//! A client says up to where it has its answers. The outcomes go when a record says so, too ([`SessionRow::acknowledged`]): whoever knows them no
//! more, after a start or as a new primary, knows that they were, and does not do again what somebody has held up for long.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::proto::limits::MAX_UNACKNOWLEDGED;
use magma_common::proto::operation::Outcome;
use magma_common::proto::{OpId, SessionId};
use magma_common::topology::Seq;

use super::session::Sessions;
#[cfg(doc)]
use crate::rows::SessionRow;

/// How long the outcome of a call without a session is kept; Linux's knfsd keeps its replies as long (`RC_EXPIRE`).
pub const CALL_RETENTION: Duration = Duration::from_secs(120);
/// Most calls without a session that are kept; beyond it the oldest go early.
const MAX_CALLS: usize = 400_000;

/// The outcome of an operation that was done before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The record that did it; `None` if nothing was recorded.
    pub seq: Option<Seq>,
    /// Its opcode.
    pub opcode: u16,
    /// What it was answered: the encoded reply, or why it was refused.
    pub result: Result<Bytes, FlareError>,
    /// It was done before this start: opens that it made are not known any more.
    pub recovered: bool,
}

/// What the ledger knows of an operation id.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding<'a> {
    /// Nothing: it is new.
    New,
    /// It was done, and this was the answer.
    Done(&'a Done),
    /// The client said that it has the answer, so this is no retry of anybody who still listens.
    Acknowledged,
    /// New, but the session has to acknowledge some outcomes first.
    Full,
}

#[derive(Clone, Default)]
struct SessionOutcomes {
    /// The client has all answers up to this one. Some of their outcomes may still be kept.
    acknowledged: u64,
    done: BTreeMap<u64, Done>,
    /// The records of those that have one, in this order, with their numbers; the first one is kept, of the others some may have gone.
    records: VecDeque<(Seq, u64)>,
}

impl SessionOutcomes {
    fn keep(&mut self, sequence: u64, done: Done) {
        self.records.extend(done.seq.map(|seq| (seq, sequence)));
        self.done.insert(sequence, done);
    }

    fn settle(&mut self, upto: u64) {
        self.acknowledged = self.acknowledged.max(upto);
        while let Some(first) = self.done.first_entry().filter(|first| *first.key() <= upto) {
            first.remove();
        }
        self.forget_records();
    }

    fn retain(&mut self, stays: impl Fn(&mut Done) -> bool) {
        self.done.retain(|_, done| stays(done));
        self.forget_records();
    }

    fn forget_records(&mut self) {
        while self.records.front().is_some_and(|(_, sequence)| !self.done.contains_key(sequence)) {
            self.records.pop_front();
        }
    }
}

/// See the module's documentation.
#[derive(Clone, Default)]
pub struct Ledger {
    sessions: HashMap<SessionId, SessionOutcomes>,
    calls: HashMap<u128, Done>,
    /// When each call was kept, and its record, in this order.
    call_ages: VecDeque<(Duration, u128, Option<Seq>)>,
    /// Sessions that have acknowledged something that no record says.
    marked: BTreeSet<SessionId>,
}

impl Ledger {
    /// What became of this operation.
    pub fn find(&self, id: OpId) -> Finding<'_> {
        match id {
            OpId::Call(call) => self.calls.get(&call).map_or(Finding::New, Finding::Done),
            OpId::Session { session, sequence } => {
                let Some(outcomes) = self.sessions.get(&session) else { return Finding::New };
                if sequence <= outcomes.acknowledged {
                    Finding::Acknowledged
                } else if let Some(done) = outcomes.done.get(&sequence) {
                    Finding::Done(done)
                } else if sequence - outcomes.acknowledged > MAX_UNACKNOWLEDGED as u64 {
                    Finding::Full
                } else {
                    Finding::New
                }
            }
        }
    }

    /// Keeps an outcome. `now` is the monotonic clock.
    pub fn keep(&mut self, now: Duration, seq: Option<Seq>, outcome: Outcome) {
        let Outcome { id, opcode, reply } = outcome;
        self.insert(now, id, Done { seq, opcode, result: Ok(reply), recovered: false });
    }

    /// Keeps an outcome from before this start.
    pub fn recover(&mut self, now: Duration, seq: Seq, outcome: Outcome) {
        let Outcome { id, opcode, reply } = outcome;
        self.insert(now, id, Done { seq: Some(seq), opcode, result: Ok(reply), recovered: true });
    }

    /// Keeps that an operation was refused for good.
    pub fn refuse(&mut self, now: Duration, id: OpId, opcode: u16, error: FlareError) {
        self.insert(now, id, Done { seq: None, opcode, result: Err(error), recovered: false });
    }

    fn insert(&mut self, now: Duration, id: OpId, done: Done) {
        match id {
            OpId::Session { session, sequence } => {
                let outcomes = self.sessions.entry(session).or_default();
                if sequence > outcomes.acknowledged {
                    outcomes.keep(sequence, done);
                }
                // Nobody was let do it before that was acknowledged.
                outcomes.settle(sequence.saturating_sub(MAX_UNACKNOWLEDGED as u64));
            }
            OpId::Call(call) => {
                let seq = done.seq;
                if self.calls.insert(call, done).is_none() {
                    self.call_ages.push_back((now, call, seq));
                }
                while self.call_ages.len() > MAX_CALLS {
                    self.forget_oldest_call();
                }
            }
        }
    }

    /// The session has all outcomes up to this sequence number, as it says.
    pub fn acknowledge(&mut self, session: SessionId, upto: u64) {
        let outcomes = self.sessions.entry(session).or_default();
        if upto > outcomes.acknowledged {
            self.marked.insert(session);
            outcomes.acknowledged = upto;
        }
    }

    /// What a session has acknowledged.
    pub fn acknowledged(&self, session: SessionId) -> u64 {
        self.sessions.get(&session).map_or(0, |outcomes| outcomes.acknowledged)
    }

    /// What sessions have acknowledged, and no record says; of so many of them.
    pub fn marks(&self, limit: usize) -> Vec<(SessionId, u64)> {
        self.marked.iter().take(limit).map(|&session| (session, self.acknowledged(session))).collect()
    }

    /// A record says that the session has all outcomes up to this sequence number: they go.
    pub fn settle(&mut self, session: SessionId, upto: u64) {
        let outcomes = self.sessions.entry(session).or_default();
        outcomes.settle(upto);
        if outcomes.acknowledged == upto {
            self.marked.remove(&session);
        }
    }

    /// The session is over; nobody may ask any more.
    pub fn end(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.marked.remove(&session);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The records after this one are no part of the history any more, and neither is what they did. Why something was refused may have been
    /// in one of them: what has no record is forgotten.
    pub fn cut(&mut self, to: Seq) {
        let stays = |done: &Done| done.seq.is_some_and(|seq| seq <= to);
        for outcomes in self.sessions.values_mut() {
            outcomes.records.retain(|(seq, _)| *seq <= to);
            outcomes.retain(|done| stays(done));
        }
        self.calls.retain(|_, done| stays(done));
        let calls = &self.calls;
        self.call_ages.retain(|(_, call, _)| calls.contains_key(call));
    }

    /// Nobody asks for an ended session, and nobody would acknowledge either: only what living ones may ask for stays.
    pub fn keep_known(&mut self, living: &Sessions) {
        self.sessions.retain(|session, _| living.knows(*session));
        self.marked.retain(|session| living.knows(*session));
    }

    /// The outcomes that are in records, in their order, for a copy that has not got those records.
    pub fn recorded(&self) -> Vec<(Seq, Outcome)> {
        let of_sessions = self.sessions.iter().flat_map(|(&session, outcomes)| {
            let id = move |sequence: u64| OpId::Session { session, sequence };
            outcomes.done.iter().map(move |(&sequence, done)| (id(sequence), done))
        });
        let of_calls = self.calls.iter().map(|(&call, done)| (OpId::Call(call), done));
        let outcome = |(id, done): (OpId, &Done)| {
            let reply = done.result.as_ref().ok()?.clone();
            Some((done.seq?, Outcome { id, opcode: done.opcode, reply }))
        };
        let mut recorded: Vec<_> = of_sessions.chain(of_calls).filter_map(outcome).collect();
        recorded.sort_unstable_by_key(|(seq, outcome)| (*seq, outcome.id));
        recorded
    }

    /// What a slice that is divided off this one begins with: all outcomes that a new primary would know, and the refusals. Which of them
    /// the new slice will be asked about is not known here.
    #[must_use]
    pub fn heir(&self) -> Self {
        let mut heir = self.clone();
        let inherit = |done: &mut Done| {
            done.recovered = true;
            done.seq.is_some() || done.result.is_err()
        };
        for outcomes in heir.sessions.values_mut() {
            outcomes.retain(inherit);
        }
        heir.calls.retain(|_, done| inherit(done));
        let calls = &heir.calls;
        heir.call_ages.retain(|(_, call, _)| calls.contains_key(call));
        heir
    }

    /// The volcano itself was away for so long, and nobody could repeat a call to it: that time does not count.
    pub fn forgive(&mut self, absence: Duration) {
        for (kept, ..) in &mut self.call_ages {
            *kept = kept.saturating_add(absence);
        }
    }

    /// Drops calls older than [`CALL_RETENTION`].
    pub fn expire(&mut self, now: Duration) {
        while self.call_ages.front().is_some_and(|(kept, ..)| now.saturating_sub(*kept) > CALL_RETENTION) {
            self.forget_oldest_call();
        }
    }

    fn forget_oldest_call(&mut self) {
        if let Some((_, call, _)) = self.call_ages.pop_front() {
            self.calls.remove(&call);
        }
    }

    /// The first record that a start would have to read again to know all outcomes that are kept; `None` if it need not read any.
    pub fn oldest_needed(&self) -> Option<Seq> {
        let of_sessions =
            self.sessions.values().filter_map(|outcomes| Some(outcomes.records.front()?.0)).min();
        // Calls are kept in the order of their records, too.
        let of_calls = self.call_ages.iter().find_map(|(.., seq)| *seq);
        [of_sessions, of_calls].into_iter().flatten().min()
    }

    /// Number of outcomes kept.
    pub fn len(&self) -> usize {
        self.calls.len() + self.sessions.values().map(|s| s.done.len()).sum::<usize>()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(7);

    fn outcome(id: OpId) -> Outcome {
        Outcome { id, opcode: 21, reply: Bytes::from_static(b"reply") }
    }

    fn op(sequence: u64) -> OpId {
        OpId::Session { session: SESSION, sequence }
    }

    #[test]
    fn a_retry_finds_the_first_outcome_until_it_is_acknowledged() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.find(op(1)), Finding::New);
        ledger.keep(Duration::ZERO, Some(Seq(10)), outcome(op(1)));
        assert!(matches!(ledger.find(op(1)), Finding::Done(done) if done.seq == Some(Seq(10))));
        assert_eq!(ledger.oldest_needed(), Some(Seq(10)));
        ledger.acknowledge(SESSION, 1);
        assert_eq!(ledger.find(op(1)), Finding::Acknowledged);
        assert_eq!(ledger.find(op(2)), Finding::New);
    }

    #[test]
    fn an_outcome_stays_until_a_record_says_that_it_is_acknowledged() {
        let mut ledger = Ledger::default();
        ledger.keep(Duration::ZERO, Some(Seq(10)), outcome(op(1)));
        ledger.keep(Duration::ZERO, Some(Seq(11)), outcome(op(2)));
        ledger.acknowledge(SESSION, 1);
        assert_eq!((ledger.oldest_needed(), ledger.recorded().len()), (Some(Seq(10)), 2));
        assert_eq!(ledger.marks(9), [(SESSION, 1)]);
        ledger.settle(SESSION, 1);
        assert_eq!((ledger.oldest_needed(), ledger.recorded().len()), (Some(Seq(11)), 1));
        assert_eq!(ledger.marks(9), []);
        assert_eq!(ledger.find(op(1)), Finding::Acknowledged);
    }

    #[test]
    fn the_oldest_record_that_is_needed_is_known_whatever_order_outcomes_go_in() {
        let mut ledger = Ledger::default();
        let keep = |ledger: &mut Ledger, seq, sequence| {
            ledger.keep(Duration::ZERO, Some(Seq(seq)), outcome(op(sequence)));
        };
        for (seq, sequence) in [(10, 1), (11, 3), (12, 2)] {
            keep(&mut ledger, seq, sequence);
        }
        ledger.settle(SESSION, 2);
        assert_eq!(ledger.oldest_needed(), Some(Seq(11)));
        ledger.cut(Seq(10));
        assert_eq!(ledger.oldest_needed(), None);
        for (seq, sequence) in [(11, 4), (12, 3)] {
            keep(&mut ledger, seq, sequence);
        }
        assert_eq!(ledger.oldest_needed(), Some(Seq(11)));
        ledger.settle(SESSION, 3);
        assert_eq!(ledger.oldest_needed(), Some(Seq(11)));
        ledger.settle(SESSION, 4);
        assert_eq!(ledger.oldest_needed(), None);
    }

    #[test]
    fn what_is_acknowledged_after_the_record_was_planned_is_for_the_next_one() {
        let mut ledger = Ledger::default();
        ledger.acknowledge(SESSION, 1);
        ledger.acknowledge(SESSION, 2);
        ledger.settle(SESSION, 1);
        assert_eq!(ledger.marks(9), [(SESSION, 2)]);
        assert_eq!(ledger.find(op(2)), Finding::Acknowledged);
    }

    #[test]
    fn who_was_not_let_do_more_has_acknowledged_what_lies_further_back() {
        let mut ledger = Ledger::default();
        let many = MAX_UNACKNOWLEDGED as u64;
        for sequence in 1..=many + 2 {
            ledger.recover(Duration::ZERO, Seq(sequence), outcome(op(sequence)));
        }
        assert_eq!(ledger.len(), MAX_UNACKNOWLEDGED);
        assert_eq!(ledger.find(op(2)), Finding::Acknowledged);
        assert!(matches!(ledger.find(op(3)), Finding::Done(_)));
    }

    #[test]
    fn an_outcome_that_arrives_after_its_acknowledgement_is_not_kept() {
        let mut ledger = Ledger::default();
        ledger.acknowledge(SESSION, 5);
        ledger.keep(Duration::ZERO, Some(Seq(1)), outcome(op(3)));
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_session_that_acknowledges_nothing_is_stopped_at_the_limit() {
        let mut ledger = Ledger::default();
        for sequence in 1..=MAX_UNACKNOWLEDGED as u64 {
            ledger.keep(Duration::ZERO, Some(Seq(sequence)), outcome(op(sequence)));
        }
        assert_eq!(ledger.find(op(MAX_UNACKNOWLEDGED as u64 + 1)), Finding::Full);
        assert!(matches!(ledger.find(op(1)), Finding::Done(_)), "retries are still answered");
    }

    #[test]
    fn what_was_refused_because_of_a_record_that_is_lost_may_be_done() {
        let mut ledger = Ledger::default();
        ledger.keep(Duration::ZERO, Some(Seq(1)), outcome(op(1)));
        ledger.keep(Duration::ZERO, Some(Seq(2)), outcome(op(2)));
        ledger.refuse(Duration::ZERO, op(3), 21, FlareError::Exists);
        ledger.refuse(Duration::ZERO, OpId::Call(4), 21, FlareError::Exists);
        ledger.cut(Seq(1));
        assert!(matches!(ledger.find(op(1)), Finding::Done(_)));
        let (there, called) = (ledger.find(op(3)), ledger.find(OpId::Call(4)));
        assert_eq!((ledger.find(op(2)), there, called), (Finding::New, Finding::New, Finding::New));
    }

    #[test]
    fn an_heir_knows_what_a_new_primary_would_know_and_what_was_refused() {
        let mut ledger = Ledger::default();
        ledger.keep(Duration::ZERO, Some(Seq(1)), outcome(op(1)));
        ledger.keep(Duration::ZERO, None, outcome(op(2)));
        ledger.refuse(Duration::ZERO, op(3), 21, FlareError::Exists);
        ledger.keep(Duration::ZERO, None, outcome(OpId::Call(4)));
        ledger.keep(Duration::ZERO, Some(Seq(2)), outcome(OpId::Call(5)));
        let heir = ledger.heir();
        assert!(matches!(heir.find(op(1)), Finding::Done(done) if done.recovered));
        assert_eq!(heir.find(op(2)), Finding::New, "what it opened is not open there");
        assert!(matches!(heir.find(op(3)), Finding::Done(done) if done.result == Err(FlareError::Exists)));
        assert_eq!((heir.len(), heir.oldest_needed()), (3, Some(Seq(1))));
        assert!(matches!(ledger.find(op(1)), Finding::Done(done) if !done.recovered));
    }

    #[test]
    fn calls_are_forgotten_after_their_retention_and_not_before() {
        let mut ledger = Ledger::default();
        ledger.keep(Duration::from_secs(1), Some(Seq(1)), outcome(OpId::Call(9)));
        ledger.expire(Duration::from_secs(121));
        assert!(matches!(ledger.find(OpId::Call(9)), Finding::Done(_)));
        ledger.expire(Duration::from_secs(122));
        assert_eq!(ledger.find(OpId::Call(9)), Finding::New);
    }
}
