//! The gate: nothing leaves a slice before what it depends on is safe.
//!
//! A reply, positive or negative, is evaluated once, at some position of the slice's log, and held here until everything up
//! to that position is safe: for [`Durability::Replicated`] the log here has been handed to the operating system and every
//! in-sync copy has acknowledged the position; for [`Durability::Stable`] it is on the disks of all of them, with the bodies
//! concerned. And it leaves only while the lease holds: else somebody else may be serving the slice.
//!
//! [`Durability::Replicated`]: magma_common::proto::Durability::Replicated
//! [`Durability::Stable`]: magma_common::proto::Durability::Stable

use std::collections::{BTreeSet, VecDeque};

use magma_common::topology::Seq;

use crate::rows::BodyId;

/// What a held reply waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The log has been handed to the operating system, and every in-sync copy has it.
    Logged,
    /// The log is on disk, and so are these bodies, at every in-sync copy.
    OnDisk(Vec<BodyId>),
}

/// How far things are safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Safe {
    /// Every copy has everything up to here.
    pub copied: Seq,
    /// Every other copy has done the syncs up to this number.
    pub synced: u64,
}

impl Safe {
    /// There is no other copy to wait for.
    pub const ALONE: Self = Self { copied: Seq(u64::MAX), synced: u64::MAX };
}

struct Held<R> {
    at: Seq,
    reply: R,
}

/// Holds replies of type `R` until what they need has happened.
pub struct Gate<R> {
    unlogged: Vec<Held<R>>,
    /// Logged here; what the other copies lack is waited for.
    uncopied: VecDeque<Held<R>>,
    waiting_for_disk: Vec<Held<R>>,
    waiting_bodies: BTreeSet<BodyId>,
    /// The sync that is under way.
    in_flight: Option<(u64, Vec<Held<R>>)>,
    /// On disk here; the syncs of the other copies, by number, are waited for.
    unsynced: VecDeque<(u64, Held<R>)>,
    /// Syncs that were started.
    syncs: u64,
}

impl<R> Default for Gate<R> {
    fn default() -> Self {
        Self {
            unlogged: Vec::new(),
            uncopied: VecDeque::new(),
            waiting_for_disk: Vec::new(),
            waiting_bodies: BTreeSet::new(),
            in_flight: None,
            unsynced: VecDeque::new(),
            syncs: 0,
        }
    }
}

impl<R> Gate<R> {
    /// Holds a reply that was evaluated just now, when the slice's last record was `at`.
    pub fn hold(&mut self, reply: R, need: Need, at: Seq) {
        let held = Held { at, reply };
        match need {
            Need::Logged => self.unlogged.push(held),
            Need::OnDisk(bodies) => {
                self.waiting_for_disk.push(held);
                self.waiting_bodies.extend(bodies);
            }
        }
    }

    /// Whether the log must be handed to the operating system for somebody.
    pub fn wants_log(&self) -> bool {
        !self.unlogged.is_empty() || !self.waiting_for_disk.is_empty()
    }

    /// The log was handed over.
    pub fn logged(&mut self) {
        self.uncopied.extend(self.unlogged.drain(..));
    }

    /// Whether a sync should start: somebody waits for the disk, and none is under way.
    pub fn wants_sync(&self) -> bool {
        self.in_flight.is_none() && !self.waiting_for_disk.is_empty()
    }

    /// The bodies that the next sync must cover.
    pub fn bodies_to_sync(&self) -> Vec<BodyId> {
        self.waiting_bodies.iter().copied().collect()
    }

    /// A sync starts for everybody who waits now; its number. Who comes later waits for the next one.
    pub fn sync_starts(&mut self) -> u64 {
        debug_assert!(self.in_flight.is_none(), "one sync at a time");
        self.syncs += 1;
        self.in_flight = Some((self.syncs, std::mem::take(&mut self.waiting_for_disk)));
        self.waiting_bodies.clear();
        self.syncs
    }

    /// The number of the next sync.
    pub fn next_sync(&self) -> u64 {
        self.syncs + 1
    }

    /// Gives the next number to a sync that no reply waits for.
    pub fn skip_sync(&mut self) {
        self.syncs += 1;
    }

    /// The sync here with this number is done. One that was given up meanwhile is nobody's any more.
    pub fn sync_ended(&mut self, number: u64) {
        if let Some((_, replies)) = self.in_flight.take_if(|(started, _)| *started == number) {
            self.unsynced.extend(replies.into_iter().map(|held| (number, held)));
        }
    }

    /// What may leave now, in order.
    pub fn release(&mut self, safe: Safe) -> Vec<R> {
        let copied = self.uncopied.iter().take_while(|held| held.at <= safe.copied).count();
        let is_safe = |(number, held): &&(u64, Held<R>)| *number <= safe.synced && held.at <= safe.copied;
        let synced = self.unsynced.iter().take_while(is_safe).count();
        let copied = self.uncopied.drain(..copied).map(|held| held.reply);
        copied.chain(self.unsynced.drain(..synced).map(|(_, held)| held.reply)).collect()
    }

    /// Nothing can become safe any more: everybody who waited for the log, and everybody who waited for the disk.
    pub fn give_up(&mut self) -> (Vec<R>, Vec<R>) {
        self.logged();
        let for_log = self.uncopied.drain(..).map(|held| held.reply).collect();
        let on_disk_here = self.unsynced.drain(..).map(|(_, held)| held);
        let syncing = self.in_flight.take().into_iter().flat_map(|(_, replies)| replies);
        let for_disk = on_disk_here.chain(syncing).chain(self.waiting_for_disk.drain(..));
        let for_disk = for_disk.map(|held| held.reply).collect();
        self.waiting_bodies.clear();
        (for_log, for_disk)
    }

    /// Number of replies held.
    pub fn len(&self) -> usize {
        self.unlogged.len()
            + self.uncopied.len()
            + self.waiting_for_disk.len()
            + self.in_flight.as_ref().map_or(0, |(_, replies)| replies.len())
            + self.unsynced.len()
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
        gate.hold("first", Need::OnDisk(vec![BodyId(1)]), Seq(1));
        assert!(gate.wants_sync());
        assert_eq!(gate.bodies_to_sync(), vec![BodyId(1)]);
        let first = gate.sync_starts();
        gate.hold("second", Need::OnDisk(vec![BodyId(2)]), Seq(2));
        assert!(!gate.wants_sync(), "one at a time");
        gate.sync_ended(first);
        assert_eq!(gate.release(Safe::ALONE), vec!["first"]);
        assert!(gate.wants_sync());
        assert_eq!(gate.bodies_to_sync(), vec![BodyId(2)]);
        let second = gate.sync_starts();
        gate.sync_ended(second);
        assert_eq!(gate.release(Safe::ALONE), vec!["second"]);
        assert!(gate.is_empty());
    }

    #[test]
    fn replies_leave_in_the_order_in_which_they_were_evaluated() {
        let mut gate = Gate::default();
        gate.hold(1, Need::Logged, Seq(1));
        gate.hold(2, Need::Logged, Seq(1));
        assert!(gate.wants_log());
        assert_eq!(gate.release(Safe::ALONE), Vec::<i32>::new(), "the log has not been handed over");
        gate.logged();
        assert_eq!(gate.release(Safe::ALONE), vec![1, 2]);
        assert!(!gate.wants_log());
    }

    /// A primary that was cut off gave up its replies while a sync ran, and served again before it ended: its end let go a reply
    /// whose own sync had not run.
    #[test]
    fn the_end_of_a_sync_that_was_given_up_lets_nobody_go() {
        let mut gate = Gate::default();
        gate.hold("given up", Need::OnDisk(Vec::new()), Seq(1));
        let old = gate.sync_starts();
        assert_eq!(gate.give_up(), (vec![], vec!["given up"]));
        gate.hold("later", Need::OnDisk(Vec::new()), Seq(2));
        let new = gate.sync_starts();
        gate.sync_ended(old);
        assert!(gate.release(Safe::ALONE).is_empty());
        gate.sync_ended(new);
        assert_eq!(gate.release(Safe::ALONE), vec!["later"]);
    }

    #[test]
    fn a_reply_waits_for_every_copy_to_have_what_it_saw() {
        let mut gate = Gate::default();
        gate.hold("before", Need::Logged, Seq(4));
        gate.hold("after", Need::Logged, Seq(5));
        gate.logged();
        assert_eq!(gate.release(Safe { copied: Seq(4), synced: 0 }), vec!["before"]);
        assert_eq!(gate.release(Safe { copied: Seq(5), synced: 0 }), vec!["after"]);
    }

    #[test]
    fn a_stable_reply_waits_for_the_disks_of_all_copies() {
        let mut gate = Gate::default();
        gate.hold("stable", Need::OnDisk(Vec::new()), Seq(1));
        let number = gate.sync_starts();
        gate.sync_ended(number);
        assert!(gate.release(Safe { copied: Seq(9), synced: number - 1 }).is_empty());
        assert_eq!(gate.release(Safe { copied: Seq(9), synced: number }), vec!["stable"]);
    }
}
