//! The copies of a slice and what they are to each other.
//!
//! A volcano's copy has a [`Role`] by the topology: it serves the slice as its primary, follows the primary (as a mirror, or
//! joining), or is no member in this life of the volcano. The primary brings every other copy to its own position, always
//! in the same way ([`feed`](self)): it asks where the copy stands, finds the last record that both have, cuts what the copy has beyond it,
//! and sends what comes after; what the log cannot give is copied in parts.
//!
//! What must hold:
//!
//! * Only in-sync copies are ever promoted, and each of them has every acknowledged record. So whatever is acknowledged
//!   survives as long as one in-sync copy does.
//! * At most one copy answers at a time: the primary while all that count have answered a recent beacon ([`lease`]); a mirror
//!   that has answered one does not take over before that has run out.
//! * In-sync copies never part: within an epoch one primary numbers the records, and a new one serves only after every
//!   mirror has the first record of its epoch. A mirror with a longer log than the new primary becomes primary itself.
//! * A member is one life of a volcano. What it knew in memory ends with that life, and so does its membership.

mod cold;
mod dividing;
mod doubts;
mod feed;
mod follower;
mod history;
pub mod lease;
mod policy;
mod primary;
mod progress;
mod recent;
mod report;

use std::time::Duration;

use magma_common::topology::{Epoch, Position, Replica, Slice as Config};

use self::cold::Cold;
use self::follower::Follower;
use self::lease::Beacons;
use self::primary::Primary;
use self::recent::Recent;
use super::{Effect, Now, Slice};
use crate::coordinator::{Refusal, SliceChange};
use crate::node::message::{SliceMessage, Stand};
use crate::planted::{Bug, planted};
use crate::store::Doubts;

/// What was not answered is said again after this time.
const SAY_AGAIN: Duration = Duration::from_millis(300);

/// What this copy is by the topology.
pub(super) enum Role {
    /// No member, in this life.
    Outside(Cold),
    /// It follows the primary.
    Follower(Follower),
    /// It serves the slice, or is about to.
    Primary(Box<Primary>),
}

/// A change that was asked for and whose outcome is not known.
struct Proposal {
    change: SliceChange,
    asked: Duration,
}

/// The replication state of a copy.
pub(super) struct Replication {
    role: Role,
    /// The slice's members as this copy knows them.
    config: Option<Config>,
    proposal: Option<Proposal>,
    /// The last stop may have cost what was not on disk.
    may_have_lost: bool,
    /// Bytes here that may not be what the other copies have.
    doubtful: Doubts,
    /// What is sent is numbered without a break as long as the process lives, whatever the role.
    beacons: Beacons,
    refreshes: u64,
    recent: Recent,
    policy: policy::Policy,
    /// Since when there are too few in-sync copies, by the primary's knowledge.
    degraded: Option<magma_common::time::Timestamp>,
}

impl Replication {
    pub(super) fn new(may_have_lost: bool, doubtful: Doubts) -> Self {
        Self {
            role: Role::Outside(Cold::default()),
            config: None,
            proposal: None,
            may_have_lost,
            doubtful,
            beacons: Beacons::default(),
            refreshes: 0,
            recent: Recent::default(),
            policy: policy::Policy::default(),
            degraded: None,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.config.as_ref().map_or(Epoch(0), |config| config.epoch)
    }
}

impl Slice<'_> {
    /// The topology has changed.
    pub(super) fn configure(&mut self, now: Now) {
        let Some(config) = self.topology.slices.iter().find(|slice| slice.id == self.identity.slice).cloned()
        else {
            return;
        };
        let known = self.replication.config.as_ref().map(|config| config.epoch);
        if known.is_some_and(|epoch| config.epoch <= epoch) {
            return;
        }
        self.replication.proposal = None;
        self.replication.config = Some(config.clone());
        let me = self.identity.replica();
        let mut config = config;
        if planted(Bug::KeepMembershipOverRestart) {
            keep_membership(&mut config, me);
        }
        if config.primary == me {
            self.lead(now, &config);
        } else if config.copies().any(|copy| copy == me) {
            self.follow(now, &config);
        } else {
            self.step_down();
            self.replication.role = Role::Outside(Cold::default());
        }
        self.advance(now);
    }

    /// Another copy says something.
    pub(super) fn message(&mut self, now: Now, from: Replica, epoch: Epoch, message: SliceMessage) {
        let is_ours = epoch == self.replication.epoch() || planted(Bug::SkipEpochCheck);
        if *self.stopped || !is_ours || self.present.has_restarted(from) {
            return;
        }
        let done = match &self.replication.role {
            Role::Outside(_) => {
                self.hear_cold(now, from, message);
                Ok(())
            }
            Role::Follower(follower) if follower.follows(from) => self.hear_primary(now, message),
            Role::Follower(_) => Ok(()),
            Role::Primary(_) => self.hear_copy(now, from, message),
        };
        if let Err(trouble) = done {
            self.trouble(trouble);
        }
    }

    /// The coordinator will not make a change that was asked for under this epoch.
    pub(super) fn refused(&mut self, epoch: Epoch, change: &SliceChange, refusal: &Refusal) {
        if epoch != self.epoch() {
            return;
        }
        tracing::debug!(target: "magma::routing", slice = self.identity.slice.0, ?change, %refusal, "a change is refused");
        let asked = self.replication.proposal.as_ref().is_some_and(|proposal| proposal.change == *change);
        // A copy that proposed itself goes on asking: another try of its own may have been heard.
        if asked && !matches!(change, SliceChange::Promote(_)) {
            self.replication.proposal = None;
        }
    }

    /// Does what time or messages have made due.
    pub(super) fn replicate(&mut self, now: Now) {
        match self.replication.role {
            Role::Outside(_) => self.report_cold(now),
            Role::Follower(_) => {
                self.go_on_syncing();
                self.consider_promotion(now);
            }
            Role::Primary(_) => self.lead_on(now),
        }
        let epoch = self.replication.epoch();
        if let Some(proposal) = &mut self.replication.proposal
            && now.monotonic.saturating_sub(proposal.asked) >= SAY_AGAIN
        {
            proposal.asked = now.monotonic;
            self.effects.push(Effect::Propose(self.identity.slice, epoch, proposal.change.clone()));
        }
    }

    /// Asks the coordinator for a change under the present epoch, again and again until the epoch is another one.
    fn propose(&mut self, now: Now, change: SliceChange) {
        if self.replication.proposal.as_ref().is_some_and(|proposal| proposal.change == change) {
            return;
        }
        tracing::info!(target: "magma::routing", slice = self.identity.slice.0, ?change, "asking for a change of the slice's copies");
        self.effects.push(Effect::Propose(self.identity.slice, self.replication.epoch(), change.clone()));
        self.replication.proposal = Some(Proposal { change, asked: now.monotonic });
    }

    /// What fences this slice's records.
    pub(super) fn epoch(&self) -> Epoch {
        self.replication.epoch()
    }

    /// Keeps a record that was made here for the other copies.
    pub(super) fn remember(&mut self, record: crate::record::Record, appended: Vec<bytes::Bytes>) {
        self.replication.recent.push(record, appended);
    }

    /// Whether the slice has other copies that may serve it.
    pub(super) fn has_other_copies(&self) -> bool {
        self.replication.config.as_ref().is_some_and(|config| !config.mirrors.is_empty())
    }

    fn tell(&mut self, to: Replica, message: SliceMessage) {
        self.effects.push(Effect::Tell(self.identity.slice, to, self.replication.epoch(), message));
    }

    /// This copy's last record; of an empty copy, one before the first.
    pub(super) fn position(&self) -> Position {
        self.store.position(self.identity.slice).unwrap_or_default()
    }

    fn stand(&self) -> Stand {
        Stand {
            position: self.position(),
            history: self.store.history(self.identity.slice),
            missing: self.store.missing(self.identity.slice).clone(),
            may_have_lost: self.replication.may_have_lost,
            is_doubtful: !self.replication.doubtful.is_empty(),
        }
    }
}

/// The planted fault of the same name: a new life takes the place of the former one.
fn keep_membership(config: &mut Config, me: Replica) {
    let copies = std::iter::once(&mut config.primary).chain(&mut config.mirrors).chain(&mut config.joining);
    copies.filter(|copy| copy.volcano == me.volcano).for_each(|copy| copy.boot = me.boot);
}
