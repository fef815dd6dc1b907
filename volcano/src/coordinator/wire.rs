//! What is written of the consensus: messages, entries and voters, for the network and for the vault.
//!
//! The consensus library has a form of its own, which says much that is never said here. These types say only what is,
//! so that decoding refuses the rest, and bytes from the network never reach the library's decoder.

use bytes::Bytes;
use magma_common::topology::Topology;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType,
    Message, MessageType, Snapshot,
};
use serde::{Deserialize, Serialize};

use super::Change;

/// Longest message, in bytes. The longest carries a topology.
pub(super) const MAX_LETTER: usize = 4 << 20;
/// Most ids in one list of voters or learners; a joint change has at most the old and the new ones.
const MAX_IDS: usize = 16;

/// A message from one coordinator to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) term: u64,
    pub(super) body: Body,
}

/// What it says. The names of the fields are those of the Raft paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Body {
    Append { index: u64, log_term: u64, commit: u64, entries: Vec<LoggedEntry> },
    Appended { index: u64, commit: u64 },
    NotAppended { index: u64, commit: u64, hint: u64, hint_term: u64 },
    AskVote { pre: bool, index: u64, log_term: u64, commit: u64, commit_term: u64 },
    Vote { pre: bool, granted: bool, commit: u64, commit_term: u64 },
    Snapshot { index: u64, log_term: u64, members: Members, topology: Box<Topology> },
    Heartbeat { commit: u64 },
    HeartbeatHeard { commit: u64 },
}

/// An entry of the log. Its index follows from its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LoggedEntry {
    pub(super) term: u64,
    pub(super) content: Content,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Content {
    /// It opens a leader's term.
    Nothing,
    /// It changes the topology.
    Change(Change),
    /// It changes who takes part in the consensus.
    Members(Transition, Vec<(Part, u64)>),
}

/// How a change of the members is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Transition {
    Auto,
    Implicit,
    Explicit,
}

/// What a volcano is to be in the consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    Voter,
    Learner,
    None,
}

/// Who takes part in the consensus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Members {
    pub(super) voters: Vec<u64>,
    pub(super) learners: Vec<u64>,
    /// Not empty in a joint change: the voters of before.
    pub(super) outgoing: Vec<u64>,
    pub(super) learners_next: Vec<u64>,
    pub(super) auto_leave: bool,
}

impl Letter {
    /// `None` for what the library never says to others in the way it is used here.
    pub(super) fn from_raft(message: &Message) -> Option<Self> {
        let (index, log_term) = (message.index, message.log_term);
        let (commit, commit_term) = (message.commit, message.commit_term);
        let body = match message.get_msg_type() {
            MessageType::MsgAppend => {
                let entries = message.entries.iter().map(LoggedEntry::from_raft).collect::<Option<_>>()?;
                Body::Append { index, log_term, commit, entries }
            }
            MessageType::MsgAppendResponse if message.reject => {
                Body::NotAppended { index, commit, hint: message.reject_hint, hint_term: log_term }
            }
            MessageType::MsgAppendResponse => Body::Appended { index, commit },
            MessageType::MsgRequestVote => Body::AskVote { pre: false, index, log_term, commit, commit_term },
            MessageType::MsgRequestPreVote => {
                Body::AskVote { pre: true, index, log_term, commit, commit_term }
            }
            MessageType::MsgRequestVoteResponse => {
                Body::Vote { pre: false, granted: !message.reject, commit, commit_term }
            }
            MessageType::MsgRequestPreVoteResponse => {
                Body::Vote { pre: true, granted: !message.reject, commit, commit_term }
            }
            MessageType::MsgSnapshot => {
                let metadata = message.get_snapshot().get_metadata();
                Body::Snapshot {
                    index: metadata.index,
                    log_term: metadata.term,
                    members: Members::from_raft(metadata.get_conf_state()),
                    topology: postcard::from_bytes(&message.get_snapshot().data).ok()?,
                }
            }
            MessageType::MsgHeartbeat => Body::Heartbeat { commit },
            MessageType::MsgHeartbeatResponse => Body::HeartbeatHeard { commit },
            _ => return None,
        };
        Some(Self { from: message.from, to: message.to, term: message.term, body })
    }

    /// In the library's form. `None` if the topology or a change cannot be encoded, which does not happen.
    pub(super) fn into_raft(self) -> Option<Message> {
        let mut message = Message { from: self.from, to: self.to, term: self.term, ..Message::default() };
        match self.body {
            Body::Append { index, log_term, commit, entries } => {
                message.set_msg_type(MessageType::MsgAppend);
                (message.index, message.log_term, message.commit) = (index, log_term, commit);
                let entries = (index.saturating_add(1)..).zip(entries);
                let entries: Option<Vec<Entry>> = entries.map(|(i, entry)| entry.into_raft(i)).collect();
                message.set_entries(entries?.into());
            }
            Body::Appended { index, commit } => {
                message.set_msg_type(MessageType::MsgAppendResponse);
                (message.index, message.commit) = (index, commit);
            }
            Body::NotAppended { index, commit, hint, hint_term } => {
                message.set_msg_type(MessageType::MsgAppendResponse);
                (message.index, message.commit, message.reject) = (index, commit, true);
                (message.reject_hint, message.log_term) = (hint, hint_term);
            }
            Body::AskVote { pre, index, log_term, commit, commit_term } => {
                message.set_msg_type(if pre {
                    MessageType::MsgRequestPreVote
                } else {
                    MessageType::MsgRequestVote
                });
                (message.index, message.log_term) = (index, log_term);
                (message.commit, message.commit_term) = (commit, commit_term);
            }
            Body::Vote { pre, granted, commit, commit_term } => {
                message.set_msg_type(if pre {
                    MessageType::MsgRequestPreVoteResponse
                } else {
                    MessageType::MsgRequestVoteResponse
                });
                message.reject = !granted;
                (message.commit, message.commit_term) = (commit, commit_term);
            }
            Body::Snapshot { index, log_term, members, topology } => {
                message.set_msg_type(MessageType::MsgSnapshot);
                message.set_snapshot(snapshot(index, log_term, &members, &topology)?);
            }
            Body::Heartbeat { commit } => {
                message.set_msg_type(MessageType::MsgHeartbeat);
                message.commit = commit;
            }
            Body::HeartbeatHeard { commit } => {
                message.set_msg_type(MessageType::MsgHeartbeatResponse);
                message.commit = commit;
            }
        }
        Some(message)
    }

    pub(super) fn encode(&self) -> Option<Bytes> {
        postcard::to_allocvec(self).ok().map(Bytes::from)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_LETTER {
            return None;
        }
        match postcard::take_from_bytes(bytes) {
            Ok((letter, [])) => Some(letter),
            _ => None,
        }
    }
}

/// A snapshot in the library's form.
pub(super) fn snapshot(index: u64, term: u64, members: &Members, topology: &Topology) -> Option<Snapshot> {
    let mut snapshot = Snapshot { data: postcard::to_allocvec(topology).ok()?.into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (index, term);
    metadata.set_conf_state(members.to_raft());
    Some(snapshot)
}

impl LoggedEntry {
    pub(super) fn from_raft(entry: &Entry) -> Option<Self> {
        Some(Self { term: entry.term, content: Content::from_raft(entry)? })
    }

    pub(super) fn into_raft(self, index: u64) -> Option<Entry> {
        let mut entry = Entry { term: self.term, index, ..Entry::default() };
        match self.content {
            Content::Nothing => {}
            Content::Change(change) => entry.data = postcard::to_allocvec(&change).ok()?.into(),
            Content::Members(transition, changes) => {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
                entry.data = conf_change(transition, &changes).write_to_bytes().ok()?.into();
            }
        }
        Some(entry)
    }
}

impl Content {
    /// What an entry does; `None` if that cannot be said here.
    pub(super) fn from_raft(entry: &Entry) -> Option<Self> {
        match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => Some(Self::Nothing),
            EntryType::EntryNormal => postcard::from_bytes(&entry.data).ok().map(Self::Change),
            EntryType::EntryConfChange => None,
            EntryType::EntryConfChangeV2 => {
                let mut change = ConfChangeV2::default();
                change.merge_from_bytes(&entry.data).ok()?;
                let transition = match change.get_transition() {
                    ConfChangeTransition::Auto => Transition::Auto,
                    ConfChangeTransition::Implicit => Transition::Implicit,
                    ConfChangeTransition::Explicit => Transition::Explicit,
                };
                let part = |single: &ConfChangeSingle| match single.get_change_type() {
                    ConfChangeType::AddNode => (Part::Voter, single.node_id),
                    ConfChangeType::AddLearnerNode => (Part::Learner, single.node_id),
                    ConfChangeType::RemoveNode => (Part::None, single.node_id),
                };
                Some(Self::Members(transition, change.changes.iter().map(part).collect()))
            }
        }
    }

    /// Whether it can be an entry.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::Nothing | Self::Change(_) => true,
            Self::Members(_, changes) => {
                changes.len() <= MAX_IDS && changes.iter().all(|(_, id)| *id != raft::INVALID_ID)
            }
        }
    }
}

/// A change of the members in the library's form.
pub(super) fn conf_change(transition: Transition, changes: &[(Part, u64)]) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    change.set_transition(match transition {
        Transition::Auto => ConfChangeTransition::Auto,
        Transition::Implicit => ConfChangeTransition::Implicit,
        Transition::Explicit => ConfChangeTransition::Explicit,
    });
    let singles = changes.iter().map(|(part, id)| {
        let mut single = ConfChangeSingle { node_id: *id, ..ConfChangeSingle::default() };
        single.set_change_type(match part {
            Part::Voter => ConfChangeType::AddNode,
            Part::Learner => ConfChangeType::AddLearnerNode,
            Part::None => ConfChangeType::RemoveNode,
        });
        single
    });
    change.set_changes(singles.collect());
    change
}

impl Members {
    /// The one voter of a new network.
    pub(super) fn alone(me: u64) -> Self {
        Self { voters: vec![me], ..Self::default() }
    }

    /// The library keeps sets; here they are sorted.
    pub(super) fn from_raft(state: &ConfState) -> Self {
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        Self {
            voters: sorted(&state.voters),
            learners: sorted(&state.learners),
            outgoing: sorted(&state.voters_outgoing),
            learners_next: sorted(&state.learners_next),
            auto_leave: state.auto_leave,
        }
    }

    pub(super) fn to_raft(&self) -> ConfState {
        let mut state = ConfState::default();
        state.set_voters(self.voters.clone());
        state.set_learners(self.learners.clone());
        state.set_voters_outgoing(self.outgoing.clone());
        state.set_learners_next(self.learners_next.clone());
        state.auto_leave = self.auto_leave;
        state
    }

    /// Whether the library can have this: it panics where it cannot.
    pub(super) fn is_sound(&self) -> bool {
        let lists = [&self.voters, &self.learners, &self.outgoing, &self.learners_next];
        let ascending = |ids: &[u64]| ids.is_sorted_by(|a, b| a < b);
        let in_range = |ids: &[u64]| ids.len() <= MAX_IDS && !ids.contains(&raft::INVALID_ID);
        let joint = !self.outgoing.is_empty();
        lists.iter().all(|ids| ascending(ids) && in_range(ids))
            && !self.voters.is_empty()
            && (joint || (self.learners_next.is_empty() && !self.auto_leave))
            && !self.learners.iter().any(|id| self.voters.contains(id) || self.outgoing.contains(id))
            && self.learners_next.iter().all(|id| self.outgoing.contains(id) && !self.voters.contains(id))
    }
}
