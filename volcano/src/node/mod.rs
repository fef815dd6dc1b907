//! A volcano among others: its copies of slices, its vote on the topology, and what it knows of its peers.
//!
//! [`Node`] is a state machine without sockets, threads or clocks, as its parts are: inputs come with the time, and
//! [`Node::effects`] are to be carried out after each of them. Messages to other volcanos may be lost, repeated and reordered.
//!
//! A request goes to the slice of the flare that it is about; one that is about none, to the *home* slice, the root's. If another
//! volcano serves that slice the request is passed on to it, once: who gets a request that was passed on and does
//! not serve the slice either says so, and the client asks again with a newer topology.

mod balance;
mod holding;
mod lineage;
pub mod message;
mod peers;
mod report;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::{Reply, Request};
use magma_common::topology::{Member, Replica, SliceId, Topology, VolcanoId};

use self::holding::Holding;
use self::message::{Envelope, Message};
use self::peers::Peers;
use crate::coordinator::{Change, Coordinator, Output, Proposing, Refusal, SliceChange};
use crate::dht::Figures;
use crate::slice::{self, Answer, Call, Now, SliceRef, Slices, SyncFor, Ticket};
use crate::store::{BodyRead, Store, StoreError, SyncDone, SyncJob};
use crate::view::ReadError;

/// Every volcano gives every other a sign of life this often.
const ALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// Who was heard within this time is taken to hear and to be heard.
const HEARD_LATELY: Duration = Duration::from_millis(1500);
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

    /// Asks for a change of the topology on an administrator's behalf. Whether it was made is seen from the topology.
    pub fn propose(&mut self, now: Now, change: &Change) {
        if is_administrators(change) {
            self.refusal = None;
        }
        if self.coordinator.is_leader() {
            if let Proposing::Refused(refusal) = self.coordinator.propose(now.monotonic, change.clone()) {
                self.refused(change, &refusal);
            }
            return;
        }
        let others = self.topology.voters.iter().copied().filter(|id| *id != self.own.id);
        let is_asked = |voter: &VolcanoId| !matches!(change, Change::Slice(..)) || self.hears(now, *voter);
        let voters: Vec<VolcanoId> = others.filter(is_asked).collect();
        for voter in voters {
            self.send_to(voter, Message::Propose(change.clone()));
        }
    }

    /// Whether this volcano has given a sign of life lately. Of who hears nobody it is not known that the others are lost: it may
    /// be the one that is cut off, in one direction only. Then it must not be heard when it wants to take others out or to serve
    /// in their place.
    fn hears(&self, now: Now, who: VolcanoId) -> bool {
        self.peers.get(who).is_some_and(|peer| now.monotonic.saturating_sub(peer.heard) < HEARD_LATELY)
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

    /// Why the network did not take this volcano in, if it said so.
    pub fn not_taken(&self) -> Option<&str> {
        self.not_taken.as_deref()
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

    fn be_forgotten(&mut self) {
        tracing::info!(target: "magma::routing", version = self.topology.version, "the network has forgotten this volcano");
        self.is_forgotten = true;
        self.effects.push(Effect::Forgotten);
    }

    /// Without a network: the only thing to be heard is whether this volcano was taken into one.
    fn hear_of_network(&mut self, now: Now, message: Message) {
        match message {
            Message::Topology(topology)
                if topology.member(self.own.id).is_some_and(|member| member.boot == self.own.boot) =>
            {
                tracing::info!(target: "magma::routing", network = topology.network, "taken into the network");
                self.adopt(now, *topology);
            }
            Message::NotTaken(reason) => self.not_taken = Some(reason),
            _ => {}
        }
    }

    /// A volcano asks to be taken in.
    fn take_in(&mut self, now: Now, from: SocketAddr, member: Member) {
        if self.topology.network == 0 {
            return;
        }
        if self.topology.member(member.id).is_some_and(|known| known.boot == member.boot) {
            return self.send_topology(from, Some(member.replica()));
        }
        self.propose(now, &Change::Enter(Box::new(member), Some(self.own.id)));
    }

    /// A change was asked for here.
    fn consider(&mut self, now: Now, from: SocketAddr, sender: Replica, change: Change) {
        if !self.coordinator.is_leader() {
            return;
        }
        // Who was forgotten while it was down learns so, instead of coming back by itself. A newcomer asks through a member.
        if let Change::Enter(member, _) = &change
            && member.id == sender.volcano
            && self.topology.member(member.id).is_none()
        {
            return self.send_topology(from, Some(sender));
        }
        if let Proposing::Refused(refusal) = self.coordinator.propose(now.monotonic, change.clone()) {
            self.send(from, Some(sender), Message::Refused(change, refusal));
        }
    }

    fn refused(&mut self, change: &Change, refusal: &Refusal) {
        match change {
            change if is_administrators(change) => self.refusal = Some((change.clone(), refusal.clone())),
            Change::Slice(slice, epoch, change) => self.slices.refused(*slice, *epoch, change, refusal),
            Change::Enter(member, _) if member.id != self.own.id => {
                let address = member.node_address();
                self.send(address, Some(member.replica()), Message::NotTaken(refusal.to_string()));
            }
            Change::Enter(..) => self.not_taken = Some(refusal.to_string()),
            _ => {}
        }
    }

    /// Makes this life of the volcano known, until it is.
    fn enter(&mut self, now: Now) {
        if self.is_forgotten {
            return;
        }
        if self.topology.network == 0 {
            for contact in self.contacts.clone() {
                self.send(contact, None, Message::Join(Box::new(self.own.clone())));
            }
            return;
        }
        let known = self.topology.member(self.own.id);
        if known.is_none_or(|known| known.boot < self.own.boot) {
            self.propose(now, &Change::Enter(Box::new(self.own.clone()), None));
        }
    }

    fn greet(&mut self, now: Now) {
        self.slices.renew_copies(now);
        let figures = Figures { coordinates: self.coordinator.is_leader(), ..self.slices.figures().clone() };
        for id in self.others() {
            self.send_to(id, Message::Alive(Box::new(figures.clone())));
        }
    }

    fn say_goodbye(&mut self) {
        match self.goodbyes {
            None => {}
            Some(0) => {
                self.goodbyes = Some(0);
                self.effects.push(Effect::Shutdown);
            }
            Some(left) => {
                self.goodbyes = Some(left - 1);
                for id in self.others() {
                    self.send_to(id, Message::Shutdown);
                }
            }
        }
    }

    fn others(&self) -> Vec<VolcanoId> {
        self.topology.members.iter().map(|member| member.id).filter(|id| *id != self.own.id).collect()
    }

    /// Who knows less than the other is told.
    fn compare_versions(&mut self, now: Now, from: SocketAddr, sender: Replica, version: u64) {
        let own = self.topology.version;
        if version != own && self.peers.may_exchange(now.monotonic, sender.volcano) {
            if version < own {
                self.send_topology(from, Some(sender));
            } else {
                self.send(from, Some(sender), Message::FetchTopology);
            }
        }
    }

    fn send_topology(&mut self, to: SocketAddr, who: Option<Replica>) {
        self.send(to, who, Message::Topology(Box::new(self.topology.clone())));
    }

    fn spread_topology(&mut self) {
        for id in self.others() {
            self.send_to(id, Message::Topology(Box::new(self.topology.clone())));
        }
    }

    fn send_to(&mut self, id: VolcanoId, message: Message) {
        if let Some(address) = self.topology.member(id).map(Member::node_address) {
            let envelope = self.envelope(Some(id), None, message);
            self.effects.push(Effect::Send(address, Box::new(envelope)));
        }
    }

    fn send_to_life(&mut self, to: Replica, message: Message) {
        if let Some(address) = self.topology.member(to.volcano).map(Member::node_address) {
            // A life that has ended is told nothing, but the volcano may be told what its new life should hear.
            let boot = matches!(&message, Message::Slice(.., message) if !matches!(message, message::SliceMessage::Stand(_)));
            let envelope = self.envelope(Some(to.volcano), boot.then_some(to.boot), message);
            self.effects.push(Effect::Send(address, Box::new(envelope)));
        }
    }

    fn send(&mut self, to: SocketAddr, who: Option<Replica>, message: Message) {
        let envelope = self.envelope(who.map(|who| who.volcano), None, message);
        self.effects.push(Effect::Send(to, Box::new(envelope)));
    }

    fn envelope(
        &self,
        to: Option<VolcanoId>,
        boot: Option<magma_common::topology::BootId>,
        message: Message,
    ) -> Envelope {
        let Topology { network, lineage, version, .. } = self.topology;
        Envelope { network, lineage, from: self.own.replica(), to, boot, version, message }
    }
}

/// Whether such changes are an administrator's alone.
fn is_administrators(change: &Change) -> bool {
    matches!(
        change,
        Change::Leave(..)
            | Change::Copies(_)
            | Change::Place(..)
            | Change::Balance(_)
            | Change::Slice(.., SliceChange::Divide(_))
    )
}

#[cfg(test)]
mod tests;
