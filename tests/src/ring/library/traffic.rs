//! The way of frames through the world: each wire has a stream for metadata and one for bulk data in each direction, which keep their
//! order and send again what is lost, as QUIC does; and a volcano's process at its other end, which forgets it when it ends.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::proto::frame::{self, Frame, RequestFrame, StreamClass, Tag};
use magma_common::proto::{Durability, Failure, OpId, Reply, Request, SessionId};
use magma_common::topology::Seq;
use magma_volcano::slice::Call;

use super::Done;
use super::wires::{Wanted, WireId, frame_of};
use crate::ring::client::is_passing;
use crate::ring::clock::{MILLISECOND, SECOND, Time};
use crate::ring::history::{Answered, Asked, describe, describe_answer};
use crate::ring::network::Host;
use crate::ring::volcano::{Input, Passed, Route, place_of};
use crate::ring::world::{Event, World};

/// A lost packet is sent again after this time, or up to eight times as much.
pub(super) const AGAIN: Time = 25 * MILLISECOND;
/// A process that stands still is looked at again after this time.
const STANDING: Time = 50 * MILLISECOND;
/// A volcano takes a client for gone from which it has heard nothing for so long.
const IDLE: Time = 10 * SECOND;
/// Marks the tries of libraries among those of other clients.
const LIBRARY: u64 = 1 << 63;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the volcano.
    Up,
    /// To the client.
    Down,
}

/// A frame, and when what it says left the volcano that has evaluated it.
#[derive(Clone, Debug)]
pub struct Parcel {
    bytes: Bytes,
    released: Time,
}

/// Something that happens on a wire.
#[derive(Clone, Debug)]
pub enum OnWire {
    /// Somebody knocks at the volcano.
    Knock,
    /// The volcano has let it in.
    Open,
    /// What was lost is sent again.
    Again(Way, u8),
    /// A frame arrives.
    Arrive(Way, u8, Parcel),
    /// An acknowledgement arrives at the client.
    Acknowledged,
    /// The client hears that the process does not know the wire.
    Reset,
    /// The volcano hears, or notices, that the client has gone.
    Gone,
}

#[derive(Default)]
struct Stream {
    waiting: VecDeque<Parcel>,
    /// Something was lost and is to be sent again.
    is_stuck: bool,
    /// When the last one arrives.
    last: Time,
}

/// A try that was not answered.
struct Pending {
    class: u8,
    opcode: u16,
    operation: usize,
    sent: Time,
}

struct Line {
    client: usize,
    place: usize,
    /// The run of the process that has let it in.
    run: Option<u64>,
    streams: BTreeMap<(Way, u8), Stream>,
    pending: BTreeMap<Tag, Pending>,
    is_closed: bool,
}

/// What is known of an operation that a library has begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    operation: usize,
    id: Option<OpId>,
    session: SessionId,
}

/// What the world knows of the libraries' wires and operations.
#[derive(Default)]
pub struct Traffic {
    lines: BTreeMap<WireId, Line>,
    /// By the user's token.
    asked: BTreeMap<u64, Begun>,
    /// Those of the library itself that have an id.
    own: BTreeMap<OpId, usize>,
    /// What is asked piece by piece on behalf of users: the pieces without an id, by the user's token and what they are.
    pieces: BTreeMap<u64, BTreeMap<(u16, Bytes), Begun>>,
    /// When the try was sent that an operation's last answer belongs to, and when that had left the volcano.
    heard: BTreeMap<usize, (Time, Time)>,
    /// When the libraries are to be woken.
    wake: Option<Time>,
}

fn class_number(class: StreamClass) -> u8 {
    u8::from(class != StreamClass::Metadata)
}

fn try_of(wire: WireId, tag: Tag) -> u64 {
    LIBRARY | wire << 32 | u64::from(tag.0)
}

fn wire_of(try_number: u64) -> Option<(WireId, Tag)> {
    let number = try_number & !LIBRARY;
    (try_number & LIBRARY != 0).then_some((number >> 32, Tag(number as u32)))
}

/// Whether a library that says so does not know whether it has happened.
fn leaves_open(answer: &Result<(Reply, Bytes), FlareError>) -> bool {
    use FlareError::{Interrupted, Io, SessionEnded, TimedOut};
    matches!(answer, Err(SessionEnded | TimedOut | Io | Interrupted))
}

/// Whether a library may do it by several requests, if files are striped. Then each of them is an operation.
fn goes_in_pieces(request: &Request) -> bool {
    use Request::{Commit, CommitPart, Layout, MakeStripes, Read, ReadStripe, Write, WriteDone, WriteStripe};
    matches!(
        request,
        Read(_)
            | Write(_)
            | Commit(_)
            | Layout(_)
            | MakeStripes(_)
            | ReadStripe(_)
            | WriteStripe(_)
            | WriteDone(_)
            | CommitPart(_)
    )
}

impl Route {
    /// Whether a library asks.
    pub(in crate::ring) fn is_of_library(&self) -> bool {
        self.tag & LIBRARY != 0
    }
}

impl World {
    /// Libraries do whatever they can do now, and what they want is begun.
    pub(in crate::ring) fn run_libraries(&mut self) {
        loop {
            self.libraries.executor.run(self.now);
            let done = self.libraries.heard(&mut self.clients);
            let clients: Vec<usize> = done.iter().map(|done| done.client).collect();
            done.into_iter().for_each(|done| self.is_answered(done));
            let wanted = self.libraries.wires.wanted();
            let is_still = wanted.is_empty();
            for wanted in wanted {
                self.take_wanted(wanted);
            }
            for client in clients {
                self.call_client(client);
            }
            if is_still {
                break;
            }
        }
        let next = self.libraries.executor.next_timer();
        if let Some(next) = next
            && self.traffic.wake.is_none_or(|wake| next < wake || wake <= self.now)
        {
            self.traffic.wake = Some(next);
            self.after(next.saturating_sub(self.now), Event::WakeLibraries(next));
        }
    }

    /// The time has come that somebody waits for.
    pub(in crate::ring) fn wake_libraries(&mut self, at: Time) {
        if self.traffic.wake == Some(at) {
            self.traffic.wake = None;
        }
        self.run_libraries();
    }

    fn is_answered(&mut self, done: Done) {
        if self.scenario.stripes.is_some() && goes_in_pieces(&done.request) {
            self.traffic.pieces.remove(&done.token);
            return;
        }
        let Some(begun) = self.traffic.asked.remove(&done.token) else { return self.is_kept(done) };
        let operation = &mut self.history.operations[begun.operation];
        let is_open = leaves_open(&done.answer);
        self.trace.say(self.now, || {
            format!(
                "library {} says: {}: {}",
                done.client,
                describe(&operation.asked),
                describe_answer(&done.answer)
            )
        });
        let Some((sent, released)) = self.traffic.heard.remove(&begun.operation).filter(|_| !is_open) else {
            operation.in_doubt = true;
            return;
        };
        operation.answered =
            Some(Answered { at: self.now, sent, released: Some(released), answer: done.answer });
    }

    /// The library has answered without asking: what was true a moment ago, and not before its user's last change.
    fn is_kept(&mut self, done: Done) {
        let Done { client, request, answer, since, .. } = done;
        if leaves_open(&answer) {
            // There was nobody to be asked.
            return;
        }
        let asked = Asked {
            client,
            by_library: true,
            session: SessionId::NONE,
            id: None,
            request,
            payload: Bytes::new(),
            durability: Durability::Replicated,
        };
        self.trace.say(self.now, || {
            format!("library {client} has kept: {}: {}", describe(&asked), describe_answer(&answer))
        });
        let operation = self.history.begin(asked, since, 0);
        let answered = Answered { at: self.now, sent: since, released: None, answer };
        self.history.operations[operation].answered = Some(answered);
    }

    fn take_wanted(&mut self, wanted: Wanted) {
        match wanted {
            Wanted::Connect(wire, to) => self.lay(wire, to),
            Wanted::Send(wire, class, bytes, token) => self.send_up(wire, class_number(class), bytes, token),
            Wanted::Close(wire) => {
                let Some(line) = self.traffic.lines.get_mut(&wire) else { return };
                line.is_closed = true;
                let (client, place) = (line.client, line.place);
                let told = self.network.carry(Host::Client(client), Host::Volcano(place)).first().copied();
                self.after(told.unwrap_or(IDLE), Event::OnWire(wire, OnWire::Gone));
            }
        }
    }

    /// The machine of a client is gone with all its wires.
    pub(in crate::ring) fn forget_library(&mut self, client: usize) {
        let wires: Vec<WireId> = self
            .traffic
            .lines
            .iter()
            .filter(|(_, line)| line.client == client)
            .map(|(wire, _)| *wire)
            .collect();
        for wire in wires {
            if let Some(line) = self.traffic.lines.get_mut(&wire) {
                line.is_closed = true;
            }
            self.after(IDLE, Event::OnWire(wire, OnWire::Gone));
        }
    }

    fn lay(&mut self, wire: WireId, to: SocketAddr) {
        let Some(client) = self.libraries.wires.client_of(wire) else { return };
        let Some(place) = place_of(to).filter(|place| *place < self.volcanos.len()) else { return };
        let (streams, pending) = Default::default();
        let line = Line { client, place, run: None, streams, pending, is_closed: false };
        self.traffic.lines.insert(wire, line);
        self.knock(wire, client, place);
    }

    fn knock(&mut self, wire: WireId, client: usize, place: usize) {
        // A handshake is two round trips.
        match self.network.carry(Host::Client(client), Host::Volcano(place)).first() {
            Some(delay) => self.after(*delay * 2, Event::OnWire(wire, OnWire::Knock)),
            None => self.after(AGAIN * 8, Event::OnWire(wire, OnWire::Again(Way::Up, u8::MAX))),
        }
    }

    fn send_up(&mut self, wire: WireId, class: u8, bytes: Bytes, token: Option<u64>) {
        let Some(client) = self.traffic.lines.get(&wire).map(|line| line.client) else { return };
        if let Frame::Request(frame) = frame_of(&bytes) {
            let operation = self.operation_of(client, &frame, token);
            let pending = Pending { class, opcode: frame.opcode, operation, sent: self.now };
            let asked = &self.history.operations[operation].asked;
            self.trace.say(self.now, || format!("wire {wire}, {:?}: {}", frame.header.tag, describe(asked)));
            if let Some(line) = self.traffic.lines.get_mut(&wire) {
                line.pending.insert(frame.header.tag, pending);
            }
        }
        self.digest_wire("ask", wire, &bytes);
        self.push(wire, Way::Up, class, Parcel { bytes, released: 0 });
    }

    /// The operation of the history that a frame carries; it begins if this is its first one.
    fn operation_of(&mut self, client: usize, frame: &RequestFrame, token: Option<u64>) -> usize {
        let (id, session) = (frame.header.op_id(), frame.header.session);
        let request = frame.request().expect("a request that was sent can be decoded");
        let piece = (frame.opcode, frame.body.clone());
        let of_pieces = token.filter(|_| self.scenario.stripes.is_some() && goes_in_pieces(&request));
        let pieces = of_pieces.map(|token| self.traffic.pieces.entry(token).or_default());
        // What a library states before it tells its user of an open is not what the user asked for.
        let token = token.filter(|_| of_pieces.is_none() && !matches!(request, Request::ReclaimOpens(_)));
        let known = match (token, id) {
            (None, None) if of_pieces.is_some() => pieces.and_then(|pieces| pieces.get(&piece).copied()),
            (Some(token), _) => self.traffic.asked.get(&token).copied(),
            (None, Some(id)) => {
                let operation = self.traffic.own.get(&id).copied();
                let operation = operation.filter(|operation| !self.is_aimed_anew(*operation, &request));
                operation.map(|operation| Begun { operation, id: Some(id), session })
            }
            (None, None) => None,
        };
        let same = known.filter(|known| known.id == id && (id.is_some() || known.session == session));
        if let Some(same) = same {
            return same.operation;
        }
        if let Some(former) = known {
            self.history.operations[former.operation].in_doubt = true;
        }
        let asked = Asked {
            client,
            by_library: true,
            session,
            id,
            request,
            payload: frame.payload.clone(),
            durability: frame.header.durability,
        };
        let floor = self.oracle.floor(&asked.request);
        let operation = self.history.begin(asked, self.now, floor);
        match (token, id) {
            (Some(token), id) => {
                self.traffic.asked.insert(token, Begun { operation, id, session });
            }
            (None, Some(id)) => {
                self.traffic.own.insert(id, operation);
            }
            (None, None) => {
                let pieces = of_pieces.and_then(|token| self.traffic.pieces.get_mut(&token));
                pieces.map(|pieces| pieces.insert(piece, Begun { operation, id, session }));
            }
        }
        operation
    }

    /// Whether a part of a call that was refused, because the stripe that it was for is gone, goes to the one that is there now. It
    /// keeps its id: had it been done before, it would not be done again. The refused one was not done, and is another operation.
    fn is_aimed_anew(&mut self, former: usize, request: &Request) -> bool {
        let former = &mut self.history.operations[former];
        let was_refused = former.answered.as_ref().is_some_and(|answered| answered.answer.is_err());
        let is_aimed_anew = was_refused && former.asked.request != *request;
        if is_aimed_anew {
            former.asked.id = None;
        }
        is_aimed_anew
    }

    fn push(&mut self, wire: WireId, way: Way, class: u8, parcel: Parcel) {
        let Some(line) = self.traffic.lines.get_mut(&wire) else { return };
        line.streams.entry((way, class)).or_default().waiting.push_back(parcel);
        self.carry_on(wire, way, class);
    }

    /// Sends what waits in a stream, until something is lost.
    fn carry_on(&mut self, wire: WireId, way: Way, class: u8) {
        let mut sent = Vec::new();
        let Some(line) = self.traffic.lines.get_mut(&wire) else { return };
        let (client, volcano) = (Host::Client(line.client), Host::Volcano(line.place));
        let (from, to) = if way == Way::Up { (client, volcano) } else { (volcano, client) };
        let Some(stream) = line.streams.get_mut(&(way, class)) else { return };
        while !stream.is_stuck && !stream.waiting.is_empty() {
            let Some(delay) = self.network.carry(from, to).first().copied() else {
                stream.is_stuck = true;
                break;
            };
            stream.last = (stream.last + 1).max(self.now + delay);
            sent.extend(stream.waiting.pop_front().map(|parcel| (stream.last, parcel)));
        }
        let is_stuck = stream.is_stuck;
        for (at, parcel) in sent {
            self.after(at - self.now, Event::OnWire(wire, OnWire::Arrive(way, class, parcel)));
        }
        if is_stuck {
            let pause = self.dice.range(AGAIN, 8 * AGAIN);
            self.after(pause, Event::OnWire(wire, OnWire::Again(way, class)));
        }
    }

    pub(in crate::ring) fn on_wire(&mut self, wire: WireId, event: OnWire) {
        let Some(line) = self.traffic.lines.get(&wire) else { return };
        let (client, place, run) = (line.client, line.place, line.run);
        match event {
            OnWire::Knock => self.is_knocked(wire, client, place),
            OnWire::Open => {
                self.libraries.wires.is_laid(wire);
                self.run_libraries();
            }
            OnWire::Again(_, u8::MAX) if run.is_none() => {
                if !line.is_closed {
                    self.knock(wire, client, place);
                }
            }
            OnWire::Again(way, class) => {
                let stream =
                    self.traffic.lines.get_mut(&wire).and_then(|line| line.streams.get_mut(&(way, class)));
                if let Some(stream) = stream {
                    stream.is_stuck = false;
                }
                self.carry_on(wire, way, class);
            }
            OnWire::Arrive(Way::Up, class, parcel) => self.arrives_up(wire, class, parcel),
            OnWire::Arrive(Way::Down, _, parcel) => self.arrives_down(wire, &parcel),
            OnWire::Acknowledged => {
                self.libraries.wires.is_acknowledged(wire);
            }
            OnWire::Reset => {
                self.libraries.wires.is_reset(wire);
                self.run_libraries();
            }
            OnWire::Gone => self.is_gone(wire, place, run),
        }
    }

    fn is_knocked(&mut self, wire: WireId, client: usize, place: usize) {
        let volcano = &self.volcanos[place];
        if !volcano.is_up() {
            return;
        }
        if volcano.paused.is_some() {
            return self.after(STANDING, Event::OnWire(wire, OnWire::Knock));
        }
        let run = volcano.run;
        if let Some(line) = self.traffic.lines.get_mut(&wire) {
            line.run = Some(run);
        }
        match self.network.carry(Host::Volcano(place), Host::Client(client)).first() {
            Some(delay) => self.after(*delay * 2, Event::OnWire(wire, OnWire::Open)),
            None => self.after(AGAIN * 8, Event::OnWire(wire, OnWire::Knock)),
        }
    }

    fn arrives_up(&mut self, wire: WireId, class: u8, parcel: Parcel) {
        let Some(line) = self.traffic.lines.get(&wire) else { return };
        let (client, place, run) = (line.client, line.place, line.run);
        let volcano = &self.volcanos[place];
        if !volcano.is_up() {
            return;
        }
        if volcano.paused.is_some() {
            return self.after(STANDING, Event::OnWire(wire, OnWire::Arrive(Way::Up, class, parcel)));
        }
        let back = self.network.carry(Host::Volcano(place), Host::Client(client)).first().copied();
        if run != Some(volcano.run) {
            if let Some(delay) = back {
                self.after(delay, Event::OnWire(wire, OnWire::Reset));
            }
            return;
        }
        if let Some(delay) = back {
            self.after(delay, Event::OnWire(wire, OnWire::Acknowledged));
        }
        match frame_of(&parcel.bytes) {
            Frame::Request(frame) => self.request_comes(wire, place, client, &frame),
            Frame::Cancel(tag) if tag != Tag(0) => {
                self.put(place, Input::Cancel(client, try_of(wire, tag)));
            }
            Frame::Cancel(_) | Frame::Hello(_) | Frame::Reply(_) => {}
        }
    }

    fn request_comes(&mut self, wire: WireId, place: usize, client: usize, frame: &RequestFrame) {
        let pending = self.traffic.lines.get(&wire).and_then(|line| line.pending.get(&frame.header.tag));
        let Some(operation) = pending.map(|pending| pending.operation) else { return };
        let request = frame.request().expect("a request that was sent can be decoded");
        let slice = self.oracle.slice_of(&request);
        let tag = try_of(wire, frame.header.tag);
        let route = Route { client, tag, operation, slice, through: None, at: Seq(0) };
        let patience = frame.header.deadline_ms.map(|ms| Duration::from_millis(ms.into()));
        let now = self.volcanos[place].clock.now(self.now).monotonic;
        let deadline = patience.map(|patience| now + patience);
        let (header, payload) = (frame.header.clone(), frame.payload.clone());
        self.put(place, Input::Request(route, Box::new(Call { header, deadline, request, payload })));
    }

    /// An answer leaves a volcano for a library; false if it is not for one.
    pub(in crate::ring) fn answer_library(
        &mut self,
        place: usize,
        route: &Route,
        passed: Option<&Passed>,
    ) -> bool {
        let Some((wire, tag)) = wire_of(route.tag) else { return false };
        let volcano_run = self.volcanos[place].run;
        let Some(line) = self.traffic.lines.get(&wire).filter(|line| line.run == Some(volcano_run)) else {
            return true;
        };
        let (Some(pending), Some(passed)) = (line.pending.get(&tag), passed) else { return true };
        let (class, opcode) = (pending.class, pending.opcode);
        let failure: Failure;
        let outcome = match &passed.answer {
            Ok((reply, payload)) => Ok((reply, payload.clone())),
            Err(error) => {
                failure = (*error).into();
                Err(&failure)
            }
        };
        let encoded = frame::reply(tag, opcode, passed.version, outcome).expect("answers can be encoded");
        let bytes: Bytes = [&encoded.head[..], &encoded.payload[..]].concat().into();
        self.push(wire, Way::Down, class, Parcel { bytes, released: passed.released });
        true
    }

    fn arrives_down(&mut self, wire: WireId, parcel: &Parcel) {
        self.digest_wire("answer", wire, &parcel.bytes);
        let Frame::Reply(reply) = frame_of(&parcel.bytes) else { return };
        let pending = self.traffic.lines.get_mut(&wire).and_then(|line| line.pending.remove(&reply.tag));
        if let Some(Pending { operation, sent, .. }) = pending
            && self.libraries.wires.client_of(wire).is_some()
        {
            let outcome = reply.clone().outcome().expect("an answer that was sent can be decoded");
            let answer = outcome.map_err(|failure| failure.error);
            self.trace
                .say(self.now, || format!("wire {wire}, {:?}: {}", reply.tag, describe_answer(&answer)));
            self.note_arrival(operation, sent, parcel.released, answer);
        }
        self.libraries.wires.arrives(wire, reply);
        self.run_libraries();
    }

    /// An answer has come. What the library asked of itself is answered by it; a user hears of it later.
    fn note_arrival(
        &mut self,
        operation: usize,
        sent: Time,
        released: Time,
        answer: Result<(Reply, Bytes), FlareError>,
    ) {
        self.traffic.heard.insert(operation, (sent, released));
        let is_users = self.traffic.asked.values().any(|begun| begun.operation == operation);
        let is_decided =
            !is_passing(&answer) && !matches!(answer, Err(FlareError::SessionEnded | FlareError::Io));
        if !is_users && is_decided && self.history.operations[operation].answered.is_none() {
            let answered = Answered { at: self.now, sent, released: Some(released), answer };
            self.history.operations[operation].answered = Some(answered);
        }
    }

    fn is_gone(&mut self, wire: WireId, place: usize, run: Option<u64>) {
        let Some(line) = self.traffic.lines.remove(&wire) else { return };
        if self.volcanos[place].is_up() && run == Some(self.volcanos[place].run) {
            for tag in line.pending.into_keys() {
                self.put(place, Input::Cancel(line.client, try_of(wire, tag)));
            }
        }
    }
}
