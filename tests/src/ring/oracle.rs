//! Who watches everything: every record that any copy takes, every answer that leaves, every life that ends.
//!
//! The *line* is the history of the slice as it stands: each record that a primary makes takes the place of those that had its
//! number, or a higher one, under an earlier epoch. Those are lost, which is no harm unless somebody heard of them.
//!
//! What may be lost: nothing that was acknowledged, as long as one in-sync copy keeps running, or none of them has lost power.
//! When all in-sync copies of a configuration are down and at least one of them has lost what was not on its disk, the slice
//! starts cold, and everything that is `Stable` must be there: the history is *cut*.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use magma_common::attr::Wcc;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::{CreateHow, WriteReply};
use magma_common::proto::{OpId, Reply, Request, SessionId};
use magma_common::topology::{Epoch, Position, Replica, Seq, Slice as Config, Topology, VolcanoId};
use magma_volcano::record::{Change, Record};

use super::clock::{SECOND, Time};
use super::history::{History, Violation, violation};

/// A record of the line.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its epoch.
    pub epoch: Epoch,
    /// The operation that made it.
    pub id: Option<OpId>,
    /// The reply to that.
    pub reply: Option<(u16, Bytes)>,
    /// Sessions that it ends.
    pub ended: Vec<SessionId>,
    /// When it was made.
    pub made: Time,
}

/// The history between two losses of all power.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// The records of this time, by number, those that were lost at its end among them.
    pub line: BTreeMap<u64, Entry>,
    /// The last of them that was not lost.
    pub survived: u64,
    /// When the history goes on.
    pub ended: Time,
    /// What was written last and was not on disk.
    pub unsynced: Vec<(Handle, Range<usize>)>,
}

/// A life of a volcano.
#[derive(Clone, Copy, Debug)]
struct Life {
    ended: Option<Time>,
    /// It lost what was not on its disk, then or later.
    lost: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Oracle {
    names: BTreeMap<(Epoch, Seq), [u8; 32]>,
    line: BTreeMap<u64, Entry>,
    by_id: BTreeMap<OpId, u64>,
    /// Operations that made a record that was lost, and in which epoch it was.
    lost_ids: BTreeMap<OpId, Epoch>,
    line_epoch: Epoch,
    /// The number of the last record that somebody may have heard of.
    pub acknowledged: u64,
    /// The number of the last record that somebody was told to be on disk.
    pub stable: u64,
    /// Of each file, the number of the last record whose bytes somebody was told to be on disk.
    synced: BTreeMap<Handle, u64>,
    /// Segments that have ended.
    pub segments: Vec<Segment>,
    lives: BTreeMap<Replica, Life>,
    /// Since when the copies that are joining, or did last, have been.
    joined: BTreeMap<Replica, Time>,
    configs: BTreeMap<Epoch, Config>,
    /// The newest reign that has begun, and when.
    reign: (Epoch, Time),
    /// Write verifiers under which something was lost, and since when.
    spent: BTreeMap<u64, Time>,
    /// The loss counter of each epoch.
    counters: BTreeMap<Epoch, u64>,
    /// In this epoch something that was acknowledged was lost: whoever serves next must do so under a higher counter.
    losing: Option<Epoch>,
    first_answers: BTreeMap<OpId, Reply>,
    /// When something last was wrong with anything.
    pub last_fault: Time,
    /// Nobody may be taken out without need.
    pub is_fair: bool,
    /// Stale reads are known to happen: clocks stand still.
    pub frozen_clocks: bool,
    version: u64,
}

impl Oracle {
    /// A life begins.
    pub fn begins(&mut self, who: Replica) {
        self.lives.insert(who, Life { ended: None, lost: false });
    }

    /// A life ends.
    pub fn ends(&mut self, who: Replica, now: Time) {
        if let Some(life) = self.lives.get_mut(&who) {
            life.ended.get_or_insert(now);
        }
    }

    /// The volcano has lost what was not on its disk.
    pub fn loses(&mut self, volcano: VolcanoId) {
        for (who, life) in &mut self.lives {
            life.lost |= who.volcano == volcano;
        }
    }

    /// A copy takes a record; as primary if it has `made` it.
    pub fn record(
        &mut self,
        now: Time,
        history: &History,
        made: bool,
        record: &Record,
    ) -> Result<(), Violation> {
        let name = (record.epoch, record.seq);
        let encoded = postcard::to_stdvec(record).map_err(|error| Violation(error.to_string()))?;
        let hash = *blake3::hash(&encoded).as_bytes();
        if *self.names.entry(name).or_insert(hash) != hash {
            return violation(format!("unique names: two different records are called {name:?}"));
        }
        if !made || record.epoch < self.line_epoch {
            return Ok(());
        }
        let seq = record.seq.0;
        let is_cold = record.epoch > self.line_epoch && self.may_lose(record.epoch);
        if is_cold || self.line.last_key_value().is_some_and(|(last, _)| *last >= seq) {
            self.lose_from(now, history, record.epoch, seq)?;
        }
        self.line_epoch = record.epoch;
        let last = self.line.last_key_value().map_or(0, |(last, _)| *last);
        if last + 1 != seq {
            return violation(format!(
                "the log: a primary makes record {seq} when the history ends at {last}"
            ));
        }
        let ended = record.changes.iter().filter_map(|change| match change {
            Change::EndSession(session) => Some(*session),
            _ => None,
        });
        let entry = Entry {
            epoch: record.epoch,
            id: record.outcome.as_ref().map(|outcome| outcome.id),
            reply: record.outcome.as_ref().map(|outcome| (outcome.opcode, outcome.reply.clone())),
            ended: ended.collect(),
            made: now,
        };
        if let Some(id) = entry.id
            && let Some(first) = self.by_id.insert(id, seq)
        {
            return violation(format!(
                "exactly once: {id:?} is done by record {first} and again by record {seq}"
            ));
        }
        self.line.insert(seq, entry);
        Ok(())
    }

    /// The records from this one on are no part of the history any more.
    fn lose_from(&mut self, now: Time, history: &History, epoch: Epoch, seq: u64) -> Result<(), Violation> {
        if seq <= self.stable {
            return violation(format!(
                "durability: the records {seq} to {} are lost in epoch {}, and all up to {} were answered as on disk",
                self.line.len(),
                epoch.0,
                self.stable
            ));
        }
        let may_lose = self.may_lose(epoch);
        if seq <= self.acknowledged && !may_lose {
            return violation(format!(
                "no loss: the records {seq} to {} are lost in epoch {}, and all up to {} were acknowledged",
                self.line.len(),
                epoch.0,
                self.acknowledged
            ));
        }
        // Even if no record is lost: bytes may be that were not on disk.
        if may_lose {
            if seq <= self.acknowledged {
                self.losing = Some(epoch);
            }
            self.cut(now, history, seq - 1);
        }
        for (_, entry) in self.line.split_off(&seq) {
            if let Some(id) = entry.id {
                self.by_id.remove(&id);
                self.first_answers.remove(&id);
                self.lost_ids.insert(id, epoch);
            }
        }
        Ok(())
    }

    /// Whether the configuration before this epoch has lost unsynced data legitimately.
    fn may_lose(&self, epoch: Epoch) -> bool {
        let Some((_, before)) = self.configs.range(..epoch).next_back() else { return false };
        let lives: Vec<_> = before.in_sync().filter_map(|copy| self.lives.get(&copy)).collect();
        let all_ended = lives.iter().all(|life| life.ended.is_some());
        all_ended && lives.iter().any(|life| life.lost)
    }

    fn cut(&mut self, now: Time, history: &History, survived: u64) {
        let base = self.segments.last().map_or(0, |segment| segment.survived);
        let line = self.line.range(base + 1..).map(|(seq, entry)| (*seq, entry.clone())).collect();
        self.segments.push(Segment { line, survived, ended: now, unsynced: self.unsynced(history) });
        self.spend(now, history, survived);
        self.acknowledged = self.acknowledged.min(survived);
        self.stable = survived;
    }

    /// What was written last and is not known to be on disk.
    fn unsynced(&self, history: &History) -> Vec<(Handle, Range<usize>)> {
        let mut ranges = Vec::new();
        for operation in &history.operations {
            let Request::Write(write) = &operation.asked.request else { continue };
            let Some(seq) = operation.asked.id.and_then(|id| self.by_id.get(&id)) else { continue };
            let Some((opcode, reply)) = self.line.get(seq).and_then(|entry| entry.reply.as_ref()) else {
                continue;
            };
            let on_disk = self.synced.get(&write.handle).copied().unwrap_or(0);
            if *seq > on_disk
                && let Ok(Reply::Write(written)) = Reply::decode(*opcode, reply)
            {
                let start = written.offset as usize;
                ranges.push((write.handle, start..start + operation.asked.payload.len()));
            }
        }
        ranges
    }

    /// The verifiers of acknowledged writes that are lost must not be seen any more.
    fn spend(&mut self, now: Time, history: &History, survived: u64) {
        for operation in &history.operations {
            let seq = operation.asked.id.and_then(|id| self.by_id.get(&id)).copied();
            if let (Some(seq), Some(answered)) = (seq, &operation.answered)
                && seq > survived
                && let Ok((Reply::Write(written), _)) = &answered.answer
            {
                self.spent.entry(written.verifier).or_insert(now);
            }
        }
    }

    /// A topology was seen.
    pub fn topology(&mut self, now: Time, topology: &Topology, paused: bool) -> Result<(), Violation> {
        if topology.version <= self.version {
            return Ok(());
        }
        self.version = topology.version;
        let Some(config) = topology.slices.first() else { return Ok(()) };
        let before = self.configs.last_key_value().map(|(_, before)| before.clone());
        self.configs.insert(config.epoch, config.clone());
        self.counters.entry(config.epoch).or_insert(topology.loss_counter);
        let Some(before) = before else { return Ok(()) };
        for copy in config.joining.iter().filter(|copy| !before.joining.contains(copy)) {
            self.joined.insert(*copy, now);
        }
        let (had, has) = (before.in_sync().count(), config.in_sync().count());
        let calm = self.is_fair && !paused && now.saturating_sub(self.last_fault) > 20 * SECOND;
        if has < had && has < usize::from(topology.copies) && calm {
            return violation(format!(
                "planned changes: the in-sync copies became {has} of {had} although nothing was wrong for 20 seconds"
            ));
        }
        Ok(())
    }

    /// A volcano begins to serve.
    pub fn serves(
        &mut self,
        now: Time,
        who: Replica,
        reign: Epoch,
        name: impl Fn(Seq) -> Option<Position>,
        last: Seq,
    ) -> Result<(), Violation> {
        if self.line.last_key_value().is_some_and(|(end, _)| *end > last.0) && reign >= self.line_epoch {
            let end = self.line.len();
            if self.acknowledged > last.0 {
                return violation(format!(
                    "promotion: {who:?} serves in epoch {} with {} records, and {} of {end} were acknowledged",
                    reign.0, last.0, self.acknowledged
                ));
            }
        }
        if let Some(entry) = self.line.get(&self.acknowledged) {
            let (expected, found) = (entry.epoch, name(Seq(self.acknowledged)).map(|name| name.epoch));
            if found != Some(expected) {
                return violation(format!(
                    "promotion: {who:?} serves in epoch {}, and its record {} is of epoch {found:?} instead of {}",
                    reign.0, self.acknowledged, expected.0
                ));
            }
        }
        if let Some(epoch) = self.losing.take() {
            let of = |counter: Option<(&Epoch, &u64)>| counter.map(|(_, counter)| *counter);
            let before = of(self.counters.range(..epoch).next_back());
            if before >= of(self.counters.range(epoch..=reign).next_back()) {
                return violation(format!(
                    "verifier: acknowledged records are lost in epoch {}, and writers are not told to send again",
                    epoch.0
                ));
            }
        }
        if reign > self.reign.0 {
            self.reign = (reign, now);
        }
        Ok(())
    }

    /// An answer that was evaluated under this reign leaves the volcano.
    pub fn released(
        &mut self,
        now: Time,
        history: &History,
        operation: usize,
        reign: Epoch,
        answer: &Result<(Reply, Bytes), FlareError>,
    ) -> Result<(), Violation> {
        let operation = &history.operations[operation];
        let asked = &operation.asked;
        if matches!(asked.request, Request::FetchTopology(_)) {
            return Ok(());
        }
        if reign < self.reign.0 && now > self.reign.1 && !self.frozen_clocks {
            return violation(format!(
                "lease: an answer of reign {} leaves although reign {} has begun {:.3} s before: {}",
                reign.0,
                self.reign.0.0,
                (now - self.reign.1) as f64 / SECOND as f64,
                super::history::describe(asked)
            ));
        }
        let Ok((reply, _)) = answer else { return Ok(()) };
        let mut seq = None;
        if let Some(id) = asked.id.filter(|_| asked.request.mutates()) {
            seq = self.by_id.get(&id).copied();
            let lost_in = self.lost_ids.get(&id).filter(|_| seq.is_none());
            if lost_in.is_some_and(|epoch| reign < *epoch || always_makes_record(&asked.request)) {
                return violation(format!(
                    "no loss: {id:?} is answered, and its record is no part of the history"
                ));
            }
            let comparable = comparable(reply);
            // What made no record may be done again by another primary: an open, the release of one.
            if seq.is_some() {
                let first = self.first_answers.entry(id).or_insert_with(|| comparable.clone());
                if *first != comparable {
                    return violation(format!(
                        "exactly once: {id:?} is answered as {comparable:?} after {first:?}"
                    ));
                }
            }
        }
        self.acknowledged = self.acknowledged.max(seq.unwrap_or(0));
        if asked.is_stable() {
            // Of what was there when it was asked, some may have been lost since.
            let cuts = self.segments.iter().filter(|segment| segment.ended > operation.sent);
            let floor = cuts.map(|segment| segment.survived).fold(operation.floor, u64::min);
            let through = floor.max(seq.unwrap_or(0));
            self.stable = self.stable.max(through);
            if let Request::Commit(_) | Request::Write(_) | Request::Setattr(_) = asked.request
                && let Some(handle) = asked.request.handle()
            {
                let synced = self.synced.entry(handle).or_default();
                *synced = (*synced).max(through);
            }
        }
        if let Reply::Commit(commit) = reply
            && self.spent.get(&commit.verifier).is_some_and(|since| now > *since)
        {
            return violation(format!(
                "verifier: {:x} is answered again after writes under it were lost",
                commit.verifier
            ));
        }
        Ok(())
    }

    /// All segments, the last one as it is now.
    pub fn all_segments(&self) -> Vec<Segment> {
        let base = self.segments.last().map_or(0, |segment| segment.survived);
        let line = self.line.range(base + 1..).map(|(seq, entry)| (*seq, entry.clone())).collect();
        let last = Segment { line, survived: u64::MAX, ended: Time::MAX, unsynced: Vec::new() };
        self.segments.iter().cloned().chain([last]).collect()
    }

    /// Since when this copy has been joining, or was when it did last.
    pub fn joined(&self, copy: Replica) -> Option<Time> {
        self.joined.get(&copy).copied()
    }

    /// The version of the newest topology that was seen.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The newest configuration that was seen.
    pub fn config(&self) -> Option<&Config> {
        self.configs.last_key_value().map(|(_, config)| config)
    }
}

/// Whether a success of such a request always changes something. Others, done again after their record was lost, may find things
/// as they want them: an unlock that there is nothing to unlock, a release that the flare does not die with it.
fn always_makes_record(request: &Request) -> bool {
    match request {
        Request::Create(create) => create.how == CreateHow::Guarded,
        Request::Mkdir(_)
        | Request::Symlink(_)
        | Request::Link(_)
        | Request::Unlink(_)
        | Request::Rmdir(_)
        | Request::Write(_) => true,
        _ => false,
    }
}

/// What two answers to the same operation must have in common: everything but a write's attributes, which are not kept.
fn comparable(reply: &Reply) -> Reply {
    match reply {
        Reply::Write(write) => Reply::Write(WriteReply { wcc: Wcc::default(), ..write.clone() }),
        other => other.clone(),
    }
}
