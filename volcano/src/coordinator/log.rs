//! The state of the consensus: what is agreed, the entries since, and this volcano's vote.

use magma_common::topology::{Topology, VolcanoId};
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use serde::{Deserialize, Serialize};

use super::consensus::OpenError;
use super::wire::{self, LoggedEntry, Members};

/// Terms and indexes stay far below the largest number, so that sums of them do.
pub(super) const MAX_NUMBER: u64 = 1 << 62;
/// Once so many agreed entries are in memory, the older ones are dropped; who lacks them gets the topology itself.
const MAX_KEPT: usize = 64;
/// So many of them stay, for voters that are a little behind.
const KEPT: usize = 16;
/// Longest state that is read back, in bytes.
const MAX_STATE: usize = 64 << 20;
const MAGIC: &[u8; 8] = b"MAGMACON";
const VERSION: u32 = 4;
/// Magic, version, checksum.
const HEADER_LEN: usize = 16;

/// The log and what was made of it.
pub(super) struct Log {
    me: VolcanoId,
    term: u64,
    vote: u64,
    commit: u64,
    /// The place before the first entry, and its term.
    base: (u64, u64),
    entries: Vec<Entry>,
    applied: Applied,
}

/// What the log amounts to up to a place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) members: Members,
    /// None before the volcano has learned of any.
    pub(super) topology: Option<Topology>,
}

/// What the vault keeps: the newest agreed state and the entries after it.
#[derive(Serialize, Deserialize)]
struct Saved {
    me: u64,
    term: u64,
    vote: u64,
    commit: u64,
    applied: Applied,
    entries: Vec<LoggedEntry>,
}

impl Log {
    /// Of a volcano that has never taken part.
    pub(super) fn empty(me: VolcanoId) -> Self {
        Self {
            me,
            term: 0,
            vote: 0,
            commit: 0,
            base: (0, 0),
            entries: Vec::new(),
            applied: Applied::default(),
        }
    }

    /// Of a network's first volcano. It begins with a topology at index 1, so that nobody can follow it without one.
    pub(super) fn founded(me: VolcanoId, topology: Topology) -> Self {
        let members = Members::alone(me.0);
        let applied = Applied { index: 1, term: 1, members, topology: Some(topology) };
        Self { me, term: 1, vote: me.0, commit: 1, base: (1, 1), entries: Vec::new(), applied }
    }

    /// The form for the vault; `None` if something cannot be encoded, which does not happen.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let applied = (self.applied.index - self.base.0) as usize;
        let saved = Saved {
            me: self.me.0,
            term: self.term,
            vote: self.vote,
            commit: self.commit,
            applied: self.applied.clone(),
            entries: self.entries.iter().skip(applied).map(LoggedEntry::from_raft).collect::<Option<_>>()?,
        };
        let body = postcard::to_allocvec(&saved).ok()?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        Some(bytes)
    }

    pub(super) fn decode(me: VolcanoId, bytes: &[u8]) -> Result<Self, OpenError> {
        let damaged = |why: &str| OpenError::Damaged(why.to_owned());
        if bytes.len() > MAX_STATE {
            return Err(damaged("it is too long"));
        }
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(damaged("it is too short"));
        };
        let [magic @ .., _, _, _, _, _, _, _, _] = header;
        let [_, _, _, _, _, _, _, _, v0, v1, v2, v3, c0, c1, c2, c3] = *header;
        if magic != MAGIC {
            return Err(damaged("it does not begin like one"));
        }
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if version != VERSION {
            return Err(OpenError::Damaged(format!("its format {version} is unknown here")));
        }
        if u32::from_le_bytes([c0, c1, c2, c3]) != crc32c::crc32c(body) {
            return Err(damaged("its checksum is wrong"));
        }
        let saved: Saved = match postcard::take_from_bytes(body) {
            Ok((saved, [])) => saved,
            _ => return Err(damaged("it cannot be decoded")),
        };
        if saved.me != me.0 {
            return Err(OpenError::Foreign(saved.me));
        }
        Self::from_saved(me, saved).ok_or_else(|| damaged("its parts contradict each other"))
    }

    /// `None` if the library would panic on it.
    fn from_saved(me: VolcanoId, saved: Saved) -> Option<Self> {
        let Saved { applied, term, vote, commit, .. } = saved;
        let begun = applied.topology.is_some();
        let nothing = applied == Applied::default() && saved.entries.is_empty();
        let last = applied.index.checked_add(saved.entries.len() as u64)?;
        let terms: Vec<u64> =
            [applied.term].into_iter().chain(saved.entries.iter().map(|e| e.term)).chain([term]).collect();
        let sound = (if begun {
            applied.members.is_sound() && applied.index > 0 && applied.term > 0
        } else {
            nothing
        }) && terms.is_sorted()
            && term <= MAX_NUMBER
            && last <= MAX_NUMBER
            && (applied.index..=last).contains(&commit)
            && saved.entries.iter().all(|entry| entry.content.is_sound());
        if !sound {
            return None;
        }
        let entries = (applied.index + 1..).zip(saved.entries).map(|(index, entry)| entry.into_raft(index));
        let entries = entries.collect::<Option<Vec<_>>>()?;
        Some(Self { me, term, vote, commit, base: (applied.index, applied.term), entries, applied })
    }

    /// What is agreed and carried out.
    pub(super) fn applied(&self) -> &Applied {
        &self.applied
    }

    /// For carrying out the next entry.
    pub(super) fn applied_mut(&mut self) -> &mut Applied {
        &mut self.applied
    }

    /// The entries that are not carried out.
    pub(super) fn pending(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        let applied = self.applied.index;
        self.entries.iter().filter(move |entry| entry.index > applied)
    }

    /// The index of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    pub(super) fn set_hard_state(&mut self, state: &HardState) {
        (self.term, self.vote, self.commit) = (state.term, state.vote, state.commit);
    }

    pub(super) fn set_commit(&mut self, commit: u64) {
        self.commit = commit;
    }

    /// Appends entries that follow each other, in the place of those that have their indexes.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            let kept = first.index.saturating_sub(self.base.0 + 1) as usize;
            self.entries.truncate(kept);
            self.entries.extend(entries);
        }
    }

    /// Forgets everything for the state of another voter. False if it is no state.
    pub(super) fn restore(&mut self, snapshot: &Snapshot) -> bool {
        let metadata = snapshot.get_metadata();
        let Ok(topology) = postcard::from_bytes(&snapshot.data) else { return false };
        let members = Members::from_raft(metadata.get_conf_state());
        self.base = (metadata.index, metadata.term);
        self.entries.clear();
        self.applied =
            Applied { index: metadata.index, term: metadata.term, members, topology: Some(topology) };
        true
    }

    /// Drops entries that are carried out, once they are many.
    pub(super) fn compact(&mut self) {
        let applied = (self.applied.index - self.base.0) as usize;
        if applied > MAX_KEPT
            && let Some(last) = self.entries.drain(..applied - KEPT).next_back()
        {
            self.base = (last.index, last.term);
        }
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard_state = HardState::default();
        (hard_state.term, hard_state.vote, hard_state.commit) = (self.term, self.vote, self.commit);
        Ok(RaftState::new(hard_state, self.applied.members.to_raft()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(StorageError::Compacted.into());
        }
        let place = |index: u64| (index - self.base.0 - 1) as usize;
        let wanted = if high >= low { self.entries.get(place(low)..place(high)) } else { None };
        let wanted = wanted.ok_or(StorageError::Unavailable)?;
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut chosen = Vec::new();
        for entry in wanted {
            let size = entry.data.len() as u64;
            if size > room && !chosen.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            chosen.push(entry.clone());
        }
        Ok(chosen)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        let place = index.checked_sub(self.base.0 + 1).ok_or(StorageError::Compacted)?;
        Ok(self.entries.get(place as usize).ok_or(StorageError::Unavailable)?.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let Applied { index, term, members, topology } = &self.applied;
        let snapshot =
            topology.as_ref().and_then(|topology| wire::snapshot(*index, *term, members, topology));
        Ok(snapshot.ok_or(StorageError::SnapshotTemporarilyUnavailable)?)
    }
}
