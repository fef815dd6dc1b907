//! The edge of a volcano: connects its [`Node`] with the sockets, the clock and the disk threads.
//!
//! Everything that decides is in the node; here requests get tickets, effects are carried out, and time is told.

mod clock;
mod doors;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::proto::frame::Tag;
use magma_common::transport::forward::Forwarder;
use magma_common::transport::node::{Class, NodeEndpoint, NodeHandler};
use magma_common::transport::server::{Handler, IncomingRequest, PeerId, ReplyTo};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

pub use self::clock::Clock;
use self::doors::{FlareDoor, NodeDoor};
use crate::node::message::{Envelope, Message, SliceMessage};
use crate::node::{Effect, Node};
use crate::slice::{Call, SyncFor, Ticket};
use crate::store::{BodyRead, SyncJob};

/// A request that was passed on waits for its answer at most this long; then the client asks again.
const FORWARD_LIMIT: Duration = Duration::from_secs(4);
/// Messages about operations across slices that are longer travel among records.
const URGENT_BYTES: usize = 16 << 10;

struct Waiting {
    peer: PeerId,
    tag: Tag,
    reply: ReplyTo,
    /// The task that passes it on.
    forwarding: Option<AbortHandle>,
}

/// Why a volcano stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It cannot go on.
    Failed(String),
    /// The whole network stops.
    Shutdown,
    /// It is no member of the network any more.
    Forgotten,
}

/// A volcano behind its sockets. Lives on one thread.
pub struct Edge {
    node: RefCell<Node>,
    clock: Clock,
    forwarder: Forwarder,
    endpoint: RefCell<Option<NodeEndpoint>>,
    waiting: RefCell<HashMap<Ticket, Waiting>>,
    tickets: RefCell<HashMap<PeerId, HashMap<Tag, Ticket>>>,
    next_ticket: Cell<u64>,
    /// The topology for which the forwarder was told whom it may reach.
    reachable: Cell<u64>,
    stopped: RefCell<Option<Stopped>>,
    stop: Notify,
}

impl Edge {
    /// Puts a volcano behind the sockets that servers will connect.
    pub fn new(node: Node, clock: Clock, forwarder: Forwarder) -> Rc<Self> {
        Rc::new(Self {
            node: RefCell::new(node),
            clock,
            forwarder,
            endpoint: RefCell::default(),
            waiting: RefCell::default(),
            tickets: RefCell::default(),
            next_ticket: Cell::new(1),
            reachable: Cell::new(0),
            stopped: RefCell::default(),
            stop: Notify::new(),
        })
    }

    /// A handler for the server of the flare protocol.
    pub fn handler(self: &Rc<Self>) -> Rc<dyn Handler> {
        Rc::new(FlareDoor(Rc::clone(self)))
    }

    /// A handler for the endpoint of the node protocol.
    pub fn node_handler(self: &Rc<Self>) -> Rc<dyn NodeHandler> {
        Rc::new(NodeDoor(Rc::clone(self)))
    }

    /// The endpoint through which messages to other volcanos leave; until then they are lost.
    pub fn connect(&self, endpoint: NodeEndpoint) {
        *self.endpoint.borrow_mut() = Some(endpoint);
    }

    /// Tells the volcano the time, again and again. Never returns.
    pub async fn tell_time(self: Rc<Self>) {
        loop {
            self.act(|node, clock| node.tick(clock.now()));
            let pause = self.node.borrow().next_tick();
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until the volcano has stopped serving, and says why.
    pub async fn stopped(&self) -> Stopped {
        loop {
            if let Some(reason) = self.stopped.borrow().clone() {
                return reason;
            }
            self.stop.notified().await;
        }
    }

    /// Lets somebody look at the volcano.
    pub fn look<T>(&self, look: impl FnOnce(&Node) -> T) -> T {
        look(&self.node.borrow())
    }

    /// Lets somebody do something with the volcano, and carries out what comes of it.
    pub fn act<T>(self: &Rc<Self>, act: impl FnOnce(&mut Node, &Clock) -> T) -> T {
        let done = act(&mut self.node.borrow_mut(), &self.clock);
        self.carry_out();
        done
    }

    /// The clock that the volcano is told.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Closes the socket of the node protocol.
    pub async fn disconnect(&self) {
        let endpoint = self.endpoint.borrow_mut().take();
        if let Some(endpoint) = endpoint {
            endpoint.close().await;
        }
    }

    /// Gives the volcano back, to be closed; the edge again while something else still uses it.
    pub fn into_node(self: Rc<Self>) -> Result<Node, Rc<Self>> {
        Rc::try_unwrap(self).map(|edge| edge.node.into_inner())
    }

    fn carry_out(self: &Rc<Self>) {
        let effects = self.node.borrow_mut().effects();
        let version = self.node.borrow().topology().version;
        if version != self.reachable.replace(version) {
            self.forget_former_owners();
        }
        for effect in effects {
            match effect {
                Effect::Answer(ticket, answer) => {
                    if let Some(reply) = self.forget(ticket) {
                        reply.send(answer, version);
                    }
                }
                Effect::Forward(ticket, to, call) => self.forward(ticket, to, *call),
                Effect::Sync(job, purposes) => {
                    drop(tokio::task::spawn_local(Rc::clone(self).sync(job, purposes)));
                }
                Effect::Read(ticket, read) => {
                    drop(tokio::task::spawn_local(Rc::clone(self).read(ticket, read)));
                }
                Effect::Send(to, envelope) => self.send(to, &envelope),
                Effect::Shutdown => self.stop(Stopped::Shutdown),
                Effect::Forgotten => self.stop(Stopped::Forgotten),
                Effect::Stop(reason) => {
                    tracing::error!(target: "magma::volcano", %reason, "this volcano stops serving");
                    self.stop(Stopped::Failed(reason));
                }
            }
        }
    }

    fn stop(&self, why: Stopped) {
        self.stopped.borrow_mut().get_or_insert(why);
        self.stop.notify_waiters();
        self.stop.notify_one();
    }

    fn send(&self, to: SocketAddr, envelope: &Envelope) {
        let endpoint = self.endpoint.borrow();
        let Some(endpoint) = endpoint.as_ref() else { return };
        match postcard::to_stdvec(envelope) {
            Ok(bytes) => endpoint.send(to, class_of(&envelope.message, bytes.len()), Bytes::from(bytes)),
            Err(error) => tracing::error!(target: "magma::node", %error, "a message cannot be encoded"),
        }
    }

    /// Whoever owns nothing any more is not waited for.
    fn forget_former_owners(&self) {
        let node = self.node.borrow();
        let topology = node.topology();
        let primaries = topology.slices.iter().filter_map(|slice| topology.member(slice.primary.volcano));
        let addresses: Vec<_> = primaries.map(magma_common::topology::Member::flare_address).collect();
        self.forwarder.keep_only(&addresses);
    }

    fn forward(self: &Rc<Self>, ticket: Ticket, to: SocketAddr, call: Call) {
        let edge = Rc::clone(self);
        let task = tokio::task::spawn_local(async move {
            let Call { header, request, payload, .. } = call;
            let limit = if request.waits() { Duration::MAX } else { FORWARD_LIMIT };
            let forwarded = edge.forwarder.forward(to, header, &request, payload);
            let answer = tokio::time::timeout(limit, forwarded).await;
            let Some(reply) = edge.forget(ticket) else { return };
            match answer {
                Ok(Ok(answer)) => reply.pass_on(answer, edge.reachable.get()),
                Ok(Err(lost)) => {
                    tracing::debug!(target: "magma::routing", %to, %lost, "a request could not be passed on");
                    reply.send(Err(FlareError::Unavailable.into()), edge.reachable.get());
                }
                Err(_) => reply.send(Err(FlareError::Unavailable.into()), edge.reachable.get()),
            }
        });
        if let Some(waiting) = self.waiting.borrow_mut().get_mut(&ticket) {
            waiting.forwarding = Some(task.abort_handle());
        }
    }

    async fn sync(self: Rc<Self>, job: SyncJob, purposes: Vec<SyncFor>) {
        match tokio::task::spawn_blocking(move || job.run()).await {
            Ok(done) => self.act(|node, clock| node.synced(clock.now(), done, purposes)),
            Err(error) => self.act(|node, _| node.fail(&format!("the sync thread failed: {error}"))),
        }
    }

    async fn read(self: Rc<Self>, ticket: Ticket, read: BodyRead) {
        let done = tokio::task::spawn_blocking(move || read.run()).await;
        let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error).into()));
        self.act(|node, clock| {
            node.read_done(clock.now(), ticket, done);
            node.batch_end(clock.now());
        });
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
        self.waiting.borrow_mut().insert(ticket, Waiting { peer, tag, reply, forwarding: None });
        self.tickets.borrow_mut().entry(peer).or_default().insert(tag, ticket);
        let deadline = incoming.header.deadline_ms.map(|ms| now.monotonic + Duration::from_millis(ms.into()));
        let IncomingRequest { header, request, payload } = incoming;
        self.node.borrow_mut().request(now, ticket, Call { header, deadline, request, payload });
    }

    /// Nobody waits for this request any more.
    fn cancel(&self, ticket: Ticket) {
        let forwarding =
            self.waiting.borrow_mut().get_mut(&ticket).and_then(|waiting| waiting.forwarding.take());
        match forwarding {
            Some(task) => {
                task.abort();
                drop(self.forget(ticket));
            }
            None => self.node.borrow_mut().cancel(ticket),
        }
    }
}

/// Leases and consensus must not queue behind records, nor behind bytes.
fn class_of(message: &Message, length: usize) -> Class {
    match message {
        Message::Across(..) if length > URGENT_BYTES => Class::Bulk,
        Message::Slice(.., SliceMessage::Records { records, .. }) if !records.is_empty() => Class::Bulk,
        Message::Slice(.., SliceMessage::Refresh { .. } | SliceMessage::Place { .. }) => Class::Bulk,
        _ => Class::Urgent,
    }
}
