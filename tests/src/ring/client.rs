//! A client: sessions, numbered operations that are repeated until they are answered, and what it makes of the answers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::frame::{RequestHeader, Tag};
use magma_common::proto::operation::{
    EndSession, FetchTopology, KeepAlive, LayoutPurpose, OpenSession, ReclaimOpens,
};
use magma_common::proto::{Credentials, Durability, OpId, Reply, Request, SessionId};
use magma_common::topology::{Epoch, Slice, SliceId, Topology, VolcanoId};

use super::clock::{MILLISECOND, SECOND, Time};
use super::dice::Dice;
use super::history::{Answered, Asked, History};
use super::striping;
use super::workload::{self, Known, Mix, Wish};

/// A session is kept alive this often.
const ALIVE_INTERVAL: Time = 8 * SECOND;
/// A call without a session's number is given up after this time: volcanos keep its outcome for twice as long.
const CALL_PATIENCE: Time = 60 * SECOND;

/// A try of an operation, on its way to a volcano.
#[derive(Clone, Debug)]
pub struct Try {
    /// To which volcano, by its place in the world.
    pub to: usize,
    /// Names the try.
    pub tag: u64,
    /// The try before it, which nobody waits for any more, and where it went.
    pub before: Option<(u64, usize)>,
    /// Its operation in the history.
    pub operation: usize,
    /// As it goes over the wire.
    pub header: RequestHeader,
    /// As it goes over the wire.
    pub request: Request,
    /// As it goes over the wire.
    pub payload: Bytes,
}

/// What a client has to do with the world.
pub struct Surroundings<'a> {
    /// The time.
    pub now: Time,
    /// What was asked and heard.
    pub history: &'a mut History,
    /// The number of the last record of a request's slice that was acknowledged.
    pub floor: &'a dyn Fn(&Request) -> u64,
    /// The machines that there are.
    pub machines: &'a [usize],
    /// Where each volcano is.
    pub places: &'a dyn Fn(VolcanoId) -> Option<usize>,
}

/// An answer on its arrival.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The try that it answers.
    pub tag: u64,
    /// When it left the volcano that had evaluated it.
    pub released: Time,
    /// The newest topology known where it comes from.
    pub version: u64,
    /// What it says; none if nobody listened there.
    pub answer: Option<Result<(Reply, Bytes), FlareError>>,
}

#[derive(Debug)]
struct Task {
    operation: usize,
    wish: Wish,
    session: SessionId,
    sequence: u64,
    call: Option<u128>,
    tries: Vec<(u64, Time)>,
    /// Where the last try went.
    place: usize,
    /// When it is sent (again).
    due: Time,
    begun: Time,
}

/// What a client is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It works.
    Working,
    /// It begins nothing new.
    Finishing,
    /// It ends its session.
    Leaving,
    /// It has left, or vanished.
    Gone,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Client {
    /// Its number.
    pub index: usize,
    /// What it is about.
    pub phase: Phase,
    dice: Dice,
    mix: Mix,
    session: Option<SessionId>,
    sequence: u64,
    /// Statements of what is open.
    statements: u64,
    /// Numbers above the low-water mark whose answers it has.
    answered: BTreeSet<u64>,
    acknowledged: u64,
    /// Where each slice is served, unless it turned out not to be.
    primaries: BTreeMap<SliceId, usize>,
    version: u64,
    slices: Vec<Slice>,
    /// To which reign of each slice it has said what is open, or is about to.
    told: BTreeMap<SliceId, Epoch>,
    tasks: Vec<Task>,
    known: Known,
    next_tag: u64,
    /// Operations at a time.
    width: usize,
    /// Time between operations, about.
    pace: Time,
    next_wish: Time,
    next_alive: Time,
    wants_topology: bool,
    /// What is still to be read of the whole tree, at the end.
    to_read: Option<Vec<Request>>,
}

impl Client {
    /// A client that is about to begin.
    pub fn new(index: usize, mut dice: Dice) -> Self {
        let mix = Mix::draw(&mut dice);
        Self {
            index,
            phase: Phase::Working,
            mix,
            session: None,
            sequence: 0,
            statements: 0,
            answered: BTreeSet::new(),
            acknowledged: 0,
            primaries: BTreeMap::new(),
            version: 0,
            slices: Vec::new(),
            told: BTreeMap::new(),
            tasks: Vec::new(),
            known: Known::default(),
            next_tag: 0,
            width: dice.range(1, 4) as usize,
            pace: dice.magnitude(20 * MILLISECOND, 3 * SECOND),
            next_wish: dice.below(SECOND),
            next_alive: 0,
            wants_topology: true,
            to_read: None,
            dice,
        }
    }

    /// Operations without an answer: the time when the oldest of them was begun.
    pub fn oldest(&self) -> Option<Time> {
        self.tasks.iter().map(|task| task.begun).min()
    }

    /// Whether it has nothing to do any more.
    pub fn is_done(&self) -> bool {
        self.tasks.is_empty()
            && self.to_read.is_none()
            && self.phase != Phase::Working
            && (self.phase != Phase::Leaving || self.session.is_none())
    }

    /// It is to read the whole tree.
    pub fn read_everything(&mut self) {
        self.to_read = Some(vec![workload::listing(Handle::root())]);
    }

    /// It vanishes.
    pub fn vanish(&mut self) {
        self.phase = Phase::Gone;
        self.tasks.clear();
        self.to_read = None;
    }

    /// Its idle time, if any, is over; or it is to be idle for this long.
    pub fn idle_until(&mut self, time: Time) {
        self.next_wish = self.next_wish.max(time);
    }

    /// When it has something to do next.
    pub fn due(&self, now: Time) -> Time {
        let tasks = self.tasks.iter().map(|task| task.due).min().unwrap_or(Time::MAX);
        let wish = if self.may_wish() { self.next_wish } else { Time::MAX };
        let alive = if self.session.is_some() { self.next_alive } else { now + SECOND };
        let reading = if self.to_read.is_some() && self.tasks.is_empty() { now } else { Time::MAX };
        tasks.min(wish).min(alive).min(reading).max(now + MILLISECOND)
    }

    fn may_wish(&self) -> bool {
        self.phase == Phase::Working
            && self.session.is_some()
            && self.tasks.len() < self.width
            && self.untold().next().is_none()
    }

    /// Slices that do not know yet what it has open.
    fn untold(&self) -> impl Iterator<Item = &Slice> {
        self.slices.iter().filter(|slice| self.told.get(&slice.id) != Some(&slice.reign))
    }

    /// Whether it is about to tell a slice what it has open.
    fn is_telling(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.wish.request, Request::ReclaimOpens(_)))
    }

    /// Does what is due: what is to be sent now.
    pub fn act(&mut self, world: &mut Surroundings<'_>) -> Vec<Try> {
        if self.phase == Phase::Gone {
            return Vec::new();
        }
        self.control(world);
        if self.may_wish() && world.now >= self.next_wish {
            self.next_wish = world.now + self.dice.below(2 * self.pace) + 1;
            let number = world.history.operations.len();
            let wish = workload::wish(&self.mix, &mut self.known, self.index, number, &mut self.dice);
            // A primary that is being told what is open takes that for all of it: what is opened or given back meanwhile might be
            // heard of first.
            if !(is_about_opens(&wish.request) && self.is_telling()) {
                self.begin(world, wish);
            }
        }
        if let Some(to_read) = &mut self.to_read
            && self.session.is_some()
            && self.tasks.is_empty()
        {
            match to_read.pop() {
                None => self.to_read = None,
                Some(request) => self.begin(world, plain(request)),
            }
        }
        self.send_due(world)
    }

    /// Sessions, signs of life, what is open.
    fn control(&mut self, world: &mut Surroundings<'_>) {
        let has =
            |tasks: &[Task], what: fn(&Request) -> bool| tasks.iter().any(|task| what(&task.wish.request));
        if self.wants_topology && !has(&self.tasks, |request| matches!(request, Request::FetchTopology(_))) {
            self.wants_topology = false;
            self.begin(world, plain(FetchTopology.into()));
        }
        if self.session.is_none() {
            let wants = self.phase == Phase::Working || self.to_read.is_some();
            if wants && !has(&self.tasks, |request| matches!(request, Request::OpenSession(_))) {
                self.begin(world, plain(OpenSession { client: format!("client {}", self.index) }.into()));
            }
            return;
        }
        if self.phase == Phase::Leaving {
            if self.tasks.is_empty() && self.to_read.is_none() {
                self.begin(world, plain(EndSession.into()));
            }
            return;
        }
        if world.now >= self.next_alive
            && !has(&self.tasks, |request| matches!(request, Request::KeepAlive(_)))
        {
            self.next_alive = world.now + ALIVE_INTERVAL;
            self.begin(world, plain(KeepAlive { acknowledged: self.acknowledged }.into()));
        }
        let is_settling =
            |request: &Request| matches!(request, Request::ReclaimOpens(_)) || is_about_opens(request);
        if !has(&self.tasks, is_settling) {
            for slice in self.untold().cloned().collect::<Vec<_>>() {
                self.told.insert(slice.id, slice.reign);
                let is_there = |(handle, _): &&(Handle, u32)| slice.range.contains(&handle.key);
                let opens = self.known.opens.iter().filter(is_there).copied().collect();
                let (at, reign) = (slice.range.first_key(), slice.reign);
                self.statements += 1;
                let number = self.statements;
                self.begin(world, plain(ReclaimOpens { at, reign, opens, last: true, number }.into()));
            }
        }
    }

    fn begin(&mut self, world: &mut Surroundings<'_>, wish: Wish) {
        let session = self.session.unwrap_or(SessionId::NONE);
        let (mut sequence, mut call) = (0, None);
        if wish.request.mutates() {
            let may_call = !matches!(wish.request, Request::Lock(_) | Request::Open(_) | Request::Release(_));
            if may_call && !wish.request.opens() && self.dice.one_in(5) {
                call = Some(u128::from(self.dice.next()) << 64 | u128::from(self.dice.next()));
            } else {
                self.sequence += 1;
                sequence = self.sequence;
            }
        }
        if let Request::Release(release) = &wish.request {
            self.known.releases(release.handle, release.count);
        }
        let id = match (call, sequence) {
            (Some(call), _) => Some(OpId::Call(call)),
            (None, 0) => None,
            (None, sequence) => Some(OpId::Session { session, sequence }),
        };
        let asked = Asked {
            by_library: false,
            client: self.index,
            session,
            id,
            request: wish.request.clone(),
            payload: wish.payload.clone(),
            durability: wish.durability,
        };
        let floor = (world.floor)(&asked.request);
        let operation = world.history.begin(asked, world.now, floor);
        let (tries, place, due, begun) = (Vec::new(), 0, world.now, world.now);
        self.tasks.push(Task { operation, wish, session, sequence, call, tries, place, due, begun });
    }

    fn send_due(&mut self, world: &mut Surroundings<'_>) -> Vec<Try> {
        let mut sent = Vec::new();
        let (now, machines) = (world.now, world.machines);
        let (slices, primaries) = (&self.slices, &self.primaries);
        let primary = |request: &Request| primaries.get(&slice_of(slices, request)?).copied();
        self.tasks.retain(|task| {
            let is_given_up =
                task.call.is_some() && now.saturating_sub(task.begun) > CALL_PATIENCE && task.due <= now;
            if is_given_up {
                world.history.operations[task.operation].in_doubt = true;
            }
            !is_given_up
        });
        for task in self.tasks.iter_mut().filter(|task| task.due <= now) {
            self.next_tag += 1;
            let anywhere = *self.dice.pick(machines);
            let to = primary(&task.wish.request).filter(|_| !self.dice.one_in(4)).unwrap_or(anywhere);
            let before = task.tries.last().map(|(tag, _)| (*tag, task.place));
            task.place = to;
            task.tries.push((self.next_tag, now));
            let wait = task.wish.deadline_ms.map_or(0, |ms| u64::from(ms) * MILLISECOND);
            task.due = now + wait + self.dice.magnitude(SECOND, 6 * SECOND);
            let header = RequestHeader {
                tag: Tag(self.next_tag as u32),
                durability: task.wish.durability,
                topology_version: self.version,
                session: task.session,
                sequence: task.sequence,
                acknowledged: if task.session == SessionId::NONE { 0 } else { self.acknowledged },
                call: task.call,
                deadline_ms: task.wish.deadline_ms,
                credentials: Credentials::ROOT,
                forwarded: false,
            };
            let (request, payload) = (task.wish.request.clone(), task.wish.payload.clone());
            sent.push(Try {
                to,
                tag: self.next_tag,
                before,
                operation: task.operation,
                header,
                request,
                payload,
            });
        }
        sent
    }

    /// An answer has come.
    pub fn hear(&mut self, world: &mut Surroundings<'_>, arrival: Arrival) {
        if arrival.version > self.version {
            self.wants_topology = true;
        }
        let of_try = |task: &Task| task.tries.iter().any(|(tag, _)| *tag == arrival.tag);
        let Some(at) = self.tasks.iter().position(of_try) else { return };
        let sent =
            self.tasks[at].tries.iter().find(|(tag, _)| *tag == arrival.tag).map_or(0, |(_, sent)| *sent);
        let pause = self.dice.magnitude(20 * MILLISECOND, 500 * MILLISECOND);
        if let (Request::ReclaimOpens(reclaim), Some(Err(FlareError::NotOwner))) =
            (&self.tasks[at].wish.request, &arrival.answer)
        {
            // It may be that of another reign: what is open then is said to it.
            for slice in self.slices.iter().filter(|slice| slice.range.contains(&reclaim.at)) {
                self.told.remove(&slice.id);
            }
            self.wants_topology = true;
            world.history.operations[self.tasks.remove(at).operation].in_doubt = true;
            return;
        }
        let answer = match arrival.answer {
            Some(answer) if !is_passing(&answer) => answer,
            _ => {
                let task = &self.tasks[at];
                if let Some(slice) = slice_of(&self.slices, &task.wish.request)
                    && self.primaries.get(&slice) == Some(&task.place)
                {
                    self.primaries.remove(&slice);
                }
                self.tasks[at].due = self.tasks[at].due.min(world.now + pause);
                return;
            }
        };
        let task = self.tasks.remove(at);
        let is_end = matches!(task.wish.request, Request::EndSession(_));
        match &answer {
            Err(FlareError::SessionEnded) if !is_end && task.session != SessionId::NONE => {
                world.history.operations[task.operation].in_doubt = true;
                if self.session == Some(task.session) {
                    self.lose_session(world);
                }
                return;
            }
            Err(FlareError::Io) => {
                world.history.operations[task.operation].in_doubt = true;
                self.note_answered(task.sequence);
                return;
            }
            _ => {}
        }
        self.note_answered(task.sequence);
        if is_end {
            self.session = None;
        }
        match &answer {
            Ok((reply, _)) => self.take(world, &task, reply),
            Err(error) => {
                self.known.learn_refusal(&task.wish.request, *error);
                self.read_otherwise(&task.wish.request, *error);
            }
        }
        let answered = Answered { at: world.now, sent, released: Some(arrival.released), answer };
        world.history.operations[task.operation].answered = Some(answered);
    }

    fn note_answered(&mut self, sequence: u64) {
        self.answered.insert(sequence);
        while self.answered.remove(&(self.acknowledged + 1)) {
            self.acknowledged += 1;
        }
    }

    fn lose_session(&mut self, world: &mut Surroundings<'_>) {
        for task in self.tasks.drain(..).filter(|task| task.session != SessionId::NONE) {
            world.history.operations[task.operation].in_doubt = true;
        }
        self.session = None;
        self.told.clear();
        self.known.forget_session();
    }

    fn take(&mut self, world: &mut Surroundings<'_>, task: &Task, reply: &Reply) {
        match reply {
            Reply::OpenSession(opened) => {
                self.session = Some(opened.session);
                self.told.clear();
                (self.sequence, self.acknowledged) = (0, 0);
                self.answered.clear();
                self.next_alive = world.now + ALIVE_INTERVAL;
                self.learn_topology(world, &opened.topology);
            }
            Reply::KeepAlive(_) => {}
            Reply::FetchTopology(topology) => self.learn_topology(world, topology),
            Reply::Readdir(listing) if self.to_read.is_some() => {
                let found = listing.entries.iter().filter_map(|entry| match entry.kind {
                    Kind::Directory => Some(workload::listing(entry.handle)),
                    Kind::File => Some(workload::read(entry.handle)),
                    _ => None,
                });
                self.to_read.get_or_insert_default().extend(found);
            }
            Reply::Layout(layout) if self.to_read.is_some() => {
                let parts = striping::all_parts(layout.attr.handle, layout);
                self.to_read.get_or_insert_default().extend(parts);
            }
            reply => self.known.learn(&task.wish.request, &task.wish.payload, reply),
        }
    }

    /// What could not be read of the whole tree in this way is read in another one.
    fn read_otherwise(&mut self, request: &Request, error: FlareError) {
        let head = match (request, error) {
            (Request::Read(read), FlareError::Striped) => read.handle,
            (Request::ReadStripe(read), FlareError::Stale) => read.head,
            _ => return,
        };
        if let Some(to_read) = &mut self.to_read {
            to_read.push(striping::layout(head, LayoutPurpose::Read));
        }
    }

    fn learn_topology(&mut self, world: &Surroundings<'_>, topology: &Topology) {
        if topology.version < self.version {
            return;
        }
        self.version = topology.version;
        self.slices.clone_from(&topology.slices);
        let place = |slice: &Slice| Some((slice.id, (world.places)(slice.primary.volcano)?));
        self.primaries = topology.slices.iter().filter_map(place).collect();
    }
}

/// Whether it changes what its client has open.
fn is_about_opens(request: &Request) -> bool {
    request.opens() || matches!(request, Request::Release(_))
}

/// The slice that drives a request.
fn slice_of(slices: &[Slice], request: &Request) -> Option<SliceId> {
    let key = request.key().unwrap_or(Handle::root().key);
    slices.iter().find(|slice| slice.range.contains(&key)).map(|slice| slice.id)
}

fn plain(request: Request) -> Wish {
    Wish { request, payload: Bytes::new(), durability: Durability::Replicated, deadline_ms: None }
}

/// Whether the client is to ask again.
pub fn is_passing(answer: &Result<(Reply, Bytes), FlareError>) -> bool {
    let passing = [
        FlareError::Unavailable,
        FlareError::NotOwner,
        FlareError::TimedOut,
        FlareError::TooManyOutstanding,
        FlareError::Interrupted,
    ];
    answer.as_ref().is_err_and(|error| passing.contains(error))
}
