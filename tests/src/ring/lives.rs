//! The lives of volcanos: which have ended, and which have lost what was not on their disks.

use std::collections::BTreeMap;

use magma_common::topology::{Replica, VolcanoId};

use super::clock::Time;

/// A life of a volcano.
#[derive(Clone, Copy, Debug)]
struct Life {
    ended: Option<Time>,
    /// It lost what was not on its disk, then or later.
    lost: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Lives(BTreeMap<Replica, Life>);

impl Lives {
    /// A life begins.
    pub fn begins(&mut self, who: Replica) {
        self.0.insert(who, Life { ended: None, lost: false });
    }

    /// A life ends.
    pub fn ends(&mut self, who: Replica, now: Time) {
        if let Some(life) = self.0.get_mut(&who) {
            life.ended.get_or_insert(now);
        }
    }

    /// The volcano has lost what was not on its disk.
    pub fn loses(&mut self, volcano: VolcanoId) {
        for (who, life) in &mut self.0 {
            life.lost |= who.volcano == volcano;
        }
    }

    /// When the last of them ended, if all have, and one at least has lost something.
    pub fn lost_together(&self, all: impl Iterator<Item = Replica>) -> Option<Time> {
        let lives: Vec<_> = all.filter_map(|copy| self.0.get(&copy)).collect();
        if !lives.iter().any(|life| life.lost) {
            return None;
        }
        lives.iter().map(|life| life.ended).max_by_key(|ended| ended.unwrap_or(Time::MAX)).flatten()
    }
}
