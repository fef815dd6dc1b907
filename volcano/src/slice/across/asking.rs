//! Asking other slices for facts of their flares, on behalf of an operation that is being planned.

use std::collections::{BTreeMap, BTreeSet};

use magma_common::key::Key;
use magma_common::proto::OpId;
use magma_common::topology::{SliceId, Topology};

use super::facts::{Facts, Want, Wanted};
use super::message::AcrossMessage;
use crate::slice::{Now, Slice, Trouble};
use crate::transaction::Attempt;

/// Flares in one question.
const WANTS_PER_MESSAGE: usize = 512;

/// Why flares are asked for: the operations that made the names that lead to each.
type Reasons = BTreeMap<Key, BTreeSet<OpId>>;

/// A question that was not answered.
struct Question {
    round: u32,
    wants: Vec<(Key, Want)>,
    because: Reasons,
}

/// The questions of an attempt that were not answered, each under a number of its own.
#[derive(Default)]
pub(super) struct Questions {
    open: Vec<Question>,
    rounds: u32,
}

impl Questions {
    /// Whether everything was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Nothing is asked any more.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    fn put(&mut self, wants: Vec<(Key, Want)>, because: Reasons) {
        self.rounds += 1;
        self.open.push(Question { round: self.rounds, wants, because });
    }

    /// Makes of each question one for each slice that it concerns, which may be more than when it was put: a slice that was divided
    /// meanwhile cannot answer for both halves.
    fn part(&mut self, topology: &Topology) {
        for question in std::mem::take(&mut self.open) {
            let mut by_slice: BTreeMap<Option<SliceId>, Vec<(Key, Want)>> = BTreeMap::new();
            for (key, want) in &question.wants {
                let slice = topology.slice_of(key).map(|slice| slice.id);
                by_slice.entry(slice).or_default().push((*key, want.clone()));
            }
            let parts: Vec<_> = by_slice.values().flat_map(|wants| wants.chunks(WANTS_PER_MESSAGE)).collect();
            if parts.len() == 1 {
                self.open.push(question);
                continue;
            }
            for wants in parts {
                self.put(wants.to_vec(), question.because.clone());
            }
        }
    }

    /// The question that this is the answer to is answered: why it was put. None if it is not open.
    fn answer(&mut self, round: u32) -> Option<Reasons> {
        let at = self.open.iter().position(|question| question.round == round)?;
        Some(self.open.swap_remove(at).because)
    }
}

impl Slice<'_> {
    /// Asks for what an attempt needs to know. What it has asked before does not count any more.
    pub(super) fn ask_facts(&mut self, now: Now, number: u64, wanted: Wanted) {
        let mut because = Reasons::new();
        let mut wants = Vec::with_capacity(wanted.flares.len());
        for (key, (want, made_by)) in wanted.flares {
            wants.push((key, want));
            because.insert(key, made_by);
        }
        let Some(running) = self.across.running.get_mut(&number) else { return };
        running.said = now.monotonic;
        running.questions.clear();
        running.questions.put(wants, because);
        self.say_questions(number);
    }

    /// What an attempt was told may have changed: it asks for all of that once more, at once.
    pub(super) fn look_again(&mut self, now: Now, number: u64) -> Result<(), Trouble> {
        let Some(running) = self.across.running.get_mut(&number) else { return Ok(()) };
        let flares: BTreeMap<_, _> = running.known.wants().collect();
        running.known.forget_flares();
        if flares.is_empty() {
            return self.drive(now, number);
        }
        self.note_own_flare(number)?;
        self.ask_facts(now, number, Wanted { flares, held: None });
        Ok(())
    }

    /// Says what an attempt has asked and was not answered, to whoever has the flares now.
    pub(super) fn say_questions(&mut self, number: u64) {
        let attempt = self.name(number);
        let (Some(attempt), Some(running)) = (attempt, self.across.running.get_mut(&number)) else { return };
        running.questions.part(self.topology);
        let open = running.questions.open.iter();
        let questions: Vec<_> = open.map(|question| (question.round, question.wants.clone())).collect();
        for (round, wants) in questions {
            if let Some((key, _)) = wants.first() {
                self.say(*key, AcrossMessage::Fetch { attempt, round, wants });
            }
        }
    }

    /// Facts have come.
    pub(super) fn hear_facts(
        &mut self,
        now: Now,
        attempt: Attempt,
        round: u32,
        facts: Vec<(Key, Option<Facts>)>,
    ) -> Result<(), Trouble> {
        let Some(number) = self.number_of(attempt) else { return Ok(()) };
        let Some(running) = self.across.running.get_mut(&number) else { return Ok(()) };
        let Some(because) = running.questions.answer(round) else { return Ok(()) };
        running.snapshot.note_answer();
        for (key, facts) in facts {
            let because = because.get(&key).cloned().unwrap_or_default();
            if !running.known.learn(key, facts, because) {
                running.snapshot.is_outdated();
            }
        }
        if !running.questions.is_empty() || self.confirm_snapshot(now, number)? {
            return Ok(());
        }
        self.drive(now, number)
    }
}
