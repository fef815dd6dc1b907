//! What a volcano tells its administrators about the network.

use std::time::Duration;

use magma_common::topology::VolcanoId;

use super::Node;
use crate::coordinator::{Change, Refusal};

/// Who was heard from within this time is there.
const PRESENCE: Duration = Duration::from_secs(2);

impl Node {
    /// Why the coordinator will not make this change, if an administrator asked for it here last.
    pub fn refusal(&self, change: &Change) -> Option<&Refusal> {
        self.refusal.as_ref().filter(|(refused, _)| refused == change).map(|(_, refusal)| refusal)
    }

    /// Whether it was a member of the network and is none any more.
    pub fn is_forgotten(&self) -> bool {
        self.is_forgotten
    }

    /// How long each other member has not been heard from; in this life, if never.
    pub fn silences(&self, now: Duration) -> Vec<(VolcanoId, Duration)> {
        let heard = |id| self.peers.get(id).map_or(self.began, |peer| peer.heard);
        self.others().into_iter().map(|id| (id, now.saturating_sub(heard(id)))).collect()
    }

    /// Who coordinates: whom this volcano follows as a voter, or by what the others say. Who lost its vote while it was cut off is told
    /// nothing more by the voters, and goes on believing that it votes.
    pub fn leader(&self, now: Duration) -> Option<VolcanoId> {
        if let Some(leader) = self.coordinator.leader() {
            return Some(leader);
        }
        let silences = self.silences(now);
        let is_there = |who| silences.iter().any(|(id, silence)| *id == who && *silence < PRESENCE);
        let figures = self.slices.all_figures();
        figures.into_iter().find(|(id, figures)| figures.coordinates && is_there(*id)).map(|(id, _)| id)
    }
}
