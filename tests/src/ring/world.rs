//! Volcanos, clients and the network between them, in one thread, on a simulated clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::proto::{Reply, Request};
use magma_common::stripes::StripeUnit;
use magma_common::topology::{Seq, SliceId, Topology, VolcanoId};
use magma_volcano::node::Effect;
use magma_volcano::node::message::{Envelope, Message};
use magma_volcano::observed;
use magma_volcano::slice::{Answer, Call, SyncFor, Ticket};
use magma_volcano::store::{BodyRead, SyncJob};

use super::caller::Caller;
use super::client::{Arrival, Client, Surroundings, Try};
use super::clock::{MICROSECOND, MILLISECOND, SECOND, Time};
use super::dice::Dice;
use super::digest::Digest;
use super::faults::{Faults, Trouble};
use super::history::{History, Violation, describe, describe_answer, violation};
use super::library::passing::TRIES;
use super::library::traffic::{OnWire, Traffic};
use super::library::wires::WireId;
use super::library::{Libraries, LibraryClient};
use super::network::{Host, Network};
use super::oracle::{Oracle, driver_of};
use super::scenario::Scenario;
use super::sweep::Seed;
use super::trace::Trace;
use super::volcano::{
    Beginning, Input, PATIENCE_OF_FORWARDS, Passed, Route, Volcano, client_address, node_address, place_of,
};

/// Something that happens at a time.
pub(super) enum Event {
    /// A message of a volcano arrives.
    Deliver(usize, SocketAddr, Bytes),
    /// A request arrives; how long the caller waits.
    Request(usize, Route, Option<Duration>, Box<Call>),
    /// Who asked has gone away.
    Cancel(usize, usize, u64),
    /// An answer arrives at a client; none if nobody was there to be asked.
    Answer(usize, u64, Option<Passed>),
    /// An answer to a request that was passed on arrives where it was passed on.
    Back((usize, u64, u64), Option<Passed>),
    /// A process looks at what waits for it.
    Call(usize, u64),
    /// A process is told the time.
    Tick(usize, u64),
    /// A sync ends that was begun at this time, when these were the last records.
    Sync(usize, u64, SyncJob, Vec<SyncFor>, (Time, BTreeMap<SliceId, Seq>)),
    /// A read ends.
    Read(usize, u64, Ticket, BodyRead),
    /// A client has something to do.
    Client(usize, u64),
    /// Something happens on a wire of a library.
    OnWire(WireId, OnWire),
    /// Whether the volcano that something was passed on to for a library still is there is looked at: the hop, where it leads and in which
    /// run of the process, and how often it was silent.
    Hop((usize, u64, u64), (usize, u64), u32),
    /// What was lost is sent again, so many times more.
    Repeat((Host, Host), Box<Event>, u32),
    /// A library waits for this time.
    WakeLibraries(Time),
    /// A fault begins or ends.
    Trouble(Trouble),
}

/// See the module's documentation.
pub struct World {
    pub(super) now: Time,
    queue: BTreeMap<(Time, u64), Event>,
    count: u64,
    pub(super) scenario: Scenario,
    pub(super) volcanos: Vec<Volcano>,
    pub(super) clients: Vec<Caller>,
    pub(super) libraries: Libraries,
    pub(super) traffic: Traffic,
    client_calls: Vec<u64>,
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    pub(super) history: History,
    pub(super) faults: Faults,
    pub(super) trace: Trace,
    digest: Digest,
    pub(super) dice: Dice,
    pub(super) folder: std::path::PathBuf,
    seed: u64,
    /// Events that have happened.
    pub events: u64,
}

type Done = Result<(), Violation>;

impl World {
    /// The world of a seed; its databases lie in this folder.
    pub fn new(seed: Seed, folder: &Path, trace: Trace) -> Self {
        let Seed { number: seed, slices, libraries, calm, stripes } = seed;
        let scenario = Scenario::draw(&mut Dice::new(seed, "scenario"));
        let scenario = scenario.seasoned(&mut Dice::new(seed, "seasoning"));
        let stripes = stripes.then_some(StripeUnit::SMALLEST);
        let scenario =
            Scenario { libraries, stripes, ..scenario.cut(slices, &mut Dice::new(seed, "slices")) };
        let scenario = if calm { scenario.calmed(&mut Dice::new(seed, "calm")) } else { scenario };
        trace.say(0, || format!("seed {seed}: {scenario:?}"));
        let libraries = Libraries::new(Dice::new(seed, "libraries"));
        let clients = (0..scenario.clients).map(|index| {
            let dice = Dice::new(seed, &format!("client {index}"));
            if scenario.libraries {
                Caller::Library(LibraryClient::new(index, dice, libraries.clone()))
            } else {
                Caller::Protocol(Client::new(index, dice))
            }
        });
        let clients: Vec<Caller> = clients.collect();
        let network = Network::new(Dice::new(seed, "network"), scenario.weather.clone());
        let mut oracle = Oracle::default();
        oracle.is_fair = scenario.weather.loss == 0 && scenario.weather.slow == 0;
        oracle.frozen_clocks = scenario.frozen_clocks;
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            count: 0,
            volcanos: Vec::new(),
            client_calls: vec![0; scenario.clients],
            clients,
            libraries,
            traffic: Traffic::default(),
            network,
            oracle,
            history: History::default(),
            faults: Faults::new(Dice::new(seed, "faults"), Dice::new(seed, "reshaping")),
            trace,
            digest: Digest::default(),
            dice: Dice::new(seed, "world"),
            folder: folder.to_path_buf(),
            seed,
            events: 0,
            scenario,
        };
        for place in 0..world.scenario.volcanos {
            let beginning = if place == 0 { world.scenario.foundation() } else { Beginning::Join };
            world.add_volcano(beginning);
            world.after(place as Time * 300 * MILLISECOND, Event::Trouble(Trouble::Start(place)));
        }
        for client in 0..world.clients.len() {
            world.after(SECOND, Event::Client(client, 0));
        }
        world.begin_troubles();
        world
    }

    /// Another machine; its place.
    pub(super) fn add_volcano(&mut self, beginning: Beginning) -> usize {
        let place = self.volcanos.len();
        let folder = self.folder.join(format!("volcano{place}"));
        let dice = Dice::new(self.seed, &format!("volcano {place}"));
        self.volcanos.push(Volcano::new(place, folder, dice, beginning));
        self.volcanos[place].is_expected = true;
        place
    }

    pub(super) fn after(&mut self, delay: Time, event: Event) {
        self.count += 1;
        self.queue.insert((self.now + delay, self.count), event);
    }

    /// The hash over all that happened.
    pub fn digest(&self) -> String {
        self.digest.value()
    }

    /// Something has passed on a wire.
    pub(super) fn digest_wire(&mut self, what: &str, wire: WireId, bytes: &[u8]) {
        self.digest.note(self.now, what, wire as usize, bytes);
    }

    /// What clients asked and heard.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Lets time pass up to this moment.
    pub fn run_until(&mut self, end: Time) -> Done {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            self.now = entry.key().0;
            let event = entry.remove();
            self.events += 1;
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Done {
        match event {
            Event::Deliver(place, from, bytes) => {
                self.digest.note(self.now, "message", place, stable_part(&bytes));
                if self.volcanos[place].is_up() {
                    self.put(place, Input::Message(from, bytes));
                }
            }
            Event::Request(place, route, patience, call) => {
                self.request_arrives(place, route, patience, call)
            }
            Event::Cancel(place, client, tag) => {
                if self.volcanos[place].is_up() {
                    self.put(place, Input::Cancel(client, tag));
                }
            }
            Event::Answer(client, tag, passed) => self.answer_arrives(client, tag, passed),
            Event::Back(hop, passed) => self.comes_back(hop, passed),
            Event::Call(place, run) => {
                if self.volcanos[place].run == run && self.volcanos[place].paused.is_none() {
                    return self.process(place);
                }
                if self.volcanos[place].run == run {
                    self.volcanos[place].is_called = false;
                }
            }
            Event::Tick(place, run) => return self.tick(place, run),
            Event::Sync(place, run, job, purpose, begun) => {
                if self.volcanos[place].run == run {
                    let done = job.run();
                    self.volcanos[place].has_synced(&purpose, (begun.0, &begun.1));
                    self.put(place, Input::Synced(Box::new(done), purpose));
                    if self.volcanos[place].disk.is_killed() {
                        self.crash(place, "in the middle of a sync");
                    }
                }
            }
            Event::Read(place, run, ticket, read) => {
                if self.volcanos[place].run == run {
                    self.put(place, Input::Read(ticket, read.run()));
                }
            }
            Event::Client(client, call) => {
                if self.client_calls[client] == call {
                    self.client_acts(client);
                }
            }
            Event::OnWire(wire, event) => self.on_wire(wire, event),
            Event::Hop(hop, to, silent) => self.look_at_hop(hop, to, silent),
            Event::Repeat(way, event, tries) => self.carry_reliably(way, event, tries),
            Event::WakeLibraries(at) => self.wake_libraries(at),
            Event::Trouble(trouble) => {
                self.digest.note(self.now, "trouble", 0, format!("{trouble:?}").as_bytes());
                return self.trouble(trouble);
            }
        }
        Ok(())
    }

    // ---- clients ----

    /// Has a client that speaks the protocol by itself do something; none if it is a library.
    fn with_client<T>(
        &mut self,
        client: usize,
        act: impl FnOnce(&mut Client, &mut Surroundings<'_>) -> T,
    ) -> Option<T> {
        let (volcanos, oracle) = (&self.volcanos, &self.oracle);
        let places = |id: VolcanoId| {
            volcanos.iter().rposition(|volcano| volcano.life.is_some_and(|life| life.volcano == id))
        };
        let there = volcanos.iter().filter(|volcano| !volcano.is_gone).map(|volcano| volcano.place);
        let machines: Vec<usize> = there.collect();
        let mut surroundings = Surroundings {
            now: self.now,
            history: &mut self.history,
            floor: &|request| oracle.floor(request),
            machines: &machines,
            places: &places,
        };
        match &mut self.clients[client] {
            Caller::Protocol(client) => Some(act(client, &mut surroundings)),
            Caller::Library(_) => None,
        }
    }

    pub(super) fn client_acts(&mut self, client: usize) {
        let tries = self.with_client(client, Client::act);
        for sent in tries.unwrap_or_default() {
            self.send_request(client, sent);
        }
        let there = self.volcanos.iter().filter(|volcano| !volcano.is_gone);
        let hosts = || there.map(|volcano| client_address(volcano.place)).collect();
        if let Caller::Library(library) = &mut self.clients[client] {
            library.act(self.now, self.history.operations.len(), hosts);
            self.run_libraries();
        }
        self.call_client(client);
    }

    pub(super) fn call_client(&mut self, client: usize) {
        let due = self.clients[client].due(self.now);
        self.client_calls[client] += 1;
        let call = self.client_calls[client];
        self.after(due.saturating_sub(self.now).min(SECOND), Event::Client(client, call));
    }

    fn send_request(&mut self, client: usize, sent: Try) {
        let Try { to, tag, before, operation, header, request, payload } = sent;
        let asked = &self.history.operations[operation].asked;
        self.trace.say(self.now, || format!("client {client} asks {to} (try {tag}): {}", describe(asked)));
        self.digest.note(self.now, "ask", client, &tag.to_le_bytes());
        let patience = header.deadline_ms.map(|ms| Duration::from_millis(ms.into()));
        if let Some((before, place)) = before
            && self.dice.one_in(2)
            && let Some(delay) = self.network.carry(Host::Client(client), Host::Volcano(place)).first()
        {
            self.after(*delay, Event::Cancel(place, client, before));
        }
        let slice = self.oracle.slice_of(&request);
        let route = Route { client, tag, operation, slice, through: None, at: Seq(0) };
        let call = Box::new(Call { header, deadline: None, request, payload });
        if let Some(delay) = self.network.carry(Host::Client(client), Host::Volcano(to)).first() {
            self.after(*delay, Event::Request(to, route, patience, call));
        }
    }

    fn request_arrives(
        &mut self,
        place: usize,
        route: Route,
        patience: Option<Duration>,
        mut call: Box<Call>,
    ) {
        let volcano = &mut self.volcanos[place];
        if !volcano.is_up() {
            // Sometimes the machine says that nobody listens.
            if self.dice.one_in(2) {
                self.answer_goes(place, route, None);
            }
            return;
        }
        let now = volcano.clock.now(self.now).monotonic;
        call.deadline = patience.map(|patience| now + patience);
        self.put(place, Input::Request(route, call));
    }

    /// An answer leaves a machine, on its way to who asked there.
    fn answer_goes(&mut self, place: usize, route: Route, passed: Option<Passed>) {
        if route.through.is_none() && self.answer_library(place, &route, passed.as_ref()) {
            return;
        }
        let from = Host::Volcano(place);
        let (to, event) = match route.through {
            Some(hop) => (Host::Volcano(hop.0), Event::Back(hop, passed)),
            None => (Host::Client(route.client), Event::Answer(route.client, route.tag, passed)),
        };
        if route.is_of_library() {
            self.carry_reliably((from, to), Box::new(event), TRIES);
        } else if let Some(delay) = self.network.carry(from, to).first() {
            self.after(*delay, event);
        }
    }

    pub(super) fn comes_back(&mut self, hop: (usize, u64, u64), passed: Option<Passed>) {
        let (place, run, number) = hop;
        let volcano = &mut self.volcanos[place];
        if volcano.run != run {
            return;
        }
        if volcano.paused.is_some() {
            self.after(50 * MILLISECOND, Event::Back(hop, passed));
            return;
        }
        let Some(route) = volcano.forwards.remove(&number) else { return };
        let unavailable = Passed { released: self.now, version: 0, answer: Err(FlareError::Unavailable) };
        self.answer_goes(place, route, Some(passed.unwrap_or(unavailable)));
    }

    fn answer_arrives(&mut self, client: usize, tag: u64, passed: Option<Passed>) {
        self.digest.note(self.now, "answer", client, &tag.to_le_bytes());
        let released = passed.as_ref().map_or(self.now, |passed| passed.released);
        let version = passed.as_ref().map_or(0, |passed| passed.version);
        let answer = passed.map(|passed| passed.answer);
        self.trace.say(self.now, || {
            let said = answer.as_ref().map_or("nobody listens".to_owned(), describe_answer);
            format!("client {client} hears (try {tag}): {said}")
        });
        self.with_client(client, |client, world| {
            client.hear(world, Arrival { tag, released, version, answer })
        });
        self.call_client(client);
    }

    // ---- processes ----

    pub(super) fn put(&mut self, place: usize, input: Input) {
        let delay = self.dice.below(200 * MICROSECOND);
        let volcano = &mut self.volcanos[place];
        volcano.put(input);
        self.call(place, delay);
    }

    pub(super) fn call(&mut self, place: usize, delay: Time) {
        let volcano = &mut self.volcanos[place];
        if !volcano.is_called && volcano.paused.is_none() && volcano.is_up() {
            volcano.is_called = true;
            let run = volcano.run;
            self.after(delay, Event::Call(place, run));
        }
    }

    /// A process takes what waits for it.
    fn process(&mut self, place: usize) -> Done {
        self.volcanos[place].is_called = false;
        let inputs = std::mem::take(&mut self.volcanos[place].inbox);
        for input in inputs {
            self.take(place, input);
            self.settle(place)?;
        }
        let volcano = &mut self.volcanos[place];
        let now = volcano.clock.now(self.now);
        if let Some(node) = &mut volcano.node {
            node.batch_end(now);
        }
        self.settle(place)
    }

    fn take(&mut self, place: usize, input: Input) {
        if let Input::Message(from, bytes) = &input
            && let (Some(from), Ok(envelope)) = (place_of(*from), postcard::from_bytes::<Envelope>(bytes))
        {
            self.note_beacon(place, from, &envelope.message);
        }
        let volcano = &mut self.volcanos[place];
        let now = volcano.clock.now(self.now);
        let Some(mut node) = volcano.node.take() else { return };
        match input {
            Input::Message(from, bytes) => match postcard::from_bytes::<Envelope>(&bytes) {
                Ok(envelope) => node.receive(now, from, envelope),
                Err(error) => panic!("a message that was sent does not decode: {error}"),
            },
            Input::Request(mut route, call) => {
                route.slice = slice_known(node.topology(), &call.request).unwrap_or(route.slice);
                route.at = node.store().position(route.slice).unwrap_or_default().seq;
                let ticket = volcano.take_in(route);
                node.request(now, ticket, *call);
            }
            Input::Cancel(client, tag) => {
                let of_try = |(_, route): &(&Ticket, &Route)| route.client == client && route.tag == tag;
                if let Some(ticket) = volcano.waiting.iter().find(of_try).map(|(ticket, _)| *ticket) {
                    node.cancel(ticket);
                }
            }
            Input::Synced(done, purpose) => node.synced(now, *done, purpose),
            Input::Read(ticket, read) => node.read_done(now, ticket, read),
            Input::Wanted(change) => node.propose(now, &change),
            Input::ShutDown => node.shut_down(true),
        }
        volcano.node = Some(node);
    }

    fn tick(&mut self, place: usize, run: u64) -> Done {
        let volcano = &mut self.volcanos[place];
        if volcano.run != run {
            return Ok(());
        }
        if volcano.paused.is_some() {
            volcano.missed_tick = true;
            return Ok(());
        }
        let now = volcano.clock.now(self.now);
        if let Some(node) = &mut volcano.node {
            node.tick(now);
        }
        self.settle(place)?;
        if self.volcanos[place].run == run {
            let delay = self.volcanos[place].next_tick();
            self.after(delay, Event::Tick(place, run));
        }
        Ok(())
    }

    /// The process has done something: watches it and carries out what it wants done.
    pub(super) fn settle(&mut self, place: usize) -> Done {
        self.watch_topology(place)?;
        for (made, record) in observed::taken() {
            self.trace.say(self.now, || {
                let id = record.outcome.as_ref().map(|outcome| outcome.id);
                let (slice, epoch, seq) = (record.slice.0, record.epoch.0, record.seq.0);
                format!("record {seq} of slice {slice}, epoch {epoch}, for {id:?}: {:?}", record.changes)
            });
            self.oracle.record(self.now, &self.history, made, &record)?;
        }
        if self.volcanos[place].disk.is_killed() {
            self.crash(place, "in the middle of writing");
            return Ok(());
        }
        self.watch_reigns(place)?;
        let Some(node) = &mut self.volcanos[place].node else { return Ok(()) };
        for effect in node.effects() {
            if self.volcanos[place].is_up() {
                self.carry_out(place, effect)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, place: usize, effect: Effect) -> Done {
        match effect {
            Effect::Answer(ticket, answer) => self.answer(place, ticket, answer),
            Effect::Forward(ticket, to, call) => {
                self.forward(place, ticket, to, call);
                Ok(())
            }
            Effect::Sync(job, purpose) => {
                let delay = self.volcanos[place].next_sync_time();
                let begun = (self.now, self.volcanos[place].last_records());
                self.after(delay, Event::Sync(place, self.volcanos[place].run, job, purpose, begun));
                Ok(())
            }
            Effect::Read(ticket, read) => {
                let delay = self.volcanos[place].next_sync_time();
                self.after(delay, Event::Read(place, self.volcanos[place].run, ticket, read));
                Ok(())
            }
            Effect::Send(to, envelope) => self.send(place, to, &envelope),
            Effect::Shutdown | Effect::Forgotten => self.close(place),
            Effect::Stop(reason) => self.stopped(place, &reason),
        }
    }

    fn send(&mut self, place: usize, to: SocketAddr, envelope: &Envelope) -> Done {
        let Some(target) = place_of(to).filter(|target| *target < self.volcanos.len()) else { return Ok(()) };
        if self.trace.prints() && is_telling(&envelope.message) {
            let mut line = format!("volcano {place} to {target}: {:?}", envelope.message);
            line.truncate(300);
            self.trace.say(self.now, || line);
        }
        self.check_message(place, target, &envelope.message)?;
        let bytes = Bytes::from(postcard::to_stdvec(envelope).expect("messages can be encoded"));
        let from = node_address(place);
        for delay in self.network.carry(Host::Volcano(place), Host::Volcano(target)) {
            self.after(delay, Event::Deliver(target, from, bytes.clone()));
        }
        if let Message::Across(to, message) = &envelope.message {
            self.strike(place, to, message);
        }
        Ok(())
    }

    fn answer(&mut self, place: usize, ticket: Ticket, answer: Answer) -> Done {
        let volcano = &mut self.volcanos[place];
        let Some(mut route) = volcano.waiting.remove(&ticket) else {
            return violation(format!("answers: volcano {place} answers {ticket:?} twice, or nobody asked"));
        };
        let answer = answer.map_err(|failure| failure.error);
        let request = &self.history.operations[route.operation].asked.request;
        // Its slice may have been divided since it came.
        let known = volcano.topology().and_then(|topology| slice_known(topology, request));
        if let Some(slice) = known.filter(|slice| *slice != route.slice) {
            let divided = self.oracle.division(slice).map(|(_, at)| at);
            (route.slice, route.at) = (slice, divided.map_or(route.at, |at| route.at.min(at)));
        }
        let reign = volcano.slice(route.slice).map(|slice| slice.reign()).unwrap_or_default();
        let version = volcano.node.as_ref().map_or(0, |node| node.topology().version);
        self.trace.say(self.now, || {
            format!(
                "volcano {place} answers client {} (try {}): {}",
                route.client,
                route.tag,
                describe_answer(&answer)
            )
        });
        if is_evaluated(&answer) {
            self.oracle.released(self.now, &self.history, route.operation, reign, &answer)?;
            self.check_answer(place, &route, answer.is_ok())?;
        }
        self.answer_goes(place, route, Some(Passed { released: self.now, version, answer }));
        Ok(())
    }

    fn forward(&mut self, place: usize, ticket: Ticket, to: SocketAddr, mut call: Box<Call>) {
        let now = self.volcanos[place].clock.now(self.now).monotonic;
        let volcano = &mut self.volcanos[place];
        let Some(route) = volcano.waiting.remove(&ticket) else { return };
        let number = volcano.pass_on(route.clone());
        let hop = (place, volcano.run, number);
        let route = Route { through: Some(hop), ..route };
        let patience = call.deadline.take().map(|deadline| deadline.saturating_sub(now));
        call.header.forwarded = true;
        let target = place_of(to).filter(|target| *target < self.volcanos.len());
        if let Some(target) = target.filter(|_| route.is_of_library()) {
            return self.forward_reliably(target, (route, patience, call));
        }
        let wait = patience.map_or(0, |patience| patience.as_nanos() as Time);
        self.after(PATIENCE_OF_FORWARDS + wait, Event::Back(hop, None));
        let Some(target) = target else { return };
        if let Some(delay) = self.network.carry(Host::Volcano(place), Host::Volcano(target)).first() {
            self.after(*delay, Event::Request(target, route, patience, call));
        }
    }
}

/// Who drives a request in this topology.
fn slice_known(topology: &Topology, request: &Request) -> Option<SliceId> {
    topology.slice_of(&driver_of(request)).map(|slice| slice.id)
}

/// Whether an answer says anything about the namespace.
fn is_evaluated(answer: &Result<(Reply, Bytes), FlareError>) -> bool {
    let passing = [FlareError::Unavailable, FlareError::NotOwner, FlareError::Interrupted, FlareError::Io];
    !answer.as_ref().is_err_and(|error| passing.contains(error))
}

/// Messages worth a line: not the signs of life.
fn is_telling(message: &Message) -> bool {
    !matches!(
        message,
        Message::Alive(_) | Message::Consensus(_) | Message::Topology(_) | Message::FetchTopology
    )
}

/// What of a message is the same for the same seed: not the load of this machine.
fn stable_part(bytes: &Bytes) -> &[u8] {
    match postcard::from_bytes::<Envelope>(bytes) {
        Ok(envelope) if matches!(envelope.message, Message::Alive(_)) => b"alive",
        _ => bytes,
    }
}

impl World {
    /// All clients that are there are about this now.
    pub fn all_clients(&mut self, phase: super::client::Phase) {
        for client in 0..self.clients.len() {
            if self.clients[client].phase() != super::client::Phase::Gone {
                self.clients[client].begin(phase);
                self.client_acts(client);
            }
        }
    }
}
