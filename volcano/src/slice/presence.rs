//! Which lives of the other volcanos were heard from, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use magma_common::topology::{BootId, Replica, VolcanoId};

/// Who was heard from within this time is there.
const PRESENCE: Duration = Duration::from_secs(2);

/// The newest life of each volcano that was heard from, and when that was, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Presence(BTreeMap<VolcanoId, (BootId, Duration)>);

impl Presence {
    /// A volcano was heard from.
    pub(super) fn hear(&mut self, now: Duration, who: Replica) {
        let known = self.0.entry(who.volcano).or_insert((who.boot, now));
        if who.boot >= known.0 {
            *known = (who.boot, now);
        }
    }

    /// Whether this volcano is known to have started anew since that life.
    pub(super) fn has_restarted(&self, life: Replica) -> bool {
        self.0.get(&life.volcano).is_some_and(|(boot, _)| *boot > life.boot)
    }

    /// Whether this very life was heard from lately.
    pub(super) fn is_present(&self, life: Replica, now: Duration) -> bool {
        let newest = self.0.get(&life.volcano);
        newest.is_some_and(|(boot, heard)| *boot == life.boot && now.saturating_sub(*heard) < PRESENCE)
    }
}
