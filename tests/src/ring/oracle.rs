//! Who watches everything: every record that any copy of any slice takes, every answer that leaves, every life that ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::key::{Key, KeyRange};
use magma_common::proto::{Reply, Request};
use magma_common::topology::{Epoch, Position, Replica, Seq, Slice as Config, SliceId, Topology};
use magma_volcano::life::FIRST_SLICE;
use magma_volcano::record::Record;

use super::chronicle::Chronicle;
use super::clock::{SECOND, Time};
use super::history::{History, Violation, violation};
use super::line::{Around, CALM_SECONDS, Line};
use super::lives::Lives;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Who lives.
    pub lives: Lives,
    /// All records.
    pub chronicle: Chronicle,
    lines: BTreeMap<SliceId, Line>,
    /// Who keeps what.
    ranges: Vec<(SliceId, KeyRange)>,
    /// Of each slice that is divided off: off which, and by which of its records.
    divisions: BTreeMap<SliceId, (SliceId, Seq)>,
    /// When something last was wrong with anything.
    pub last_fault: Time,
    /// Nobody may be taken out without need.
    pub is_fair: bool,
    /// Stale reads are known to happen: clocks stand still.
    pub frozen_clocks: bool,
    version: u64,
}

impl Oracle {
    /// A copy takes a record; as primary if it has `made` it.
    pub fn record(
        &mut self,
        now: Time,
        history: &History,
        made: bool,
        record: &Record,
    ) -> Result<(), Violation> {
        let around = Around { now, history, lives: &self.lives };
        let line = self.lines.entry(record.slice).or_insert_with(|| Line::new(record.slice));
        line.record(&around, &mut self.chronicle, made, record)?;
        let Some(division) = record.division().filter(|_| made) else { return Ok(()) };
        // One that was lost is made again, perhaps elsewhere.
        if self.config(division.new).is_none() {
            self.divisions.insert(division.new, (record.slice, record.seq));
        }
        Ok(())
    }

    /// A topology was seen, perhaps while something was wrong.
    pub fn topology(&mut self, now: Time, topology: &Topology, is_troubled: bool) -> Result<(), Violation> {
        if topology.version <= self.version {
            return Ok(());
        }
        self.version = topology.version;
        self.ranges = topology.slices.iter().map(|slice| (slice.id, slice.range)).collect();
        let is_calm =
            self.is_fair && !is_troubled && now.saturating_sub(self.last_fault) > CALM_SECONDS * SECOND;
        Self::check_cover(topology)?;
        self.note_divisions(topology)?;
        for config in &topology.slices {
            let line = self.lines.entry(config.id).or_insert_with(|| Line::new(config.id));
            line.configure(now, config, (topology.copies, topology.loss_counter), is_calm)?;
        }
        Ok(())
    }

    /// The slices cover the keyspace once.
    fn check_cover(topology: &Topology) -> Result<(), Violation> {
        let mut next = Some(KeyRange::ALL.start().0);
        for slice in &topology.slices {
            if next != Some(slice.range.start().0) {
                return violation(format!(
                    "cover: slice {} does not begin where the one before it ends",
                    slice.id.0
                ));
            }
            next = slice.range.stop().0.checked_add(1);
        }
        if next.is_some() && !topology.slices.is_empty() {
            return violation("cover: the last slice does not end with the keyspace");
        }
        Ok(())
    }

    /// Slices that are new have the history of those that they were divided off.
    fn note_divisions(&mut self, topology: &Topology) -> Result<(), Violation> {
        let is_new = |config: &&Config| !self.lines.contains_key(&config.id);
        let mut new: Vec<SliceId> = topology.slices.iter().filter(is_new).map(|config| config.id).collect();
        new.sort_unstable();
        if self.configs().next().is_none() {
            return Ok(());
        }
        for new in new {
            let Some((whole, at)) = self.divisions.get(&new) else {
                return violation(format!(
                    "division: slice {} is there, and no record has divided it off",
                    new.0
                ));
            };
            let half = self.lines.get_mut(whole).map(|line| line.divide(new, at.0));
            self.lines.extend(half.map(|half| (new, half)));
        }
        Ok(())
    }

    /// Of a slice that was divided off another one: off which, and by which of its records.
    pub fn division(&self, slice: SliceId) -> Option<(SliceId, Seq)> {
        self.divisions.get(&slice).copied()
    }

    /// A volcano begins to serve a slice.
    pub fn serves(
        &mut self,
        now: Time,
        slice: SliceId,
        (who, reign): (Replica, Epoch),
        name: impl Fn(Seq) -> Option<Position>,
        last: Seq,
    ) -> Result<(), Violation> {
        let line = self.lines.entry(slice).or_insert_with(|| Line::new(slice));
        line.serves(now, &self.chronicle, (who, reign), name, last)
    }

    /// An answer that was evaluated under this reign of its slice leaves the volcano.
    pub fn released(
        &mut self,
        now: Time,
        history: &History,
        operation: usize,
        reign: Epoch,
        answer: &Result<(Reply, Bytes), FlareError>,
    ) -> Result<(), Violation> {
        let operation = &history.operations[operation];
        if matches!(operation.asked.request, Request::FetchTopology(_)) {
            return Ok(());
        }
        let slice = self.slice_of(&operation.asked.request);
        let line = self.lines.entry(slice).or_insert_with(|| Line::new(slice));
        if !self.frozen_clocks {
            line.check_lease(now, &operation.asked, reign)?;
        }
        line.released(now, &self.chronicle, operation, reign, answer)
    }

    /// The slice that drives a request.
    pub fn slice_of(&self, request: &Request) -> SliceId {
        let key = driver_of(request);
        let found = self.ranges.iter().find(|(_, range)| range.contains(&key));
        found.map_or(FIRST_SLICE, |(slice, _)| *slice)
    }

    /// The number of the last record of a request's slice that somebody may have heard of.
    pub fn floor(&self, request: &Request) -> u64 {
        self.lines.get(&self.slice_of(request)).map_or(0, |line| line.acknowledged)
    }

    /// What is known of a slice.
    pub fn line(&self, slice: SliceId) -> Option<&Line> {
        self.lines.get(&slice)
    }

    /// The version of the newest topology that was seen.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The newest configuration of a slice that was seen.
    pub fn config(&self, slice: SliceId) -> Option<&Config> {
        self.lines.get(&slice).and_then(Line::config)
    }

    /// The newest configurations that were seen.
    pub fn configs(&self) -> impl Iterator<Item = &Config> {
        self.lines.values().filter_map(Line::config)
    }
}

/// The key of the flare whose slice drives a request.
pub fn driver_of(request: &Request) -> Key {
    request.key().unwrap_or(Handle::root().key)
}
