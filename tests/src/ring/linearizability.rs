//! Whether clients could have been served by one namespace that does one thing at a time (Wing and Gong's search, with Lowe's
//! memory of dead ends).
//!
//! The whole namespace is one object: a rename touches two names. Whatever a client heard counts, errors and reads too. What it
//! did not hear may have been done if a record of it was ever made. The order of the log is tried first, which makes the search
//! fast; it proves nothing.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::{OpId, Reply, Request, SessionId};

use super::clock::Time;
use super::history::{Asked, History, Violation, describe, describe_answer, violation};
use super::namespace::Namespace;
use super::oracle::Segment;

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
    /// Its record.
    hint: Option<u64>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Answered(Result<(Reply, Bytes), FlareError>),
    /// The session does not rely on its opens any more.
    ForgetsOpens,
}

/// Checks everything that clients heard.
pub fn check(history: &History, segments: &[Segment]) -> Result<usize, Violation> {
    let mut state = Namespace::default();
    let mut checked = 0;
    for number in 0..segments.len() {
        let items = items(history, segments, number)?;
        checked += items.len();
        Search::new(&items).run(state.clone())?;
        state = survivors(&items, &segments[number], state)?;
    }
    Ok(checked)
}

/// The state that the next segment begins with.
fn survivors(items: &[Item], segment: &Segment, mut state: Namespace) -> Result<Namespace, Violation> {
    let mut recorded: Vec<&Item> =
        items.iter().filter(|item| item.hint.is_some_and(|seq| seq <= segment.survived)).collect();
    recorded.sort_by_key(|item| item.hint);
    for item in recorded {
        if let What::Answered(Ok(answer)) = &item.what
            && let Err(mismatch) = state.step_unheard(&item.asked, &answer.0)
        {
            return violation(format!(
                "the log: in its order {} is not possible: {mismatch}",
                describe(&item.asked)
            ));
        }
    }
    state.lose_power(&segment.unsynced);
    Ok(state)
}

/// Where the operation's record is, if it has one: the segment and the number.
fn record_of(segments: &[Segment], id: OpId, upto: usize) -> Option<(usize, u64)> {
    let places = segments.iter().enumerate().take(upto + 1);
    let mut found = places.filter_map(|(number, segment)| {
        let entry = segment.line.iter().find(|(_, entry)| entry.id == Some(id))?;
        Some((number, *entry.0))
    });
    found.next_back()
}

fn items(history: &History, segments: &[Segment], number: usize) -> Result<Vec<Item>, Violation> {
    let segment = &segments[number];
    let start = number.checked_sub(1).map_or(0, |before| segments[before].ended);
    let index: std::collections::BTreeMap<OpId, u64> =
        segment.line.iter().filter_map(|(seq, entry)| Some((entry.id?, *seq))).collect();
    let mut items = Vec::new();
    for operation in &history.operations {
        let asked = &operation.asked;
        let record = asked.id.and_then(|id| index.get(&id)).copied();
        let answered = operation.answered.as_ref();
        let here =
            answered.filter(|answered| start <= answered.released && answered.released < segment.ended);
        let mut item = Item {
            asked: asked.clone(),
            begun: operation.sent,
            ended: Time::MAX,
            hint: record,
            what: What::ForgetsOpens,
        };
        match (&asked.request, here, record) {
            (
                Request::OpenSession(_)
                | Request::KeepAlive(_)
                | Request::ReclaimOpens(_)
                | Request::FetchTopology(_),
                ..,
            ) => {}
            (Request::EndSession(_), ..) => {
                if operation.sent < segment.ended {
                    items.push(item.clone());
                }
            }
            (Request::Release(_), ..) if operation.sent < segment.ended => {
                item.what = What::Answered(Ok((Reply::Release(()), Bytes::new())));
                items.push(item);
            }
            (_, Some(answered), record) => {
                let elsewhere = || asked.id.and_then(|id| record_of(segments, id, number));
                if record.is_none()
                    && elsewhere().is_some_and(|(of, seq)| is_kept(&segments[of..number], seq))
                {
                    continue;
                }
                if answered.answer.is_err() && record.is_some_and(|seq| seq <= segment.survived) {
                    return violation(format!(
                        "refusals: {} was {} and has been carried out all the same",
                        describe(asked),
                        describe_answer(&answered.answer)
                    ));
                }
                if !asked.request.mutates() {
                    item.begun = answered.sent;
                }
                item.ended = answered.at;
                item.what = What::Answered(answered.answer.clone());
                items.push(item);
            }
            (_, None, Some(seq)) => {
                item.what = unheard(segment, seq)?;
                items.push(item);
            }
            (_, None, None) => {}
        }
    }
    items.extend(ended_sessions(segment));
    items.sort_by_key(|item| item.begun);
    Ok(items)
}

/// Whether a record of the first of these segments was still there at the end of the last.
fn is_kept(segments: &[Segment], seq: u64) -> bool {
    segments.iter().all(|segment| seq <= segment.survived)
}

fn unheard(segment: &Segment, seq: u64) -> Result<What, Violation> {
    let reply = segment.line.get(&seq).and_then(|entry| entry.reply.as_ref());
    match reply.map(|(opcode, reply)| Reply::decode(*opcode, reply)) {
        Some(Ok(reply)) => Ok(What::Answered(Ok((reply, Bytes::new())))),
        _ => violation(format!("the log: record {seq} carries no reply that can be read")),
    }
}

/// Sessions end by records, whoever wanted it.
fn ended_sessions(segment: &Segment) -> Vec<Item> {
    let item = |session: SessionId, seq: u64, begun: Time, what: What| Item {
        asked: Asked {
            client: usize::MAX,
            session,
            id: None,
            request: magma_common::proto::operation::EndSession.into(),
            payload: Bytes::new(),
            durability: magma_common::proto::Durability::Replicated,
        },
        begun,
        ended: Time::MAX,
        hint: matches!(what, What::Answered(_)).then_some(seq),
        what,
    };
    let ended = segment
        .line
        .iter()
        .flat_map(|(seq, entry)| entry.ended.iter().map(move |of| (*seq, *of, entry.made)));
    ended
        .flat_map(|(seq, session, made)| {
            let done = What::Answered(Ok((Reply::EndSession(()), Bytes::new())));
            [item(session, seq, 0, done), item(session, seq, made, What::ForgetsOpens)]
        })
        .collect()
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
    tries: usize,
    dead: HashSet<u64>,
    /// The furthest place from which nothing leads on.
    deepest: Option<Place>,
}

impl<'a> Search<'a> {
    fn new(items: &'a [Item]) -> Self {
        Self { items, tries: 0, dead: HashSet::new(), deepest: None }
    }

    fn run(mut self, state: Namespace) -> Result<(), Violation> {
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
            What::ForgetsOpens => place.state.forget_opens(item.asked.session),
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
        }
        self.mark(place, at);
        true
    }

    fn take(&mut self, place: &mut Place, choice: Choice) -> bool {
        self.tries += 1;
        let Choice { at, victim } = choice;
        let item = &self.items[at];
        let What::Answered(answer) = &item.what else { return false };
        if let Some(victim) = victim {
            place.state.bury(victim);
        }
        if place.state.step(&item.asked, answer).is_err() {
            return false;
        }
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
            "linearizability: {why}. {count} of {} can be explained, then none of these fits:\n{explanation}",
            self.items.len()
        ))
    }
}

fn key(place: &Place) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&place.done, &place.state).hash(&mut hasher);
    hasher.finish()
}
