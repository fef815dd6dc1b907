//! Which messages may reach the consensus library.
//!
//! The library trusts its peers and panics where they contradict what it knows. Nothing from the network may do that to a
//! volcano, so every message is checked here against everything that the library assumes. A right message always passes.

use magma_common::topology::VolcanoId;
use raft::eraftpb::Message;
use raft::{INVALID_ID, Raft, StateRole};

use super::log::{Log, MAX_NUMBER};
use super::wire::{Body, Letter, LoggedEntry};

/// A term farther ahead than any row of failed elections could bring it.
const MAX_TERMS_AHEAD: u64 = 1 << 32;
/// Most entries beyond the agreed ones that are kept for a leader. A leader stops taking proposals long before.
const MAX_TAIL: u64 = 1024;

/// The message in the library's form, if it may be taken.
pub(super) fn admit(raft: &Raft<Log>, from: VolcanoId, bytes: &[u8]) -> Option<Message> {
    let letter = Letter::decode(bytes)?;
    let addressed = letter.from == from.0 && letter.from != INVALID_ID && letter.from != raft.id;
    let in_time = letter.term > 0
        && letter.term <= MAX_NUMBER
        && letter.term <= raft.term.saturating_add(MAX_TERMS_AHEAD);
    let sound = addressed && letter.to == raft.id && in_time && is_sound(raft, &letter);
    if sound { letter.into_raft() } else { None }
}

fn is_sound(raft: &Raft<Log>, letter: &Letter) -> bool {
    let in_range = |numbers: &[u64]| numbers.iter().all(|number| *number <= MAX_NUMBER);
    match &letter.body {
        Body::Append { index, log_term, commit, entries } => {
            in_range(&[*index, *commit])
                && append_is_sound(raft, letter.term, *index, *log_term, *commit, entries)
        }
        Body::Appended { index, commit } => {
            in_range(&[*index, *commit]) && is_of_log(raft, letter.term, *index)
        }
        Body::NotAppended { index, commit, hint, hint_term } => {
            in_range(&[*index, *commit, *hint, *hint_term]) && is_of_log(raft, letter.term, *index)
        }
        Body::AskVote { index, log_term, commit, commit_term, .. } => {
            in_range(&[*index, *log_term, *commit, *commit_term])
        }
        Body::Vote { commit, commit_term, .. } => in_range(&[*commit, *commit_term]),
        Body::Snapshot { index, log_term, members, .. } => {
            (1..=MAX_NUMBER).contains(index) && (1..=letter.term).contains(log_term) && members.is_sound()
        }
        // The leader knows that this log goes as far. An answer to a leader of the past says no more than the term.
        Body::Heartbeat { commit } => letter.term < raft.term || *commit <= raft.raft_log.last_index(),
        Body::HeartbeatHeard { commit } => in_range(&[*commit]),
    }
}

/// Nobody has more of a leader's log than the leader itself.
fn is_of_log(raft: &Raft<Log>, term: u64, index: u64) -> bool {
    raft.state != StateRole::Leader || term != raft.term || index <= raft.raft_log.last_index()
}

fn append_is_sound(
    raft: &Raft<Log>,
    term: u64,
    index: u64,
    log_term: u64,
    commit: u64,
    entries: &[LoggedEntry],
) -> bool {
    // Every log begins with a snapshot, so nothing is ever appended to an empty one.
    if index == 0 || log_term == 0 {
        return false;
    }
    let terms: Vec<u64> =
        [log_term].into_iter().chain(entries.iter().map(|entry| entry.term)).chain([term]).collect();
    if !terms.is_sorted() || !entries.iter().all(|entry| entry.content.is_sound()) {
        return false;
    }
    let log = &raft.raft_log;
    if term < raft.term || index < log.committed || !log.match_term(index, log_term) {
        // Answered without touching the log: what is agreed on is never rewritten.
        return true;
    }
    let last = index.saturating_add(entries.len() as u64);
    let agreed = log.committed.max(commit.min(last));
    last.saturating_sub(agreed) <= MAX_TAIL
}
