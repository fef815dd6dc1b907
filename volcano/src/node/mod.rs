//! A volcano among others: its copies of slices, its vote on the topology, and what it knows of its peers.
//!
//! [`Node`] is a state machine without sockets, threads or clocks, as its parts are: inputs come with the time, and
//! [`Node::effects`] are to be carried out after each of them. Messages to other volcanos may be lost, repeated and reordered.
//!
//! A request goes to the slice of the flare that it is about; one that is about none, to the *home* slice, the root's. If another
//! volcano serves that slice the request is passed on to it, once: who gets a request that was passed on and does
//! not serve the slice either says so, and the client asks again with a newer topology.

mod balance;
mod entering;
mod holding;
mod lineage;
pub mod message;
mod peers;
mod proposing;
mod report;
mod sending;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::{Reply, Request};
use magma_common::topology::{Member, Replica, SliceId, Topology};

use self::holding::Holding;
use self::message::{Envelope, Message};
use self::peers::Peers;
use crate::coordinator::{Change, Coordinator, Output, Refusal};
use crate::slice::{self, Answer, Call, Now, SliceRef, Slices, SyncFor, Ticket};
use crate::store::{BodyRead, Store, StoreError, SyncDone, SyncJob};
use crate::view::ReadError;

/// Every volcano gives every other a sign of life this often.
const ALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// What was not answered is said again after this time.
const SAY_AGAIN: Duration = Duration::from_millis(300);
/// Under this name the store keeps the topology.
pub const TOPOLOGY: &str = "topology";
/// A network that stops says so this often, so that nobody misses it.
const GOODBYES: u32 = 3;

/// Slices of one volcano exchange so many messages before it looks outside again.
const MAX_ROUNDS: usize = 64;

/// Something to be done outside.
pub enum Effect {
    /// Deliver an answer.
    Answer(Ticket, Answer),
    /// Pass the request on to the flare protocol's port of that volcano, and its answer back.
    Forward(Ticket, SocketAddr, Box<Call>),
    /// Run this on another thread and hand the result to [`Node::synced`], with what it is for.
    Sync(SyncJob, Vec<SyncFor>),
    /// Run this on another thread and hand the result to [`Node::read_done`].
    Read(Ticket, BodyRead),
    /// Send this to the node port there.
    Send(SocketAddr, Box<Envelope>),
    /// The network stops: stop this volcano in order.
    Shutdown,
    /// The network has forgotten this volcano: stop it in order, and do not start it again as a member.
    Forgotten,
    /// Stop serving, and why.
    Stop(String),
}

/// See the module's documentation.
pub struct Node {
    /// This volcano as it wants to be known.
    own: Member,
    topology: Topology,
    coordinator: Coordinator,
    slices: Slices,
    peers: Peers,
    /// Whom to ask to be taken in, as long as it has no network.
    contacts: Vec<SocketAddr>,
    /// Why it was not taken in.
    not_taken: Option<String>,
    /// An administrator's last change, if it was refused.
    refusal: Option<(Change, Refusal)>,
    /// It was a member and is none any more.
    is_forgotten: bool,
    /// When this life began.
    began: Duration,
    effects: Vec<Effect>,
    greeted: Option<Duration>,
    entered: Option<Duration>,
    /// When it looked last whether slices should be moved.
    balanced: Option<Duration>,
    goodbyes: Option<u32>,
    has_lost_vote: bool,
    /// Something was done that the end of a batch has to follow: a slice here has said something to another one here, or the topology has changed.
    has_more: bool,
    /// Requests to slices that are being divided.
    holding: Holding,
}

impl Node {
    /// A volcano that is about to begin. `topology` is the newest it knows: of its former life, or of the network it founds; if
    /// it has none yet, an empty one, and `contacts` are asked to take it in.
    pub fn new(
        own: Member,
        topology: Topology,
        coordinator: Coordinator,
        slices: Slices,
        contacts: Vec<SocketAddr>,
        now: Now,
    ) -> Self {
        let mut node = Self {
            own,
            topology: Topology::default(),
            coordinator,
            slices,
            peers: Peers::default(),
            contacts,
            not_taken: None,
            refusal: None,
            is_forgotten: false,
            began: now.monotonic,
            effects: Vec::new(),
            greeted: None,
            entered: None,
            balanced: None,
            goodbyes: None,
            has_lost_vote: false,
            has_more: false,
            holding: Holding::default(),
        };
        if topology.network != 0 {
            let is_member = topology.member(node.own.id).is_some();
            node.adopt(now, topology);
            if !is_member {
                // Its last life heard that it was forgotten, and had no time to act on it.
                node.be_forgotten();
            }
        }
        node.settle(now);
        node
    }

    /// A client's request came in. Call [`batch_end`](Self::batch_end) after the last one that was there to be read.
    pub fn request(&mut self, now: Now, ticket: Ticket, call: Call) {
        if let Request::FetchTopology(_) = call.request {
            let topology = Reply::FetchTopology(self.topology.clone());
            self.effects.push(Effect::Answer(ticket, Ok((topology, Bytes::new()))));
            return;
        }
        let slice = self.topology.slice_of(&call.request.key().unwrap_or(Handle::root().key));
        let (id, primary) = slice.map(|slice| (slice.id, slice.primary.volcano)).unzip();
        if let Some(id) = id.filter(|id| self.slices.get(*id).is_some_and(|slice| slice.is_serving())) {
            self.slices.request(now, id, ticket, call);
        } else if let Some(call) = self.hold_back(now, ticket, call) {
            let elsewhere = primary.filter(|primary| *primary != self.own.id);
            let address = elsewhere.and_then(|id| self.topology.member(id)).map(Member::flare_address);
            self.effects.push(match address {
                Some(_) if call.header.forwarded => Effect::Answer(ticket, Err(FlareError::NotOwner.into())),
                Some(address) => Effect::Forward(ticket, address, Box::new(call)),
                None => Effect::Answer(ticket, Err(FlareError::Unavailable.into())),
            });
        }
    }

    /// The caller of this request went away.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.cancel_held(ticket);
        self.slices.cancel(ticket);
    }

    /// A sync that was asked for has ended.
    pub fn synced(&mut self, now: Now, done: SyncDone, purposes: Vec<SyncFor>) {
        self.slices.synced(now, done, purposes);
        self.settle(now);
        self.let_slices_talk(now);
    }

    /// A read that was asked for has ended.
    pub fn read_done(&mut self, now: Now, ticket: Ticket, read: Result<Option<Bytes>, ReadError>) {
        self.slices.read_done(now, ticket, read);
    }

    /// Everything that was there to be read has been handed over.
    pub fn batch_end(&mut self, now: Now) {
        self.slices.batch_end(now);
        self.settle(now);
        self.let_slices_talk(now);
    }

    /// Slices of this volcano tell each other what they have to say, until nothing is left that need not wait for something outside.
    fn let_slices_talk(&mut self, now: Now) {
        for _ in 0..MAX_ROUNDS {
            self.let_go_on(now);
            if !std::mem::take(&mut self.has_more) {
                return;
            }
            self.slices.batch_end(now);
            self.settle(now);
        }
    }

    /// Something outside that this volcano depends on has failed.
    pub fn fail(&mut self, reason: &str) {
        self.slices.fail(reason);
    }

    /// How soon [`tick`](Self::tick) should come again.
    pub fn next_tick(&self) -> Duration {
        self.slices.next_tick()
    }

    /// Time has passed; to be called some ten times a second, and as soon as [`next_tick`](Self::next_tick) says.
    pub fn tick(&mut self, now: Now) {
        self.coordinator.tick(now.monotonic);
        self.settle(now);
        if self.is_due(now, self.greeted, ALIVE_INTERVAL) {
            self.greeted = Some(now.monotonic);
            self.greet(now);
        }
        if self.is_due(now, self.entered, SAY_AGAIN) {
            self.entered = Some(now.monotonic);
            self.enter(now);
        }
        self.balance(now);
        self.say_goodbye();
        self.slices.tick(now);
        self.note_lost_vote();
        self.settle(now);
        self.let_slices_talk(now);
    }

    /// A coordinator whose disk fails stops its volcano, as a store does: only a new start reads what is really there, and votes
    /// again. As long as it did not, a network could lose its votes one by one, each to a disk that failed once. One that
    /// cannot save its state for another reason takes no part any more. The copies go on: they need it for changes only, and the
    /// other voters, if there are any, make those.
    fn note_lost_vote(&mut self) {
        if let Some(reason) = self.coordinator.failed()
            && !std::mem::replace(&mut self.has_lost_vote, true)
        {
            if self.coordinator.has_failed_disk() {
                return self.slices.fail(reason);
            }
            tracing::error!(
                target: "magma::routing", %reason,
                "this volcano votes no more until it is started again, since it cannot keep its vote on disk"
            );
        }
    }

    fn is_due(&self, now: Now, last: Option<Duration>, interval: Duration) -> bool {
        self.goodbyes.is_none() && last.is_none_or(|last| now.monotonic.saturating_sub(last) >= interval)
    }

    /// A message of another volcano has come. Call [`batch_end`](Self::batch_end) after the last one that was there to be read.
    pub fn receive(&mut self, now: Now, from: SocketAddr, envelope: Envelope) {
        let Envelope { network, lineage, from: sender, to, boot, version, message } = envelope;
        let is_for_us =
            to.is_none_or(|to| to == self.own.id) && boot.is_none_or(|boot| boot == self.own.boot);
        if !is_for_us || sender.volcano == self.own.id {
            return;
        }
        if let Message::Join(member) = message {
            return self.take_in(now, from, *member);
        }
        if self.topology.network == 0 {
            return self.hear_of_network(now, message);
        }
        if network != self.topology.network {
            return self.peers.stranger(now.monotonic, sender);
        }
        if lineage != self.topology.lineage {
            return self.hear_of_another_line(now, from, sender, lineage, message);
        }
        self.slices.present(now, sender);
        self.coordinator.alive(sender.volcano, now.monotonic);
        self.peers.heard(now.monotonic, sender);
        self.compare_versions(now, from, sender, version);
        match message {
            Message::Alive(figures) => self.slices.hear_figures(sender.volcano, *figures),
            Message::Topology(topology) => self.adopt(now, *topology),
            Message::FetchTopology => self.send_topology(from, Some(sender)),
            Message::Consensus(bytes) => self.coordinator.message(sender.volcano, &bytes),
            Message::Propose(change) => self.consider(now, from, sender, change),
            Message::Refused(change, refusal) => self.refused(&change, &refusal),
            Message::Slice(slice, epoch, message) => self.slices.message(now, sender, slice, epoch, message),
            Message::Across(to, message) => {
                if let Some(slice) = self.topology.slice_of(&to).map(|slice| slice.id) {
                    self.slices.across(now, slice, *message);
                }
            }
            Message::Shutdown => self.shut_down(false),
            Message::Join(_) | Message::NotTaken(_) => {}
        }
    }

    /// Stops the network (`everywhere`), or takes note that it stops.
    pub fn shut_down(&mut self, everywhere: bool) {
        if self.goodbyes.is_none() {
            self.goodbyes = Some(if everywhere { GOODBYES } else { 0 });
        }
    }

    /// What has to be done outside, in this order.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The newest topology that is known here.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Its copy of this slice, to be looked at.
    pub fn slice(&self, id: SliceId) -> Option<SliceRef<'_>> {
        self.slices.get(id)
    }

    /// All its copies, to be looked at.
    pub fn slices(&self) -> &Slices {
        &self.slices
    }

    /// The store of all of them, to be looked at.
    pub fn store(&self) -> &Store {
        self.slices.store()
    }

    /// Its vote, to be looked at.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// This volcano in this life.
    pub fn replica(&self) -> Replica {
        self.own.replica()
    }

    /// Stops in order: everything on disk, a clean mark set.
    pub fn close(self) -> Result<(), StoreError> {
        self.slices.close()
    }

    /// Hands effects of the parts on to each other and outside until none is left.
    fn settle(&mut self, now: Now) {
        loop {
            let outputs = self.coordinator.outputs();
            let effects = self.slices.effects();
            if outputs.is_empty() && effects.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Send(to, bytes) => self.send_to(to, Message::Consensus(bytes)),
                    Output::Committed(topology) => {
                        self.adopt(now, *topology);
                        self.spread_topology();
                    }
                    Output::Refused(change, refusal) => self.refused(&change, &refusal),
                }
            }
            for effect in effects {
                self.pass_on(now, effect);
            }
        }
    }

    fn pass_on(&mut self, now: Now, effect: slice::Effect) {
        match effect {
            slice::Effect::Answer(ticket, answer) => self.effects.push(Effect::Answer(ticket, answer)),
            slice::Effect::Sync(job, purposes) => self.effects.push(Effect::Sync(job, purposes)),
            slice::Effect::Read(ticket, read) => self.effects.push(Effect::Read(ticket, read)),
            slice::Effect::Stop(reason) => self.effects.push(Effect::Stop(reason)),
            slice::Effect::Tell(slice, to, epoch, message) => {
                self.send_to_life(to, Message::Slice(slice, epoch, message));
            }
            slice::Effect::Propose(slice, epoch, change) => {
                self.propose(now, &Change::Slice(slice, epoch, change));
            }
            slice::Effect::Across(to, message) => {
                let slice = self.topology.slice_of(&to).map(|slice| (slice.id, slice.primary.volcano));
                match slice {
                    Some((slice, primary)) if primary == self.own.id => {
                        self.has_more = true;
                        self.slices.across(now, slice, message);
                    }
                    Some((_, primary)) => self.send_to(primary, Message::Across(to, Box::new(message))),
                    None => {}
                }
            }
        }
    }

    /// A newer topology takes the place of the one known.
    fn adopt(&mut self, now: Now, topology: Topology) {
        let is_ours = self.topology.network == 0
            || topology.network == self.topology.network && topology.lineage == self.topology.lineage;
        if is_ours && topology.version > self.topology.version {
            self.take_up(now, topology);
        }
    }

    fn take_up(&mut self, now: Now, topology: Topology) {
        let was_member = self.topology.member(self.own.id).is_some();
        self.topology = topology;
        if was_member && self.topology.member(self.own.id).is_none() {
            self.be_forgotten();
        }
        self.peers.keep(&self.topology);
        match postcard::to_stdvec(&self.topology) {
            Ok(encoded) => self.slices.keep_value(TOPOLOGY, &encoded),
            Err(error) => self.slices.fail(&format!("the topology cannot be encoded: {error}")),
        }
        tracing::debug!(target: "magma::routing", version = self.topology.version, "a newer topology");
        self.slices.configure(now, &self.topology);
        self.has_more = true;
    }
}

#[cfg(test)]
mod tests;
