//! The gate: nothing leaves a slice before what it depends on is safe.
//!
//! A reply, positive or negative, is evaluated once, at some position of the log, and
//! then held here until everything up to that position is in the log
//! ([`Durability::Replicated`] with a single copy) or on disk ([`Durability::Stable`]).
//!
//! [`Durability::Replicated`]: magma_common::proto::Durability::Replicated
//! [`Durability::Stable`]: magma_common::proto::Durability::Stable

use std::collections::BTreeSet;

use crate::rows::BodyId;

/// What a held reply waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The log has been handed to the operating system.
    Logged,
    /// The log is on disk, and so are these bodies.
    OnDisk(Vec<BodyId>),
}

/// Holds replies of type `R` until what they need has happened.
pub struct Gate<R> {
    unlogged: Vec<R>,
    waiting_for_disk: Vec<R>,
    waiting_bodies: BTreeSet<BodyId>,
    in_flight: Option<Vec<R>>,
}

impl<R> Default for Gate<R> {
    fn default() -> Self {
        Self {
            unlogged: Vec::new(),
            waiting_for_disk: Vec::new(),
            waiting_bodies: BTreeSet::new(),
            in_flight: None,
        }
    }
}

impl<R> Gate<R> {
    /// Holds a reply that was evaluated just now.
    pub fn hold(&mut self, reply: R, need: Need) {
        match need {
            Need::Logged => self.unlogged.push(reply),
            Need::OnDisk(bodies) => {
                self.waiting_for_disk.push(reply);
                self.waiting_bodies.extend(bodies);
            }
        }
    }

    /// Whether the log must be handed to the operating system for somebody.
    pub fn wants_log(&self) -> bool {
        !self.unlogged.is_empty() || !self.waiting_for_disk.is_empty()
    }

    /// The log was handed over: what waited for that, in order.
    pub fn logged(&mut self) -> Vec<R> {
        std::mem::take(&mut self.unlogged)
    }

    /// Whether a sync should start: somebody waits for the disk, and none is under way.
    pub fn wants_sync(&self) -> bool {
        self.in_flight.is_none() && !self.waiting_for_disk.is_empty()
    }

    /// Whether a sync is under way.
    pub fn syncing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The bodies that the next sync must cover.
    pub fn bodies_to_sync(&self) -> Vec<BodyId> {
        self.waiting_bodies.iter().copied().collect()
    }

    /// A sync starts for everybody who waits now. Who comes later waits for the next one.
    pub fn sync_starts(&mut self) {
        debug_assert!(self.in_flight.is_none(), "one sync at a time");
        self.in_flight = Some(std::mem::take(&mut self.waiting_for_disk));
        self.waiting_bodies.clear();
    }

    /// The sync is done: everybody it was for.
    pub fn sync_ended(&mut self) -> Vec<R> {
        self.in_flight.take().unwrap_or_default()
    }

    /// Nothing can become safe any more: everybody who waited for the log, and everybody who waited for the disk.
    pub fn give_up(&mut self) -> (Vec<R>, Vec<R>) {
        let mut for_disk = self.sync_ended();
        for_disk.append(&mut self.waiting_for_disk);
        self.waiting_bodies.clear();
        (self.logged(), for_disk)
    }

    /// Number of replies held.
    pub fn len(&self) -> usize {
        self.unlogged.len() + self.waiting_for_disk.len() + self.in_flight.as_ref().map_or(0, Vec::len)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_during_a_sync_waits_for_the_next_one() {
        let mut gate = Gate::default();
        gate.hold("first", Need::OnDisk(vec![BodyId(1)]));
        assert!(gate.wants_sync());
        assert_eq!(gate.bodies_to_sync(), vec![BodyId(1)]);
        gate.sync_starts();
        gate.hold("second", Need::OnDisk(vec![BodyId(2)]));
        assert!(!gate.wants_sync(), "one at a time");
        assert_eq!(gate.sync_ended(), vec!["first"]);
        assert!(gate.wants_sync());
        assert_eq!(gate.bodies_to_sync(), vec![BodyId(2)]);
        gate.sync_starts();
        assert_eq!(gate.sync_ended(), vec!["second"]);
        assert!(gate.is_empty());
    }

    #[test]
    fn replies_leave_in_the_order_in_which_they_were_evaluated() {
        let mut gate = Gate::default();
        gate.hold(1, Need::Logged);
        gate.hold(2, Need::Logged);
        assert!(gate.wants_log());
        assert_eq!(gate.logged(), vec![1, 2]);
        assert!(!gate.wants_log());
    }
}
