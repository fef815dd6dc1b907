//! Which copies a slice should have, and the next step towards them.
//!
//! The copies belong on the slice's owner and the volcanos that follow it on the ring, as many as the network is set to, and the
//! owner is to serve. Whoever is primary goes there step by step: it gives the slice to the owner when that is in sync, adds a copy
//! that is lacking, removes one that does not belong there. A change that is planned (not forced by a failure) never lowers the
//! number of in-sync copies: a copy is added before one is removed.

use std::collections::BTreeMap;
use std::time::Duration;

use magma_common::topology::{MAX_COPIES, Member, Replica, Slice as Config, VolcanoId};

use super::Role;
use super::primary::Phase;
use crate::coordinator::SliceChange;
use crate::slice::{Now, Slice};

/// After its second loss in a row a copy is taken back only after this time, which doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Who was a copy without a loss for this long begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// An owner that was lost gets its slice back when it has been there for this long: each change of the primary is a moment in which
/// nobody is answered, and a machine that comes and goes is not to cause one each time.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// What a primary does for its slice's copies.
enum Step {
    /// It asks for this change.
    Change(SliceChange),
    /// It gives the slice to this mirror.
    Give(Replica),
}

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
    /// Takes the next step towards the copies that the slice should have, if one is due and none is under way.
    pub(super) fn keep_copies(&mut self, now: Now) {
        let Some(step) = self.next_step(now) else { return };
        match step {
            Step::Change(change) => self.propose(now, change),
            Step::Give(heir) => {
                if let Role::Primary(primary) = &mut self.replication.role {
                    primary.phase = Phase::Giving(heir);
                }
                // Whoever has prepared for them would hold flares until it asks what has become of them.
                self.give_up_attempts();
                self.advance(now);
            }
        }
    }

    fn next_step(&self, now: Now) -> Option<Step> {
        let Role::Primary(primary) = &self.replication.role else { return None };
        let config = self.replication.config.as_ref()?;
        let is_busy = self.replication.proposal.is_some() || config.dividing.is_some();
        if primary.phase != Phase::Serving || primary.cut_off.is_some() || is_busy {
            return None;
        }
        // The owner may have changed without the slice: with its volcano, that is.
        let slice = self.topology.slices.iter().find(|slice| slice.id == config.id)?;
        let group = self.topology.group(slice);
        if config.joining.is_empty() {
            if let Some(heir) = self.heir(now, config, &group) {
                return Some(Step::Give(heir));
            }
            if let Some(candidate) = self.candidate(now, config, &group) {
                return Some(Step::Change(SliceChange::Add(candidate)));
            }
        }
        self.superfluous(config, &group).map(|copy| Step::Change(SliceChange::Remove(copy)))
    }

    /// The mirror to give the slice to: the owner or, if this volcano leaves and the owner is not there, any other that stays.
    fn heir(&self, now: Now, config: &Config, group: &[VolcanoId]) -> Option<Replica> {
        let own = self.identity.volcano;
        let present_for = |copy: &Replica| self.present.present_for(*copy, now.monotonic);
        let mut mirrors = config.mirrors.iter().copied().filter(|mirror| self.is_at_home(*mirror));
        let owner = group.first().copied().filter(|owner| *owner != own)?;
        if let Some(mirror) = mirrors.clone().find(|mirror| mirror.volcano == owner) {
            let there = present_for(&mirror)?;
            // A primary that is older than the decision was never chosen in a hurry.
            let is_decided = config.assigned > config.reign || !self.stays(own);
            return (is_decided || there >= SETTLED_AFTER).then_some(mirror);
        }
        let is_needed = self.stays(own) || self.kept(config) < group.len();
        if is_needed { None } else { mirrors.find(|mirror| present_for(mirror).is_some()) }
    }

    /// The volcano that is to begin a copy. One of the group takes its place in any case; another one, the next of the ring, if there
    /// would be too few without it.
    fn candidate(&self, now: Now, config: &Config, group: &[VolcanoId]) -> Option<Replica> {
        if config.copies().count() > usize::from(MAX_COPIES) {
            return None;
        }
        let can = |member: &&Member| {
            config.copies().all(|copy| copy.volcano != member.id)
                && self.present.is_present(member.replica(), now.monotonic)
                && self.replication.policy.is_forgiven(member.id, now.monotonic)
        };
        let kept = config.copies().filter(|copy| self.stays(copy.volcano)).count();
        let is_short = kept < usize::from(self.topology.copies.max(1));
        let mut ring = self.topology.ring_from(*group.first()?);
        ring.find(|member| can(member) && (is_short || group.contains(&member.id))).map(Member::replica)
    }

    /// A mirror that does not belong to the group, and without which there are as many copies as there should be.
    fn superfluous(&self, config: &Config, group: &[VolcanoId]) -> Option<Replica> {
        let kept = self.kept(config);
        let is_superfluous = |mirror: &&Replica| {
            let counts = usize::from(self.stays(mirror.volcano));
            !group.contains(&mirror.volcano) && kept - counts >= group.len()
        };
        config.mirrors.iter().rev().find(is_superfluous).copied()
    }

    /// In-sync copies on volcanos that stay.
    fn kept(&self, config: &Config) -> usize {
        config.in_sync().filter(|copy| self.stays(copy.volcano)).count()
    }

    fn stays(&self, who: VolcanoId) -> bool {
        self.topology.member(who).is_some_and(Member::stays)
    }

    /// It stays, and is the life that the network knows.
    fn is_at_home(&self, copy: Replica) -> bool {
        self.topology.member(copy.volcano).is_some_and(|member| member.stays() && member.boot == copy.boot)
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
