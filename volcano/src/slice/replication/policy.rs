//! Which copies a slice should have, and the next step towards them.
//!
//! The copies belong on the primary and the volcanos that follow it on the ring, as many as the network is set to. A change that
//! is planned (not forced by a failure) never lowers the number of in-sync copies: a copy is added before one is removed.

use std::collections::BTreeMap;
use std::time::Duration;

use magma_common::topology::{Member, Replica, VolcanoId};

use super::Role;
use super::primary::Phase;
use crate::coordinator::SliceChange;
use crate::slice::{Now, Slice};

/// After its second loss in a row a copy is taken back only after this time, which doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Who was a copy without a loss for this long begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// Which volcanos were lost as copies, how often, and when last.
#[derive(Debug, Default)]
pub(super) struct Policy {
    lost: BTreeMap<VolcanoId, (u32, Duration)>,
}

impl Policy {
    pub(super) fn lost(&mut self, who: VolcanoId, now: Duration) {
        let (times, last) = self.lost.entry(who).or_insert((0, now));
        if now.saturating_sub(*last) > FORGIVEN_AFTER {
            *times = 0;
        }
        // What is asked for several times in one go is one loss.
        if *times == 0 || now.saturating_sub(*last) > Duration::from_secs(2) {
            *times += 1;
        }
        *last = now;
    }

    /// Whether it may be taken back already. The first loss costs no waiting: most volcanos simply started anew.
    fn is_forgiven(&self, who: VolcanoId, now: Duration) -> bool {
        let Some((times, last)) = self.lost.get(&who) else { return true };
        let doublings = times.saturating_sub(2).min(8);
        let pause =
            if *times < 2 { Duration::ZERO } else { (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE) };
        now.saturating_sub(*last) >= pause
    }
}

impl Slice<'_> {
    /// The volcanos that should have copies, in the order of the ring from the primary on.
    fn ring(&self) -> Vec<&Member> {
        let own = self.identity.volcano;
        let eligible = |member: &&Member| !member.witness && !member.leaving;
        let mut members: Vec<&Member> = self.topology.members.iter().filter(eligible).collect();
        members.sort_unstable_by_key(|member| (member.id <= own, member.id));
        if let Some(at) = members.iter().position(|member| member.id == own) {
            let own = members.remove(at);
            members.insert(0, own);
        }
        members
    }

    /// Takes the next step towards the copies that the slice should have, if one is due and none is under way.
    pub(super) fn keep_copies(&mut self, now: Now) {
        let (Role::Primary(primary), Some(config)) = (&self.replication.role, &self.replication.config)
        else {
            return;
        };
        let is_busy = self.replication.proposal.is_some() || config.dividing.is_some();
        if primary.phase != Phase::Serving || is_busy {
            return;
        }
        let wanted = usize::from(self.topology.copies.max(1));
        let ring = self.ring();
        let target: Vec<VolcanoId> = ring.iter().take(wanted).map(|member| member.id).collect();
        let in_sync = config.mirrors.len() + 1;
        let me = self.identity.replica();
        let is_leaving = self.topology.member(me.volcano).is_some_and(|member| member.leaving);

        if config.joining.is_empty()
            && let Some(candidate) = self.candidate(now, &ring, wanted + usize::from(is_leaving))
        {
            return self.propose(now, SliceChange::Add(candidate));
        }
        let superfluous = config.mirrors.iter().rev().find(|mirror| !target.contains(&mirror.volcano));
        if let Some(&mirror) = superfluous
            && in_sync > target.len()
            && !is_leaving
        {
            return self.propose(now, SliceChange::Remove(mirror));
        }
        if is_leaving && in_sync > target.len() {
            let heir = config.mirrors.iter().find(|mirror| target.contains(&mirror.volcano)).copied();
            if let (Some(heir), Role::Primary(primary)) = (heir, &mut self.replication.role) {
                primary.phase = Phase::Giving(heir);
                self.advance(now);
            }
        }
    }

    /// The first volcano of the ring that should have a copy, has none, and is there.
    fn candidate(&self, now: Now, ring: &[&Member], wanted: usize) -> Option<Replica> {
        let config = self.replication.config.as_ref()?;
        let has_copy = |id: VolcanoId| config.copies().any(|copy| copy.volcano == id);
        let useful = |copy: &Replica| {
            ring.iter().any(|member| member.id == copy.volcano) || copy.volcano == self.identity.volcano
        };
        if config.copies().filter(useful).count() >= wanted {
            return None;
        }
        let can = |member: &&&Member| {
            !has_copy(member.id)
                && self.present.is_present(member.replica(), now.monotonic)
                && self.replication.policy.is_forgiven(member.id, now.monotonic)
        };
        ring.iter().find(can).map(|member| member.replica())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_lost_again_and_again_is_taken_back_later_and_later() {
        let (mut policy, who) = (Policy::default(), VolcanoId(1));
        let second = Duration::from_secs(1);
        policy.lost(who, second);
        assert!(policy.is_forgiven(who, second), "the first time costs nothing");
        policy.lost(who, 10 * second);
        assert!(!policy.is_forgiven(who, 14 * second));
        assert!(policy.is_forgiven(who, 15 * second));
        policy.lost(who, 20 * second);
        assert!(!policy.is_forgiven(who, 29 * second));
        assert!(policy.is_forgiven(who, 30 * second));
        policy.lost(who, 20 * second + FORGIVEN_AFTER + second);
        assert!(policy.is_forgiven(who, 20 * second + FORGIVEN_AFTER + second), "that was long ago");
    }
}
