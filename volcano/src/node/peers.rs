//! What a volcano knows of the others from their messages.

use std::collections::BTreeMap;
use std::time::Duration;

use magma_common::topology::{BootId, Replica, Topology, VolcanoId};

/// Topologies are exchanged with one volcano at most this often.
const EXCHANGE_INTERVAL: Duration = Duration::from_millis(100);
/// Strangers are mentioned at most this often.
const STRANGER_INTERVAL: Duration = Duration::from_secs(60);

/// What is known of one volcano.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Its newest life that was heard from.
    pub(super) boot: BootId,
    /// When, on the monotonic clock.
    pub(super) heard: Duration,
    exchanged: Option<Duration>,
}

/// What is known of all.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<VolcanoId, Peer>,
    mentioned: Option<Duration>,
    corrected: Option<Duration>,
}

impl Peers {
    pub(super) fn heard(&mut self, now: Duration, who: Replica) {
        let fresh = Peer { boot: who.boot, heard: now, exchanged: None };
        let peer = self.known.entry(who.volcano).or_insert(fresh);
        if who.boot >= peer.boot {
            *peer = Peer { exchanged: peer.exchanged, ..fresh };
        }
    }

    /// Whether topologies may be exchanged with this volcano now; if so, that is noted.
    pub(super) fn may_exchange(&mut self, now: Duration, who: VolcanoId) -> bool {
        let Some(peer) = self.known.get_mut(&who) else { return false };
        let may = peer.exchanged.is_none_or(|last| now.saturating_sub(last) >= EXCHANGE_INTERVAL);
        if may {
            peer.exchanged = Some(now);
        }
        may
    }

    /// Whether somebody of a former line of history may be told now of the present one; if so, that is noted.
    pub(super) fn may_correct(&mut self, now: Duration) -> bool {
        let may = self.corrected.is_none_or(|last| now.saturating_sub(last) >= EXCHANGE_INTERVAL);
        if may {
            self.corrected = Some(now);
        }
        may
    }

    /// A volcano of another network, or of another line of history, speaks to this one.
    pub(super) fn stranger(&mut self, now: Duration, who: Replica) {
        if self.mentioned.is_none_or(|last| now.saturating_sub(last) >= STRANGER_INTERVAL) {
            self.mentioned = Some(now);
            tracing::warn!(
                target: "magma::network", volcano = format_args!("{:016x}", who.volcano.0),
                "a volcano of another network, or of another line of this one's history, is not listened to"
            );
        }
    }

    /// Forgets those who are members no more.
    pub(super) fn keep(&mut self, topology: &Topology) {
        self.known.retain(|id, _| topology.member(*id).is_some());
    }

    pub(super) fn get(&self, id: VolcanoId) -> Option<&Peer> {
        self.known.get(&id)
    }
}
