//! Making entries of the log and bodies durable, away from the thread that owns the store.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::Lsn;

use super::Store;
use super::body::ToSync;
use super::db;
use super::disk::Disk;
use super::error::StoreError;
use super::log::Unsynced;
use crate::rows::BodyId;

/// With this many files to sync, the whole file system is synced with one call instead.
const SYNC_ALL_FROM: usize = 64;

/// Which bodies a sync makes durable besides the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncBodies {
    /// None: the entries are durable, the bytes that they appended may not be.
    None,
    /// These.
    These(Vec<BodyId>),
    /// All.
    All,
}

impl SyncBodies {
    /// These and the others.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        match (self, others) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, bodies) | (bodies, Self::None) => bodies,
            (Self::These(mut bodies), Self::These(others)) => {
                bodies.extend(others);
                bodies.sort_unstable();
                bodies.dedup();
                Self::These(bodies)
            }
        }
    }
}

/// A sync, ready to [`run`](Self::run) on any thread.
#[derive(Debug)]
#[must_use = "nothing is durable before it has run"]
pub struct SyncJob {
    disk: Arc<dyn Disk>,
    through: Lsn,
    bodies: Vec<ToSync>,
    /// Those are all that need it.
    all_bodies: bool,
    folders: Vec<PathBuf>,
    /// Up to which entry overwrites had been written to the files.
    settled: Lsn,
    data: PathBuf,
    log: Vec<Unsynced>,
    log_dir: Option<PathBuf>,
    /// The database to copy `SQLite`'s write-ahead log into.
    checkpoint: Option<PathBuf>,
    /// Files of bodies that are not used any more, by their local ids.
    pub(super) unlink: Vec<(i64, PathBuf)>,
    pub(super) is_upkeep: bool,
}

/// What a sync has done; for [`Store::finish_sync`].
#[derive(Debug)]
#[must_use = "the store must hear of it"]
pub struct SyncDone {
    job: SyncJob,
    result: Result<bool, (PathBuf, io::Error)>,
    database: Option<rusqlite::Error>,
}

impl SyncJob {
    /// The entries up to here are durable when it has run.
    pub fn through(&self) -> Lsn {
        self.through
    }

    /// Does it. This blocks for as long as the disk takes.
    pub fn run(self) -> SyncDone {
        let result = self.sync_files();
        let (result, database) = match (&result, &self.checkpoint) {
            (Ok(()), Some(path)) => match db::checkpoint_from_outside(path) {
                Ok(complete) => {
                    self.disk.database_synced(path);
                    (Ok(complete), None)
                }
                Err(error) => (Ok(false), Some(error)),
            },
            _ => (result.map(|()| false), None),
        };
        SyncDone { job: self, result, database }
    }

    /// Bodies first: a record that says bytes were appended is not called durable before they are.
    fn sync_files(&self) -> Result<(), (PathBuf, io::Error)> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| (path, error)
        };
        let mut folders: BTreeSet<&Path> =
            self.bodies.iter().filter_map(|body| body.folder.as_deref()).collect();
        for folder in &self.folders {
            folders.extend(folder.parent());
        }
        if self.bodies.len() + folders.len() >= SYNC_ALL_FROM {
            self.disk.sync_all(&self.data).map_err(failed(&self.data))?;
        } else {
            for file in self.bodies.iter().filter_map(|body| body.file.as_ref()) {
                file.sync().map_err(failed(&self.data))?;
            }
            for folder in folders {
                self.disk.sync_dir(folder).map_err(failed(folder))?;
            }
        }
        for segment in &self.log {
            segment.file.sync().map_err(failed(&segment.path))?;
        }
        if let Some(dir) = &self.log_dir {
            self.disk.sync_dir(dir).map_err(failed(dir))?;
        }
        for (_, path) in &self.unlink {
            self.disk.unlink(path).map_err(failed(path))?;
        }
        Ok(())
    }
}

impl Store {
    /// Makes a job that makes all entries taken so far durable, after the bodies asked for.
    ///
    /// Several may run at the same time. The entries are flushed first.
    pub fn begin_sync(&mut self, bodies: &SyncBodies) -> Result<SyncJob, StoreError> {
        self.flush()?;
        let states = self.bodies.get_mut();
        let (to_sync, folders) = match bodies {
            SyncBodies::None => (Vec::new(), Vec::new()),
            SyncBodies::These(bodies) => states.to_sync(Some(bodies)),
            SyncBodies::All => states.to_sync(None),
        };
        let (log, names) = self.log.unsynced();
        Ok(SyncJob {
            disk: Arc::clone(&self.disk),
            through: self.log.flushed(),
            bodies: to_sync,
            all_bodies: *bodies == SyncBodies::All,
            folders,
            settled: states.settled(),
            data: states.root().to_path_buf(),
            log,
            log_dir: names.then(|| self.log.dir().to_path_buf()),
            checkpoint: None,
            unlink: Vec::new(),
            is_upkeep: false,
        })
    }

    /// Takes the result of a sync: raises [`stable`](Self::stable) and writes the overwrites that are durable now to their bodies.
    pub fn finish_sync(&mut self, done: SyncDone) -> Result<(), StoreError> {
        self.alive()?;
        let finished = self.take_sync(done);
        self.stop_on_error(finished)
    }

    fn take_sync(&mut self, done: SyncDone) -> Result<(), StoreError> {
        let SyncDone { job, result, database } = done;
        if let Some(error) = database {
            return Err(error.into());
        }
        let checkpointed = result.map_err(|(path, source)| StoreError::File { path, source })?;
        let bodies = self.bodies.get_mut();
        bodies.synced(&job.bodies, &job.folders, job.settled);
        self.log.synced(&job.log, job.log_dir.is_some());
        self.stable = self.stable.max(job.through);
        bodies.settle(&self.db, self.stable)?;
        self.note_landed(job.through, job.all_bodies);
        if job.is_upkeep {
            self.upkeep_done(&job, checkpointed)?;
        }
        Ok(())
    }

    /// Syncs here and now.
    #[allow(clippy::needless_pass_by_value, reason = "callers make the choice on the spot")]
    pub fn sync_now(&mut self, bodies: SyncBodies) -> Result<(), StoreError> {
        let job = self.begin_sync(&bodies)?;
        self.finish_sync(job.run())
    }

    /// Adds the copying of `SQLite`'s write-ahead log to a job.
    pub(super) fn with_checkpoint(&self, mut job: SyncJob) -> SyncJob {
        job.checkpoint = Some(self.db.path().to_path_buf());
        job
    }
}
