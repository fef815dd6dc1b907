//! Opening a store: lock, versions, recovery, replay.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use magma_common::proto::operation::Outcome;
use magma_common::time::Timestamp;
use magma_common::topology::{Division, Seq, SliceId};
use serde_bytes::ByteBuf;

use super::append;
use super::body::Bodies;
use super::db::{Db, State};
use super::disk::Disk;
use super::doubts::Doubts;
use super::error::{OpenError, StoreError};
use super::lock::FolderLock;
use super::log::index::Index;
use super::log::{EntryRef, Log, Lsn, Place, recovery};
use super::maintain::Upkeep;
use super::meta::MetaFile;
use super::{Store, random_u64};
use crate::record::{BodyChange, Change, Entry};

/// After so many replayed entries the database is committed, so that its transaction does not grow without limit.
const COMMIT_EVERY: u64 = 16 << 10;
/// Under this name the meta file keeps what [`Opened::doubtful`] tells.
pub(super) const DOUBTFUL: &str = "doubtful";
/// Under this name the meta file keeps that something may be lost, until whom it concerns has been told.
pub(super) const LOST: &str = "lost";

/// How a store is opened and kept.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Make a new store in the folder, which must not hold one.
    pub create: bool,
    /// What names this run of the machine (`/proc/sys/kernel/random/boot_id`): whether it has changed tells a dead process from a power cut.
    pub machine_boot: String,
    /// Bytes of a log segment.
    pub segment_size: u64,
    /// Commit the database after so many entries.
    pub commit_records: u64,
    /// Commit the database after so long.
    pub commit_interval: Duration,
    /// Sync all bodies after so long.
    pub body_interval: Duration,
    /// Copy `SQLite`'s write-ahead log into the database when it has grown so far, in bytes.
    pub wal_bytes: u64,
    /// The same after so long.
    pub wal_interval: Duration,
    /// Keep entries in the log for at least so long, for retries to be recognised.
    pub keep: Duration,
    /// Most bodies in use at a time; each may have its file open.
    pub bodies: usize,
    /// Bytes of overwrites that may wait in memory for their entries to be on disk.
    pub overlay_bytes: u64,
    /// Number of overwrites that may wait.
    pub overlay_changes: usize,
    /// Bytes of the file system that are never given to files; none: 1 %, at least 64 MiB and at most 1 GiB.
    pub reserve: Option<u64>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            create: false,
            machine_boot: String::new(),
            segment_size: 64 << 20,
            commit_records: 16 << 10,
            commit_interval: Duration::from_secs(1),
            body_interval: Duration::from_secs(5),
            wal_bytes: 16 << 20,
            wal_interval: Duration::from_secs(30),
            keep: Duration::from_secs(120),
            bodies: 512,
            overlay_bytes: 64 << 20,
            overlay_changes: 64 << 10,
            reserve: None,
        }
    }
}

/// The outcome of an operation that is still in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedOutcome {
    /// The slice that it changed.
    pub slice: SliceId,
    /// The record.
    pub seq: Seq,
    /// Its time; of one that a copy was placed with, the latest that was known before.
    pub time: Timestamp,
    /// What the operation was answered.
    pub outcome: Outcome,
}

/// What was found when a store was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The store was made now.
    pub created: bool,
    /// It had been closed in an orderly way.
    pub clean: bool,
    /// This stop, or an earlier one of which nobody has been told yet, may have cost what was not on disk; see [`Store::loss_is_told`].
    pub has_lost: bool,
    /// The machine has run on since the store was last open: nothing that was flushed is lost. Else, after an unclean
    /// stop, what was not stable may be.
    pub same_boot: bool,
    /// The last entry of the log.
    pub last: Lsn,
    /// The outcomes in the retained part of the log, in its order. Records that were taken back have none.
    pub outcomes: Vec<RetainedOutcome>,
    /// Entries that were applied again.
    pub replayed: u64,
    /// Bytes that were cut off the log's end.
    pub cut: u64,
    /// Flares that there are.
    pub flares: u64,
    /// Bytes that bodies may lack, though the records that appended them are here: a power cut took what had not been
    /// synced, now or before an earlier start. As long as it is not decided what holds
    /// ([`Store::distrust`], [`Store::trust`]) every start tells of them.
    pub doubtful: Doubts,
}

impl Opened {
    /// Whether records or bytes that were answered, though not as on disk, may be gone.
    pub fn may_have_lost_unsynced(&self) -> bool {
        !self.clean && !self.same_boot
    }
}

impl Store {
    /// Whether there is a store in the folder. One that was not made to the end is none.
    pub fn is_in(dir: &Path, disk: &Arc<dyn Disk>) -> Result<bool, OpenError> {
        Ok(MetaFile::read(disk, dir)?.is_some())
    }

    /// Opens the store in a folder, or makes one; see [`OpenOptions::create`].
    pub fn open(dir: &Path, disk: Arc<dyn Disk>, options: OpenOptions) -> Result<(Self, Opened), OpenError> {
        if options.create {
            fs::create_dir_all(dir).map_err(|error| OpenError::file(dir, error))?;
        } else if !dir.is_dir() {
            return Err(OpenError::Absent(dir.to_path_buf()));
        }
        let lock = FolderLock::take(dir)?;
        let (mut meta, created) = open_meta(&disk, dir, options.create)?;
        let running = meta.content().running.clone();
        let same_boot = running.as_ref().is_some_and(|boot| *boot == options.machine_boot);
        let clean = running.is_none();
        let mut db = Db::open(dir, created)?;
        if created {
            disk.database_synced(db.path());
        }
        let log_dir = dir.join("log");
        let known = recovery::Known { store: meta.content().store, applied: db.state.applied, same_boot };
        let before = db.state;
        let mut bodies = Bodies::new(Arc::clone(&disk), dir.join("data"), options.bodies, before.bodies);
        let mut replay = Replay::new(&mut db, &mut bodies);
        let found = recovery::recover(&disk, &log_dir, known, &mut |place, length, entry| {
            replay.entry(place, length, entry)
        })?;
        let Replay { index, outcomes, unsynced, replayed, .. } = replay;
        if !clean {
            // what the process before had written to bodies and not synced is not known to be unsynced any more
            sync_bodies(&mut bodies)?;
        }
        // only now: until the torn tail of a power cut is off the log, it must not be taken for damage within one boot
        let mut doubtful = stored_doubts(&meta)?;
        if !clean && !same_boot {
            doubtful.merge(unsynced);
        }
        let doubts =
            postcard::to_stdvec(&doubtful).map_err(|_| OpenError::damaged(dir, "it has too many doubts"))?;
        meta.update(|meta| {
            meta.running = Some(options.machine_boot.clone());
            meta.sweep |= !clean;
            drop(meta.values.insert(DOUBTFUL.to_owned(), ByteBuf::from(doubts)));
            if !clean && !same_boot {
                drop(meta.values.insert(LOST.to_owned(), ByteBuf::new()));
            }
        })?;
        let has_lost = meta.content().values.contains_key(LOST);
        let (last, cut) = (found.last, found.cut);
        let log = Log::start(Arc::clone(&disk), log_dir, meta.content().store, options.segment_size, found)?;
        let opened = Opened {
            created,
            clean,
            same_boot,
            has_lost,
            last,
            outcomes,
            replayed,
            cut,
            flares: db.state.flares,
            doubtful,
        };
        if !clean {
            tracing::warn!(target: "volcano", replayed, cut, same_boot, "the store was not closed; its log was replayed");
        }
        let store = Self {
            dir: dir.to_path_buf(),
            disk,
            log,
            index,
            db,
            bodies: RefCell::new(bodies),
            upkeep: Upkeep::new(options, before, meta.content().sweep),
            meta,
            stable: last,
            stopped: None,
            scratch: Vec::new(),
            _lock: lock,
        };
        Ok((store, opened))
    }

    /// Makes everything durable and marks the store as closed.
    pub fn close(mut self) -> Result<(), StoreError> {
        // twice: the first makes overwrites durable in the log and writes them to the bodies, the second makes those durable
        self.sync_now(super::SyncBodies::All)?;
        self.sync_now(super::SyncBodies::All)?;
        self.commit()?;
        self.checkpoint_here()?;
        self.log.trim()?;
        self.sync_now(super::SyncBodies::None)?;
        self.meta.update(|meta| meta.running = None)
    }
}

/// What earlier starts were in doubt about.
fn stored_doubts(meta: &MetaFile) -> Result<Doubts, OpenError> {
    match meta.content().values.get(DOUBTFUL) {
        None => Ok(Doubts::default()),
        Some(bytes) => postcard::from_bytes(bytes)
            .map_err(|error| OpenError::damaged(std::path::Path::new("meta"), error.to_string())),
    }
}

/// Finds the meta file, or makes a new store's folders.
fn open_meta(disk: &Arc<dyn Disk>, dir: &Path, create: bool) -> Result<(MetaFile, bool), OpenError> {
    let found = MetaFile::read(disk, dir)?;
    match (found, create) {
        (Some(_), true) => Err(OpenError::Exists(dir.to_path_buf())),
        (Some(meta), false) => Ok((meta, false)),
        (None, _) if dir.join("magma.db").exists() && !create => {
            Err(OpenError::damaged(&dir.join("meta"), "it is missing"))
        }
        (None, false) => Err(OpenError::Absent(dir.to_path_buf())),
        (None, true) => make_folders(disk, dir),
    }
}

/// The meta file is written last: before that there is no store, and making one may be tried again.
fn make_folders(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(MetaFile, bool), OpenError> {
    for leftover in ["magma.db", "magma.db-wal", "magma.db-shm"].map(|name| dir.join(name)) {
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::file(&leftover, error));
            }
            _ => {}
        }
    }
    for folder in ["log", "data"].map(|name| dir.join(name)) {
        disk.create_dir(&folder).map_err(|error| OpenError::file(&folder, error))?;
    }
    disk.sync_dir(dir).map_err(|error| OpenError::file(dir, error))?;
    let meta = MetaFile::new(disk, dir, random_u64(dir)?);
    Ok((meta, true))
}

/// Applies the log's entries to a database and bodies that may lack them.
struct Replay<'a> {
    db: &'a mut Db,
    bodies: &'a mut Bodies,
    /// What the database had before.
    before: State,
    index: Index,
    /// The latest time of any record so far.
    time: Timestamp,
    outcomes: Vec<RetainedOutcome>,
    /// Which slices were divided so far, by which record, and which came of it.
    divisions: Vec<(SliceId, Seq, SliceId)>,
    /// Bytes that were appended and may not be on disk.
    unsynced: Doubts,
    replayed: u64,
}

impl<'a> Replay<'a> {
    fn new(db: &'a mut Db, bodies: &'a mut Bodies) -> Self {
        let before = db.state;
        let (index, time) = (Index::default(), Timestamp::default());
        Self {
            db,
            bodies,
            before,
            index,
            time,
            outcomes: Vec::new(),
            divisions: Vec::new(),
            unsynced: Doubts::default(),
            replayed: 0,
        }
    }

    /// The next entry of the log; it is on disk.
    fn entry(&mut self, place: Place, length: usize, entry: Entry) -> Result<(), OpenError> {
        self.index.note(EntryRef::from(&entry), place, length);
        if place.lsn > self.before.bodies {
            self.note_unsynced(EntryRef::from(&entry));
        }
        let rows = place.lsn > self.before.applied;
        if rows || place.lsn > self.before.bodies {
            self.apply(EntryRef::from(&entry), place.lsn, rows)?;
        }
        self.keep_outcomes(entry);
        Ok(())
    }

    /// The log does not carry the bytes of appends.
    fn note_unsynced(&mut self, entry: EntryRef<'_>) {
        for change in entry.changes() {
            if let Change::Body { flare, body, change: BodyChange::Append { offset, length } } = change {
                self.unsynced.note(*flare, *body, *offset, *length);
            }
        }
    }

    /// Keeps the outcomes that an entry brings, and forgets those that it takes back.
    fn keep_outcomes(&mut self, entry: Entry) {
        match entry {
            Entry::Record(record) => {
                self.time = self.time.max(record.time);
                if let Some(Division { new, .. }) = record.division() {
                    self.divide_outcomes(record.slice, record.seq, new);
                }
                if let Some(outcome) = record.outcome {
                    let (slice, seq, time) = (record.slice, record.seq, record.time);
                    self.outcomes.push(RetainedOutcome { slice, seq, time, outcome });
                }
            }
            Entry::Rewind { slice, to, .. } => {
                self.outcomes.retain(|kept| kept.slice != slice || kept.seq <= to.seq);
                let undone = |(parent, seq, _): &(SliceId, Seq, SliceId)| *parent == slice && *seq > to.seq;
                for (.., new) in self.divisions.extract_if(.., |division| undone(division)) {
                    self.outcomes.retain(|kept| kept.slice != new);
                }
            }
            Entry::Place { slice, outcomes, .. } => {
                let time = self.time;
                self.outcomes.retain(|kept| kept.slice != slice);
                let placed = outcomes.into_iter();
                self.outcomes.extend(placed.map(|(seq, outcome)| RetainedOutcome {
                    slice,
                    seq,
                    time,
                    outcome,
                }));
            }
            Entry::Copied { .. } => {}
        }
    }

    /// A slice that is divided off begins with all outcomes of the other one: which of them it will be asked about is not known here.
    fn divide_outcomes(&mut self, slice: SliceId, seq: Seq, new: SliceId) {
        self.divisions.push((slice, seq, new));
        self.outcomes.retain(|kept| kept.slice != new);
        let inherited = self.outcomes.iter().filter(|kept| kept.slice == slice);
        let inherited: Vec<_> =
            inherited.map(|kept| RetainedOutcome { slice: new, ..kept.clone() }).collect();
        self.outcomes.extend(inherited);
    }

    fn apply(&mut self, entry: EntryRef<'_>, lsn: Lsn, rows: bool) -> Result<(), OpenError> {
        if rows && let Err(reason) = append::check(entry, self.db, self.bodies, false)? {
            return Err(StoreError::Rejected { lsn, reason }.into());
        }
        append::apply(entry, lsn, self.db, self.bodies, rows)?;
        self.bodies.settle(self.db, lsn)?;
        if self.bodies.lacks_room() {
            return Err(StoreError::NoSpace(self.bodies.root().to_path_buf()).into());
        }
        for change in entry.changes().iter().filter(|_| rows) {
            if let Change::Body { body, flare, change: BodyChange::Reserve { offset, length } } = change {
                append::reserve_again(self.db, self.bodies, (*body, *flare), (*offset, *length))?;
            }
        }
        self.replayed += 1;
        if self.replayed.is_multiple_of(COMMIT_EVERY) {
            self.bodies.write_rows(self.db)?;
            self.db.commit()?;
        }
        if self.bodies.is_crowded() {
            sync_bodies(self.bodies)?;
        }
        Ok(())
    }
}

/// Makes all bodies durable, so that those used longest ago can be forgotten.
fn sync_bodies(bodies: &mut Bodies) -> Result<(), OpenError> {
    let settled = bodies.settled();
    let (to_sync, folders) = bodies.to_sync(None);
    bodies.sync_all().map_err(|error| OpenError::file(bodies.root(), error))?;
    bodies.synced(&to_sync, &folders, settled);
    Ok(())
}

/// The store's folders and files, for those who show or check them.
impl Store {
    /// Where the database lies.
    pub fn database_path(&self) -> PathBuf {
        self.db.path().to_path_buf()
    }
}
