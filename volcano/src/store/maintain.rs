//! Upkeep: when the database is committed and copied, the log shortened, bodies synced, removed and given checksums.

use std::collections::BTreeMap;
use std::time::Duration;

use super::log::Lsn;
use magma_common::time::Timestamp;
use magma_common::topology::{Seq, SliceId};

use super::db::State;
use super::error::StoreError;
use super::open::OpenOptions;
use super::sync::SyncJob;
use super::{Store, SyncBodies};

/// Encoded bytes of records after which the database is committed.
const COMMIT_BYTES: u64 = 64 << 20;
/// Bodies that are removed by one job.
const UNLINKS_PER_JOB: usize = 64;
/// Checksums of removed bodies that are forgotten in one step.
const ERASED_PER_STEP: usize = 1024;
/// Write-ahead log above which `SQLite` is made to start it over, in multiples of `wal_bytes`.
const WAL_RESTART: u64 = 4;
/// Flares that are counted in one step after a start.
const COUNTED_PER_STEP: usize = 256;
/// How soon to come again when there is work left.
const SOON: Duration = Duration::from_millis(5);
/// How soon to come again otherwise.
const LATER: Duration = Duration::from_millis(100);

/// What upkeep asks for.
#[derive(Debug)]
pub struct Maintenance {
    /// A job for another thread; its result goes to [`Store::finish_sync`].
    pub job: Option<SyncJob>,
    /// When [`Store::maintain`] wants to be called again.
    pub again: Duration,
}

/// How far the database is durable.
#[derive(Clone, Debug, Default)]
struct Reached {
    applied: Lsn,
    bodies: Lsn,
    /// The first record of each slice that stayed in the log then. Why those before it need not is in the database.
    keep_from: BTreeMap<SliceId, Seq>,
}

/// The state of upkeep.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) options: OpenOptions,
    /// Since the last commit.
    records: u64,
    bytes: u64,
    committed_at: Duration,
    committed: Reached,
    /// What a power cut cannot take from the database.
    durable: Reached,
    /// What that will be when the job that is under way has copied the write-ahead log.
    copying: Option<Reached>,
    copied_at: Duration,
    /// A job is under way.
    job: bool,
    /// The log was synced by a job since a commit became due, so that little is left to sync.
    prepared: bool,
    bodies_synced_at: Duration,
    /// The first record of each slice that stays in the log.
    keep_from: BTreeMap<SliceId, Seq>,
    pub(super) sweep: Option<super::sweep::Sweep>,
    /// Rows that belong to no copy are to be removed.
    pub(super) strays: bool,
    now: Duration,
}

impl Upkeep {
    pub(super) fn new(options: OpenOptions, state: State, sweep: bool) -> Self {
        Self {
            options,
            records: 0,
            bytes: 0,
            committed_at: Duration::ZERO,
            committed: Reached { applied: state.applied, bodies: state.bodies, keep_from: BTreeMap::new() },
            // what is there now may come from a write-ahead log that was never synced
            durable: Reached::default(),
            copying: None,
            copied_at: Duration::ZERO,
            job: false,
            prepared: false,
            bodies_synced_at: Duration::ZERO,
            keep_from: BTreeMap::new(),
            sweep: sweep.then(super::sweep::Sweep::default),
            strays: false,
            now: Duration::ZERO,
        }
    }

    /// An entry of so many bytes was taken.
    pub(super) fn appended(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
    }

    fn commit_due(&self, is_changed: bool) -> bool {
        let is_old = self.now.saturating_sub(self.committed_at) >= self.options.commit_interval;
        self.records >= self.options.commit_records || self.bytes >= COMMIT_BYTES || (is_changed && is_old)
    }

    fn copy_due(&self, wal_bytes: u64) -> bool {
        let is_behind =
            self.durable.applied < self.committed.applied || self.durable.bodies < self.committed.bodies;
        let is_old = self.now.saturating_sub(self.copied_at) >= self.options.wal_interval;
        is_behind && (is_old || wal_bytes >= self.options.wal_bytes)
    }
}

impl Store {
    /// A slice's records from this one on stay in the log, whatever their age; `Seq(u64::MAX)`, as it is at first: none has to.
    pub fn keep_from(&mut self, slice: SliceId, seq: Seq) {
        if seq < Seq(u64::MAX) {
            self.upkeep.keep_from.insert(slice, seq);
        } else {
            self.upkeep.keep_from.remove(&slice);
        }
    }

    /// Does what is due, in small steps. `now` is any clock that does not go back.
    pub fn maintain(&mut self, now: Duration) -> Result<Maintenance, StoreError> {
        self.alive()?;
        self.upkeep.now = now;
        self.bodies.get_mut().tick(now);
        let done = self.maintain_steps();
        self.stop_on_error(done)
    }

    fn maintain_steps(&mut self) -> Result<Maintenance, StoreError> {
        self.log_landed()?;
        let is_changed = self.is_changed();
        let mut due = self.upkeep.commit_due(is_changed);
        if due && (self.stable == self.last() || self.upkeep.prepared) {
            self.commit()?;
            due = false;
        }
        self.shorten_log()?;
        let summing = self.bodies.get_mut().sum_step(&mut self.db)?;
        let sweeping = self.sweep_step()? | self.stray_step()?;
        self.db.count_some(COUNTED_PER_STEP)?;
        let job = if self.upkeep.job { None } else { self.upkeep_job(due)? };
        let unlinking = job.as_ref().is_some_and(|job| job.unlink.len() >= UNLINKS_PER_JOB);
        let again = if summing || sweeping || unlinking { SOON } else { LATER };
        Ok(Maintenance { job, again })
    }

    fn is_changed(&mut self) -> bool {
        let bodies = self.bodies.get_mut().durable_through(self.log.last());
        self.upkeep.records > 0 || bodies > self.upkeep.committed.bodies
    }

    /// Commits the database. The log is synced first as far as it is not: the database is never ahead of it.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        if self.stable < self.last() {
            self.sync_now(SyncBodies::None)?;
        }
        let bodies = self.bodies.get_mut();
        bodies.write_rows(&self.db)?;
        self.db.state.bodies = bodies.durable_through(self.log.last());
        let State { applied, bodies, .. } = self.db.state;
        let reached = Reached { applied, bodies, keep_from: self.upkeep.keep_from.clone() };
        let is_large = self.db.wal_bytes() >= self.upkeep.options.wal_bytes * WAL_RESTART;
        // only when a job has copied most of it and none is at work: little is left to be copied here
        if is_large && !self.upkeep.job && self.upkeep.durable.applied >= self.upkeep.committed.applied {
            if self.checkpoint_here()? {
                self.upkeep.durable = reached.clone();
                self.upkeep.copied_at = self.upkeep.now;
            }
        } else {
            self.db.commit()?;
        }
        let upkeep = &mut self.upkeep;
        upkeep.committed = reached;
        upkeep.committed_at = upkeep.now;
        (upkeep.records, upkeep.bytes, upkeep.prepared) = (0, 0, false);
        Ok(())
    }

    /// Commits the database and copies its write-ahead log. Whether all of it is in the database now.
    pub(super) fn checkpoint_here(&mut self) -> Result<bool, StoreError> {
        let complete = self.db.commit_and_checkpoint()?;
        self.disk.database_synced(self.db.path());
        Ok(complete)
    }

    /// Removes the segments that nobody needs.
    fn shorten_log(&mut self) -> Result<(), StoreError> {
        let Upkeep { durable, keep_from, options, .. } = &self.upkeep;
        let needed = |(slice, seq): (&SliceId, &Seq)| self.index.needed_for(*slice, *seq);
        let wanted = keep_from.iter().chain(&durable.keep_from).filter_map(needed).min();
        let through = durable.applied.min(durable.bodies).min(wanted.map_or(durable.applied, Lsn::before));
        let (newest, keep) = (self.log.newest(), options.keep);
        let dropped = self.log.drop_segments(through, |time: Timestamp| newest.since(time) >= keep);
        self.index.forget_before(self.log.first());
        dropped
    }

    /// The next job, if one is due. `commit`: the database is to be committed, so the log is to be synced.
    fn upkeep_job(&mut self, commit: bool) -> Result<Option<SyncJob>, StoreError> {
        let now = self.upkeep.now;
        let landing = self.landing();
        let bodies = self.bodies.get_mut();
        let half_full = bodies.pending_bytes() > self.upkeep.options.overlay_bytes / 2
            || bodies.pending_changes() > self.upkeep.options.overlay_changes / 2;
        let unsynced = bodies.unsynced_bodies();
        let bodies_due = landing.bodies
            || unsynced > self.upkeep.options.bodies / 2
            || ((unsynced > 0 || bodies.lacks_room())
                && now.saturating_sub(self.upkeep.bodies_synced_at) >= self.upkeep.options.body_interval);
        let copy = self.upkeep.copy_due(self.db.wal_bytes());
        let unlink = self.dropped_files()?;
        if !(commit || half_full || bodies_due || landing.log || copy || !unlink.is_empty()) {
            return Ok(None);
        }
        let mut job = self.begin_sync(if bodies_due { &SyncBodies::All } else { &SyncBodies::None })?;
        if bodies_due {
            self.upkeep.bodies_synced_at = now;
        }
        if copy {
            job = self.with_checkpoint(job);
            self.upkeep.copying = Some(self.upkeep.committed.clone());
        }
        job.unlink = unlink;
        job.is_upkeep = true;
        self.upkeep.job = true;
        Ok(Some(job))
    }

    /// The files of bodies that were dropped by records which are on disk.
    fn dropped_files(&mut self) -> Result<Vec<(i64, std::path::PathBuf)>, StoreError> {
        let dropped = self.db.dropped_bodies(0, UNLINKS_PER_JOB)?;
        let bodies = self.bodies.get_mut();
        let gone = dropped.into_iter().filter(|dropped| dropped.lsn <= self.stable);
        Ok(gone.map(|dropped| (dropped.local, bodies.path(dropped.body, dropped.born))).collect())
    }

    /// A job of upkeep has run.
    pub(super) fn upkeep_done(&mut self, job: &SyncJob, copied: bool) -> Result<(), StoreError> {
        self.upkeep.job = false;
        self.upkeep.prepared = true;
        if let Some(reached) = self.upkeep.copying.take()
            && copied
        {
            self.upkeep.durable = reached;
            self.upkeep.copied_at = self.upkeep.now;
        }
        for (local, _) in &job.unlink {
            // one with more checksums keeps its row and comes again
            self.db.erase_body(*local, ERASED_PER_STEP)?;
            self.upkeep.records += 1;
        }
        Ok(())
    }
}
