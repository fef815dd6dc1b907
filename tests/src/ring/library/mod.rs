//! Clients that are the client library itself, as every front end uses it: in surroundings of its own, on simulated time, over
//! wires that carry frames.
//!
//! | file | concern |
//! |---|---|
//! | `executor` | its tasks and its clock |
//! | `wires` | what it sends and hears |
//! | `traffic` | the wires' way through the world, and the volcanos' ends |
//! | `passing` | what volcanos pass on for them |
//!
//! An operation of the history is what a user asked the library for; requests of its own (sessions, signs of life, what is open,
//! releases) are operations, too. Each begins with the first frame that carries it.

pub mod executor;
pub mod passing;
pub mod traffic;
pub mod wires;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::client::cache::LIFETIME;
use magma_common::client::{Client, Context, HostPort};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::{Getattr, LockKind};
use magma_common::proto::{Credentials, Durability, Failure, Reply, Request};

use self::executor::Executor;
use self::wires::{Home, OnBehalf, Wires};
use super::caller::Caller;
use super::client::Phase;
use super::clock::{MILLISECOND, SECOND, Time};
use super::dice::Dice;
use super::workload::{self, Known, Mix, Wish};

/// A call without a session's number is given up after this time: volcanos keep its outcome for twice as long.
const CALL_PATIENCE: Duration = Duration::from_secs(60);

/// What the library has answered a user.
pub struct Done {
    /// Which client.
    pub client: usize,
    /// Names the operation.
    pub token: u64,
    /// What it was asked.
    pub request: Request,
    /// If it has answered without asking: since when that may have been true.
    pub since: Time,
    /// What it said.
    pub answer: Result<(Reply, Bytes), FlareError>,
}

/// What libraries have to say, in its order.
enum Said {
    Connected(usize, Option<Client>),
    Done(Box<Done>),
    Closed(usize),
}

/// What all libraries of a world share.
#[derive(Clone)]
pub struct Libraries {
    /// Runs them.
    pub executor: Executor,
    /// What they send and hear.
    pub wires: Wires,
    said: Arc<Mutex<Vec<Said>>>,
    tokens: Arc<Mutex<u64>>,
}

impl Libraries {
    /// None yet.
    pub fn new(dice: Dice) -> Self {
        let (executor, said, tokens) = Default::default();
        Self { executor, wires: Wires::new(dice), said, tokens }
    }

    fn say(&self, said: Said) {
        self.said.lock().expect("nothing panics while it is held").push(said);
    }

    fn token(&self) -> u64 {
        let mut last = self.tokens.lock().expect("nothing panics while it is held");
        *last += 1;
        *last
    }

    /// What has been said since this was asked last; who is connected or closed is told of it.
    pub fn heard(&self, clients: &mut [Caller]) -> Vec<Done> {
        let said = std::mem::take(&mut *self.said.lock().expect("nothing panics while it is held"));
        let mut all_done = Vec::new();
        for said in said {
            let index = match &said {
                Said::Connected(client, _) | Said::Closed(client) => *client,
                Said::Done(done) => done.client,
            };
            let Caller::Library(client) = &mut clients[index] else { continue };
            match said {
                Said::Connected(_, library) => client.is_connected(library),
                Said::Closed(_) => client.is_closed = true,
                Said::Done(done) => {
                    client.hear(&done);
                    all_done.push(*done);
                }
            }
        }
        all_done
    }
}

/// An operation that is under way.
struct Running {
    request: Request,
    begun: Time,
}

/// One client.
pub struct LibraryClient {
    /// Its number.
    pub index: usize,
    /// What it is about.
    pub phase: Phase,
    libraries: Libraries,
    library: Option<Client>,
    is_connecting: bool,
    is_closing: bool,
    is_closed: bool,
    dice: Dice,
    mix: Mix,
    known: Known,
    running: BTreeMap<u64, Running>,
    /// When a change of its own of a flare was answered last.
    changed: BTreeMap<Handle, Time>,
    /// Operations at a time.
    width: usize,
    /// Time between operations, about.
    pace: Time,
    next_wish: Time,
    next_connect: Time,
    /// What is still to be read of the whole tree, at the end.
    to_read: Option<Vec<(Handle, Kind)>>,
}

impl LibraryClient {
    /// A client that is about to begin.
    pub fn new(index: usize, mut dice: Dice, libraries: Libraries) -> Self {
        let mix = Mix::draw(&mut dice);
        Self {
            index,
            phase: Phase::Working,
            libraries,
            library: None,
            is_connecting: false,
            is_closing: false,
            is_closed: false,
            mix,
            known: Known::default(),
            running: BTreeMap::new(),
            changed: BTreeMap::new(),
            width: dice.range(1, 4) as usize,
            pace: dice.magnitude(20 * MILLISECOND, 3 * SECOND),
            next_wish: dice.below(SECOND),
            next_connect: 0,
            to_read: None,
            dice,
        }
    }

    /// Operations without an answer: the time when the oldest of them was begun.
    pub fn oldest(&self) -> Option<Time> {
        self.running.values().map(|running| running.begun).min()
    }

    /// Whether it has nothing to do any more.
    pub fn is_done(&self) -> bool {
        self.running.is_empty()
            && self.to_read.is_none()
            && match self.phase {
                Phase::Working => false,
                Phase::Leaving => self.is_closed,
                Phase::Finishing | Phase::Gone => true,
            }
    }

    /// It is to read the whole tree.
    pub fn read_everything(&mut self) {
        self.to_read = Some(vec![(Handle::root(), Kind::Directory)]);
    }

    /// It vanishes with its machine.
    pub fn vanish(&mut self) {
        self.phase = Phase::Gone;
        self.libraries.executor.end_all(self.index);
        self.libraries.wires.forget_client(self.index);
        self.library = None;
        self.running.clear();
        self.to_read = None;
    }

    /// It is to be idle until then.
    pub fn idle_until(&mut self, time: Time) {
        self.next_wish = self.next_wish.max(time);
    }

    /// When it has something to do next.
    pub fn due(&self, now: Time) -> Time {
        let connect = if self.wants_library() { self.next_connect } else { Time::MAX };
        let wish = if self.may_wish() { self.next_wish } else { Time::MAX };
        let other = if self.wants_to_read() || self.wants_to_close() { now } else { Time::MAX };
        connect.min(wish).min(other).max(now + MILLISECOND)
    }

    fn wants_library(&self) -> bool {
        let wants = self.phase == Phase::Working || self.to_read.is_some();
        wants && self.library.is_none() && !self.is_connecting
    }

    fn may_wish(&self) -> bool {
        self.phase == Phase::Working && self.library.is_some() && self.running.len() < self.width
    }

    fn wants_to_read(&self) -> bool {
        self.to_read.is_some() && self.library.is_some() && self.running.is_empty()
    }

    fn wants_to_close(&self) -> bool {
        self.phase == Phase::Leaving && !self.is_closing && !self.is_connecting && self.running.is_empty()
    }

    /// Does what is due. `number`: of the next operation of the history; `hosts`: the volcanos that there are.
    pub fn act(&mut self, now: Time, number: usize, hosts: impl FnOnce() -> Vec<HostPort>) {
        if self.phase == Phase::Gone {
            return;
        }
        if self.wants_library() && now >= self.next_connect {
            self.connect(hosts());
        }
        if self.may_wish() && now >= self.next_wish {
            self.next_wish = now + self.dice.below(2 * self.pace) + 1;
            let wish = workload::wish_of_names(&self.mix, &self.known, self.index, number, &mut self.dice);
            self.ask(now, wish);
        }
        if self.wants_to_read()
            && let Some(to_read) = &mut self.to_read
        {
            match to_read.pop() {
                None => self.to_read = None,
                Some((handle, kind)) => {
                    let request = match kind {
                        Kind::Directory => workload::listing(handle),
                        _ => workload::read(handle),
                    };
                    let durability = Durability::Replicated;
                    self.ask(now, Wish { request, payload: Bytes::new(), durability, deadline_ms: None });
                }
            }
        }
        if self.wants_to_close() && self.to_read.is_none() {
            self.close();
        }
    }

    fn connect(&mut self, mut hosts: Vec<HostPort>) {
        self.is_connecting = true;
        let Libraries { executor, wires, .. } = self.libraries.clone();
        let home = Arc::new(Home { client: self.index, executor, wires });
        // The one that it is given first is any of them.
        if !hosts.is_empty() {
            let first = self.dice.below(hosts.len() as u64) as usize;
            hosts.rotate_left(first);
        }
        let (libraries, index, name) = (self.libraries.clone(), self.index, format!("client {}", self.index));
        let connecting = async move {
            let library = Client::connect_in(home, hosts, name, None).await;
            libraries.say(Said::Connected(index, library.ok()));
        };
        self.libraries.executor.spawn(self.index, Box::pin(connecting));
    }

    fn is_connected(&mut self, library: Option<Client>) {
        self.is_connecting = false;
        self.library = library;
        if self.library.is_none() {
            self.next_connect =
                self.libraries.executor.time() + self.dice.magnitude(10 * MILLISECOND, SECOND);
        }
    }

    fn ask(&mut self, now: Time, wish: Wish) {
        let Some(library) = self.library.clone() else { return };
        let Wish { mut request, payload, durability, deadline_ms } = wish;
        if let Request::Readdir(listing) = &mut request {
            listing.attributes = self.dice.one_in(2);
        }
        if let Request::Release(release) = &request {
            // Released in the background: nobody waits for it. The volcanos hear of it by a release, or when they are told what is open.
            self.known.releases(release.handle, release.count);
            (0..release.count).for_each(|_| library.release(release.handle));
            let (client, token) = (self.index, self.libraries.token());
            let answer = Ok((Reply::Release(()), Bytes::new()));
            let done = Done { client, token, request, since: now, answer };
            self.libraries.say(Said::Done(Box::new(done)));
            return;
        }
        let is_plain = request.mutates() && !request.opens() && !matches!(request, Request::Lock(_));
        let call = (is_plain && self.dice.one_in(5))
            .then(|| u128::from(self.dice.next()) << 64 | u128::from(self.dice.next()));
        let patience = match (deadline_ms, call) {
            (Some(ms), _) if request.waits() => Some(Duration::from_millis(ms.into())),
            (_, Some(_)) => Some(CALL_PATIENCE),
            _ => None,
        };
        let deadline = patience.map(|patience| self.libraries.executor.now() + patience);
        let context = Context { credentials: Arc::new(Credentials::ROOT), durability, deadline, call };
        let token = self.libraries.token();
        self.running.insert(token, Running { request: request.clone(), begun: now });
        let (libraries, client) = (self.libraries.clone(), self.index);
        let may_keep = self.dice.one_in(2);
        let changed = request.handle().and_then(|handle| self.changed.get(&handle).copied());
        let since = now.saturating_sub(LIFETIME.as_nanos() as Time).max(changed.unwrap_or(0));
        let work = Box::pin(async move {
            let asked = request.clone();
            let answer = match request {
                Request::Getattr(Getattr { handle }) if may_keep => {
                    let attr = library.cached_getattr(&context, handle).await;
                    attr.map(|attr| (Reply::Getattr(attr), Bytes::new()))
                }
                request => library.request(&context, request, payload).await,
            };
            let answer = answer.map_err(|failure: Failure| failure.error);
            libraries.say(Said::Done(Box::new(Done { client, token, request: asked, since, answer })));
        });
        self.libraries.executor.spawn(self.index, Box::pin(OnBehalf { token, work }));
    }

    fn hear(&mut self, done: &Done) {
        let Some(running) = self.running.remove(&done.token) else { return };
        if let Some(handle) = running.request.handle().filter(|_| changes(&running.request)) {
            self.changed.insert(handle, self.libraries.executor.time());
        }
        match &done.answer {
            Ok((Reply::Readdir(listing), _)) if self.to_read.is_some() => {
                let found = listing.entries.iter().map(|entry| (entry.handle, entry.kind));
                let found = found.filter(|(_, kind)| matches!(kind, Kind::Directory | Kind::File));
                self.to_read.get_or_insert_default().extend(found);
            }
            Ok((reply, _)) => self.known.learn(&running.request, &Bytes::new(), reply),
            Err(error) => self.known.learn_refusal(&running.request, *error),
        }
    }

    fn close(&mut self) {
        self.is_closing = true;
        let (libraries, index) = (self.libraries.clone(), self.index);
        let library = self.library.take();
        let closing = async move {
            if let Some(library) = library {
                library.close().await;
            }
            libraries.say(Said::Closed(index));
        };
        self.libraries.executor.spawn(self.index, Box::pin(closing));
    }
}

/// Whether what was kept of the flare is not shown any more when the request has been done.
fn changes(request: &Request) -> bool {
    let gives_up = matches!(request, Request::Lock(lock) if lock.kind == LockKind::Unlock);
    request.mutates() && !gives_up
}
