//! Bodies: the bytes of files that are too large for their rows, one file each.
//!
//! Bytes at or above everything ever written to a body are written at once ([`Bodies::write_append`]). Bytes below are in
//! the log, lie over the file in memory, and are written to it when their record is on disk ([`Bodies::settle`]). So a crash
//! can tear neither bytes that were there before nor the order of two writes: replay does the overwrites again, in order,
//! and never touches what was appended.

mod changes;
pub(super) mod checksum;
mod overlay;
mod read;
mod reading;
mod rest;
mod state;
mod syncing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::log::Lsn;

pub use read::BodyRead;
pub(super) use syncing::ToSync;

use super::db::Db;
use super::disk::{Disk, SyncedFile};
use super::error::StoreError;
use crate::rows::BodyId;
use crate::view::ReadError;
use changes::Pending;
use state::{BodyState, Tail};

/// What changes a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct By {
    /// The entry of the log.
    pub(super) lsn: Lsn,
    /// It is no record: it brings in what another copy has.
    pub(super) copied: bool,
}

impl By {
    /// By what a body is told from an earlier one with its number if this begins it.
    fn born(self) -> Lsn {
        if self.copied { self.lsn } else { Lsn(0) }
    }
}

/// The bodies of one store.
#[derive(Debug)]
pub(super) struct Bodies {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    states: BTreeMap<BodyId, BodyState>,
    /// Most states to keep, and so most files to have open.
    limit: usize,
    /// Counts uses of states, to know which was used longest ago.
    clock: u64,
    /// Counts writes.
    versions: u64,
    /// Changes that wait for their record to be on disk, in the order of the log.
    pending: VecDeque<Pending>,
    /// Bytes that those hold in memory.
    pending_bytes: u64,
    /// Folders that were made and whose names may not be durable in their parents.
    new_folders: BTreeSet<PathBuf>,
    /// Every change up to here that was to be written to files has been written.
    settled: Lsn,
    /// Bodies that were written to since.
    written: BTreeSet<BodyId>,
    /// The next change waits for room in the file system.
    lacks_room: bool,
    /// Bodies with ranges written for the record to come.
    writing: Vec<BodyId>,
    now: Duration,
    resting: rest::Resting,
    mismatches: Arc<AtomicU64>,
}

impl Bodies {
    pub(super) fn new(disk: Arc<dyn Disk>, root: PathBuf, limit: usize, settled: Lsn) -> Self {
        Self {
            disk,
            root,
            states: BTreeMap::new(),
            limit,
            clock: 0,
            versions: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
            new_folders: BTreeSet::new(),
            settled,
            written: BTreeSet::new(),
            lacks_room: false,
            writing: Vec::new(),
            now: Duration::ZERO,
            resting: rest::Resting::default(),
            mismatches: Arc::default(),
        }
    }

    /// Where the bodies lie.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Bytes of overwrites that wait in memory.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// Overwrites and holes that wait in memory.
    pub(super) fn pending_changes(&self) -> usize {
        self.pending.len()
    }

    /// Blocks that failed their checksum since the store was opened.
    pub(super) fn mismatches(&self) -> u64 {
        self.mismatches.load(Ordering::Relaxed)
    }

    /// Tells the time, on any clock that does not go back.
    pub(super) fn tick(&mut self, now: Duration) {
        self.now = now;
    }

    /// The file of a body: one that a record began, or one that an entry of the log brought in.
    pub(super) fn path(&self, body: BodyId, born: Lsn) -> PathBuf {
        let name = match born {
            Lsn(0) => format!("{:016x}", body.0),
            Lsn(born) => format!("{:016x}-{born:016x}", body.0),
        };
        self.folder(body).join(name)
    }

    /// The file of a body in use.
    fn path_in_use(&self, body: BodyId) -> PathBuf {
        self.path(body, self.states.get(&body).map_or(Lsn(0), |state| state.born))
    }

    fn folder(&self, body: BodyId) -> PathBuf {
        let [a, b, ..] = body.0.to_be_bytes();
        self.root.join(format!("{a:02x}")).join(format!("{b:02x}"))
    }

    /// The state of a body; a body without a row is new.
    fn state(&mut self, db: &Db, body: BodyId) -> Result<&mut BodyState, ReadError> {
        self.clock += 1;
        let clock = self.clock;
        if !self.states.contains_key(&body) {
            if self.states.len() >= self.limit {
                self.evict(db)?;
            }
            self.states.insert(body, BodyState::new(db.body(body)?));
        }
        let state = self.states.get_mut(&body).ok_or_else(|| lost(body))?;
        state.used_at = clock;
        Ok(state)
    }

    /// Forgets the states used longest ago, up to an eighth of all, among those that can be forgotten.
    fn evict(&mut self, db: &Db) -> Result<(), ReadError> {
        let mut ages: Vec<_> =
            self.states.values().filter(|state| state.is_idle()).map(|s| s.used_at).collect();
        if ages.is_empty() {
            return Ok(());
        }
        let count = (self.limit / 8).min(ages.len() - 1);
        let (_, &mut oldest, _) = ages.select_nth_unstable(count);
        let is_old = |state: &BodyState| state.used_at <= oldest && state.is_idle();
        self.states.values_mut().filter(|state| is_old(state)).try_for_each(|state| write_row(db, state))?;
        self.states.retain(|_, state| !is_old(state));
        Ok(())
    }

    /// Whether more bodies are in use than there should be because too many have unsynced bytes.
    pub(super) fn is_crowded(&self) -> bool {
        self.states.len() > self.limit + self.limit / 4
    }

    /// How many bodies have unsynced bytes.
    pub(super) fn unsynced_bodies(&self) -> usize {
        self.unsynced().count()
    }

    /// The file of a body, if it has one.
    fn open(&mut self, db: &Db, body: BodyId) -> Result<Option<Arc<SyncedFile>>, ReadError> {
        let born = self.state(db, body)?.born;
        let path = self.path(body, born);
        let disk = Arc::clone(&self.disk);
        let state = self.state(db, body)?;
        if state.file.is_none() {
            match disk.open(&path) {
                Ok(file) => state.file = Some(SyncedFile::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(state.file.clone())
    }

    /// The file of a body, made if need be.
    fn create(&mut self, db: &Db, body: BodyId) -> Result<Arc<SyncedFile>, StoreError> {
        if let Some(file) = self.open(db, body)? {
            return Ok(file);
        }
        let (path, folder) = (self.path_in_use(body), self.folder(body));
        let failed = |error| StoreError::file(&path, error);
        for dir in folder.parent().into_iter().chain([folder.as_path()]) {
            if self.disk.create_dir(dir).map_err(failed)? {
                self.new_folders.insert(dir.to_path_buf());
            }
        }
        let file = SyncedFile::new(self.disk.create(&path).map_err(failed)?);
        let state = self.state(db, body)?;
        state.file = Some(Arc::clone(&file));
        state.name_unsynced = true;
        Ok(file)
    }

    /// Writes bytes at or above the body's end; the record that says so comes next.
    pub(super) fn write_append(
        &mut self,
        db: &Db,
        body: BodyId,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StoreError> {
        let end = offset.saturating_add(data.len() as u64);
        let state = self.state(db, body)?;
        let (high, tail) = (state.high(), state.tail);
        if offset < high {
            let reason = format!("bytes at {offset} lie below {high}, where the body was written before");
            return Err(StoreError::Rejected { lsn: Lsn(0), reason });
        }
        let file = self.create(db, body)?;
        let path = self.path_in_use(body);
        let write = || {
            if tail == Tail::Unknown && file.length()? > high {
                file.truncate(high)?;
                // else a power cut could keep those bytes and lose the cut, and the record to come would take them for its own
                file.sync()?;
            }
            file.write_at(data, offset)
        };
        let written = write();
        let (now, version) = (self.now, self.next_version());
        let state = self.state(db, body)?;
        state.version = version;
        state.used = None;
        state.changed_at = now;
        state.tail = Tail::Clean;
        state.written.push(offset..end);
        if !self.writing.contains(&body) {
            self.writing.push(body);
        }
        written.map_err(|error| StoreError::file(&path, error))
    }

    /// The record that the writes were for was not taken: what they left beyond the bodies' ends is cut off before the next append.
    pub(super) fn abandon_writes(&mut self) {
        for body in std::mem::take(&mut self.writing) {
            let Some(state) = self.states.get_mut(&body) else { continue };
            if state.row.is_none() && state.born != Lsn(0) {
                self.discard(body);
                continue;
            }
            state.written.clear();
            state.tail = Tail::Unknown;
        }
    }

    /// The entry that was to bring this body in was not taken.
    fn discard(&mut self, body: BodyId) {
        let path = self.path_in_use(body);
        self.remove_state(body);
        if let Err(error) = self.disk.unlink(&path) {
            // it takes space until the next unclean stop
            tracing::warn!(target: "garbage", file = %path.display(), %error, "a file that nothing needs stays");
        }
    }

    /// One more than the highest byte ever written to a body.
    pub(super) fn high(&mut self, db: &Db, body: BodyId) -> Result<u64, ReadError> {
        Ok(self.state(db, body)?.high())
    }

    /// Reserves space in the file.
    pub(super) fn reserve(
        &mut self,
        db: &Db,
        body: BodyId,
        offset: u64,
        length: u64,
    ) -> Result<(), StoreError> {
        if length == 0 {
            return Ok(());
        }
        let file = self.create(db, body)?;
        let path = self.path_in_use(body);
        file.allocate(offset, length, false).map_err(|error| StoreError::file(&path, error))?;
        let version = self.next_version();
        let state = self.state(db, body)?;
        state.version = version;
        state.used = None;
        Ok(())
    }

    /// The body, of which nothing is left but perhaps a file to be removed, is brought in anew by the entry of the log that comes
    /// next: what is appended goes to a file of its own.
    pub(super) fn begin(&mut self, db: &Db, body: BodyId, born: Lsn) -> Result<(), StoreError> {
        if db.body(body)?.is_some() {
            let reason = format!("body {:016x} is still there", body.0);
            return Err(StoreError::Rejected { lsn: born, reason });
        }
        self.remove_state(body);
        self.state(db, body)?.born = born;
        self.writing.push(body);
        Ok(())
    }

    fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// Forgets a body whose file is removed.
    pub(super) fn forget(&mut self, body: BodyId, born: Lsn) {
        if self.states.get(&body).is_some_and(|state| state.born == born) {
            self.remove_state(body);
        }
    }

    fn remove_state(&mut self, body: BodyId) -> Option<BodyState> {
        self.writing.retain(|&writing| writing != body);
        self.states.remove(&body)
    }

    /// Up to which record changes had been written to files.
    pub(super) fn settled(&self) -> Lsn {
        self.settled
    }

    /// Writes all changed rows to the database.
    pub(super) fn write_rows(&mut self, db: &Db) -> Result<(), ReadError> {
        self.states.values_mut().try_for_each(|state| write_row(db, state))
    }
}

fn write_row(db: &Db, state: &mut BodyState) -> Result<(), ReadError> {
    if let Some(row) = state.row.as_mut().filter(|_| state.row_changed) {
        row.used = state.used;
        db.update_body(row)?;
    }
    state.row_changed = false;
    Ok(())
}

fn lost(body: BodyId) -> ReadError {
    ReadError::Damaged { what: format!("the state of body {:016x}", body.0) }
}
