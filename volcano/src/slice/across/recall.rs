//! A slice all of whose copies lost power may have lost records that other slices rely upon. Before it serves, it asks all of them for the
//! transactions that concern it and are not settled, and does again what it has lost of them.
//!
//! Every party of a transaction keeps all of it until it is on disk everywhere. So what any party still knows to have happened happens here as well, and
//! what only was prepared has not happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use magma_common::key::{Key, KeyRange};
use magma_common::topology::{Epoch, Position, SliceId};

use super::SAY_AGAIN;
use super::message::AcrossMessage;
use crate::planted::{Bug, planted};
use crate::record::Change;
use crate::slice::gate::Need;
use crate::slice::{Now, Slice, Trouble};
use crate::transaction::{Attempt, Part, Transaction, TransactionRow};

/// Transactions in one message, and bytes of files in them, about.
const PER_MESSAGE: usize = 128;
const BYTES_PER_MESSAGE: usize = 1 << 20;

/// What has been heard so far.
#[derive(Default)]
pub(super) struct Recall {
    asked: Option<Duration>,
    /// Up to which attempt each slice has told what it knows.
    heard: BTreeMap<SliceId, Heard>,
    transactions: BTreeMap<Attempt, Transaction>,
    /// What the driver itself has told, of which it has not settled anything.
    unsettled: BTreeSet<Attempt>,
    /// Which records each slice has.
    histories: BTreeMap<SliceId, Vec<Position>>,
}

/// How far another slice has told what it knows.
#[derive(Clone, Copy, Default)]
struct Heard {
    after: Option<Attempt>,
    is_all: bool,
}

impl Slice<'_> {
    /// Asks all other slices what they know; true if everything that was known has been done here, too.
    pub(in crate::slice) fn recall(&mut self, now: Now) -> Result<bool, Trouble> {
        let unheard = self.unheard();
        if unheard.is_empty() {
            self.do_again(now)?;
            self.across.recall = None;
            return Ok(true);
        }
        let recall = self.across.recall.get_or_insert_default();
        if recall.asked.is_none_or(|asked| now.monotonic.saturating_sub(asked) >= SAY_AGAIN) {
            recall.asked = Some(now.monotonic);
            let (range, epoch) = (self.range(), *self.reign);
            for (slice, to) in unheard {
                let heard = self.across.recall.as_ref().and_then(|recall| recall.heard.get(&slice));
                let after = heard.and_then(|heard| heard.after);
                self.say(to, AcrossMessage::Recall { back: range.first_key(), range, epoch, after });
            }
        }
        Ok(false)
    }

    /// The slices that have not told everything yet.
    pub(in crate::slice) fn unheard(&self) -> Vec<(SliceId, Key)> {
        let heard = self.across.recall.as_ref().map(|recall| &recall.heard);
        let is_heard = |id: &SliceId| heard.and_then(|heard| heard.get(id)).is_some_and(|heard| heard.is_all);
        let others = self.topology.slices.iter().filter(|slice| slice.id != self.identity.slice);
        others.filter(|slice| !is_heard(&slice.id)).map(|slice| (slice.id, slice.range.first_key())).collect()
    }

    /// Another slice may have lost records. Whatever it had prepared for attempts of this slice does not count any more.
    pub(super) fn answer_recall(
        &mut self,
        now: Now,
        back: Key,
        (range, epoch): (KeyRange, Epoch),
        after: Option<Attempt>,
    ) -> Result<(), Trouble> {
        if !self.is_level() {
            return Ok(());
        }
        self.break_off(now, range)?;
        let applied = self.across.applied.values().map(|applied| &applied.transaction);
        let driven = self.across.driven.values().map(|driven| &driven.transaction);
        let concerns = |transaction: &&Transaction| {
            transaction.participants.iter().chain(&transaction.own).any(|part| range.contains(&part.key))
        };
        let is_next = |transaction: &&Transaction| after.is_none_or(|after| transaction.attempt > after);
        // A part of it may be here still, and has not heard so. Whoever were told would take it for what the driver has not settled.
        let own = self.own_history();
        let is_open = |transaction: &&Transaction| !self.has_settled(transaction, &own);
        let known = applied.chain(driven).filter(concerns).filter(is_next).filter(is_open);
        let known = known.map(|transaction| (transaction.attempt, transaction)).collect();
        let (transactions, more) = some_of(known);
        // Whoever hears of one that destroys something does that.
        let destroys = transactions.iter().any(Transaction::destroys);
        let need = if destroys { Need::OnDisk(Vec::new()) } else { Need::Logged };
        let (from, history) = (self.range().first_key(), own);
        let recalled = AcrossMessage::Recalled { range, epoch, from, after, transactions, history, more };
        self.say_safely(back, recalled, need);
        Ok(())
    }

    /// Another slice says what it knows.
    pub(super) fn hear_recalled(
        &mut self,
        asked: (KeyRange, Epoch),
        (from, after): (Key, Option<Attempt>),
        (transactions, history): (Vec<Transaction>, Vec<Position>),
        more: bool,
    ) {
        if asked != (self.range(), *self.reign) {
            return;
        }
        let Some(slice) = self.topology.slice_of(&from).map(|slice| slice.id) else { return };
        let Some(recall) = &mut self.across.recall else { return };
        let heard = recall.heard.entry(slice).or_default();
        if heard.is_all || heard.after != after {
            return;
        }
        let last = transactions.last().map(|transaction| transaction.attempt);
        *heard = Heard { after: last.or(after), is_all: !more };
        if more {
            // It is asked for the rest at once.
            recall.asked = None;
        }
        recall.histories.insert(slice, history);
        for transaction in transactions {
            let driver = self.topology.slice_of(&transaction.attempt.driver).map(|slice| slice.id);
            if driver == Some(slice) {
                recall.unsettled.insert(transaction.attempt);
            }
            recall.transactions.insert(transaction.attempt, transaction);
        }
    }

    /// Does again what was lost here, in the order in which it happened.
    fn do_again(&mut self, now: Now) -> Result<(), Trouble> {
        let Some(recall) = self.across.recall.take() else { return Ok(()) };
        let mut transactions: Vec<_> = recall
            .transactions
            .values()
            .filter(|transaction| !self.is_settled(&recall, transaction))
            .cloned()
            .collect();
        transactions.sort_by_key(|transaction| (transaction.time, transaction.attempt));
        let range = self.range();
        let mut count = 0_usize;
        for transaction in transactions {
            let attempt = transaction.attempt;
            let is_driver = transaction.outcome.is_some() && range.contains(&attempt.driver);
            if is_driver && !self.across.driven.contains_key(&attempt) {
                self.commit_again(now, &transaction)?;
                count += 1;
            }
            for part in transaction.participants.iter().filter(|part| range.contains(&part.key)) {
                if !self.across.applied.contains_key(&(part.key, attempt)) {
                    self.carry_out(now, &transaction, part.key, Part::Applied)?;
                    count += 1;
                }
            }
        }
        if count > 0 {
            tracing::warn!(
                target: "magma::volcano", slice = self.identity.slice.0, count,
                "other slices knew of operations that were lost here; they are done again"
            );
        }
        Ok(())
    }

    /// Which records this slice has: the first one of each epoch, and the last one.
    fn own_history(&self) -> Vec<Position> {
        let mut history = self.store.history(self.identity.slice);
        history.push(self.position());
        history
    }

    /// Whether this slice has driven a transaction and settled it: it has the record that committed it, and keeps it no more.
    fn has_settled(&self, transaction: &Transaction, own_history: &[Position]) -> bool {
        let attempt = &transaction.attempt;
        self.range().contains(&attempt.driver)
            && !self.across.driven.contains_key(attempt)
            && has(own_history, transaction.committed)
    }

    /// Whether a transaction that a participant still knows of has been settled by its driver. What was done since then must not be
    /// undone by doing it again.
    fn is_settled(&self, recall: &Recall, transaction: &Transaction) -> bool {
        let attempt = transaction.attempt;
        if planted(Bug::DoSettledAgain) {
            return false;
        }
        if self.range().contains(&attempt.driver) {
            return self.has_settled(transaction, &self.own_history());
        }
        let driver = self.topology.slice_of(&attempt.driver).map(|slice| slice.id);
        let history = driver.and_then(|driver| recall.histories.get(&driver));
        !recall.unsettled.contains(&attempt)
            && history.is_some_and(|history| has(history, transaction.committed))
    }

    /// The driver's own part, with the answer for whoever still asks.
    fn commit_again(&mut self, now: Now, transaction: &Transaction) -> Result<(), Trouble> {
        let transaction = &Transaction { committed: self.next_position(now), ..transaction.clone() };
        let mut planned = self.plan_parts(now, transaction, &transaction.own)?;
        let row = TransactionRow {
            key: transaction.attempt.driver,
            part: Part::Driven,
            transaction: transaction.clone(),
        };
        planned.changes.push(Change::PutTransaction(Box::new(row.clone())));
        self.record_planned(now, planned, transaction.outcome.clone())?;
        self.across.take_row(row, now.monotonic);
        Ok(())
    }
}

/// The first of what is to be told, as much as goes into one message; and whether there is more.
fn some_of(known: BTreeMap<Attempt, &Transaction>) -> (Vec<Transaction>, bool) {
    let (mut some, mut bytes) = (Vec::new(), 0);
    for transaction in known.into_values() {
        bytes += transaction.bytes();
        if some.len() >= PER_MESSAGE || (!some.is_empty() && bytes > BYTES_PER_MESSAGE) {
            return (some, true);
        }
        some.push(transaction.clone());
    }
    (some, false)
}

/// Whether a record is part of a history that consists of the first record of each epoch, and the last one. What is older than it tells is.
fn has(history: &[Position], record: Position) -> bool {
    let Some(last) = history.last() else { return false };
    let begun = history.iter().rev().find(|first| first.seq <= record.seq);
    record.seq <= last.seq && begun.is_none_or(|first| first.epoch == record.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::handle::{BirthNumber, Handle};
    use magma_common::proto::OpId;
    use magma_common::time::Timestamp;
    use magma_common::topology::Seq;

    use crate::transaction::{Participant, Step};

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch: Epoch(epoch), seq: Seq(seq) }
    }

    /// A transaction with so many bytes.
    fn transaction(number: u64, bytes: usize) -> Transaction {
        let key = Key::from_bytes([7; 20]);
        let stripe = Handle { key, birth: BirthNumber(number) };
        let (data, body) = (vec![0; bytes].into(), crate::rows::BodyId(1));
        let fill = Step::Fill { stripe, offset: 0, data, body, stable: false };
        let participant = Participant { key, seen: None, steps: vec![fill] };
        Transaction {
            attempt: Attempt { driver: key, reign: Epoch(1), number },
            op: OpId::Call(number.into()),
            time: Timestamp::default(),
            own: Vec::new(),
            participants: vec![participant],
            outcome: None,
            committed: Position::default(),
        }
    }

    #[test]
    fn one_message_does_not_tell_too_much() {
        let told = |bytes: usize, count: u64| {
            let all: Vec<Transaction> = (0..count).map(|number| transaction(number, bytes)).collect();
            let (some, more) = some_of(all.iter().map(|one| (one.attempt, one)).collect());
            assert!(some.iter().eq(all.iter().take(some.len())), "in the order of attempts");
            (some.len(), more)
        };
        assert_eq!(told(0, 0), (0, false));
        assert_eq!(told(0, 128), (128, false));
        assert_eq!(told(0, 129), (128, true));
        assert_eq!(told(BYTES_PER_MESSAGE / 2, 5), (2, true));
        assert_eq!(told(BYTES_PER_MESSAGE * 2, 1), (1, false));
        assert_eq!(told(BYTES_PER_MESSAGE * 2, 2), (1, true));
    }

    #[test]
    fn a_history_has_the_records_up_to_its_last_one_under_their_epochs() {
        let history = [at(3, 10), at(5, 20), at(5, 25)];
        let all =
            [(3, 12, true), (5, 25, true), (2, 9, true), (3, 21, false), (5, 26, false), (5, 12, false)];
        for (epoch, seq, there) in all {
            assert_eq!(has(&history, at(epoch, seq)), there, "{epoch} {seq}");
        }
        assert!(!has(&[], at(1, 1)));
    }
}
