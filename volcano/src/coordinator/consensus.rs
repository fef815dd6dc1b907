//! The consensus on the topology, without sockets, threads and clocks.

use std::time::Duration;

use bytes::Bytes;
use magma_common::topology::{Topology, VolcanoId};

use super::{Change, Refusal};

/// Keeps the state of the consensus.
pub trait Vault {
    /// Replaces what is kept. Returns once a crash cannot undo it.
    fn save(&mut self, state: &[u8]) -> Result<(), String>;

    /// What was saved last.
    fn load(&self) -> Result<Option<Vec<u8>>, String>;
}

/// Why a coordinator cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The vault does not work.
    #[error("the state of the coordinator cannot be read or written: {0}")]
    Vault(String),
    /// What the vault holds is no state.
    #[error("the state of the coordinator is damaged: {0}")]
    Damaged(String),
    /// A network was to be founded where there is one.
    #[error("this volcano already is part of a network")]
    Founded,
    /// The state was copied from another volcano.
    #[error("the state of the coordinator belongs to the volcano {0:016x}, not to this one")]
    Foreign(u64),
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposing {
    /// It is in the log and takes effect if this leader remains, or nothing is to be done. Whether it was made is seen
    /// from the topology; if not, say it again.
    Accepted,
    /// Ask this one, if somebody leads.
    NotLeader(Option<VolcanoId>),
    /// It does not fit the topology.
    Refused(Refusal),
}

/// What the coordinator wants done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this to that coordinator. It may be lost.
    Send(VolcanoId, Bytes),
    /// The topology has changed to this.
    Committed(Box<Topology>),
    /// A change that was accepted here did not fit any more when its turn came.
    Refused(Change, Refusal),
}

/// One volcano's part in the consensus.
pub struct Coordinator {
    outputs: Vec<Output>,
}

impl Coordinator {
    /// Founds a network.
    pub fn found(
        _me: VolcanoId,
        _topology: Topology,
        _vault: Box<dyn Vault>,
        _random: Box<dyn FnMut() -> u64>,
        _now: Duration,
    ) -> Result<Self, OpenError> {
        Ok(Self { outputs: Vec::new() })
    }

    /// Goes on from what the vault holds; a volcano that never took part waits until a leader takes it in.
    pub fn open(
        _me: VolcanoId,
        _vault: Box<dyn Vault>,
        _random: Box<dyn FnMut() -> u64>,
        _now: Duration,
    ) -> Result<Self, OpenError> {
        Ok(Self { outputs: Vec::new() })
    }

    /// Time has passed.
    pub fn tick(&mut self, _now: Duration) {}

    /// A message of another coordinator has come. `from` is who sent it for certain.
    pub fn message(&mut self, _from: VolcanoId, _bytes: &[u8]) {}

    /// Asks for a change.
    pub fn propose(&mut self, _now: Duration, _change: Change) -> Proposing {
        Proposing::NotLeader(None)
    }

    /// That volcano was heard from.
    pub fn alive(&mut self, _volcano: VolcanoId, _now: Duration) {}

    /// Takes what is to be done.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`tick`](Self::tick) is to be called at the latest.
    pub fn due(&self) -> Duration {
        Duration::ZERO
    }

    /// The newest topology known to be agreed on.
    pub fn topology(&self) -> Option<&Topology> {
        None
    }

    /// Who leads, as far as is known here.
    pub fn leader(&self) -> Option<VolcanoId> {
        None
    }

    /// Whether this one leads.
    pub fn is_leader(&self) -> bool {
        false
    }

    /// Whether this one votes.
    pub fn is_voter(&self) -> bool {
        false
    }

    /// Why it stopped for good.
    pub fn failed(&self) -> Option<&str> {
        None
    }
}
