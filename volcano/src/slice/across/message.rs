//! What slices say to each other about operations across them. Messages may be lost, repeated and late; what needs an answer is said again.

use magma_common::error::FlareError;
use magma_common::key::{Key, KeyRange};
use magma_common::proto::SessionId;
use magma_common::topology::{Epoch, Position};
use serde::{Deserialize, Serialize};

use super::facts::{Facts, Want};
use crate::rows::SessionRow;
use crate::transaction::{Attempt, Transaction};

/// What a participant is asked to prepare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// With the steps of this participant only.
    pub transaction: Transaction,
    /// All flares that take part, the driver included; none as long as the driver does not know them all.
    pub parties: Vec<Key>,
}

/// A message to the slice of some flare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AcrossMessage {
    /// A driver asks for facts of flares of one slice.
    Fetch {
        /// For which attempt.
        attempt: Attempt,
        /// Counts the questions of an attempt.
        round: u32,
        /// What is wanted.
        wants: Vec<(Key, Want)>,
    },
    /// The answer to [`Fetch`](Self::Fetch).
    Told {
        /// For which attempt.
        attempt: Attempt,
        /// Which question this answers.
        round: u32,
        /// What there is: of each flare that was asked for; none if there is no such flare.
        facts: Vec<(Key, Option<Facts>)>,
    },
    /// A driver asks a participant to prepare its steps.
    Prepare(Box<Preparation>),
    /// A participant is prepared.
    Prepared {
        /// For which attempt.
        attempt: Attempt,
        /// Which participant.
        key: Key,
        /// What it is until the outcome is known, without entries; none if there is no such flare yet.
        facts: Option<Box<Facts>>,
    },
    /// A participant cannot be prepared, and will not be for this attempt.
    Unfit {
        /// For which attempt.
        attempt: Attempt,
        /// Which participant.
        key: Key,
        /// Why not.
        why: Objection,
    },
    /// The transaction has happened.
    Commit {
        /// All of it.
        transaction: Box<Transaction>,
        /// Which participant this is for.
        key: Key,
        /// Answer when it is on disk.
        secure: bool,
    },
    /// A participant has carried out its steps.
    Applied {
        /// Of which attempt.
        attempt: Attempt,
        /// Which participant.
        key: Key,
        /// At every copy this is on disk.
        secured: bool,
    },
    /// A participant asks the driver what has become of an attempt.
    Ask {
        /// Of which one.
        attempt: Attempt,
        /// Which participant asks.
        key: Key,
        /// It has carried out its steps.
        applied: bool,
    },
    /// The driver has not committed the attempt, and never will: who is prepared forgets it.
    Dead {
        /// Which one.
        attempt: Attempt,
        /// Which participant this is for.
        key: Key,
    },
    /// All of the transaction is on disk everywhere, and that the driver does not keep it any more is, too: who has applied it forgets it.
    Settled {
        /// Which one.
        attempt: Attempt,
        /// Which participant this is for.
        key: Key,
    },
    /// A slice that may have lost records asks another one for all transactions that concern it and are not settled.
    Recall {
        /// Where to answer.
        back: Key,
        /// Its keys.
        range: KeyRange,
        /// Its epoch.
        epoch: Epoch,
        /// It has heard of all up to this attempt.
        after: Option<Attempt>,
    },
    /// A part of the answer to [`Recall`](Self::Recall).
    Recalled {
        /// The range that was asked for.
        range: KeyRange,
        /// The epoch of the one who asked.
        epoch: Epoch,
        /// A key of the slice that answers.
        from: Key,
        /// As in the question.
        after: Option<Attempt>,
        /// Transactions that have happened, of the next attempts.
        transactions: Vec<Transaction>,
        /// Which records the slice that answers has: the first one of each epoch, and the last one.
        history: Vec<Position>,
        /// There are more.
        more: bool,
    },
    /// A slice asks the home slice whether there is a session.
    AskSession {
        /// Which one.
        session: SessionId,
        /// Where to answer.
        back: Key,
    },
    /// The home slice's answer.
    SessionIs {
        /// Which one.
        session: SessionId,
        /// What it is; none if it has ended, or never was.
        row: Option<SessionRow>,
    },
}

/// Why a participant cannot be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Objection {
    /// The flare is not any more what the driver saw.
    Changed,
    /// The key that the flare was to have is taken.
    KeyTaken,
    /// Another transaction holds the flare.
    Busy,
    /// The operation is not allowed.
    Refused(FlareError),
}
