//! An operation that changes nothing elsewhere, and rests on what was told of flares there, is answered with what was true at one moment.
//!
//! Nothing is held for it. What a slice told was true at some moment between the question and the answer to it. If the driver's own flare is still what it was
//! when it was asked, all of it was true together then. If not, or if there were several questions, which were answered at different moments, the outcome is kept and the question asked once more: if it is answered as
//! before, all was true together when the outcome was planned. Otherwise the operation is planned anew on the new answer.
//!
//! A listing with the attributes of what it lists is not asked for twice: nobody takes these for attributes of one moment.

use std::collections::BTreeMap;

use magma_common::proto::Request;

use super::facts::Wanted;
use crate::namespace::Planned;
use crate::rows::FlareRow;
use crate::slice::gate::Need;
use crate::slice::{Answer, Now, Slice, Trouble};
use crate::view::View;

/// What an operation has to compare.
#[derive(Default)]
pub(super) struct Snapshot {
    /// The driver's own flare when facts were asked for: none if none were, or if there was no such flare.
    own: Option<FlareRow>,
    /// How many questions were answered since then, each at a moment of its own.
    answers: u32,
    /// The outcome, if it is to be confirmed by the same facts.
    outcome: Option<Answer>,
}

impl Snapshot {
    /// A question was answered.
    pub(super) fn note_answer(&mut self) {
        self.answers += 1;
    }

    /// Facts have come that are not what they were.
    pub(super) fn is_outdated(&mut self) {
        self.outcome = None;
    }
}

impl Slice<'_> {
    /// The flare of the directory that drives an operation, as it is now.
    fn own_flare(&self, number: u64) -> Result<Option<FlareRow>, Trouble> {
        match self.name(number) {
            Some(attempt) => Ok(self.store.flare(&attempt.driver)?),
            None => Ok(None),
        }
    }

    /// Facts are about to be asked for.
    pub(super) fn note_own_flare(&mut self, number: u64) -> Result<(), Trouble> {
        let own = self.own_flare(number)?;
        if let Some(running) = self.across.running.get_mut(&number)
            && running.known.is_empty()
        {
            running.snapshot = Snapshot { own, answers: 0, outcome: None };
        }
        Ok(())
    }

    /// An outcome was planned that changes nothing: it is answered if it was true at one moment, which may have to be found out.
    pub(super) fn answer_snapshot(&mut self, now: Now, number: u64, outcome: Answer) -> Result<(), Trouble> {
        let own = self.own_flare(number)?;
        let Some(running) = self.across.running.get_mut(&number) else { return Ok(()) };
        let is_of_one_moment =
            running.snapshot.answers <= 1 || matches!(running.call.request, Request::Readdir(_));
        let is_certain = running.known.is_empty()
            || !running.asked.is_empty()
            || (is_of_one_moment && running.snapshot.own == own);
        if is_certain {
            return self.answer_outcome(now, number, outcome);
        }
        let flares: BTreeMap<_, _> = running.known.wants().collect();
        running.snapshot = Snapshot { own, answers: 0, outcome: Some(outcome) };
        self.ask_facts(now, number, Wanted { flares, held: None });
        Ok(())
    }

    /// All questions are answered: an outcome that has been confirmed goes out. Whether there was one.
    pub(super) fn confirm_snapshot(&mut self, now: Now, number: u64) -> Result<bool, Trouble> {
        let running = self.across.running.get_mut(&number);
        let Some(outcome) = running.and_then(|running| running.snapshot.outcome.take()) else {
            return Ok(false);
        };
        self.answer_outcome(now, number, outcome)?;
        Ok(true)
    }

    fn answer_outcome(&mut self, now: Now, number: u64, outcome: Answer) -> Result<(), Trouble> {
        match outcome {
            Ok(reply) => self.finish_here(now, number, Planned::default(), reply),
            Err(failure) => {
                if let Some(running) = self.across.running.get(&number) {
                    let call = running.call.clone();
                    self.keep_refusal(now, &call, failure.error);
                }
                self.end(number, &Err(failure), &Need::Logged);
                Ok(())
            }
        }
    }
}
