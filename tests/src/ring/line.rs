//! What is known of the history of one slice.
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
use magma_common::key::KeyRange;
use magma_common::proto::operation::{CreateHow, WriteReply};
use magma_common::proto::{OpId, Reply, Request};
use magma_common::topology::{Epoch, Position, Replica, Seq, Slice as Config, SliceId};
use magma_volcano::record::Record;

use super::chronicle::{Chronicle, Fate, Made};
use super::clock::{SECOND, Time};
use super::history::{Asked, History, Operation, Violation, describe, verifier_of, violation};
use super::lives::Lives;

/// So long nothing may have been wrong before a copy counts as taken out without need.
pub const CALM_SECONDS: u64 = 20;

/// See the module's documentation.
#[derive(Debug)]
pub struct Line {
    slice: SliceId,
    names: BTreeMap<(Epoch, Seq), [u8; 32]>,
    /// The records, by their numbers: their places in the chronicle.
    line: BTreeMap<u64, usize>,
    /// Operations that made a record that was lost, and under which reign it was.
    lost_ids: BTreeMap<OpId, Epoch>,
    epoch: Epoch,
    /// The number of the last record that somebody may have heard of.
    pub acknowledged: u64,
    /// The number of the last record that somebody was told to be on disk.
    pub stable: u64,
    /// Of each flare, the number of the last record whose bytes somebody was told to be on disk.
    synced: BTreeMap<Handle, u64>,
    /// And since when he had asked for that.
    synced_at: BTreeMap<Handle, Time>,
    /// Losses: when the history went on, and with which record it had ended.
    cuts: Vec<(Time, u64)>,
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
}

/// All members of a slice had ended, and some had lost something; then it began anew.
#[derive(Clone, Copy, Debug)]
struct Cold {
    /// In this epoch.
    epoch: Epoch,
    /// When the last member had ended.
    dark: Time,
}

/// What happens to a slice happens among all this.
pub struct Around<'a> {
    /// The time.
    pub now: Time,
    /// What clients asked.
    pub history: &'a History,
    /// Who lives.
    pub lives: &'a Lives,
}

impl Line {
    /// A slice without records.
    pub fn new(slice: SliceId) -> Self {
        Self {
            slice,
            names: BTreeMap::new(),
            line: BTreeMap::new(),
            lost_ids: BTreeMap::new(),
            epoch: Epoch(0),
            acknowledged: 0,
            stable: 0,
            synced: BTreeMap::new(),
            synced_at: BTreeMap::new(),
            cuts: Vec::new(),
            joined: BTreeMap::new(),
            configs: BTreeMap::new(),
            reign: (Epoch(0), 0),
            spent: BTreeMap::new(),
            counters: BTreeMap::new(),
            losing: None,
            first_answers: BTreeMap::new(),
        }
    }

    /// A copy takes a record; as primary if it has `made` it.
    pub fn record(
        &mut self,
        around: &Around<'_>,
        chronicle: &mut Chronicle,
        made: bool,
        record: &Record,
    ) -> Result<(), Violation> {
        let name = (record.epoch, record.seq);
        let encoded = postcard::to_stdvec(record).map_err(|error| Violation(error.to_string()))?;
        let hash = *blake3::hash(&encoded).as_bytes();
        if *self.names.entry(name).or_insert(hash) != hash {
            return violation(format!(
                "unique names: two different records of slice {} are called {name:?}",
                self.slice.0
            ));
        }
        if !made || record.epoch < self.epoch {
            return Ok(());
        }
        let seq = record.seq.0;
        let is_cold = record.epoch > self.epoch && self.cold(around.lives, record.epoch).is_some();
        if is_cold || self.last() >= seq {
            self.lose_from(around, chronicle, record.epoch, seq)?;
        }
        self.epoch = record.epoch;
        let last = self.last();
        if last + 1 != seq {
            return violation(format!(
                "the log: a primary of slice {} makes record {seq} when the history ends at {last}",
                self.slice.0
            ));
        }
        self.line.insert(seq, chronicle.note(around.now, self.range(record.epoch), record)?);
        Ok(())
    }

    fn last(&self) -> u64 {
        self.line.last_key_value().map_or(0, |(last, _)| *last)
    }

    /// The records from this one on are no part of the history any more.
    fn lose_from(
        &mut self,
        around: &Around<'_>,
        chronicle: &mut Chronicle,
        epoch: Epoch,
        seq: u64,
    ) -> Result<(), Violation> {
        let what = || {
            format!(
                "the records {seq} to {} of slice {} are lost in epoch {}",
                self.last(),
                self.slice.0,
                epoch.0
            )
        };
        if seq <= self.stable {
            return violation(format!(
                "durability: {}, and all up to {} were answered as on disk",
                what(),
                self.stable
            ));
        }
        let cold = self.cold(around.lives, epoch);
        let epoch = cold.map_or(epoch, |cold| cold.epoch);
        if seq <= self.acknowledged && cold.is_none() {
            return violation(format!(
                "no loss: {}, and all up to {} were acknowledged",
                what(),
                self.acknowledged
            ));
        }
        let mut fate = Fate::Unheard;
        // Even if no record is lost: bytes may be that were not on disk.
        if let Some(cold) = cold {
            if seq <= self.acknowledged {
                self.losing = Some(epoch);
            }
            fate = Fate::Cut(self.cut(around, chronicle, cold.dark, seq - 1));
        }
        // A primary may get through several epochs before it makes the first record of its reign.
        let reign = self.configs.get(&epoch).map_or(epoch, |config| config.reign);
        for (_, number) in self.line.split_off(&seq) {
            if let Some(id) = chronicle.made[number].id {
                self.first_answers.remove(&id);
                self.lost_ids.insert(id, reign);
            }
            chronicle.lose(number, fate);
        }
        Ok(())
    }

    /// Since when the slice may have lost what was not on disk, up to this epoch, if it may: then all members had ended, and it began
    /// anew. If its members changed again before it served anybody, what one of them had and was about to copy to the others is lost, too.
    fn cold(&self, lives: &Lives, epoch: Epoch) -> Option<Cold> {
        let lost =
            |before: &Config, epoch| lives.lost_together(before.in_sync()).map(|dark| Cold { epoch, dark });
        let mut before: Option<&Config> = None;
        for config in self.configs.range(..epoch).map(|(_, config)| config) {
            let is_since = |before: &&Config| config.epoch > self.reign.0 && is_anew(before, config);
            if let Some(cold) = before.filter(is_since).and_then(|before| lost(before, config.epoch)) {
                return Some(cold);
            }
            before = Some(config);
        }
        before.and_then(|before| lost(before, epoch))
    }

    fn cut(&mut self, around: &Around<'_>, chronicle: &mut Chronicle, dark: Time, survived: u64) -> usize {
        self.spend(around, chronicle, survived);
        let unsynced = self.unsynced(around.history, chronicle);
        let cut = chronicle.cut(self.present_range(), (dark, around.now), unsynced);
        self.cuts.push((around.now, survived));
        self.acknowledged = self.acknowledged.min(survived);
        self.stable = self.stable.min(survived);
        cut
    }

    /// The number of the operation's record, if it has one here.
    fn seq_of(&self, chronicle: &Chronicle, id: Option<OpId>) -> Option<u64> {
        let made = id.and_then(|id| chronicle.of(id))?;
        self.has(chronicle, made).then_some(made.seq)
    }

    /// Whether a record is part of this history: one that the slice has made, or the slice that it was divided off.
    fn has(&self, chronicle: &Chronicle, made: &Made) -> bool {
        self.line.get(&made.seq).is_some_and(|number| chronicle.made[*number].id == made.id)
    }

    /// The keys of the slice in this epoch.
    fn range(&self, epoch: Epoch) -> KeyRange {
        let config = self.configs.range(..=epoch).next_back().or_else(|| self.configs.first_key_value());
        config.map_or(KeyRange::ALL, |(_, config)| config.range)
    }

    fn present_range(&self) -> KeyRange {
        self.config().map_or(KeyRange::ALL, |config| config.range)
    }

    /// The slice is divided, by the record with this number: the history of the one that comes of it. That record is on the disks of all
    /// copies, and with it all others before it.
    pub fn divide(&mut self, new: SliceId, at: u64) -> Self {
        self.acknowledged = self.acknowledged.max(at);
        self.stable = self.stable.max(at);
        Self {
            slice: new,
            names: self.names.clone(),
            line: self.line.range(..=at).map(|(seq, number)| (*seq, *number)).collect(),
            lost_ids: self.lost_ids.clone(),
            epoch: self.epoch,
            acknowledged: at,
            stable: at,
            synced: self.synced.iter().map(|(handle, seq)| (*handle, (*seq).min(at))).collect(),
            synced_at: self.synced_at.clone(),
            cuts: self.cuts.clone(),
            spent: self.spent.clone(),
            first_answers: self.first_answers.clone(),
            ..Self::new(new)
        }
    }

    /// What was written last and is not known to be on disk.
    fn unsynced(&self, history: &History, chronicle: &Chronicle) -> Vec<(Handle, Range<usize>)> {
        let mut ranges = Vec::new();
        for operation in &history.operations {
            ranges.extend(self.own_bytes(operation, chronicle));
            ranges.extend(self.filled(operation, chronicle));
        }
        ranges
    }

    /// What an operation has written to a flare that is driven here, unless it is known to be on disk.
    fn own_bytes(&self, operation: &Operation, chronicle: &Chronicle) -> Option<(Handle, Range<usize>)> {
        let handle = match &operation.asked.request {
            Request::Write(write) => write.handle,
            Request::WriteStripe(write) => write.stripe,
            _ => return None,
        };
        let made =
            operation.asked.id.and_then(|id| chronicle.of(id)).filter(|made| self.has(chronicle, made))?;
        let on_disk = self.synced.get(&handle).copied().unwrap_or(0);
        if !self.present_range().contains(&handle.key) || made.seq <= on_disk {
            return None;
        }
        let (opcode, reply) = made.reply.as_ref()?;
        let start = match (Reply::decode(*opcode, reply), &operation.asked.request) {
            (Ok(Reply::Write(written)), _) => written.offset,
            (_, Request::WriteStripe(write)) => write.offset,
            _ => return None,
        } as usize;
        Some((handle, start..start + operation.asked.payload.len()))
    }

    /// What a write that went through the head of a striped file has written to stripes here.
    fn filled(&self, operation: &Operation, chronicle: &Chronicle) -> Vec<(Handle, Range<usize>)> {
        let Request::Write(write) = &operation.asked.request else { return Vec::new() };
        let made = operation.asked.id.and_then(|id| chronicle.of(id));
        let reply = made.and_then(|made| made.reply.as_ref());
        let Some(Ok(Reply::Write(WriteReply { offset, unit: Some(unit), .. }))) =
            reply.map(|(opcode, reply)| Reply::decode(*opcode, reply))
        else {
            return Vec::new();
        };
        let answered = operation.answered.as_ref();
        let is_on_disk = |stripe: &Handle| {
            answered.is_some_and(|answered| {
                let synced = self.synced_at.get(stripe).is_some_and(|since| answered.at < *since);
                synced || operation.asked.is_stable() && answered.answer.is_ok()
            })
        };
        let mut ranges = Vec::new();
        for part in unit.parts(offset, operation.asked.payload.len() as u64) {
            let start = part.offset as usize;
            // Which of those that ever had the number it was does not matter: the others are gone.
            for stripe in chronicle.stripes_of(write.handle, part.number) {
                if self.present_range().contains(&stripe.key) && !is_on_disk(&stripe) {
                    ranges.push((stripe, start..start + part.length as usize));
                }
            }
        }
        ranges
    }

    /// The verifiers of acknowledged writes that are lost must not be seen any more.
    fn spend(&mut self, around: &Around<'_>, chronicle: &Chronicle, survived: u64) {
        for operation in &around.history.operations {
            let seq = self.seq_of(chronicle, operation.asked.id);
            if let (Some(seq), Some(answered)) = (seq, &operation.answered)
                && seq > survived
                && let Ok((reply, _)) = &answered.answer
                && let Some(verifier) = verifier_of(reply)
            {
                self.spent.entry(verifier).or_insert(around.now);
            }
        }
    }

    /// A newer topology was seen, with this configuration, so many copies wanted, and this loss counter; unless it is a calm time,
    /// anything may have happened.
    pub fn configure(
        &mut self,
        now: Time,
        config: &Config,
        (copies, loss_counter): (u8, u64),
        is_calm: bool,
    ) -> Result<(), Violation> {
        let before = self.configs.last_key_value().map(|(_, before)| before.clone());
        self.configs.insert(config.epoch, config.clone());
        self.counters.entry(config.epoch).or_insert(loss_counter);
        let Some(before) = before else { return Ok(()) };
        for copy in config.joining.iter().filter(|copy| !before.joining.contains(copy)) {
            self.joined.insert(*copy, now);
        }
        let (had, has) = (before.in_sync().count(), config.in_sync().count());
        if has < had && has < usize::from(copies) && is_calm {
            return violation(format!(
                "planned changes: the in-sync copies of slice {} became {has} of {had} although nothing was wrong for {CALM_SECONDS} seconds",
                self.slice.0
            ));
        }
        Ok(())
    }

    /// A volcano begins to serve.
    pub fn serves(
        &mut self,
        now: Time,
        chronicle: &Chronicle,
        (who, reign): (Replica, Epoch),
        name: impl Fn(Seq) -> Option<Position>,
        last: Seq,
    ) -> Result<(), Violation> {
        if self.last() > last.0 && reign >= self.epoch {
            let end = self.last();
            if self.acknowledged > last.0 {
                return violation(format!(
                    "promotion: {who:?} serves in epoch {} with {} records, and {} of {end} were acknowledged",
                    reign.0, last.0, self.acknowledged
                ));
            }
        }
        if let Some(number) = self.line.get(&self.acknowledged) {
            let expected = chronicle.made[*number].epoch;
            let found = name(Seq(self.acknowledged)).map(|name| name.epoch);
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

    /// An answer that was evaluated under this reign leaves although a later one has begun.
    pub fn check_lease(&self, now: Time, asked: &Asked, reign: Epoch) -> Result<(), Violation> {
        if reign >= self.reign.0 || now <= self.reign.1 {
            return Ok(());
        }
        violation(format!(
            "lease: an answer of slice {}, reign {}, leaves although reign {} has begun {:.3} s before: {}",
            self.slice.0,
            reign.0,
            self.reign.0.0,
            (now - self.reign.1) as f64 / SECOND as f64,
            describe(asked)
        ))
    }

    /// An answer that was evaluated under this reign leaves the volcano.
    pub fn released(
        &mut self,
        now: Time,
        chronicle: &Chronicle,
        operation: &Operation,
        reign: Epoch,
        answer: &Result<(Reply, Bytes), FlareError>,
    ) -> Result<(), Violation> {
        let asked = &operation.asked;
        let Ok((reply, _)) = answer else { return Ok(()) };
        let mut seq = None;
        if let Some(id) = asked.id.filter(|_| asked.request.mutates()) {
            seq = self.seq_of(chronicle, Some(id));
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
            let cuts = self.cuts.iter().filter(|(time, _)| *time > operation.sent);
            let floor = cuts.map(|(_, survived)| *survived).fold(operation.floor, u64::min);
            let through = floor.max(seq.unwrap_or(0));
            self.stable = self.stable.max(through);
            let is_of_bytes = matches!(
                asked.request,
                Request::Commit(_)
                    | Request::CommitPart(_)
                    | Request::Write(_)
                    | Request::WriteStripe(_)
                    | Request::Setattr(_)
            );
            if let Some(handle) = asked.request.handle().filter(|_| is_of_bytes) {
                let since = self.synced_at.entry(handle).or_default();
                *since = (*since).max(operation.sent);
                let synced = self.synced.entry(handle).or_default();
                *synced = (*synced).max(through);
            }
        }
        if let Reply::Commit(commit) | Reply::CommitPart(commit) = reply
            && self.spent.get(&commit.verifier).is_some_and(|since| now > *since)
        {
            return violation(format!(
                "verifier: {:x} is answered again after writes under it were lost",
                commit.verifier
            ));
        }
        Ok(())
    }

    /// Since when this copy has been joining, or was when it did last.
    pub fn joined(&self, copy: Replica) -> Option<Time> {
        self.joined.get(&copy).copied()
    }

    /// The newest configuration that was seen.
    pub fn config(&self) -> Option<&Config> {
        self.configs.last_key_value().map(|(_, config)| config)
    }
}

/// Whether a slice begins anew with other lives than it had.
fn is_anew(before: &Config, config: &Config) -> bool {
    before.in_sync().all(|copy| copy != config.primary)
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
        | Request::Write(_)
        | Request::WriteStripe(_)
        | Request::WriteDone(_) => true,
        _ => false,
    }
}

/// What two answers to the same operation must have in common: everything but a write's attributes, which are not kept.
fn comparable(reply: &Reply) -> Reply {
    match reply {
        Reply::Write(write) => Reply::Write(WriteReply { wcc: Wcc::default(), ..write.clone() }),
        Reply::WriteDone(write) => Reply::WriteDone(WriteReply { wcc: Wcc::default(), ..write.clone() }),
        other => other.clone(),
    }
}
