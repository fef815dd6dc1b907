//! Which lives of the other volcanos were heard from, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use magma_common::topology::{BootId, Replica, VolcanoId};

/// Who was heard from within this time is there.
const PRESENCE: Duration = Duration::from_secs(2);
/// Who was heard from within this time was there lately.
const LATELY: Duration = Duration::from_secs(10);

/// The newest life of each volcano that was heard from, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Presence(BTreeMap<VolcanoId, Heard>);

#[derive(Clone, Copy, Debug)]
struct Heard {
    boot: BootId,
    /// When it was heard from last.
    last: Duration,
    /// Since when it was there without a break.
    since: Duration,
}

impl Presence {
    /// A volcano was heard from.
    pub(super) fn hear(&mut self, now: Duration, who: Replica) {
        let fresh = Heard { boot: who.boot, last: now, since: now };
        let known = self.0.entry(who.volcano).or_insert(fresh);
        if who.boot > known.boot || now.saturating_sub(known.last) >= PRESENCE {
            *known = Heard { boot: known.boot.max(who.boot), ..fresh };
        } else if who.boot == known.boot {
            known.last = now;
        }
    }

    /// Whether this volcano is known to have started anew since that life.
    pub(super) fn has_restarted(&self, life: Replica) -> bool {
        self.0.get(&life.volcano).is_some_and(|heard| heard.boot > life.boot)
    }

    /// Whether this very life was heard from lately.
    pub(super) fn is_present(&self, life: Replica, now: Duration) -> bool {
        self.present_for(life, now).is_some()
    }

    /// Whether it must be this volcano that does not hear, if nobody else speaks: several were there lately, and now none is. Of a single
    /// one that is silent nobody can know whose fault that is.
    pub(super) fn is_deaf(&self, now: Duration) -> bool {
        let silent = |heard: &Heard| now.saturating_sub(heard.last);
        let lately = self.0.values().filter(|heard| silent(heard) < LATELY);
        lately.clone().count() > 1 && lately.clone().all(|heard| silent(heard) >= PRESENCE)
    }

    /// For how long this very life has been there without a break; none if it is not.
    pub(super) fn present_for(&self, life: Replica, now: Duration) -> Option<Duration> {
        let heard = self.0.get(&life.volcano)?;
        let is_there = heard.boot == life.boot && now.saturating_sub(heard.last) < PRESENCE;
        is_there.then(|| now.saturating_sub(heard.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hears_nobody_of_several_is_deaf() {
        let second = Duration::from_secs(1);
        let life = |volcano| Replica { volcano: VolcanoId(volcano), boot: BootId(1) };
        let mut presence = Presence::default();
        assert!(!presence.is_deaf(50 * second), "there never was anybody");
        presence.hear(100 * second, life(1));
        assert!(!presence.is_deaf(103 * second), "the other one may have ended");
        presence.hear(101 * second, life(2));
        assert!(!presence.is_deaf(102 * second));
        assert!(presence.is_deaf(103 * second));
        presence.hear(104 * second, life(2));
        assert!(!presence.is_deaf(104 * second));
        assert!(!presence.is_deaf(113 * second), "one of them has been away for long");
    }

    #[test]
    fn presence_begins_anew_with_each_life_and_after_each_silence() {
        let second = Duration::from_secs(1);
        let life = |boot| Replica { volcano: VolcanoId(1), boot: BootId(boot) };
        let mut presence = Presence::default();
        for time in 10..20 {
            presence.hear(time * second, life(1));
        }
        assert_eq!(presence.present_for(life(1), 20 * second), Some(10 * second));
        assert_eq!(presence.present_for(life(1), 22 * second), None);
        presence.hear(25 * second, life(1));
        assert_eq!(presence.present_for(life(1), 26 * second), Some(second), "it was away");
        presence.hear(26 * second, life(2));
        presence.hear(27 * second, life(1));
        assert!(presence.has_restarted(life(1)) && !presence.is_present(life(1), 27 * second));
        assert_eq!(presence.present_for(life(2), 27 * second), Some(second));
    }
}
