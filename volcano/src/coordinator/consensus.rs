//! The consensus on the topology, without sockets, threads and clocks.

mod ready;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use magma_common::topology::{Topology, VolcanoId};
use raft::{Config, ProgressState, RawNode, SnapshotStatus, StateRole};

use super::admit::admit;
use super::log::Log;
use super::wire::{self, Part, Transition};
use super::{Change, Refusal};

/// What the consensus library calls a tick.
const TICK: Duration = Duration::from_millis(100);
/// A process that was stopped for a while makes up for no more ticks than these.
const MAX_TICKS_AT_ONCE: u32 = 3;
/// A time without ticks after which the silence of others says nothing.
const PAUSE: Duration = Duration::from_secs(2);
/// A leader shows itself every so many ticks.
const HEARTBEAT_TICKS: usize = 2;
/// Silence of the leader after which a voter calls an election: this many ticks, or up to twice as many.
const ELECTION_TICKS: usize = 6;
/// A snapshot that is not acknowledged after so many ticks is sent again.
const SNAPSHOT_TICKS: u32 = 10;
/// Most changes that wait for agreement.
const MAX_WAITING: u64 = 256;
/// Longest change, in bytes.
const MAX_CHANGE: usize = 16 << 10;
/// Entries that go into one message, in bytes, unless the first one is longer.
const MAX_APPEND: u64 = 256 << 10;
/// Entries that wait for agreement, in bytes.
const MAX_UNCOMMITTED: u64 = 8 << 20;
/// Messages with entries that are under way to one voter.
const MAX_IN_FLIGHT: usize = 64;

/// Keeps the state of the consensus.
pub trait Vault {
    /// Replaces what is kept. Returns once a crash cannot undo it.
    fn save(&mut self, state: &[u8]) -> Result<(), Unsaved>;

    /// What was saved last.
    fn load(&self) -> Result<Option<Vec<u8>>, String>;
}

/// Why a state was not saved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsaved {
    /// There is no space for it.
    #[error("{0}")]
    Full(String),
    /// The disk fails.
    #[error("{0}")]
    Failed(String),
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

/// One volcano's part in the consensus on the topology, as one of the voters or as one that may become a voter.
///
/// Inputs are [`tick`](Self::tick), [`message`](Self::message), [`propose`](Self::propose) and [`alive`](Self::alive).
/// After each of them what is to be done is taken with [`outputs`](Self::outputs), and is done in its order.
/// [`tick`](Self::tick) is to be called by [`due`](Self::due). Nothing here blocks, except for the [`Vault`].
///
/// The same inputs and the same random numbers give the same outputs.
pub struct Coordinator {
    pub(super) me: VolcanoId,
    pub(super) node: RawNode<Log>,
    vault: Box<dyn Vault>,
    random: Box<dyn FnMut() -> u64>,
    outputs: Vec<Output>,
    failed: Option<String>,
    disk_failed: bool,
    pub(super) now: Duration,
    due: Duration,
    /// Ticks of silence after which an election is called. The library draws a number of its own, which must not count.
    patience: usize,
    /// Term and role when that was drawn.
    drawn_for: (u64, StateRole),
    /// When each member was last heard from.
    pub(super) heard: BTreeMap<VolcanoId, Duration>,
    /// Since when this one leads and has listened without a pause.
    pub(super) listening_since: Duration,
    /// The changes that were accepted here and not decided yet, by their indexes, and their terms.
    accepted: BTreeMap<u64, (u64, Change)>,
    /// For how many ticks a voter has not acknowledged a snapshot.
    snapshots: BTreeMap<u64, u32>,
}

impl Coordinator {
    /// Founds a network whose only voter is this volcano. The vault must be empty.
    pub fn found(
        me: VolcanoId,
        mut topology: Topology,
        mut vault: Box<dyn Vault>,
        random: Box<dyn FnMut() -> u64>,
        now: Duration,
    ) -> Result<Self, OpenError> {
        if vault.load().map_err(OpenError::Vault)?.is_some() {
            return Err(OpenError::Founded);
        }
        topology.voters = vec![me];
        let log = Log::founded(me, topology);
        let state = log.encode().ok_or_else(|| OpenError::Vault("it cannot be encoded".to_owned()))?;
        vault.save(&state).map_err(|error| OpenError::Vault(error.to_string()))?;
        Self::start(me, log, vault, random, now)
    }

    /// Goes on from what the vault holds. A volcano that never took part waits until a leader takes it in.
    pub fn open(
        me: VolcanoId,
        vault: Box<dyn Vault>,
        random: Box<dyn FnMut() -> u64>,
        now: Duration,
    ) -> Result<Self, OpenError> {
        let log = match vault.load().map_err(OpenError::Vault)? {
            Some(state) => Log::decode(me, &state)?,
            None => Log::empty(me),
        };
        Self::start(me, log, vault, random, now)
    }

    fn start(
        me: VolcanoId,
        log: Log,
        vault: Box<dyn Vault>,
        random: Box<dyn FnMut() -> u64>,
        now: Duration,
    ) -> Result<Self, OpenError> {
        if me.0 == raft::INVALID_ID {
            return Err(OpenError::Damaged("no volcano has the id 0".to_owned()));
        }
        let node = raw_node(me, log)?;
        let mut coordinator = Self {
            me,
            node,
            vault,
            random,
            outputs: Vec::new(),
            failed: None,
            disk_failed: false,
            now,
            due: now + TICK,
            patience: ELECTION_TICKS,
            drawn_for: (0, StateRole::Follower),
            heard: BTreeMap::new(),
            listening_since: now,
            accepted: BTreeMap::new(),
            snapshots: BTreeMap::new(),
        };
        coordinator.begin();
        Ok(coordinator)
    }

    fn begin(&mut self) {
        self.draw();
        if self.node.raft.promotable() && self.node.raft.prs().is_singleton() {
            // There is nobody whose silence it would have to wait for. It fails only for who leads already.
            let _ = self.node.campaign();
        }
        self.settle();
    }

    /// Another line of history begins with this topology, and this volcano as its only voter. What is known of the former one is forgotten.
    pub fn found_again(&mut self, topology: Topology) -> Result<(), OpenError> {
        self.begin_again(Log::founded(self.me, topology))
    }

    /// Another line of history goes on elsewhere: this volcano has never voted in it, and forgets the former one.
    pub fn follow_another_line(&mut self) -> Result<(), OpenError> {
        self.begin_again(Log::empty(self.me))
    }

    /// If the state cannot be saved, everything stays as it was.
    fn begin_again(&mut self, log: Log) -> Result<(), OpenError> {
        let state = log.encode().ok_or_else(|| OpenError::Vault("it cannot be encoded".to_owned()))?;
        let node = raw_node(self.me, log)?;
        self.vault.save(&state).map_err(|error| OpenError::Vault(error.to_string()))?;
        self.node = node;
        self.outputs.clear();
        self.accepted.clear();
        self.snapshots.clear();
        self.listening_since = self.now;
        self.begin();
        Ok(())
    }

    /// Time has passed. It may be called at any time.
    pub fn tick(&mut self, now: Duration) {
        if now.saturating_sub(self.due) >= PAUSE {
            self.listening_since = now;
        }
        self.now = self.now.max(now);
        for _ in 0..MAX_TICKS_AT_ONCE {
            if self.failed.is_some() || self.now < self.due {
                return;
            }
            self.due += TICK;
            self.node.tick();
            if self.node.raft.election_elapsed == 0 && !self.is_leader() {
                self.draw();
            }
            self.settle();
            self.send_snapshots_again();
            self.steer();
            self.settle();
        }
        // What is still due lies before a pause.
        if self.due <= self.now {
            self.due = self.now + TICK;
        }
    }

    /// A message of another coordinator has come. `from` is who sent it for certain.
    pub fn message(&mut self, from: VolcanoId, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let Some(message) = admit(&self.node.raft, from, bytes) else {
            tracing::debug!(from = from.0, "a message of the consensus is ignored");
            return;
        };
        self.alive(from, self.now);
        // It fails for messages that come too late to matter.
        let _ = self.node.step(message);
        self.settle();
    }

    /// Asks for a change.
    ///
    /// A refusal of a change of a slice is final: that change will never be made. Other refusals tell how it is now.
    pub fn propose(&mut self, now: Duration, change: Change) -> Proposing {
        self.now = self.now.max(now);
        if self.failed.is_some() {
            return Proposing::NotLeader(None);
        }
        if !self.is_leader() {
            return Proposing::NotLeader(self.leader());
        }
        let answer = self.judge(&change);
        if let Some(answer) = answer {
            return answer;
        }
        let Some(bytes) = encode(&change) else {
            return Proposing::Refused(Refusal::Unfit("the change is too long".to_owned()));
        };
        if self.node.propose(Vec::new(), bytes).is_err() {
            return Proposing::NotLeader(None);
        }
        let raft = &self.node.raft;
        self.accepted.insert(raft.raft_log.last_index(), (raft.term, change));
        self.settle();
        Proposing::Accepted
    }

    /// What can be said of a change before it is in the log.
    fn judge(&self, change: &Change) -> Option<Proposing> {
        let unfit = |why: &str| Some(Proposing::Refused(Refusal::Unfit(why.to_owned())));
        let raft = &self.node.raft;
        let log = raft.store();
        let applied = log.applied();
        match change {
            Change::Voters(_) => return unfit("who votes is decided by the coordinator itself"),
            Change::Forget(_) if raft.has_pending_conf() => {
                return unfit("the voters are just being changed");
            }
            Change::Forget(id) if raft.prs().get(id.0).is_some() => {
                return unfit("it still takes part in agreeing on changes of the topology");
            }
            _ => {}
        }
        let topology = applied.topology.as_ref()?;
        // Before a leader has carried out something of its own term, others may know more.
        if raft.apply_to_current_term() && !is_ahead(change, topology) {
            match change.apply(&mut topology.clone()) {
                Ok(false) if log.pending().next().is_none() => return Some(Proposing::Accepted),
                Err(refusal) => return Some(Proposing::Refused(refusal)),
                Ok(_) => {}
            }
        }
        // Who hears nothing asks again; that needs no second entry.
        let bytes = encode(change);
        let same = |entry: &raft::eraftpb::Entry| bytes.as_deref() == Some(&entry.data);
        let waits = match change {
            Change::Slice(..) => log.pending().any(same),
            _ => log.pending().next_back().is_some_and(same),
        };
        if waits {
            return Some(Proposing::Accepted);
        }
        let full = raft.raft_log.last_index().saturating_sub(raft.raft_log.committed) >= MAX_WAITING;
        full.then_some(Proposing::NotLeader(None))
    }

    /// That volcano was heard from.
    pub fn alive(&mut self, volcano: VolcanoId, now: Duration) {
        self.now = self.now.max(now);
        if self.topology().is_some_and(|topology| topology.member(volcano).is_some()) {
            self.heard.insert(volcano, self.now);
        }
    }

    /// Takes what is to be done.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`tick`](Self::tick) is to be called at the latest.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// The newest topology known to be agreed on; none before the volcano is taken in. After a start it may be older
    /// than one that was known before.
    pub fn topology(&self) -> Option<&Topology> {
        self.node.raft.store().applied().topology.as_ref()
    }

    /// Who leads, as far as is known here.
    pub fn leader(&self) -> Option<VolcanoId> {
        let leader = self.node.raft.leader_id;
        (leader != raft::INVALID_ID).then_some(VolcanoId(leader))
    }

    /// Whether this one leads.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Whether this one votes.
    pub fn is_voter(&self) -> bool {
        self.node.raft.promotable()
    }

    /// Why it stopped for good: it takes no inputs any more.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Whether it stopped because its disk fails: nothing on that disk can be relied upon before it was read anew.
    pub fn has_failed_disk(&self) -> bool {
        self.disk_failed
    }

    /// Proposes a change of the leader's own.
    pub(super) fn propose_own(&mut self, change: &Change) {
        if let Some(bytes) = encode(change) {
            // It is proposed again as long as it is needed.
            let _ = self.node.propose(Vec::new(), bytes);
        }
    }

    /// Proposes a change of those who take part in the consensus.
    pub(super) fn propose_members(&mut self, transition: Transition, changes: &[(Part, u64)]) {
        // It is proposed again as long as it is needed.
        let _ = self.node.propose_conf_change(Vec::new(), wire::conf_change(transition, changes));
    }

    /// The library waits for a report on each snapshot. Here the acknowledgement is the report, and it may get lost.
    fn send_snapshots_again(&mut self) {
        let waiting = |progress: &raft::Progress| progress.state == ProgressState::Snapshot;
        let prs = self.node.raft.prs();
        let leader = self.node.raft.state == StateRole::Leader;
        let peers: Vec<u64> = prs.iter().filter(|(_, p)| leader && waiting(p)).map(|(id, _)| *id).collect();
        self.snapshots.retain(|id, _| peers.contains(id));
        for id in peers {
            let ticks = self.snapshots.entry(id).or_default();
            *ticks += 1;
            if *ticks >= SNAPSHOT_TICKS {
                self.snapshots.remove(&id);
                self.node.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }
}

fn raw_node(me: VolcanoId, log: Log) -> Result<RawNode<Log>, OpenError> {
    let config = config(me, log.applied().index);
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&config, log, &logger).map_err(|error| OpenError::Damaged(error.to_string()))
}

fn config(me: VolcanoId, applied: u64) -> Config {
    Config {
        applied,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        max_size_per_msg: MAX_APPEND,
        max_inflight_msgs: MAX_IN_FLIGHT,
        max_uncommitted_size: MAX_UNCOMMITTED,
        check_quorum: true,
        pre_vote: true,
        ..Config::new(me.0)
    }
}

/// The form of a change in the log; none if it is too long.
fn encode(change: &Change) -> Option<Vec<u8>> {
    postcard::to_allocvec(change).ok().filter(|bytes| bytes.len() <= MAX_CHANGE)
}

/// Whether the one who asks knows a newer state of the slice than this topology.
fn is_ahead(change: &Change, topology: &Topology) -> bool {
    let Change::Slice(slice, epoch, _) = change else { return false };
    topology.slices.iter().any(|known| known.id == *slice && known.epoch < *epoch)
}
