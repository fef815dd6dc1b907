//! When all in-sync copies of a slice have started anew.
//!
//! Nobody among them kept running, so nobody can say what the others had acknowledged from memory; but each has on its
//! disk all that is `Stable`. They tell each other where they stand. When all have spoken, the one whose log is longest asks to
//! become primary. A copy that does not come back is waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use magma_common::topology::{Replica, VolcanoId};

use super::{Replication, Role, SAY_AGAIN};
use crate::coordinator::SliceChange;
use crate::node::message::{SliceMessage, Stand};
use crate::planted::{Bug, planted};
use crate::slice::{Now, Slice};

/// What a copy that was an in-sync member in its former life knows of the others.
#[derive(Debug, Default)]
pub(in crate::slice) struct Cold {
    stands: BTreeMap<VolcanoId, (Replica, Stand)>,
    told: Option<Duration>,
}

impl Replication {
    /// For whom the slice waits, after a start of everybody; empty when it does not. `me` is this volcano.
    pub(in crate::slice) fn waits_for(&self, me: Replica) -> Vec<VolcanoId> {
        let (Role::Outside(cold), Some(config)) = (&self.role, &self.config) else {
            return Vec::new();
        };
        if !self.was_in_sync(me) {
            return Vec::new();
        }
        let silent = |volcano: &VolcanoId| *volcano != me.volcano && !cold.stands.contains_key(volcano);
        config.in_sync().map(|copy| copy.volcano).filter(silent).collect()
    }

    /// Whether a former life of this volcano is an in-sync member.
    fn was_in_sync(&self, me: Replica) -> bool {
        let config = self.config.as_ref();
        config.is_some_and(|config| {
            config.in_sync().any(|copy| copy.volcano == me.volcano && copy.boot < me.boot)
        })
    }
}

impl Slice<'_> {
    /// Whether a former life of this volcano is an in-sync member.
    fn was_in_sync(&self) -> bool {
        self.replication.was_in_sync(self.identity.replica())
    }

    /// A copy without a role tells the former members where it stands.
    pub(super) fn report_cold(&mut self, now: Now) {
        let Some(config) = self.replication.config.clone().filter(|_| self.was_in_sync()) else { return };
        let stand = self.stand();
        let me = self.identity.replica();
        let Role::Outside(cold) = &mut self.replication.role else { return };
        if cold.told.is_none_or(|told| now.monotonic.saturating_sub(told) >= SAY_AGAIN) {
            cold.told = Some(now.monotonic);
            for copy in config.in_sync().filter(|copy| copy.volcano != me.volcano) {
                self.tell(copy, SliceMessage::Stand(Box::new(stand.clone())));
            }
        }
        self.consider_cold_start(now, stand);
    }

    pub(super) fn hear_cold(&mut self, now: Now, from: Replica, message: SliceMessage) {
        let SliceMessage::Stand(stand) = message else { return };
        if let Role::Outside(cold) = &mut self.replication.role {
            cold.stands.insert(from.volcano, (from, *stand));
        }
        let own = self.stand();
        self.consider_cold_start(now, own);
    }

    /// If every in-sync member has started anew and has spoken, and this copy's log is the longest, it asks to become primary.
    fn consider_cold_start(&mut self, now: Now, own: Stand) {
        let Some(config) = self.replication.config.clone().filter(|_| self.was_in_sync()) else { return };
        let me = self.identity.replica();
        let Role::Outside(cold) = &self.replication.role else { return };
        let mut all = BTreeMap::from([(me.volcano, (me, own))]);
        for copy in config.in_sync().filter(|copy| copy.volcano != me.volcano) {
            match cold.stands.get(&copy.volcano) {
                // It must be its newest life that spoke, and not the member itself.
                Some((who, stand)) if who.boot > copy.boot && !self.present.has_restarted(*who) => {
                    all.insert(copy.volcano, (*who, stand.clone()));
                }
                _ => return,
            }
        }
        let whole = all.values().filter(|(_, stand)| stand.missing.is_empty());
        let longest = if planted(Bug::ColdStartWithShortestLog) {
            whole.min_by_key(|(who, stand)| (stand.position, who.volcano))
        } else {
            whole.max_by_key(|(who, stand)| (stand.position, !stand.is_doubtful, who.volcano))
        };
        if longest.is_none_or(|(who, _)| *who != me) {
            return;
        }
        let lost = all.values().any(|(_, stand)| stand.may_have_lost) && !planted(Bug::KeepVerifierOverLoss);
        // A copy whose bytes are in doubt joins anew, and gets those again that may be missing.
        let sound =
            all.values().filter(|(who, stand)| *who != me && !stand.is_doubtful && stand.missing.is_empty());
        let mirrors = sound.map(|(who, _)| *who).collect();
        self.propose(now, SliceChange::ColdStart { primary: me, mirrors, lost });
    }
}
