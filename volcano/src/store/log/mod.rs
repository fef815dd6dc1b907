//! The log: the records of the slice, in order, in append-only segments.
//!
//! Records are collected in a buffer ([`Log::push`]), handed to the kernel with one write ([`Log::flush`]) and made durable
//! by syncing the files that [`Log::unsynced`] names. A segment's space is reserved when it is started, so that a full file
//! system is noticed before a record is taken and not after.

pub(crate) mod frame;
pub(crate) mod recovery;
pub(crate) mod segment;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use magma_common::time::Timestamp;
use magma_common::topology::Seq;

use super::disk::{Disk, SyncedFile};
use super::error::StoreError;
use segment::{Sealed, SegmentHeader};

/// Once this much is buffered it is written even if nobody asked, in bytes.
const BUFFER_MAX: usize = 4 << 20;

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    path: PathBuf,
    file: Arc<SyncedFile>,
    salt: u32,
    first: Seq,
    /// Where the buffer will be written.
    end: u64,
}

/// A file of the log that holds records which may not be durable.
#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    pub(super) file: Arc<SyncedFile>,
    pub(super) path: PathBuf,
    /// The last record it holds; for the active segment, so far.
    last: Seq,
}

/// The log of one store.
#[derive(Debug)]
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store: u64,
    segment_size: u64,
    sealed: VecDeque<Sealed>,
    /// Sealed segments that were not synced since.
    unsynced: Vec<Unsynced>,
    /// A segment was made whose name may not be durable.
    names_unsynced: bool,
    active: Active,
    buffer: Vec<u8>,
    last: Seq,
    newest: Timestamp,
    flushed: Seq,
}

impl Log {
    /// A log that goes on after `last` in a new segment.
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        store: u64,
        segment_size: u64,
        found: recovery::Found,
    ) -> Result<Self, StoreError> {
        let (last, newest) = (found.last, found.newest);
        let active = begin(&*disk, &dir, store, segment_size, Seq(last.0 + 1))?;
        Ok(Self {
            disk,
            dir,
            store,
            segment_size,
            sealed: found.sealed.into(),
            unsynced: Vec::new(),
            names_unsynced: true,
            active,
            buffer: Vec::with_capacity(BUFFER_MAX / 4),
            last,
            newest,
            flushed: last,
        })
    }

    /// The last record pushed.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// The time of the last record pushed.
    pub(super) fn newest(&self) -> Timestamp {
        self.newest
    }

    /// The folder of the segments.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes sure that a record of this length can be pushed; starts a new segment if need be.
    pub(super) fn make_room(&mut self, payload: usize) -> Result<(), StoreError> {
        if payload > frame::MAX_RECORD {
            return Err(StoreError::TooLarge(payload));
        }
        if self.buffer.len() >= BUFFER_MAX {
            self.flush()?;
        }
        let needed = (self.buffer.len() + frame::HEADER_LEN + payload) as u64;
        let is_empty = self.active.first.0 == self.last.0 + 1;
        if self.active.end + needed > self.segment_size && !is_empty {
            self.rotate()?;
        }
        Ok(())
    }

    /// Takes the next record. [`make_room`](Self::make_room) was called for it.
    pub(super) fn push(&mut self, seq: Seq, time: Timestamp, stable: Seq, payload: &[u8]) {
        frame::push(&mut self.buffer, self.active.salt, seq, stable, payload);
        self.last = seq;
        self.newest = time;
    }

    /// Hands all pushed records to the kernel. When it fails the same bytes are written to the same place next time.
    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.active.file.write_at(&self.buffer, self.active.end);
        written.map_err(|error| StoreError::file(&self.active.path, error))?;
        self.active.end += self.buffer.len() as u64;
        self.buffer.clear();
        self.flushed = self.last;
        Ok(())
    }

    /// The last record that was handed to the kernel.
    pub(super) fn flushed(&self) -> Seq {
        self.flushed
    }

    /// Bytes written to the active segment and waiting.
    pub(super) fn active_bytes(&self) -> u64 {
        self.active.end + self.buffer.len() as u64
    }

    /// The files to be synced before everything flushed is durable, and whether the folder is to be synced too.
    pub(super) fn unsynced(&self) -> (Vec<Unsynced>, bool) {
        let active = Unsynced {
            file: Arc::clone(&self.active.file),
            path: self.active.path.clone(),
            last: self.flushed,
        };
        (self.unsynced.iter().cloned().chain([active]).collect(), self.names_unsynced)
    }

    /// The files that [`unsynced`](Self::unsynced) named have been synced.
    pub(super) fn synced(&mut self, files: &[Unsynced], names: bool) {
        self.unsynced
            .retain(|file| !files.iter().any(|done| done.path == file.path && done.last == file.last));
        // a segment that was started meanwhile has a name that was not synced
        if names && files.iter().any(|done| done.path == self.active.path) {
            self.names_unsynced = false;
        }
    }

    /// Removes the segments of which nobody needs a record: all lie at or below `through` and are older than `before`.
    pub(super) fn drop_segments(
        &mut self,
        through: Seq,
        is_old: impl Fn(Timestamp) -> bool,
    ) -> Result<(), StoreError> {
        while let Some(oldest) =
            self.sealed.front().filter(|oldest| oldest.last <= through && is_old(oldest.newest))
        {
            let removed = self.disk.unlink(&oldest.path);
            removed.map_err(|error| StoreError::file(&oldest.path, error))?;
            self.sealed.pop_front();
        }
        Ok(())
    }

    /// How many segments there are.
    pub(super) fn segments(&self) -> usize {
        self.sealed.len() + 1
    }

    /// Gives back the space that the active segment did not use.
    pub(super) fn trim(&self) -> Result<(), StoreError> {
        let trimmed = self.active.file.truncate(self.active.end);
        trimmed.map_err(|error| StoreError::file(&self.active.path, error))
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        let next = begin(&*self.disk, &self.dir, self.store, self.segment_size, Seq(self.last.0 + 1))?;
        self.names_unsynced = true;
        self.trim()?;
        let full = std::mem::replace(&mut self.active, next);
        self.unsynced.push(Unsynced { file: full.file, path: full.path.clone(), last: self.last });
        self.sealed.push_back(Sealed { path: full.path, last: self.last, newest: self.newest });
        Ok(())
    }
}

/// Makes a segment and reserves its space.
fn begin(disk: &dyn Disk, dir: &Path, store: u64, size: u64, first: Seq) -> Result<Active, StoreError> {
    let path = segment::path(dir, first);
    let salt = super::random_u64(&path)? as u32;
    let make = || {
        let file = disk.create(&path)?;
        // a segment that could not be finished before may lie there, without a record
        file.truncate(0)?;
        file.allocate(0, size, true)?;
        file.write_at(&SegmentHeader::new(salt, store, first).encode(), 0)?;
        Ok(file)
    };
    let file = make().map_err(|error| {
        // what was reserved in vain goes back; a failure to do so leaves an empty segment, which is no harm
        let _ = disk.unlink(&path);
        StoreError::file(&path, error)
    })?;
    Ok(Active { path, file: SyncedFile::new(file), salt, first, end: segment::HEADER_LEN as u64 })
}
