//! After the commit: participants hear of it until they have carried out their steps, then everything goes to the disks, and is forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use magma_common::key::Key;

use super::SAY_AGAIN;
use super::message::AcrossMessage;
use crate::planted::{Bug, planted};
use crate::record::Change;
use crate::slice::gate::Need;
use crate::slice::{Held, Now, Slice, Trouble};
use crate::transaction::{Attempt, Transaction};

/// What was committed is brought to the disks after this time, all of it together.
const SECURE_AFTER: Duration = Duration::from_secs(1);
/// Whoever has applied a step and has not heard that it is settled asks after this time.
const ASK_AFTER: Duration = Duration::from_secs(10);
/// Rows that are forgotten in one record.
const FORGOTTEN_AT_ONCE: usize = 1024;

/// A step that was carried out, of a transaction that is not settled.
pub(super) struct Applied {
    pub(super) transaction: Transaction,
    asked: Duration,
}

impl Applied {
    pub(super) fn new(transaction: Transaction, now: Duration) -> Self {
        Self { transaction, asked: now }
    }

    /// Whether it is time to ask the driver again.
    pub(super) fn is_to_be_asked_about(&mut self, now: Duration) -> bool {
        let is_due = now.saturating_sub(self.asked) >= ASK_AFTER;
        if is_due {
            self.asked = now;
        }
        is_due
    }
}

/// A transaction that this slice has committed and that is not settled.
pub(super) struct Driven {
    pub(super) transaction: Transaction,
    since: Duration,
    said: Duration,
    /// Who has not said that its steps are carried out.
    unapplied: BTreeSet<Key>,
    /// Who has not said that they are on its disks.
    unsecured: BTreeSet<Key>,
    /// It is on the disks of this slice's copies.
    is_secured_here: bool,
}

impl Driven {
    pub(super) fn new(transaction: Transaction, now: Duration) -> Self {
        let keys: BTreeSet<Key> = transaction.participants.iter().map(|part| part.key).collect();
        Self {
            transaction,
            since: now,
            said: now,
            unapplied: keys.clone(),
            unsecured: keys,
            is_secured_here: false,
        }
    }

    fn is_settled(&self) -> bool {
        self.is_secured_here && self.unsecured.is_empty()
    }
}

impl Slice<'_> {
    /// A participant has carried out its steps.
    pub(super) fn hear_applied(&mut self, attempt: Attempt, key: Key, secured: bool) {
        if let Some(driven) = self.across.driven.get_mut(&attempt) {
            driven.unapplied.remove(&key);
            if secured {
                driven.unsecured.remove(&key);
            }
        }
    }

    /// All that was committed up to now is on the disks of this slice's copies.
    pub(in crate::slice) fn secured_here(&mut self, attempts: Vec<Attempt>) {
        for attempt in attempts {
            if let Some(driven) = self.across.driven.get_mut(&attempt) {
                driven.is_secured_here = true;
            }
        }
    }

    /// Tells a participant that the transaction has happened. One that destroys something because of an earlier record, a truncation, must
    /// not do that before both are on disk: after a loss of power the bytes would be gone, and the truncation, too.
    pub(super) fn say_commit(&mut self, transaction: Transaction, key: Key, secure: bool) {
        let need = if transaction.destroys() { Need::OnDisk(Vec::new()) } else { Need::Logged };
        let transaction = Box::new(transaction);
        self.say_safely(key, AcrossMessage::Commit { transaction, key, secure }, need);
    }

    /// A participant asks what became of an attempt.
    pub(super) fn answer_ask(&mut self, attempt: Attempt, key: Key, applied: bool) {
        if let Some(driven) = self.across.driven.get(&attempt) {
            let transaction = driven.transaction.clone();
            self.say_commit(transaction, key, false);
        } else if applied {
            self.say_settled(attempt, key);
        } else if self.number_of(attempt).is_none() || planted(Bug::GiveUpRunning) {
            self.say_safely(key, AcrossMessage::Dead { attempt, key }, Need::Logged);
        }
    }

    /// A participant may forget what is settled, when it is certain that the driver does not come back to it: one that loses power and then
    /// still has the transaction would have it done again wherever it is not known any more.
    fn say_settled(&mut self, attempt: Attempt, key: Key) {
        self.say_safely(key, AcrossMessage::Settled { attempt, key }, Need::OnDisk(Vec::new()));
    }

    /// Tells participants again what they have not answered, and forgets what is settled.
    pub(super) fn settle(&mut self, now: Now) -> Result<(), Trouble> {
        self.remind_participants(now);
        self.secure_here(now);
        let settled: Vec<Attempt> = self
            .across
            .driven
            .iter()
            .filter(|(_, driven)| driven.is_settled())
            .map(|(attempt, _)| *attempt)
            .collect();
        self.across.settled.extend(settled.into_iter().map(|attempt| (attempt.driver, attempt, true)));
        self.forget_settled(now)
    }

    fn remind_participants(&mut self, now: Now) {
        let mut messages = Vec::new();
        for driven in self.across.driven.values_mut() {
            let interval = if driven.unapplied.is_empty() { SECURE_AFTER } else { SAY_AGAIN };
            if now.monotonic.saturating_sub(driven.said) < interval {
                continue;
            }
            driven.said = now.monotonic;
            let (keys, secure) = if driven.unapplied.is_empty() {
                (&driven.unsecured, true)
            } else {
                (&driven.unapplied, false)
            };
            for key in keys {
                messages.push((driven.transaction.clone(), *key, secure));
            }
        }
        for (transaction, key, secure) in messages {
            self.say_commit(transaction, key, secure);
        }
    }

    fn secure_here(&mut self, now: Now) {
        if now.monotonic.saturating_sub(self.across.secured) < SECURE_AFTER {
            return;
        }
        let is_due = |driven: &&super::Driven| {
            !driven.is_secured_here && now.monotonic.saturating_sub(driven.since) >= SECURE_AFTER
        };
        let due: Vec<Attempt> =
            self.across.driven.values().filter(is_due).map(|driven| driven.transaction.attempt).collect();
        if due.is_empty() {
            return;
        }
        self.across.secured = now.monotonic;
        let at = self.position().seq;
        self.gate.hold(Held::Secured(due), Need::OnDisk(Vec::new()), at);
    }

    fn forget_settled(&mut self, now: Now) -> Result<(), Trouble> {
        if self.across.settled.is_empty() {
            return Ok(());
        }
        let forgotten: Vec<_> = self.across.settled.iter().take(FORGOTTEN_AT_ONCE).copied().collect();
        let delete = |(key, attempt, driven): &(Key, Attempt, bool)| Change::DeleteTransaction {
            key: *key,
            attempt: *attempt,
            driven: *driven,
        };
        // As long as that is refused, on a full disk, it is to be done.
        self.record(now, forgotten.iter().map(delete).collect(), None)?;
        for name in &forgotten {
            self.across.settled.remove(name);
        }
        for (_, attempt, _) in forgotten.into_iter().filter(|(.., driven)| *driven) {
            let Some(driven) = self.across.driven.remove(&attempt) else { continue };
            for part in driven.transaction.participants {
                self.say_settled(attempt, part.key);
            }
        }
        Ok(())
    }
}
