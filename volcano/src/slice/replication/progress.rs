//! What the primary knows of another copy.

use std::collections::VecDeque;
use std::time::Duration;

use magma_common::key::KeyRange;
use magma_common::topology::Seq;

use super::lease::{Beacons, LEASE, NO_PROMISE};
use crate::missing::Missing;
use crate::store::Inside;

/// Records that were not acknowledged for so long are sent again. Connections are reliable, so only one that broke loses any.
const LOSS: Duration = Duration::from_secs(1);
/// Records that a copy has not taken, though it has answered what was sent after them, are sent again after this time: it did not know the
/// epoch yet, perhaps. Or it takes them later, since they are to follow what it does not have.
const PASSED_OVER: Duration = Duration::from_millis(50);

/// How long the first answer to a part is waited for.
pub(super) const PART_PATIENCE: Duration = Duration::from_millis(300);
/// How long an answer to a part is waited for at most.
pub(super) const LONGEST_PART_PATIENCE: Duration = Duration::from_secs(5);

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

/// A sync of everything that a joining copy has.
#[derive(Clone, Copy, Debug)]
pub(super) struct FullSync {
    pub(super) number: u64,
    /// The last record that it covers.
    pub(super) through: Seq,
    /// When the copy, having that record, was asked for it last.
    pub(super) asked: Option<Duration>,
}

/// Records that are on their way together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// The last one.
    pub(super) last: Seq,
    /// About how many bytes they take.
    pub(super) bytes: usize,
    /// The beacon that they were sent with.
    pub(super) beacon: u64,
}

/// What the primary knows of one other copy.
#[derive(Debug)]
pub(super) struct Progress {
    /// It is an in-sync copy of the present epoch.
    pub(super) is_mirror: bool,
    /// It is proposed as one, or about to be. It counts, whatever is heard of the outcome: it may be one already.
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
    /// The beacon of the last order to forget something.
    ordered: u64,
    /// It has everything up to here.
    pub(super) acked: Seq,
    /// Everything up to here was sent to it.
    pub(super) sent: Seq,
    /// What is on its way.
    on_its_way: VecDeque<Batch>,
    in_flight: usize,
    /// When the oldest of them was sent, or another one acknowledged since.
    waiting: Duration,
    /// The newest beacon that it has answered.
    newest_answer: u64,
    /// After what time records that it has passed over are sent again. It grows each time.
    passed_over: Duration,
    /// When something was sent to it last.
    pub(super) told: Duration,
    /// The syncs up to this number are done.
    pub(super) synced: u64,
    /// Since when it owes one, or did another one.
    owes_since: Option<Duration>,
    /// The sync of everything that it is asked for before it counts, and again before it is proposed as in sync.
    pub(super) full_sync: Option<FullSync>,
    /// Bytes that it can still store.
    pub(super) space: u64,
    /// What it lacks.
    pub(super) missing: Missing,
    pub(super) refreshing: Option<Refreshing>,
    /// How long an answer to a part is waited for. It grows with each that does not come.
    pub(super) part_patience: Duration,
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
            ordered: 0,
            acked: Seq(0),
            sent: Seq(0),
            on_its_way: VecDeque::new(),
            in_flight: 0,
            waiting: now,
            newest_answer: NO_PROMISE,
            passed_over: PASSED_OVER,
            told: Duration::ZERO,
            synced: 0,
            owes_since: None,
            full_sync: None,
            space: u64::MAX,
            missing: Missing::NOTHING,
            refreshing: None,
            part_patience: PART_PATIENCE,
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
        self.newest_answer = self.newest_answer.max(beacon);
        self.leased = self.leased.max(beacons.sent_at(beacon));
    }

    /// It is ordered, by this beacon, to forget something.
    pub(super) fn is_ordered_to_forget(&mut self, beacon: u64) {
        self.ordered = beacon;
    }

    /// Whether what it says, having seen this beacon, is true for good: orders to forget that are older it does not take any more.
    pub(super) fn is_past_orders(&self, beacon: u64) -> bool {
        beacon >= self.ordered
    }

    /// Whether it has promised not to take over yet.
    pub(super) fn leases(&self, now: Duration) -> bool {
        self.leased.is_some_and(|sent| now < sent.saturating_add(LEASE))
    }

    /// It need not keep what it has promised any more.
    pub(super) fn release(&mut self) {
        self.leased = None;
    }

    /// It stands here now.
    pub(super) fn stands_at(&mut self, position: Seq, last: Seq, now: Duration) {
        if position > self.acked || position == last {
            self.advanced = now;
        }
        if position > self.acked {
            self.acked = position;
            self.waiting = now;
            self.passed_over = PASSED_OVER;
        }
        self.sent = self.sent.max(self.acked);
        while let Some(batch) = self.on_its_way.front()
            && batch.last <= self.acked
        {
            self.in_flight -= batch.bytes;
            self.on_its_way.pop_front();
        }
    }

    /// It stands here, whatever was known before: what was on its way does not count any more.
    pub(super) fn starts_at(&mut self, position: Seq) {
        self.acked = position;
        self.send_again();
    }

    /// What was sent may be lost: begins again after what it has.
    pub(super) fn send_again(&mut self) {
        self.passed_over = (self.passed_over * 2).min(LOSS);
        self.sent = self.acked;
        self.on_its_way.clear();
        self.in_flight = 0;
    }

    /// These records are sent now.
    pub(super) fn sends(&mut self, batch: Batch, now: Duration) {
        if self.on_its_way.is_empty() {
            self.waiting = now;
        }
        self.sent = batch.last;
        self.in_flight += batch.bytes;
        self.on_its_way.push_back(batch);
    }

    /// Bytes of records on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether it must be feared that what is on its way does not arrive.
    pub(super) fn seems_lost(&self, now: Duration) -> bool {
        let Some(oldest) = self.on_its_way.front() else { return false };
        let is_passed_over = oldest.beacon != NO_PROMISE && oldest.beacon < self.newest_answer;
        now.saturating_sub(self.waiting) >= if is_passed_over { self.passed_over } else { LOSS }
    }

    /// It is asked for the sync with this number, and maybe others before.
    pub(super) fn owes_sync(&mut self, now: Duration) {
        self.owes_since.get_or_insert(now);
    }

    /// It has done the syncs up to this number, of which `newest` is the last that it was asked for.
    pub(super) fn has_synced(&mut self, number: u64, newest: Option<u64>, now: Duration) {
        if number > self.synced {
            self.synced = number;
            self.owes_since = newest.filter(|newest| number < *newest).map(|_| now);
        }
    }

    /// For how long it has not got nearer to what it owes.
    pub(super) fn stuck_for(&self, last: Seq, now: Duration) -> Duration {
        let is_behind = self.stage != Stage::Streaming || self.acked < last;
        let behind = if is_behind { now.saturating_sub(self.advanced) } else { Duration::ZERO };
        let syncing = self.owes_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        behind.max(syncing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to a beacon of before the release was under way for long. The mirror may have become primary meanwhile.
    #[test]
    fn a_mirror_that_was_released_gives_no_lease_by_what_it_promised_before() {
        let second = Duration::from_secs(1);
        let mut beacons = Beacons::default();
        let mut mirror = Progress::new(true, second);
        let early = beacons.send(second);
        let late = beacons.send(2 * second);
        mirror.answered(&beacons, early, 2 * second);
        assert!(mirror.leases(2 * second));
        mirror.release();
        beacons.void();
        assert!(!mirror.leases(2 * second));
        mirror.answered(&beacons, late, 3 * second);
        assert!(!mirror.leases(3 * second));
        let new = beacons.send(3 * second);
        mirror.answered(&beacons, new, 3 * second);
        assert!(mirror.leases(3 * second));
    }

    /// A slice had been divided, and its mirror had not heard of it: it dropped what was sent in the new epoch, and answered with where it stood. For a
    /// second nothing was sent again, and nothing acknowledged.
    #[test]
    fn what_a_copy_has_passed_over_is_sent_again_soon_and_then_less_often() {
        let start = Duration::from_secs(1);
        let mut beacons = Beacons::default();
        let mut mirror = Progress::new(true, start);
        let beacon = beacons.send(start);
        mirror.sends(Batch { last: Seq(5), bytes: 100, beacon }, start);
        mirror.answered(&beacons, beacon, start);
        assert!(!mirror.seems_lost(start + PASSED_OVER), "the answer may be older than the records");
        let later = beacons.send(start);
        mirror.answered(&beacons, later, start);
        assert!(!mirror.seems_lost(start) && mirror.seems_lost(start + PASSED_OVER));
        mirror.send_again();
        assert!(!mirror.seems_lost(start + LOSS), "nothing is on its way");
        let again = start + PASSED_OVER;
        mirror.sends(Batch { last: Seq(5), bytes: 100, beacon: later }, again);
        let newest = beacons.send(again);
        mirror.answered(&beacons, newest, again);
        assert!(!mirror.seems_lost(again + PASSED_OVER) && mirror.seems_lost(again + 2 * PASSED_OVER));
    }
}
