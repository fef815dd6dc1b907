//! What the primary knows of another copy.

use std::time::Duration;

use magma_common::key::KeyRange;
use magma_common::topology::Seq;

use super::lease::{Beacons, LEASE};
use crate::missing::Missing;
use crate::store::Inside;

/// How far the bringing up of a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Where it stands is being asked.
    Asking,
    /// It follows the log.
    Streaming,
}

/// A part that was sent and is not confirmed.
#[derive(Clone, Debug)]
pub(super) struct Refreshing {
    pub(super) number: u64,
    /// What it covers.
    pub(super) range: KeyRange,
    /// Whether that is complete with it.
    pub(super) last: bool,
    /// Where the next part of the same range begins.
    pub(super) inside: Option<Inside>,
    pub(super) sent_at: Duration,
}

/// What the primary knows of one other copy.
#[derive(Debug)]
pub(super) struct Progress {
    /// It is an in-sync copy of the present epoch.
    pub(super) is_mirror: bool,
    /// It was proposed as one. From then on it counts, whatever is heard of the outcome: it may be one already.
    pub(super) is_proposed: bool,
    pub(super) stage: Stage,
    /// When it began to be brought up.
    pub(super) since: Duration,
    /// When it was heard from last; at first, when it became a member.
    pub(super) heard: Duration,
    /// When it last got nearer to what was sent to it, or had nothing left to get.
    pub(super) advanced: Duration,
    /// When the newest beacon that it has answered was sent.
    leased: Option<Duration>,
    /// It has everything up to here.
    pub(super) acked: Seq,
    /// Everything up to here was sent to it, and not longer ago than it takes to notice a loss.
    pub(super) sent: Seq,
    /// Bytes of records sent and not acknowledged, at most.
    pub(super) in_flight: usize,
    /// When something was sent to it last.
    pub(super) told: Duration,
    /// The syncs up to this number are done.
    pub(super) synced: u64,
    /// The sync of everything that it was asked for before it is proposed as in sync: its number and the last record.
    pub(super) full_sync: Option<(u64, Seq)>,
    /// Bytes that it can still store.
    pub(super) space: u64,
    /// What it lacks.
    pub(super) missing: Missing,
    pub(super) refreshing: Option<Refreshing>,
    /// Where the next part begins inside a flare that takes several.
    pub(super) inside: Option<Inside>,
}

impl Progress {
    pub(super) fn new(is_mirror: bool, now: Duration) -> Self {
        Self {
            is_mirror,
            is_proposed: false,
            stage: Stage::Asking,
            since: now,
            heard: now,
            advanced: now,
            leased: None,
            acked: Seq(0),
            sent: Seq(0),
            in_flight: 0,
            told: Duration::ZERO,
            synced: 0,
            full_sync: None,
            space: u64::MAX,
            missing: Missing::NOTHING,
            refreshing: None,
            inside: None,
        }
    }

    /// Whether nothing may be called safe that this copy does not have.
    pub(super) fn counts(&self) -> bool {
        self.is_mirror || self.is_proposed
    }

    /// It has answered this beacon.
    pub(super) fn answered(&mut self, beacons: &Beacons, beacon: u64, now: Duration) {
        self.heard = now;
        self.leased = self.leased.max(beacons.sent_at(beacon));
    }

    /// Whether it has promised not to take over yet.
    pub(super) fn leases(&self, now: Duration) -> bool {
        self.leased.is_some_and(|sent| now < sent.saturating_add(LEASE))
    }

    /// It stands here now.
    pub(super) fn stands_at(&mut self, position: Seq, last: Seq, now: Duration) {
        if position > self.acked || position == last {
            self.advanced = now;
        }
        self.acked = self.acked.max(position);
        self.sent = self.sent.max(self.acked);
        if self.sent == self.acked {
            self.in_flight = 0;
        }
    }

    /// What was sent may be lost: begins again after what it has.
    pub(super) fn send_again(&mut self) {
        self.sent = self.acked;
        self.in_flight = 0;
    }
}
