//! The same tree once more, cut into slices: whatever is done in one slice is done here across them, and must come to the same.

use bytes::Bytes;
use magma_common::handle::Handle;
use magma_common::key::{Ino, Key, KeyRange};
use magma_common::proto::{Reply, Request};
use magma_common::time::Timestamp;

use super::world::{OpenTable, next_random};
use crate::namespace::memory::Memory;
use crate::namespace::{Caller, Moment, Plan, Planned, Stop, Unfit, carry_out, check, execute};
use crate::rows::FlareRow;
use crate::slice::across::facts::{Facts, Known};
use crate::slice::across::view::{AcrossView, Holding};
use crate::transaction::Participant;

/// Slices of the keyspace.
const SLICES: u64 = 16;
/// Times that an operation is planned at most.
const TRIES: usize = 100;

/// No transaction holds anything.
struct Nothing;

impl Holding for Nothing {
    fn holds(&self, _: &Key) -> bool {
        false
    }

    fn reserves(&self, _: Ino) -> bool {
        false
    }
}

pub(super) struct Split {
    memory: Memory,
    /// Operations that concerned several slices.
    pub(super) across: usize,
}

impl Split {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { memory: Memory::new(now), across: 0 }
    }

    /// Takes over what a test has set by hand.
    fn follow(&mut self, other: &Memory) {
        self.memory.available = other.available;
        self.memory.damaged = other.damaged;
        self.memory.broken = other.broken;
        self.memory.locks.clone_from(&other.locks);
    }

    /// Steps that are no request.
    pub(super) fn plan<T>(
        &mut self,
        other: &Memory,
        opens: &OpenTable,
        moment: Moment,
        mut random: u64,
        steps: &impl Fn(&mut Plan<'_>) -> Result<T, Stop>,
    ) {
        self.follow(other);
        let mut next = || next_random(&mut random);
        let mut plan = Plan::new(&self.memory, opens, moment, &mut next);
        if steps(&mut plan).is_ok() {
            let planned = plan.finish();
            self.memory.apply(planned);
        }
    }

    /// A request, driven by the slice that it is routed to.
    pub(super) fn perform(
        &mut self,
        other: &Memory,
        opens: &OpenTable,
        moment: Moment,
        random: u64,
        caller: &Caller<'_>,
        request: &Request,
        payload: &Bytes,
    ) -> Result<(Reply, Bytes), Stop> {
        self.follow(other);
        let driver = range_of(&request.key().unwrap_or(Handle::root().key));
        let mut known = Known::default();
        for _ in 0..TRIES {
            let view = AcrossView::new(&self.memory, driver, &Nothing, &known);
            let mut replayed = random;
            let mut next = || next_random(&mut replayed);
            let mut plan = Plan::new(&view, opens, moment, &mut next);
            let done = execute(&mut plan, caller, request, payload);
            let planned = if done.is_ok() { plan.finish() } else { Planned::default() };
            let wanted = view.into_wanted();
            if matches!(done, Err(Stop::Elsewhere)) {
                assert!(!wanted.flares.is_empty(), "what is wanted is said");
                for (key, (want, because)) in wanted.flares {
                    let facts = self.at(&key, opens, moment, |plan| Facts::gather(plan, &key, &want))?.0;
                    known.learn(key, facts, because);
                }
                continue;
            }
            let reply = done?;
            match self.commit(&known, opens, moment, planned) {
                Ok(()) => return Ok(reply),
                Err(Refused::KeyTaken(key)) => known.learn_taken(key),
                Err(Refused::Finally(stop)) => return Err(stop),
            }
        }
        panic!("{request:?} does not come to an end");
    }

    fn commit(
        &mut self,
        known: &Known,
        opens: &OpenTable,
        moment: Moment,
        planned: Planned,
    ) -> Result<(), Refused> {
        let parts: Vec<Participant> = planned
            .elsewhere
            .iter()
            .map(|(key, steps)| Participant { key: *key, seen: known.seen(key), steps: steps.clone() })
            .collect();
        for part in &parts {
            let checked =
                self.at(&part.key, opens, moment, |plan| check(plan, part)).map_err(Refused::Finally)?.0;
            match checked {
                Ok(()) => {}
                Err(Unfit::KeyTaken) => return Err(Refused::KeyTaken(part.key)),
                Err(Unfit::Changed) => panic!("nothing changes meanwhile: {part:?}"),
                Err(Unfit::Refused(error)) => return Err(Refused::Finally(error.into())),
            }
        }
        self.across += usize::from(!parts.is_empty());
        self.memory.apply(planned);
        // Twice: what is done already stays as it is.
        for part in parts.iter().chain(&parts) {
            let steps =
                |plan: &mut Plan<'_>| part.steps.iter().try_for_each(|step| carry_out(plan, &part.key, step));
            let ((), planned) = self.at(&part.key, opens, moment, steps).map_err(Refused::Finally)?;
            self.memory.apply(planned);
        }
        Ok(())
    }

    /// Plans something in the slice of this flare.
    fn at<T>(
        &self,
        key: &Key,
        opens: &OpenTable,
        moment: Moment,
        steps: impl FnOnce(&mut Plan<'_>) -> Result<T, Stop>,
    ) -> Result<(T, Planned), Stop> {
        let known = Known::default();
        let view = AcrossView::new(&self.memory, range_of(key), &Nothing, &known);
        let mut next = || unreachable!("steps draw no numbers");
        let mut plan = Plan::new(&view, opens, moment, &mut next);
        let done = steps(&mut plan)?;
        Ok((done, plan.finish()))
    }

    /// Both trees are the same, except for who changed a flare last.
    pub(super) fn compare(&self, whole: &Memory) {
        let rows = |memory: &Memory| -> Vec<FlareRow> {
            memory.flares.values().map(|row| FlareRow { change: 0, ..row.clone() }).collect()
        };
        assert_eq!(rows(whole), rows(&self.memory), "flares");
        assert_eq!(filled(&whole.entries), filled(&self.memory.entries), "entries");
        assert_eq!(whole.inline, self.memory.inline, "small bodies");
        assert_eq!(filled(&whole.xattrs), filled(&self.memory.xattrs), "extended attributes");
        assert_eq!(whole.locks, self.memory.locks, "locks");
        assert_eq!(whole.bodies, self.memory.bodies, "bodies");
    }
}

enum Refused {
    KeyTaken(Key),
    Finally(Stop),
}

fn filled<K: Ord + Copy, N: Ord + Clone, V: Clone>(
    rows: &std::collections::BTreeMap<K, std::collections::BTreeMap<N, V>>,
) -> std::collections::BTreeMap<K, std::collections::BTreeMap<N, V>> {
    rows.iter().filter(|(_, rows)| !rows.is_empty()).map(|(key, rows)| (*key, rows.clone())).collect()
}

fn range_of(key: &Key) -> KeyRange {
    let width = u64::MAX / SLICES + 1;
    let start = key.ino().0 / width * width;
    KeyRange::new(Ino(start), Ino(start + (width - 1))).unwrap()
}

/// Both came to the same, except for who changed a flare last and the numbers of refusals.
pub(super) fn compare(
    request: &Request,
    whole: &Result<(Reply, Bytes), Stop>,
    split: &Result<(Reply, Bytes), Stop>,
) {
    match (whole, split) {
        (Ok((whole, data)), Ok((split, split_data))) => {
            assert_eq!(without_changes(whole), without_changes(split), "{request:?}");
            assert_eq!(data, split_data, "{request:?}");
        }
        (Err(Stop::Failure(whole)), Err(Stop::Failure(split))) => {
            assert_eq!(whole.error, split.error, "{request:?}");
        }
        (Err(Stop::Store(_)), Err(Stop::Store(_))) => {}
        other => panic!("{request:?} comes to something else across slices: {other:?}"),
    }
}

/// A reply's text without the numbers of records.
fn without_changes(reply: &Reply) -> String {
    let text = format!("{reply:?}");
    let mut parts = text.split("change: ");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    clean
}
