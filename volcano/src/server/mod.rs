//! The edge of a volcano: connects its slice with the sockets, the clock and the disk threads.
//!
//! Everything that decides is in [`Slice`]; here requests get tickets, effects are carried out, and time is told.

mod clock;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use magma_common::auth::Role;
use magma_common::proto::frame::Tag;
use magma_common::transport::server::{Handler, IncomingRequest, PeerId, ReplyTo};
use tokio::sync::Notify;

pub use self::clock::Clock;
use crate::slice::{Call, Effect, Slice, SyncFor, Ticket};
use crate::store::{BodyRead, SyncJob};

struct Waiting {
    peer: PeerId,
    tag: Tag,
    reply: ReplyTo,
}

/// A volcano's slice behind its sockets. Lives on one thread.
pub struct Edge {
    slice: RefCell<Slice>,
    clock: Clock,
    waiting: RefCell<HashMap<Ticket, Waiting>>,
    tickets: RefCell<HashMap<PeerId, HashMap<Tag, Ticket>>>,
    next_ticket: Cell<u64>,
    stopped: RefCell<Option<String>>,
    stop: Notify,
}

impl Edge {
    /// Puts a slice behind the sockets that a server will connect.
    pub fn new(slice: Slice, clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            slice: RefCell::new(slice),
            clock,
            waiting: RefCell::default(),
            tickets: RefCell::default(),
            next_ticket: Cell::new(1),
            stopped: RefCell::default(),
            stop: Notify::new(),
        })
    }

    /// A handler for the server.
    pub fn handler(self: &Rc<Self>) -> Rc<dyn Handler> {
        Rc::new(Door(Rc::clone(self)))
    }

    /// Tells the slice the time, again and again. Never returns.
    pub async fn tell_time(self: Rc<Self>) {
        loop {
            self.slice.borrow_mut().tick(self.clock.now());
            self.carry_out();
            let pause = self.slice.borrow().next_tick();
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until the slice has stopped serving, and says why.
    pub async fn stopped(&self) -> String {
        loop {
            if let Some(reason) = self.stopped.borrow().clone() {
                return reason;
            }
            self.stop.notified().await;
        }
    }

    /// Lets somebody look at the slice.
    pub fn look<T>(&self, look: impl FnOnce(&Slice) -> T) -> T {
        look(&self.slice.borrow())
    }

    /// The clock that the slice is told.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Gives the slice back, to be closed; the edge again while something else still uses it.
    pub fn into_slice(self: Rc<Self>) -> Result<Slice, Rc<Self>> {
        Rc::try_unwrap(self).map(|edge| edge.slice.into_inner())
    }

    fn carry_out(self: &Rc<Self>) {
        let effects: Vec<Effect> = self.slice.borrow_mut().effects().collect();
        let version = self.slice.borrow().topology().version;
        for effect in effects {
            match effect {
                Effect::Answer(ticket, answer) => {
                    if let Some(reply) = self.forget(ticket) {
                        reply.send(answer, version);
                    }
                }
                Effect::Sync(job, purpose) => {
                    drop(tokio::task::spawn_local(Rc::clone(self).sync(job, purpose)));
                }
                Effect::Read(ticket, read) => {
                    drop(tokio::task::spawn_local(Rc::clone(self).read(ticket, read)));
                }
                Effect::Stop(reason) => {
                    tracing::error!(target: "magma::volcano", %reason, "the store failed; this volcano stops serving");
                    *self.stopped.borrow_mut() = Some(reason);
                    self.stop.notify_waiters();
                    self.stop.notify_one();
                }
            }
        }
    }

    async fn sync(self: Rc<Self>, job: SyncJob, purpose: SyncFor) {
        match tokio::task::spawn_blocking(move || job.run()).await {
            Ok(done) => self.slice.borrow_mut().synced(done, purpose),
            Err(error) => self.slice.borrow_mut().fail(&format!("the sync thread failed: {error}")),
        }
        self.carry_out();
    }

    async fn read(self: Rc<Self>, ticket: Ticket, read: BodyRead) {
        let done = tokio::task::spawn_blocking(move || read.run()).await;
        let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error).into()));
        let now = self.clock.now();
        self.slice.borrow_mut().read_done(now, ticket, done);
        self.slice.borrow_mut().batch_end();
        self.carry_out();
    }

    fn forget(&self, ticket: Ticket) -> Option<ReplyTo> {
        let waiting = self.waiting.borrow_mut().remove(&ticket)?;
        let mut tickets = self.tickets.borrow_mut();
        if let Some(of_peer) = tickets.get_mut(&waiting.peer)
            && of_peer.get(&waiting.tag) == Some(&ticket)
        {
            of_peer.remove(&waiting.tag);
        }
        Some(waiting.reply)
    }

    fn accept(&self, peer: PeerId, incoming: IncomingRequest, reply: ReplyTo) {
        let now = self.clock.now();
        let ticket = Ticket(self.next_ticket.replace(self.next_ticket.get() + 1));
        let tag = incoming.header.tag;
        self.waiting.borrow_mut().insert(ticket, Waiting { peer, tag, reply });
        self.tickets.borrow_mut().entry(peer).or_default().insert(tag, ticket);
        let deadline = incoming.header.deadline_ms.map(|ms| now.monotonic + Duration::from_millis(ms.into()));
        let IncomingRequest { header, request, payload } = incoming;
        self.slice.borrow_mut().request(now, ticket, Call { header, deadline, request, payload });
    }
}

/// The server's view of the edge.
struct Door(Rc<Edge>);

impl Handler for Door {
    fn connected(&self, peer: PeerId, address: SocketAddr, role: Role) {
        tracing::debug!(target: "magma::volcano", peer = peer.0, %address, ?role, "a client is connected");
    }

    fn request(&self, peer: PeerId, request: IncomingRequest, reply: ReplyTo) {
        tracing::trace!(
            target: "magma::flare", peer = peer.0, operation = request.request.name(), payload = request.payload.len(), "request"
        );
        self.0.accept(peer, request, reply);
    }

    fn cancelled(&self, peer: PeerId, tag: Tag) {
        let ticket = self.0.tickets.borrow().get(&peer).and_then(|tickets| tickets.get(&tag)).copied();
        if let Some(ticket) = ticket {
            self.0.slice.borrow_mut().cancel(ticket);
            self.0.carry_out();
        }
    }

    fn disconnected(&self, peer: PeerId) {
        let tickets = self.0.tickets.borrow_mut().remove(&peer).unwrap_or_default();
        for ticket in tickets.into_values() {
            self.0.slice.borrow_mut().cancel(ticket);
        }
        self.0.carry_out();
    }

    fn batch_end(&self) {
        self.0.slice.borrow_mut().batch_end();
        self.0.carry_out();
    }
}
