//! Operations across slices: how their parts come together. `docs/ACROSS.md` tells it as a whole.
//!
//! * [`drive`](self): an operation that needs other slices, from its planning to its commit;
//! * `participate`: steps of operations that other slices drive;
//! * `settle`: what happens after the commit, until nobody needs to remember the transaction;
//! * `parked`: who waits for a flare that a transaction holds;
//! * `snapshot`: what is answered without a commit was true at one moment;
//! * `recall`: a slice that may have lost records asks the others what they know of it;
//! * `strangers`: sessions that were opened with the home slice;
//! * `unsynced`: what of the names is not on disk yet.
//!
//! All of it is kept in memory by the primary only. What must outlive it is in [`TransactionRow`]s, from which a new primary begins.

mod asking;
mod drive;
pub mod facts;
pub mod message;
mod parked;
mod participate;
mod recall;
mod settle;
mod snapshot;
mod strangers;
mod unsynced;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use magma_common::handle::Handle;
use magma_common::key::{Ino, Key, KeyRange};
use magma_common::proto::{OpId, Request};
use magma_common::topology::Seq;

use self::drive::Running;
use self::message::AcrossMessage;
use self::parked::Parked;
use self::recall::Recall;
use self::settle::{Applied, Driven};
use self::strangers::Strangers;
use self::unsynced::Unsynced;
use self::view::Holding;
use super::gate::Need;
use super::{Effect, Held, Now, Slice, Trouble};
use crate::planted::{Bug, planted};
use crate::record::Record;
use crate::transaction::{Attempt, Part, Participant, Step, TransactionRow};

/// What was not answered is said again after this time.
const SAY_AGAIN: Duration = Duration::from_millis(300);
/// Operations across slices that one slice drives at a time.
const MAX_ATTEMPTS: usize = 4096;
/// Transactions that are not settled, of one slice. Beyond it, operations across slices wait.
const MAX_UNSETTLED: usize = 50_000;

/// A step that waits for the outcome of its transaction.
struct Prepared {
    part: Participant,
    /// When the driver was asked what became of it, or the step was prepared.
    asked: Duration,
}

/// What the primary of a slice knows of operations across slices.
pub(super) struct Across {
    /// Operations that this slice drives and that are not committed.
    running: BTreeMap<u64, Running>,
    by_operation: HashMap<OpId, u64>,
    /// Counts attempts.
    attempts: u64,
    prepared: BTreeMap<(Key, Attempt), Prepared>,
    /// Flares that nobody may see or change, and for which attempt.
    held: BTreeMap<Key, Attempt>,
    /// The transaction that moves a directory, if the root is here.
    moving: Option<Attempt>,
    applied: BTreeMap<(Key, Attempt), Applied>,
    driven: BTreeMap<Attempt, Driven>,
    /// Rows that are to be forgotten in the next record.
    settled: BTreeSet<(Key, Attempt, bool)>,
    parked: Parked,
    recall: Option<Recall>,
    strangers: Strangers,
    unsynced: Unsynced,
    /// When a sync for settling began last.
    secured: Duration,
}

impl Across {
    /// No operations, at a copy whose last record is this one.
    pub(super) fn new(last: Seq, now: Duration) -> Self {
        Self {
            running: BTreeMap::new(),
            by_operation: HashMap::new(),
            attempts: 0,
            prepared: BTreeMap::new(),
            held: BTreeMap::new(),
            moving: None,
            applied: BTreeMap::new(),
            driven: BTreeMap::new(),
            settled: BTreeSet::new(),
            parked: Parked::default(),
            recall: None,
            strangers: Strangers::default(),
            unsynced: Unsynced::up_to(last, now),
            secured: Duration::ZERO,
        }
    }

    /// What a new primary begins with.
    fn from_rows(rows: Vec<TransactionRow>, last: Seq, now: Duration) -> Self {
        let mut across = Self::new(last, now);
        for row in rows {
            across.know(row, now, true);
        }
        across
    }

    /// A row was put.
    fn take_row(&mut self, row: TransactionRow, now: Duration) {
        self.know(row, now, false);
    }

    /// Knows of a row, which may be from before this primary.
    fn know(&mut self, row: TransactionRow, now: Duration, is_old: bool) {
        let TransactionRow { key, part, transaction } = row;
        let attempt = transaction.attempt;
        match part {
            Part::Prepared => {
                let Some(part) = transaction.part_of(&key).cloned() else { return };
                if planted(Bug::ForgetPreparedAtFailover) && is_old {
                    return;
                }
                if part.holds_flare() && !planted(Bug::ShowPrepared) {
                    self.held.insert(key, attempt);
                }
                if part.moves_directory() {
                    self.moving = Some(attempt);
                }
                self.prepared.insert((key, attempt), Prepared { part, asked: now });
            }
            Part::Applied => {
                self.forget_prepared(key, attempt);
                self.applied.insert((key, attempt), Applied::new(transaction, now));
            }
            Part::Driven => drop(self.driven.insert(attempt, Driven::new(transaction, now))),
        }
    }

    /// A step that was prepared is not any more: whether there was one.
    fn forget_prepared(&mut self, key: Key, attempt: Attempt) -> bool {
        if self.held.get(&key) == Some(&attempt) {
            self.held.remove(&key);
        }
        let prepared = self.prepared.remove(&(key, attempt));
        if self.moving == Some(attempt) && prepared.as_ref().is_some_and(|there| there.part.moves_directory())
        {
            self.moving = None;
        }
        prepared.is_some()
    }

    /// A record was made.
    pub(super) fn note(&mut self, record: &Record) {
        self.unsynced.note(record);
    }

    /// The request of this ticket waits no more: whether it did.
    pub(super) fn cancel(&mut self, ticket: super::Ticket) -> bool {
        self.parked.cancel(ticket)
    }

    /// Whether an operation pauses that is to go on soon.
    pub(super) fn is_pausing(&self) -> bool {
        self.running.values().any(Running::is_pausing)
    }

    /// The stripes of a file that it is shedding, or clearing at their ends.
    pub(super) fn shedding(&self, file: &Handle) -> impl Iterator<Item = u64> + '_ {
        let file = *file;
        let sheds = self.running.values().filter_map(move |running| match &running.call.request {
            Request::Shed(shed) if shed.handle == file => Some(&shed.numbers),
            _ => None,
        });
        sheds.flatten().copied()
    }

    fn unsettled(&self) -> usize {
        self.prepared.len() + self.applied.len() + self.driven.len()
    }

    /// What this attempt may not touch; none for what is no attempt.
    pub(super) fn holding(&self, attempt: Option<Attempt>) -> Holds<'_> {
        Holds { across: self, attempt }
    }
}

impl Participant {
    /// Whether nobody may see or change the flare until the outcome is known.
    fn holds_flare(&self) -> bool {
        self.steps.iter().any(|step| *step != Step::MoveDirectory)
    }

    fn moves_directory(&self) -> bool {
        self.steps.contains(&Step::MoveDirectory)
    }
}

/// What transactions hold against everybody but one attempt.
pub(super) struct Holds<'a> {
    across: &'a Across,
    attempt: Option<Attempt>,
}

impl Holding for Holds<'_> {
    fn holds(&self, key: &Key) -> bool {
        self.across.held.get(key).is_some_and(|holder| Some(*holder) != self.attempt)
    }

    fn reserves(&self, ino: Ino) -> bool {
        let keys = KeyRange::single(ino);
        let (first, last) = (keys.first_key(), keys.last_key());
        let mut held = self.across.held.range(first..=last);
        held.any(|(_, holder)| Some(*holder) != self.attempt)
    }
}

impl Slice<'_> {
    /// Another slice says something. Call [`batch_end`](Self::batch_end) after the last message that was there to be read.
    pub fn across(&mut self, now: Now, message: AcrossMessage) {
        let done = match message {
            AcrossMessage::Recall { back, range, epoch, after } => {
                self.answer_recall(now, back, (range, epoch), after)
            }
            AcrossMessage::Recalled { range, epoch, from, after, transactions, history, more } => {
                self.hear_recalled((range, epoch), (from, after), (transactions, history), more);
                Ok(())
            }
            _ if !self.is_serving() => Ok(()),
            AcrossMessage::Fetch { attempt, round, wants } => self.tell_facts(now, attempt, round, wants),
            AcrossMessage::Told { attempt, round, facts } => self.hear_facts(now, attempt, round, facts),
            AcrossMessage::Prepare(preparation) => self.prepare(now, *preparation),
            AcrossMessage::Prepared { attempt, key, facts } => self.hear_prepared(now, attempt, key, facts),
            AcrossMessage::Unfit { attempt, key, why } => self.hear_unfit(now, attempt, key, why),
            AcrossMessage::Commit { transaction, key, secure } => self.apply(now, &transaction, key, secure),
            AcrossMessage::Applied { attempt, key, secured } => {
                self.hear_applied(attempt, key, secured);
                Ok(())
            }
            AcrossMessage::Ask { attempt, key, applied } => {
                self.answer_ask(attempt, key, applied);
                Ok(())
            }
            AcrossMessage::Dead { attempt, key } => self.hear_dead(now, attempt, key),
            AcrossMessage::Settled { attempt, key } => {
                self.hear_settled(attempt, key);
                Ok(())
            }
            AcrossMessage::AskSession { session, back } => {
                self.answer_session(session, back);
                Ok(())
            }
            AcrossMessage::SessionIs { session, row } => self.hear_session(now, session, row),
        };
        if let Err(trouble) = done {
            self.trouble(trouble);
        }
    }

    /// A new primary begins with what the slice's rows say.
    pub(super) fn begin_across(&mut self, now: Now) -> Result<(), Trouble> {
        let rows = self.store.transactions(self.identity.slice)?;
        *self.across = Across::from_rows(rows, self.position().seq, now.monotonic);
        Ok(())
    }

    /// The slice has other rows than before, in the same reign. No attempt is being driven.
    pub(super) fn begin_across_again(&mut self, now: Now) -> Result<(), Trouble> {
        let attempts = self.across.attempts;
        self.begin_across(now)?;
        // no number is used again in a reign
        self.across.attempts = attempts;
        Ok(())
    }

    /// Attempts that are not committed are dead, and nobody waits here any more.
    pub(super) fn give_up_attempts(&mut self) {
        let numbers: Vec<u64> = self.across.running.keys().copied().collect();
        for number in numbers {
            self.end_unanswered(number);
        }
        self.let_go_across();
    }

    /// Does what time has made due.
    pub(super) fn tick_across(&mut self, now: Now) -> Result<(), Trouble> {
        self.go_on_driving(now)?;
        self.ask_drivers(now);
        self.settle(now)?;
        self.sync_noted(now);
        self.give_up_waiting(now);
        self.ask_for_strangers(now);
        Ok(())
    }

    /// Nobody who waits here can be told an outcome. What is prepared or committed stays.
    pub(super) fn let_go_across(&mut self) {
        for ticket in self.across.parked.drain() {
            self.tell_later(ticket);
        }
        for (_, running) in std::mem::take(&mut self.across.running) {
            for ticket in running.tickets {
                self.tell_later(ticket);
            }
        }
        for ticket in self.across.strangers.drain() {
            self.tell_later(ticket);
        }
        self.across.by_operation.clear();
        self.across.unsynced.give_up();
    }

    /// The caller asks again, under the same operation id.
    pub(super) fn tell_later(&mut self, ticket: super::Ticket) {
        self.effects.push(Effect::Answer(ticket, Err(magma_common::error::FlareError::Unavailable.into())));
    }

    /// Says something that depends on nothing that could be lost.
    fn say(&mut self, to: Key, message: AcrossMessage) {
        self.effects.push(Effect::Across(to, message));
    }

    /// Says something when every copy has what it depends on.
    fn say_safely(&mut self, to: Key, message: AcrossMessage, need: Need) {
        let at = self.position().seq;
        self.gate.hold(Held::Message(to, message), need, at);
    }
}
