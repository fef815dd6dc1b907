//! Whether clients could have been served by one namespace that does one thing at a time (Wing and Gong's search, with Lowe's
//! memory of dead ends).
//!
//! The whole namespace is one object: a rename touches two names. Whatever a client heard counts, errors and reads too. What it
//! did not hear may have been done if a record of it was ever made. The order of the records is tried first, which makes the search
//! fast; it proves nothing.
//!
//! When all power of a slice is lost, so may be what was done last in it, with all that its operations did elsewhere. Then the namespace
//! is what the records make of it that were kept, of all slices, in their order.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::key::KeyRange;
use magma_common::proto::{OpId, Reply, Request, SessionId};

use super::chronicle::{Cut, Fate, Made, Shed};
use super::clock::Time;
use super::history::{Asked, History, Operation, Violation, describe, describe_answer, violation};
use super::namespace::{Mismatch, Namespace};
use super::oracle::{Oracle, driver_of};

/// So many tries of an operation at a place are made before the search gives up.
const PATIENCE: usize = 3_000_000;

/// So many items are looked at to find the log's next record.
const LOOK_AHEAD: usize = 300;

/// Something that happened at one moment between two times.
#[derive(Clone, Debug)]
struct Item {
    asked: Asked,
    begun: Time,
    /// The end of time if nobody heard of it.
    ended: Time,
    /// Its place in the order of the records.
    hint: Option<u64>,
    /// With which loss its effect was gone.
    lost: Option<usize>,
    /// Stripes that a file has more by it.
    gained: Option<(Handle, Vec<(u64, Handle)>)>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Answered(Result<(Reply, Bytes), FlareError>),
    /// The session does not rely on its opens any more.
    ForgetsOpens,
    /// The session ends for these keys.
    EndsSession(KeyRange),
    /// A striped file sheds something.
    Sheds(Shed),
    /// A slice loses what was not on disk: this one of the losses.
    Cut(usize),
}

/// The place of a record, by its number in the chronicle.
fn place_of_record(number: usize) -> u64 {
    2 * number as u64 + 1
}

/// The place of a loss before which so many records had been made.
fn place_of_cut(before: usize) -> u64 {
    2 * before as u64
}

/// Checks everything that clients heard.
///
/// `beginning`: the namespace before anybody asked for anything.
pub fn check(history: &History, oracle: &Oracle, beginning: Namespace) -> Result<usize, Violation> {
    let items = items(history, oracle)?;
    Search::new(&items, &oracle.chronicle.cuts, beginning).run()?;
    Ok(items.len())
}

fn items(history: &History, oracle: &Oracle) -> Result<Vec<Item>, Violation> {
    let mut records: BTreeMap<OpId, Vec<usize>> = BTreeMap::new();
    for (number, made) in oracle.chronicle.made.iter().enumerate() {
        if let Some(id) = made.id.filter(|_| made.fate != Fate::Unheard) {
            records.entry(id).or_default().push(number);
        }
    }
    let mut items = Vec::new();
    for operation in &history.operations {
        let asked = &operation.asked;
        let item = |begun: Time, what: What| Item {
            asked: asked.clone(),
            begun,
            ended: Time::MAX,
            hint: None,
            lost: None,
            gained: None,
            what,
        };
        match &asked.request {
            Request::OpenSession(_)
            | Request::KeepAlive(_)
            | Request::ReclaimOpens(_)
            | Request::FetchTopology(_) => {}
            Request::EndSession(_) => items.push(item(operation.sent, What::ForgetsOpens)),
            // What a library's user has released is another operation.
            Request::Release(_) if asked.by_library && asked.id.is_some() => {}
            Request::Release(_) => {
                let released = Ok((Reply::Release(()), Bytes::new()));
                items.push(item(operation.sent, What::Answered(released)));
            }
            _ => {
                let records = asked.id.and_then(|id| records.get(&id)).map_or(&[][..], Vec::as_slice);
                of_operation(operation, records, oracle, &mut items)?;
            }
        }
    }
    items.extend(ended_sessions(history, oracle));
    items.extend(shed(oracle));
    items.extend(cuts(&oracle.chronicle.cuts));
    items.sort_by_key(|item| (item.begun, item.hint));
    Ok(items)
}

/// What an operation did: with each of its records, of which all but the last were lost, and perhaps without one.
fn of_operation(
    operation: &Operation,
    records: &[usize],
    oracle: &Oracle,
    items: &mut Vec<Item>,
) -> Result<(), Violation> {
    let chronicle = &oracle.chronicle;
    let key = driver_of(&operation.asked.request);
    let cuts = || chronicle.cuts.iter().filter(|cut| cut.range.contains(&key));
    let item = |hint, lost, what| Item {
        asked: operation.asked.clone(),
        begun: operation.sent,
        ended: Time::MAX,
        hint,
        lost,
        gained: None,
        what,
    };
    let mut is_heard = false;
    for &number in records {
        let made = &chronicle.made[number];
        let lost = if let Fate::Cut(cut) = made.fate { Some(cut) } else { None };
        let lost_at = lost.map_or(Time::MAX, |cut| chronicle.cuts[cut].time);
        let answered = operation.answered.as_ref();
        let answered = answered.filter(|answered| {
            answered.released.is_some_and(|released| (made.made..lost_at).contains(&released))
        });
        let mut item = item(Some(place_of_record(number)), lost, unheard(made)?);
        item.gained.clone_from(&made.gained);
        match answered {
            Some(answered) if answered.answer.is_ok() => {
                is_heard = true;
                item.ended = answered.at.min(lost_at);
                item.what = What::Answered(answered.answer.clone());
            }
            Some(answered) if lost.is_none() => {
                return violation(format!(
                    "refusals: {} was {} and has been carried out all the same",
                    describe(&operation.asked),
                    describe_answer(&answered.answer)
                ));
            }
            _ => {}
        }
        items.push(item);
    }
    if let Some(answered) = operation.answered.as_ref().filter(|_| !is_heard) {
        let mut item = item(None, None, What::Answered(answered.answer.clone()));
        if !operation.asked.request.mutates() {
            item.begun = answered.sent;
        }
        // It was evaluated by somebody who served between two losses of the slice.
        item.ended = answered.at;
        if let Some(released) = answered.released {
            let before = cuts().map(|cut| cut.time).filter(|time| *time <= released).max();
            let after = cuts().map(|cut| cut.time).find(|time| *time > released);
            item.begun = item.begun.max(before.map_or(0, |time| time + 1));
            item.ended = item.ended.min(after.unwrap_or(Time::MAX));
        }
        items.push(item);
    }
    Ok(())
}

fn unheard(made: &Made) -> Result<What, Violation> {
    match made.reply.as_ref().map(|(opcode, reply)| Reply::decode(*opcode, reply)) {
        Some(Ok(reply)) => Ok(What::Answered(Ok((reply, Bytes::new())))),
        _ => violation(format!(
            "the log: record {} of slice {} carries no reply that can be read",
            made.seq, made.slice.0
        )),
    }
}

/// What the volcanos do by themselves.
fn own(session: SessionId, begun: Time, what: What) -> Item {
    let asked = Asked {
        by_library: false,
        client: usize::MAX,
        session,
        id: None,
        request: magma_common::proto::operation::EndSession.into(),
        payload: Bytes::new(),
        durability: magma_common::proto::Durability::Replicated,
    };
    Item { asked, begun, ended: Time::MAX, hint: None, lost: None, gained: None, what }
}

/// What striped files have shed.
fn shed(oracle: &Oracle) -> impl Iterator<Item = Item> {
    oracle.chronicle.made.iter().enumerate().filter_map(|(number, made)| {
        let lost = made.loss()?;
        let what = What::Sheds(made.shed.clone()?);
        Some(Item { hint: Some(place_of_record(number)), lost, ..own(SessionId::NONE, made.made, what) })
    })
}

/// Sessions end by records, whoever wanted it, in each slice by one of its own.
fn ended_sessions(history: &History, oracle: &Oracle) -> Vec<Item> {
    let by_libraries =
        history.operations.iter().map(|operation| &operation.asked).filter(|asked| asked.by_library);
    let libraries: BTreeMap<SessionId, usize> =
        by_libraries.map(|asked| (asked.session, asked.client)).collect();
    let mut items = Vec::new();
    for (number, made) in oracle.chronicle.made.iter().enumerate() {
        let Some(lost) = made.loss() else { continue };
        for session in &made.ended {
            let ends = What::EndsSession(made.range);
            let hint = Some(place_of_record(number));
            for (hint, lost, what) in [(hint, lost, ends), (None, None, What::ForgetsOpens)] {
                let mut item = Item { hint, lost, ..own(*session, made.made, what) };
                if let Some(client) = libraries.get(session) {
                    (item.asked.client, item.asked.by_library) = (*client, true);
                }
                items.push(item);
            }
        }
    }
    items
}

fn cuts(cuts: &[Cut]) -> impl Iterator<Item = Item> {
    cuts.iter().enumerate().map(|(number, cut)| Item {
        ended: cut.time,
        hint: Some(place_of_cut(cut.before)),
        ..own(SessionId::NONE, cut.time, What::Cut(number))
    })
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }
}

/// Where the search stands.
#[derive(Clone)]
struct Place {
    state: Namespace,
    done: Done,
    /// Everything before this item is done.
    first: usize,
    count: usize,
}

/// What may come next.
#[derive(Clone, Copy)]
struct Choice {
    /// The item.
    at: usize,
    /// The flare that dies before it.
    victim: Option<Handle>,
}

struct Search<'a> {
    items: &'a [Item],
    losses: &'a [Cut],
    beginning: Namespace,
    /// The items with records, in the records' order.
    recorded: Vec<usize>,
    /// Why the records that were kept do not fit together, if they did not.
    unkept: Option<Mismatch>,
    tries: usize,
    dead: HashSet<u64>,
    /// The furthest place from which nothing leads on.
    deepest: Option<Place>,
}

impl<'a> Search<'a> {
    fn new(items: &'a [Item], losses: &'a [Cut], beginning: Namespace) -> Self {
        let mut recorded: Vec<usize> = (0..items.len())
            .filter(|at| items[*at].hint.is_some() && !matches!(items[*at].what, What::Cut(_)))
            .collect();
        recorded.sort_by_key(|at| items[*at].hint);
        Self {
            items,
            losses,
            beginning,
            recorded,
            unkept: None,
            tries: 0,
            dead: HashSet::new(),
            deepest: None,
        }
    }

    fn run(mut self) -> Result<(), Violation> {
        let state = self.beginning.clone();
        let done = Done(vec![0; self.items.len() / 64 + 1]);
        let mut place = Place { state, done, first: 0, count: 0 };
        let mut frames: Vec<(Place, Vec<Choice>)> = Vec::new();
        loop {
            let choices = self.advance(&mut place);
            if self.is_through(&place) {
                return Ok(());
            }
            if self.tries > PATIENCE {
                return self.fail("no order was found in reasonable time");
            }
            let choices = if self.is_dead(&place) { Vec::new() } else { choices };
            frames.push((place, choices));
            loop {
                let Some((at, choices)) = frames.last_mut() else {
                    return self.fail("there is no order in which this can have happened");
                };
                if choices.is_empty() {
                    self.dead.insert(key(at));
                    if let Some((at, _)) = frames.pop()
                        && self.deepest.as_ref().is_none_or(|deepest| at.count > deepest.count)
                    {
                        self.deepest = Some(at);
                    }
                    continue;
                }
                let choice = choices.remove(0);
                let mut next = at.clone();
                if self.take(&mut next, choice) {
                    place = next;
                    break;
                }
            }
        }
    }

    fn is_through(&self, place: &Place) -> bool {
        // What nobody heard of need not have happened, unless it made a record; all those have hints or are greedy.
        (place.first..self.items.len()).all(|at| place.done.has(at) || self.items[at].ended == Time::MAX)
    }

    fn is_dead(&self, place: &Place) -> bool {
        !self.dead.is_empty() && self.dead.contains(&key(place))
    }

    /// The items that may come next.
    fn enabled(&self, place: &Place) -> Vec<usize> {
        let mut horizon = Time::MAX;
        let mut enabled = Vec::new();
        for at in place.first..self.items.len() {
            let item = &self.items[at];
            if item.begun > horizon {
                break;
            }
            if !place.done.has(at) {
                horizon = horizon.min(item.ended);
                enabled.push(at);
            }
        }
        enabled.retain(|at| self.items[*at].begun <= horizon);
        enabled
    }

    /// Takes everything that changes nothing, as soon as it fits; then what may be chosen from.
    fn advance(&mut self, place: &mut Place) -> Vec<Choice> {
        loop {
            let enabled = self.enabled(place);
            let mut is_further = false;
            for &at in &enabled {
                if self.items[at].hint.is_none() && self.take_greedily(place, at) {
                    is_further = true;
                }
            }
            if !is_further {
                let choices = enabled.into_iter().flat_map(|at| self.choices_of(place, at));
                let mut choices: Vec<Choice> = choices.collect();
                // The log's next record first; then what dies by itself; then what is out of the log's order.
                let next = self.next_hint(place);
                choices.sort_by_key(|choice| match self.items[choice.at].hint {
                    hint if hint == next => (0, hint),
                    None => (1, None),
                    hint => (2, hint),
                });
                return choices;
            }
        }
    }

    /// In which ways an item may come next. A stale handle may mean that a flare has died just now; of several it may have been
    /// any, and which one it was may show only later.
    fn choices_of(&self, place: &Place, at: usize) -> Vec<Choice> {
        let item = &self.items[at];
        match &item.what {
            What::Answered(Err(FlareError::Stale)) => {
                let victims = place.state.mortal(&item.asked).into_iter();
                victims.map(|victim| Choice { at, victim: Some(victim) }).collect()
            }
            _ if item.hint.is_some() => vec![Choice { at, victim: None }],
            _ => Vec::new(),
        }
    }

    /// The first record that is not done.
    fn next_hint(&self, place: &Place) -> Option<u64> {
        let open = (place.first..self.items.len()).filter(|at| !place.done.has(*at));
        // Records are not much older than what is begun when they are made.
        open.take(LOOK_AHEAD).filter_map(|at| self.items[at].hint).min()
    }

    fn take_greedily(&mut self, place: &mut Place, at: usize) -> bool {
        self.tries += 1;
        let item = &self.items[at];
        match &item.what {
            What::ForgetsOpens => place.state.forget_opens(item.asked.holder()),
            What::Answered(answer) if item.asked.request.mutates() => {
                // Without a record it changed nothing. A rename to another name of the same file does that, and at an earlier place it
                // would have been a rename indeed.
                let mut next = place.state.clone();
                if next.step(&item.asked, answer).is_err() || !next.has_same_flares(&place.state) {
                    return false;
                }
                place.state = next;
            }
            What::Answered(answer) => {
                if place.state.step(&item.asked, answer).is_err() {
                    return false;
                }
            }
            What::EndsSession(_) | What::Sheds(_) | What::Cut(_) => return false,
        }
        self.mark(place, at);
        true
    }

    fn take(&mut self, place: &mut Place, choice: Choice) -> bool {
        self.tries += 1;
        let Choice { at, victim } = choice;
        let item = &self.items[at];
        if let Some(victim) = victim {
            place.state.bury(victim);
        }
        match &item.what {
            What::Answered(answer) if place.state.step(&item.asked, answer).is_ok() => {
                if let Some((head, stripes)) = &item.gained {
                    place.state.gain(*head, stripes);
                }
            }
            What::Sheds(shed) => place.state.shed(shed),
            What::EndsSession(keys) => {
                place.state.end_session(item.asked.session, *keys);
                // A library says in its next session what it has open, and may come in time.
                if !item.asked.by_library {
                    place.state.forget_opens(item.asked.holder());
                }
            }
            What::Cut(cut) => return self.lose(place, at, *cut),
            What::Answered(_) | What::ForgetsOpens => return false,
        }
        self.mark(place, at);
        true
    }

    /// A slice loses what was not on disk. What was made before and kept has happened by now, whether anybody heard of it or not.
    fn lose(&mut self, place: &mut Place, at: usize, cut: usize) -> bool {
        let mut state = self.beginning.clone();
        for number in 0..self.recorded.len() {
            let record = self.recorded[number];
            let item = &self.items[record];
            let (is_done, is_before) = (place.done.has(record), item.hint < self.items[at].hint);
            match item.lost {
                Some(lost) if lost <= cut => {
                    // Nobody heard of it: it need not have happened before.
                    let is_skipped = lost == cut && !is_done;
                    if is_skipped && item.ended != Time::MAX {
                        return false;
                    }
                    if is_skipped {
                        self.mark(place, record);
                    }
                }
                // It was lost by then: its slice goes on a moment later.
                Some(lost) if self.losses[lost].dark <= self.losses[cut].time => {}
                _ if is_done || is_before => {
                    if let Err(mismatch) = redo(&mut state, item) {
                        let what = describe(&item.asked);
                        self.unkept = Some(format!("of what was kept, {what} is not possible: {mismatch}"));
                        return false;
                    }
                    if !is_done {
                        self.mark(place, record);
                    }
                }
                _ => {}
            }
        }
        for loss in &self.losses[..=cut] {
            state.lose_power(&loss.unsynced);
        }
        place.state = state;
        self.mark(place, at);
        true
    }

    fn mark(&self, place: &mut Place, at: usize) {
        place.done.set(at);
        place.count += 1;
        while place.first < self.items.len() && place.done.has(place.first) {
            place.first += 1;
        }
    }

    fn explain(&self, place: &Place) -> String {
        let mut lines = Vec::new();
        for at in self.enabled(place) {
            let item = &self.items[at];
            let What::Answered(answer) = &item.what else { continue };
            if let Err(mismatch) = place.state.clone().step(&item.asked, answer) {
                let hint = item.hint.map_or(String::new(), |seq| format!(" (record {seq})"));
                let heard = if item.ended == Time::MAX { "unheard" } else { "heard" };
                lines.push(format!(
                    "    {:.6} {}{hint}: {} ({heard})\n        {mismatch}",
                    item.begun as f64 / 1e9,
                    describe(&item.asked),
                    describe_answer(answer)
                ));
            }
        }
        lines.join("\n")
    }

    fn fail(&self, why: &str) -> Result<(), Violation> {
        let (count, explanation) =
            self.deepest.as_ref().map_or((0, String::new()), |place| (place.count, self.explain(place)));
        violation(format!(
            "linearizability: {why}. {count} of {} can be explained, then none of these fits:\n{explanation}{}",
            self.items.len(),
            self.unkept.as_ref().map_or(String::new(), |unkept| format!("\n    {unkept}"))
        ))
    }
}

/// A record does what it did.
fn redo(state: &mut Namespace, item: &Item) -> Result<(), Mismatch> {
    match &item.what {
        What::Answered(Ok((reply, _))) => {
            state.redo(&item.asked, reply)?;
            if let Some((head, stripes)) = &item.gained {
                state.gain(*head, stripes);
            }
            Ok(())
        }
        What::Sheds(shed) => {
            state.shed(shed);
            Ok(())
        }
        What::EndsSession(keys) => {
            state.end_session(item.asked.session, *keys);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn key(place: &Place) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&place.done, &place.state).hash(&mut hasher);
    hasher.finish()
}
