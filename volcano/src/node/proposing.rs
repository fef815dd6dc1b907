//! Changes of the topology: who asks whom for them, and what becomes of a refusal.

use std::net::SocketAddr;
use std::time::Duration;

use magma_common::topology::{Replica, VolcanoId};

use super::Node;
use super::message::Message;
use crate::coordinator::{Change, Proposing, Refusal, SliceChange};
use crate::slice::Now;

/// Who was heard within this time is taken to hear and to be heard.
const HEARD_LATELY: Duration = Duration::from_millis(1500);

impl Node {
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
    pub(super) fn hears(&self, now: Now, who: VolcanoId) -> bool {
        self.peers.get(who).is_some_and(|peer| now.monotonic.saturating_sub(peer.heard) < HEARD_LATELY)
    }

    /// A change was asked for here.
    pub(super) fn consider(&mut self, now: Now, from: SocketAddr, sender: Replica, change: Change) {
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

    pub(super) fn refused(&mut self, change: &Change, refusal: &Refusal) {
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
}

/// Whether such changes are an administrator's alone.
fn is_administrators(change: &Change) -> bool {
    matches!(
        change,
        Change::Leave(..)
            | Change::Copies(_)
            | Change::Stripes(_)
            | Change::Place(..)
            | Change::Balance(_)
            | Change::Slice(.., SliceChange::Divide(_))
    )
}
