//! How a volcano gets into a network, makes a new life of itself known there, and learns that it was forgotten.

use std::net::SocketAddr;

use magma_common::topology::Member;

use super::message::Message;
use super::{Effect, Node};
use crate::coordinator::Change;
use crate::slice::Now;

impl Node {
    /// Why the network did not take this volcano in, if it said so.
    pub fn not_taken(&self) -> Option<&str> {
        self.not_taken.as_deref()
    }

    /// Makes this life of the volcano known, until it is.
    pub(super) fn enter(&mut self, now: Now) {
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

    /// A volcano asks to be taken in.
    pub(super) fn take_in(&mut self, now: Now, from: SocketAddr, member: Member) {
        if self.topology.network == 0 {
            return;
        }
        if self.topology.member(member.id).is_some_and(|known| known.boot == member.boot) {
            return self.send_topology(from, Some(member.replica()));
        }
        self.propose(now, &Change::Enter(Box::new(member), Some(self.own.id)));
    }

    /// Without a network: the only thing to be heard is whether this volcano was taken into one.
    pub(super) fn hear_of_network(&mut self, now: Now, message: Message) {
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

    pub(super) fn be_forgotten(&mut self) {
        tracing::info!(target: "magma::routing", version = self.topology.version, "the network has forgotten this volcano");
        self.is_forgotten = true;
        self.effects.push(Effect::Forgotten);
    }
}
