//! Steps of operations that other slices drive: facts are told, steps are prepared, carried out, or forgotten.

use std::time::Duration;

use magma_common::key::Key;
use magma_common::proto::OpId;

use super::facts::{Facts, Known, Want};
use super::message::{AcrossMessage, Objection, Preparation};
use super::parked::Waiting;
use super::settle::Applied;
use super::view::AcrossView;
use crate::namespace::{self, Moment, Plan, Planned, Stop, Unfit};
use crate::record::Change;
use crate::slice::gate::Need;
use crate::slice::{Now, Slice, SliceView, Trouble};
use crate::transaction::{Attempt, Part, Participant, Transaction, TransactionRow};
use crate::view::View;
use magma_common::error::FlareError;
use magma_common::time::Timestamp;

/// A step that was prepared for so long may have been forgotten by its driver.
const ASK_AFTER: Duration = Duration::from_millis(500);

/// What planning for another slice came to.
enum Planning<T> {
    Done(T, Planned),
    /// The flare is held.
    Held(Key),
    Refused(FlareError),
}

impl Slice<'_> {
    /// Plans something for another slice.
    fn plan_for<T>(
        &mut self,
        now: Now,
        attempt: Attempt,
        (op, time): (OpId, Timestamp),
        steps: impl FnOnce(&mut Plan<'_>) -> Result<T, Stop>,
    ) -> Result<Planning<T>, Trouble> {
        let moment = Moment { now: time, ..self.moment(now, op) };
        let known = Known::default();
        let range = self.range();
        let store = SliceView::new(self.store, self.identity.slice, range, *self.space_elsewhere);
        let holding = self.across.holding(Some(attempt));
        let view = AcrossView::new(&store, range, &holding, &known);
        let mut plan = Plan::new(&view, &*self.sessions, moment, &mut *self.random);
        let done = steps(&mut plan);
        let planned = plan.finish();
        Ok(match done {
            Ok(done) => Planning::Done(done, planned),
            Err(Stop::Store(error)) => return Err(error.into()),
            Err(Stop::Failure(failure)) => Planning::Refused(failure.error),
            Err(Stop::Held) => match view.into_wanted().held {
                Some(key) => Planning::Held(key),
                None => Planning::Refused(FlareError::Unavailable),
            },
            // Steps and facts are about one flare each, which is here.
            Err(Stop::Elsewhere) => Planning::Refused(FlareError::Unavailable),
        })
    }

    /// Another slice wants to know something of flares that were here by its topology.
    pub(super) fn tell_facts(
        &mut self,
        now: Now,
        attempt: Attempt,
        round: u32,
        wants: Vec<(Key, Want)>,
    ) -> Result<(), Trouble> {
        let range = self.range();
        if !wants.iter().all(|(key, _)| range.contains(key)) {
            return Ok(());
        }
        let gather = |plan: &mut Plan<'_>| {
            let facts = |(key, want): &(Key, Want)| Ok((*key, Facts::gather(plan, key, want)?));
            wants.iter().map(facts).collect::<Result<Vec<_>, Stop>>()
        };
        match self.plan_for(now, attempt, (Self::OWN_OPERATION, now.wall), gather)? {
            Planning::Done(facts, _) => {
                let told = AcrossMessage::Told { attempt, round, facts };
                self.say_safely(attempt.driver, told, Need::Logged);
            }
            Planning::Held(key) => self.park(key, Waiting::Fetch(attempt, round, wants)),
            // A damaged flare, or one that moved away: the driver asks again, and its caller gives up one day.
            Planning::Refused(error) => {
                tracing::debug!(target: "magma::flare", %error, ?attempt, "another slice is told nothing");
            }
        }
        Ok(())
    }

    /// A driver wants steps to be prepared. The message is about one flare.
    pub(super) fn prepare(&mut self, now: Now, preparation: Preparation) -> Result<(), Trouble> {
        let Preparation { transaction, parties } = &preparation;
        let attempt = transaction.attempt;
        let Some(part) = transaction.participants.first().cloned() else { return Ok(()) };
        let key = part.key;
        if !self.range().contains(&key) || self.across.applied.contains_key(&(key, attempt)) {
            return Ok(());
        }
        if self.across.prepared.contains_key(&(key, attempt)) {
            return self.say_prepared(now, attempt, &part, parties);
        }
        let is_held = self.across.held.contains_key(&key) && part.holds_flare();
        if is_held || part.moves_directory() && self.across.moving.is_some() {
            self.park_step(now, key, preparation);
            return Ok(());
        }
        if self.across.unsettled() >= super::MAX_UNSETTLED {
            return Ok(());
        }
        match self.prepare_part(now, transaction, &part)? {
            Ok(()) => self.say_prepared(now, attempt, &part, parties)?,
            Err(why) => {
                self.say_safely(attempt.driver, AcrossMessage::Unfit { attempt, key, why }, Need::Logged);
            }
        }
        Ok(())
    }

    fn say_prepared(
        &mut self,
        now: Now,
        attempt: Attempt,
        part: &Participant,
        parties: &[Key],
    ) -> Result<(), Trouble> {
        let key = part.key;
        let gather = |plan: &mut Plan<'_>| Facts::gather(plan, &key, &Want::default());
        let facts = match self.plan_for(now, attempt, (Self::OWN_OPERATION, now.wall), gather)? {
            Planning::Done(facts, _) => facts.map(Box::new),
            Planning::Held(_) | Planning::Refused(_) => None,
        };
        let need = self.need_of_consent(part, parties);
        self.say_safely(attempt.driver, AcrossMessage::Prepared { attempt, key, facts }, need);
        Ok(())
    }

    fn prepare_part(
        &mut self,
        now: Now,
        transaction: &Transaction,
        part: &Participant,
    ) -> Result<Result<(), Objection>, Trouble> {
        let about = (transaction.op, transaction.time);
        let checked = self.plan_for(now, transaction.attempt, about, |plan| namespace::check(plan, part))?;
        match checked {
            Planning::Done(Ok(()), _) => {}
            Planning::Done(Err(unfit), _) => return Ok(Err(unfit.into())),
            Planning::Held(_) => return Ok(Err(Objection::Busy)),
            Planning::Refused(error) => return Ok(Err(Objection::Refused(error))),
        }
        let row = TransactionRow { key: part.key, part: Part::Prepared, transaction: transaction.clone() };
        match self.record(now, vec![Change::PutTransaction(Box::new(row.clone()))], None) {
            Ok(()) => {}
            Err(Trouble::Refused(error)) => return Ok(Err(Objection::Refused(error))),
            Err(fatal) => return Err(fatal),
        }
        self.across.take_row(row, now.monotonic);
        Ok(Ok(()))
    }

    /// The transaction has happened: what it does here is done, once.
    pub(super) fn apply(
        &mut self,
        now: Now,
        transaction: &Transaction,
        key: Key,
        secure: bool,
    ) -> Result<(), Trouble> {
        let attempt = transaction.attempt;
        if !self.range().contains(&key) {
            return Ok(());
        }
        let is_outdated = |applied: &Applied| applied.transaction.committed != transaction.committed;
        if self.across.prepared.contains_key(&(key, attempt)) {
            self.carry_out(now, transaction, key, Part::Applied)?;
            self.wake_parked(now, &key);
        } else if self.across.applied.get(&(key, attempt)).is_some_and(is_outdated) {
            // A driver that lost its record has another one now, and whoever tells it of the transaction must be able to say which. The steps are
            // not carried out again: what others have written since would be gone.
            let row = TransactionRow { key, part: Part::Applied, transaction: transaction.clone() };
            self.record(now, vec![Change::PutTransaction(Box::new(row.clone()))], None)?;
            self.across.take_row(row, now.monotonic);
        }
        // What is neither prepared nor applied here any more has been settled, and the driver has lost that.
        let is_there = self.across.applied.contains_key(&(key, attempt));
        let need = if secure && is_there { Need::OnDisk(Vec::new()) } else { Need::Logged };
        let applied = AcrossMessage::Applied { attempt, key, secured: secure || !is_there };
        self.say_safely(attempt.driver, applied, need);
        Ok(())
    }

    /// Carries out the steps at one flare, and keeps the transaction beside them.
    pub(super) fn carry_out(
        &mut self,
        now: Now,
        transaction: &Transaction,
        key: Key,
        as_part: Part,
    ) -> Result<(), Trouble> {
        let Some(part) = transaction.part_of(&key).cloned() else { return Ok(()) };
        let mut planned = self.plan_parts(now, transaction, std::slice::from_ref(&part))?;
        let row = TransactionRow { key, part: as_part, transaction: transaction.clone() };
        planned.changes.push(Change::PutTransaction(Box::new(row.clone())));
        self.record_planned(now, planned, None)?;
        self.across.take_row(row, now.monotonic);
        if let Some(session) = namespace::opened_by(&part.steps)
            && let Some(row) = self.store.flare(&key)?
        {
            self.take_over_session(now, session)?;
            self.sessions.open(session, row.handle, 1);
        }
        Ok(())
    }

    /// What parts of a transaction that has happened change here.
    pub(super) fn plan_parts(
        &mut self,
        now: Now,
        transaction: &Transaction,
        parts: &[Participant],
    ) -> Result<Planned, Trouble> {
        let about = (transaction.op, transaction.time);
        let carried = self.plan_for(now, transaction.attempt, about, |plan| {
            let steps = parts.iter().flat_map(|part| part.steps.iter().map(|step| (part.key, step)));
            steps.into_iter().try_for_each(|(key, step)| namespace::carry_out(plan, &key, step))
        })?;
        match carried {
            Planning::Done((), planned) => Ok(planned),
            // Another transaction cannot hold what this one does.
            Planning::Held(_) => Err(Trouble::Refused(FlareError::Unavailable)),
            Planning::Refused(error) => {
                tracing::error!(target: "magma::flare", %error, attempt = ?transaction.attempt, "a part of an operation that has happened cannot be done");
                Ok(Planned::default())
            }
        }
    }

    /// The driver has given the attempt up.
    pub(super) fn hear_dead(&mut self, now: Now, attempt: Attempt, key: Key) -> Result<(), Trouble> {
        if self.across.prepared.contains_key(&(key, attempt)) {
            self.record(now, vec![Change::DeleteTransaction { key, attempt, driven: false }], None)?;
            self.across.forget_prepared(key, attempt);
            self.wake_parked(now, &key);
        }
        Ok(())
    }

    /// Nobody needs to remember the transaction any more.
    pub(super) fn hear_settled(&mut self, attempt: Attempt, key: Key) {
        if self.across.applied.remove(&(key, attempt)).is_some() {
            self.across.settled.insert((key, attempt, false));
        }
    }

    /// Drivers that have not been heard of are asked what became of their attempts.
    pub(super) fn ask_drivers(&mut self, now: Now) {
        let mut asking = Vec::new();
        for ((key, attempt), prepared) in &mut self.across.prepared {
            if now.monotonic.saturating_sub(prepared.asked) >= ASK_AFTER {
                prepared.asked = now.monotonic;
                asking.push((*key, *attempt, false));
            }
        }
        for ((key, attempt), applied) in &mut self.across.applied {
            if applied.is_to_be_asked_about(now.monotonic) {
                asking.push((*key, *attempt, true));
            }
        }
        for (key, attempt, applied) in asking {
            self.say_safely(attempt.driver, AcrossMessage::Ask { attempt, key, applied }, Need::Logged);
        }
    }
}

impl From<Unfit> for Objection {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Changed => Self::Changed,
            Unfit::KeyTaken => Self::KeyTaken,
            Unfit::Refused(error) => Self::Refused(error),
        }
    }
}
