//! Who waits for a flare that a transaction holds.

use std::collections::BTreeMap;
use std::time::Duration;

use magma_common::key::Key;

use super::facts::Want;
use super::message::{AcrossMessage, Objection, Preparation};
use crate::slice::{Call, Now, Slice, Ticket};
use crate::transaction::Attempt;

/// How long a step waits to be prepared while another transaction holds its flare.
const PREPARE_PATIENCE: Duration = Duration::from_millis(100);
/// Most that wait, over all flares.
const MAX_PARKED: usize = 16_384;

/// What waits.
pub(super) enum Waiting {
    /// A client's request.
    Call(Ticket, Box<Call>),
    /// An attempt of this slice that has nothing prepared anywhere.
    Running(u64),
    /// Another slice's question.
    Fetch(Attempt, u32, Vec<(Key, Want)>),
    /// A step.
    Prepare(Box<Preparation>, Duration),
}

impl Waiting {
    /// Whether this is the same thing said again.
    fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fetch(attempt, round, _), Self::Fetch(other, other_round, _)) => {
                attempt == other && round == other_round
            }
            (Self::Prepare(step, _), Self::Prepare(other, _)) => {
                step.transaction.attempt == other.transaction.attempt
            }
            _ => false,
        }
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Parked {
    by_flare: BTreeMap<Key, Vec<Waiting>>,
    count: usize,
}

impl Parked {
    /// Lets something wait; gives it back if too much waits.
    fn park(&mut self, key: Key, waiting: Waiting) -> Result<(), Waiting> {
        let there = self.by_flare.entry(key).or_default();
        if there.iter().any(|other| other.repeats(&waiting)) {
            return Ok(());
        }
        if self.count >= MAX_PARKED {
            return Err(waiting);
        }
        self.count += 1;
        there.push(waiting);
        Ok(())
    }

    fn take(&mut self, key: &Key) -> Vec<Waiting> {
        let taken = self.by_flare.remove(key).unwrap_or_default();
        self.count -= taken.len();
        taken
    }

    /// Steps that have waited for too long.
    fn expired(&mut self, now: Duration) -> Vec<Preparation> {
        let mut expired = Vec::new();
        self.by_flare.retain(|_, waiting| {
            waiting.retain(|waiting| match waiting {
                Waiting::Prepare(preparation, until) if *until <= now => {
                    expired.push((**preparation).clone());
                    false
                }
                _ => true,
            });
            !waiting.is_empty()
        });
        self.count -= expired.len();
        expired
    }

    /// The request of this ticket waits no more: whether it did.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> bool {
        let before = self.count;
        for waiting in self.by_flare.values_mut() {
            let there = waiting.len();
            waiting.retain(|waiting| !matches!(waiting, Waiting::Call(other, _) if *other == ticket));
            self.count -= there - waiting.len();
        }
        self.count != before
    }

    /// Nothing waits any more; whose requests did.
    pub(super) fn drain(&mut self) -> Vec<Ticket> {
        let all = std::mem::take(self).by_flare.into_values().flatten();
        let ticket = |waiting| if let Waiting::Call(ticket, _) = waiting { Some(ticket) } else { None };
        all.filter_map(ticket).collect()
    }
}

impl Slice<'_> {
    /// Lets a request wait until nobody holds the flare.
    pub(in crate::slice) fn park_call(&mut self, key: Key, ticket: Ticket, call: Call) {
        self.park(key, Waiting::Call(ticket, Box::new(call)));
    }

    /// Lets a step wait a little until nobody holds the flare.
    pub(super) fn park_step(&mut self, now: Now, key: Key, preparation: Preparation) {
        let until = now.monotonic.saturating_add(PREPARE_PATIENCE);
        self.park(key, Waiting::Prepare(Box::new(preparation), until));
    }

    pub(super) fn park(&mut self, key: Key, waiting: Waiting) {
        if let Err(refused) = self.across.parked.park(key, waiting) {
            match refused {
                Waiting::Call(ticket, _) => self.tell_later(ticket),
                Waiting::Running(number) => self.end_unanswered(number),
                // It will be said again.
                Waiting::Fetch(..) | Waiting::Prepare(..) => {}
            }
        }
    }

    /// Nobody holds the flare any more: whoever waited for it tries again.
    pub(super) fn wake_parked(&mut self, now: Now, key: &Key) {
        for waiting in self.across.parked.take(key) {
            let done = match waiting {
                Waiting::Call(ticket, call) => {
                    let served = self.serve_flare(now, &call);
                    self.conclude(now, ticket, *call, served);
                    Ok(())
                }
                Waiting::Running(number) => self.drive(now, number),
                Waiting::Fetch(attempt, round, wants) => self.tell_facts(now, attempt, round, wants),
                Waiting::Prepare(preparation, _) => self.prepare(now, *preparation),
            };
            if let Err(trouble) = done {
                self.trouble(trouble);
            }
        }
    }

    /// Steps are not prepared after too long a wait: their drivers give up what they have prepared elsewhere, so that no two wait for each other.
    pub(super) fn give_up_waiting(&mut self, now: Now) {
        for Preparation { transaction, .. } in self.across.parked.expired(now.monotonic) {
            let attempt = transaction.attempt;
            for part in &transaction.participants {
                let unfit = AcrossMessage::Unfit { attempt, key: part.key, why: Objection::Busy };
                self.say(attempt.driver, unfit);
            }
        }
    }
}
