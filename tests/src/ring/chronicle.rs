//! The records that primaries have made, of all slices, in the order in which they were made, and when what was lost.
//!
//! This order is one in which the operations can have happened: an operation happens when its driver's record is made, and whoever
//! would see a part of it elsewhere waits until it is there.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use magma_common::handle::Handle;
use magma_common::key::KeyRange;
use magma_common::proto::{OpId, Operation as _, SessionId, operation};
use magma_common::topology::{Epoch, SliceId};
use magma_volcano::record::{Change, Record};
use magma_volcano::rows::{Head, Striping};
use magma_volcano::transaction::{Attempt, Part};

use super::clock::Time;
use super::history::{Violation, violation};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is part of its slice's history.
    Kept,
    /// It was lost before anybody could have heard of it.
    Unheard,
    /// It was lost with all power of its slice: in this one of the cuts.
    Cut(usize),
}

/// A record that a primary has made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Of which slice.
    pub slice: SliceId,
    /// Which keys that had.
    pub range: KeyRange,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Its place in its slice's history.
    pub seq: u64,
    /// The operation that made it.
    pub id: Option<OpId>,
    /// The reply to that.
    pub reply: Option<(u16, Bytes)>,
    /// The attempt that it commits.
    attempt: Option<Attempt>,
    /// Sessions that it ends.
    pub ended: Vec<SessionId>,
    /// Stripes that a file has more by it, with their numbers.
    pub gained: Option<(Handle, Vec<(u64, Handle)>)>,
    /// What a striped file has shed in the background.
    pub shed: Option<Shed>,
    /// When it was made.
    pub made: Time,
    /// What became of it.
    pub fate: Fate,
}

impl Made {
    /// With which of the cuts it was lost, if it was; none if nobody can have heard of it.
    pub fn loss(&self) -> Option<Option<usize>> {
        match self.fate {
            Fate::Unheard => None,
            Fate::Cut(cut) => Some(Some(cut)),
            Fate::Kept => Some(None),
        }
    }
}

/// A striped file has shed something that it did not need any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    /// The file.
    pub head: Handle,
    /// The numbers of stripes that it has lost.
    pub lost: Vec<u64>,
    /// The numbers of those whose ends are still to be cleared.
    pub trimmed: Vec<u64>,
}

/// A slice has lost what was not on disk.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Which keys the slice had.
    pub range: KeyRange,
    /// When its history goes on.
    pub time: Time,
    /// Since when nobody could serve it.
    pub dark: Time,
    /// How many records had been made, of all slices.
    pub before: usize,
    /// What was written last and was not on disk.
    pub unsynced: Vec<(Handle, Range<usize>)>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Chronicle {
    /// All records.
    pub made: Vec<Made>,
    /// All losses.
    pub cuts: Vec<Cut>,
    by_id: BTreeMap<OpId, usize>,
    by_attempt: BTreeMap<Attempt, usize>,
}

impl Chronicle {
    /// A primary has made a record: its number here.
    pub fn note(&mut self, now: Time, range: KeyRange, record: &Record) -> Result<usize, Violation> {
        let ended = record.changes.iter().filter_map(|change| match change {
            Change::EndSession(session) => Some(*session),
            _ => None,
        });
        let attempt = record.changes.iter().find_map(|change| match change {
            Change::PutTransaction(row) if row.part == Part::Driven => Some(row.transaction.attempt),
            _ => None,
        });
        let made = Made {
            slice: record.slice,
            range,
            epoch: record.epoch,
            seq: record.seq.0,
            id: record.outcome.as_ref().map(|outcome| outcome.id),
            reply: record.outcome.as_ref().map(|outcome| (outcome.opcode, outcome.reply.clone())),
            attempt,
            ended: ended.collect(),
            gained: gained(record),
            shed: shed(record),
            made: now,
            fate: Fate::Kept,
        };
        let number = self.place_of(made);
        let made = &self.made[number];
        if let Some(id) = made.id
            && let Some(first) = self.by_id.insert(id, number)
        {
            let first = &self.made[first];
            return violation(format!(
                "exactly once: {id:?} is done by record {} of slice {} and again by record {} of slice {}",
                first.seq, first.slice.0, made.seq, made.slice.0
            ));
        }
        Ok(number)
    }

    /// A transaction that its driver has lost, and was told of by the other slices, has the place that it had: it was done all the time.
    fn place_of(&mut self, made: Made) -> usize {
        let again = made.attempt.and_then(|attempt| self.by_attempt.get(&attempt)).copied();
        if let Some(number) = again.filter(|number| matches!(self.made[*number].fate, Fate::Cut(_))) {
            let first = &mut self.made[number];
            (first.epoch, first.seq, first.fate) = (made.epoch, made.seq, Fate::Kept);
            return number;
        }
        let number = self.made.len();
        self.by_attempt.extend(made.attempt.map(|attempt| (attempt, number)));
        self.made.push(made);
        number
    }

    /// This record is lost.
    pub fn lose(&mut self, number: usize, fate: Fate) {
        self.made[number].fate = fate;
        if let Some(id) = self.made[number].id {
            self.by_id.remove(&id);
        }
    }

    /// A slice has lost what was not on disk; the number of the cut.
    pub fn cut(
        &mut self,
        range: KeyRange,
        (dark, time): (Time, Time),
        unsynced: Vec<(Handle, Range<usize>)>,
    ) -> usize {
        self.cuts.push(Cut { range, time, dark, before: self.made.len(), unsynced });
        self.cuts.len() - 1
    }

    /// All stripes that a file ever had under this number.
    pub fn stripes_of(&self, head: Handle, number: u64) -> impl Iterator<Item = Handle> {
        let gained = self.made.iter().filter_map(|made| made.gained.as_ref());
        let gained = gained.filter(move |(of, _)| *of == head).flat_map(|(_, stripes)| stripes);
        gained.filter(move |(of, _)| *of == number).map(|(_, stripe)| *stripe)
    }

    /// The record of this operation, if there is one.
    pub fn of(&self, id: OpId) -> Option<&Made> {
        self.by_id.get(&id).map(|number| &self.made[*number])
    }
}

/// The head of a striped file whose row a record changes.
fn head(record: &Record) -> Option<(Handle, &Head)> {
    record.changes.iter().find_map(|change| match change {
        Change::PutFlare(row) => match &row.striping {
            Striping::Head(head) => Some((row.handle, &**head)),
            Striping::Whole | Striping::Stripe { .. } => None,
        },
        _ => None,
    })
}

fn gained(record: &Record) -> Option<(Handle, Vec<(u64, Handle)>)> {
    let (head, _) = head(record)?;
    let stripe = |change: &Change| match change {
        Change::PutEntry { dir, entry } if *dir == head.key => Some((entry.cookie, entry.child)),
        _ => None,
    };
    let stripes: Vec<_> = record.changes.iter().filter_map(stripe).collect();
    (!stripes.is_empty()).then_some((head, stripes))
}

/// What a record of `Shed` does to a file that stays.
fn shed(record: &Record) -> Option<Shed> {
    record.outcome.as_ref().filter(|outcome| outcome.opcode == operation::Shed::OPCODE)?;
    let (head, row) = head(record)?;
    let number = |change: &Change| match change {
        Change::DeleteEntry { dir, name } if *dir == head.key => name.to_string().parse().ok(),
        _ => None,
    };
    let lost = record.changes.iter().filter_map(number).collect();
    Some(Shed { head, lost, trimmed: row.trims.iter().map(|trim| trim.number).collect() })
}
