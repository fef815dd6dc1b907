//! The primary divides its slice in two, when the topology says so.
//!
//! It evaluates nothing more, and makes the record that divides every copy of the slice ([`Change::Divide`]). When that is on the disks of all in-sync copies it
//! asks the coordinator to let the new slice be: so nobody relies upon a copy of the new slice that a power cut could take. The new
//! slice then begins like any other that has got a new primary, and this one goes on with the keys that it has kept.
//!
//! A new primary, if this one is lost meanwhile, finds that the slice is to be divided. If its copy is divided already, it goes on from there before it
//! serves; else it serves, and divides.

use magma_common::topology::{Division, Position, SliceId};

use super::Role;
use super::primary::Phase;
use crate::coordinator::SliceChange;
use crate::planted::{Bug, planted};
use crate::record::Change;
use crate::slice::gate::Need;
use crate::slice::orphans::Search;
use crate::slice::{Held, Now, Slice, Trouble};

/// How far the dividing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// This copy is divided.
    Recorded,
    /// The copies take the record to their disks.
    Securing,
    /// All of them have it.
    Secured,
}

impl Slice<'_> {
    /// How the slice is to be divided.
    fn division(&self) -> Option<Division> {
        self.replication.config.as_ref().and_then(|config| config.dividing)
    }

    /// Whether this copy is divided already, and the topology does not say so yet.
    pub(super) fn is_divided_here(&self) -> bool {
        let is_child =
            |new: SliceId| self.store.parent(new).is_some_and(|(parent, _)| parent == self.identity.slice);
        self.division().is_some_and(|division| is_child(division.new))
    }

    /// A primary that serves divides the slice if it is to.
    pub(super) fn divide_if_due(&mut self, now: Now) {
        let Some(division) = self.division().filter(|_| self.is_serving()) else { return };
        match self.divide(now, division) {
            Ok(()) => self.go_on_dividing(now, Stage::Recorded),
            Err(trouble) => self.trouble(trouble),
        }
    }

    fn divide(&mut self, now: Now, division: Division) -> Result<(), Trouble> {
        self.record(now, vec![Change::Divide(division)], None)?;
        let Division { at, new } = division;
        tracing::info!(target: "magma::routing", slice = self.identity.slice.0, at = %format_args!("{:016x}", at.0), new = new.0, "the slice is divided");
        if !planted(Bug::ForgetLedgerAtDivision) {
            self.recovered.inherit(new, self.ledger.heir());
        }
        self.set_down();
        self.begin_across_again(now)
    }

    /// Whoever waits for something here asks again. What has been evaluated is answered when it is safe.
    fn set_down(&mut self) {
        self.give_up_attempts();
        let mut waiting: Vec<_> =
            self.waits.cancel(|_| true).into_iter().map(|waiter| waiter.ticket).collect();
        waiting.extend(self.reads.drain().map(|(ticket, _)| ticket));
        waiting.sort_unstable();
        for ticket in waiting {
            self.tell_later(ticket);
        }
        self.locks_changed.clear();
    }

    /// Takes the next step of dividing, from this stage on.
    pub(super) fn go_on_dividing(&mut self, now: Now, stage: Stage) {
        // The topology may have gone on by two steps at once: then there is a division to come, which this is not.
        if !self.is_divided_here() {
            return self.is_divided(now);
        }
        match stage {
            Stage::Recorded if planted(Bug::DivideBeforeDisk) => self.propose(now, SliceChange::Divided),
            Stage::Recorded => {
                let at = self.position().seq;
                self.gate.hold(Held::Divided, Need::OnDisk(Vec::new()), at);
                self.set_phase(Phase::Dividing(Stage::Securing));
            }
            Stage::Securing => {}
            Stage::Secured => self.propose(now, SliceChange::Divided),
        }
    }

    /// All in-sync copies have what this one had when it was divided, on their disks.
    pub(in crate::slice) fn division_is_secured(&mut self, now: Now) {
        if matches!(&self.replication.role, Role::Primary(primary) if primary.phase == Phase::Dividing(Stage::Securing))
        {
            self.set_phase(Phase::Dividing(Stage::Secured));
            self.go_on_dividing(now, Stage::Secured);
        }
    }

    /// The new slice is there: this one goes on, or begins, with the keys that it has kept.
    fn is_divided(&mut self, now: Now) {
        let reign = self.replication.config.as_ref().map(|config| config.reign);
        if reign != Some(*self.reign) {
            return self.begin_serving(now);
        }
        self.sessions.keep_opens_in(self.range());
        // nobody could be heard meanwhile
        self.sessions.renew(now.monotonic);
        *self.search = Search::from_start();
        self.set_phase(Phase::Serving);
    }

    /// A copy that joins has nothing to say as long as it may still be divided off another copy here, which catches up, or that may be taken back.
    pub(super) fn awaits_division(&self) -> bool {
        let Role::Follower(follower) = &self.replication.role else { return false };
        if follower.is_mirror() {
            return false;
        }
        let (own, me) = (self.identity.slice, self.identity.replica());
        let config = |id: SliceId| self.topology.slices.iter().find(|slice| slice.id == id);
        let is_kept = |id: SliceId| config(id).is_some_and(|slice| slice.copies().any(|copy| copy == me));
        if self.store.overlapping(own, self.range()).into_iter().any(is_kept) {
            return true;
        }
        let Position { seq, .. } = self.position();
        let is_joining = |id: SliceId| config(id).is_some_and(|slice| slice.joining.contains(&me));
        self.store.parent(own).is_some_and(|(parent, at)| at == seq && is_joining(parent))
    }
}
