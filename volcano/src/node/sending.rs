//! What a volcano says to others: signs of life, the topology, goodbyes; and the envelopes of all messages.

use std::net::SocketAddr;

use magma_common::topology::{BootId, Member, Replica, Topology, VolcanoId};

use super::message::{Envelope, Message, SliceMessage};
use super::{Effect, Node};
use crate::dht::Figures;
use crate::slice::Now;

impl Node {
    pub(super) fn greet(&mut self, now: Now) {
        self.slices.renew_copies(now);
        let figures = Figures { coordinates: self.coordinator.is_leader(), ..self.slices.figures().clone() };
        for id in self.others() {
            self.send_to(id, Message::Alive(Box::new(figures.clone())));
        }
    }

    pub(super) fn say_goodbye(&mut self) {
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

    pub(super) fn others(&self) -> Vec<VolcanoId> {
        self.topology.members.iter().map(|member| member.id).filter(|id| *id != self.own.id).collect()
    }

    /// Who knows less than the other is told.
    pub(super) fn compare_versions(&mut self, now: Now, from: SocketAddr, sender: Replica, version: u64) {
        let own = self.topology.version;
        if version != own && self.peers.may_exchange(now.monotonic, sender.volcano) {
            if version < own {
                self.send_topology(from, Some(sender));
            } else {
                self.send(from, Some(sender), Message::FetchTopology);
            }
        }
    }

    pub(super) fn send_topology(&mut self, to: SocketAddr, who: Option<Replica>) {
        self.send(to, who, Message::Topology(Box::new(self.topology.clone())));
    }

    pub(super) fn spread_topology(&mut self) {
        for id in self.others() {
            self.send_to(id, Message::Topology(Box::new(self.topology.clone())));
        }
    }

    pub(super) fn send_to(&mut self, id: VolcanoId, message: Message) {
        if let Some(address) = self.topology.member(id).map(Member::node_address) {
            let envelope = self.envelope(Some(id), None, message);
            self.effects.push(Effect::Send(address, Box::new(envelope)));
        }
    }

    pub(super) fn send_to_life(&mut self, to: Replica, message: Message) {
        if let Some(address) = self.topology.member(to.volcano).map(Member::node_address) {
            // A life that has ended is told nothing, but the volcano may be told what its new life should hear.
            let boot =
                matches!(&message, Message::Slice(.., message) if !matches!(message, SliceMessage::Stand(_)));
            let envelope = self.envelope(Some(to.volcano), boot.then_some(to.boot), message);
            self.effects.push(Effect::Send(address, Box::new(envelope)));
        }
    }

    pub(super) fn send(&mut self, to: SocketAddr, who: Option<Replica>, message: Message) {
        let envelope = self.envelope(who.map(|who| who.volcano), None, message);
        self.effects.push(Effect::Send(to, Box::new(envelope)));
    }

    pub(super) fn envelope(&self, to: Option<VolcanoId>, boot: Option<BootId>, message: Message) -> Envelope {
        let Topology { network, lineage, version, .. } = self.topology;
        Envelope { network, lineage, from: self.own.replica(), to, boot, version, message }
    }
}
