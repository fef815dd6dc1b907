//! The log of a volcano: entries, in order, in append-only segments.
//!
//! Entries are collected in a buffer ([`Log::push`]), handed to the kernel with one write ([`Log::flush`]) and made durable
//! by syncing the files that [`Log::unsynced`] names. A segment's space is reserved when it is started, so that a full file
//! system is noticed before an entry is taken and not after.

mod entry;
pub(crate) mod frame;
pub(crate) mod index;
mod reader;
pub(crate) mod recovery;
pub(crate) mod segment;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use magma_common::time::Timestamp;

pub(super) use entry::EntryRef;
pub(super) use reader::{ReadEntry, Reader};

use super::disk::{Disk, SyncedFile};
use super::error::StoreError;
use reader::Source;
use segment::{Sealed, SegmentHeader};

/// Once this much is buffered it is written even if nobody asked, in bytes.
const BUFFER_MAX: usize = 4 << 20;

/// The place of an entry in this volcano's log, counted from 1. It means nothing to other volcanos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The place behind.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place before.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lsn: Lsn,
    /// The first entry of its segment.
    segment: Lsn,
    /// Where its frame begins there.
    offset: u64,
}

impl Place {
    /// Where the entry lies that its segment begins with.
    fn start_of_segment(lsn: Lsn) -> Self {
        Self { lsn, segment: lsn, offset: segment::HEADER_LEN as u64 }
    }
}

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    path: PathBuf,
    file: Arc<SyncedFile>,
    salt: u32,
    first: Lsn,
    /// Where the buffer will be written.
    end: u64,
}

/// A file of the log that holds entries which may not be durable.
#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    pub(super) file: Arc<SyncedFile>,
    pub(super) path: PathBuf,
    /// The last entry it holds; for the active segment, so far.
    last: Lsn,
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
    last: Lsn,
    newest: Timestamp,
    flushed: Lsn,
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
        let active = begin(&*disk, &dir, store, segment_size, last.next())?;
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

    /// The last entry pushed.
    pub(super) fn last(&self) -> Lsn {
        self.last
    }

    /// The latest time of any record pushed.
    pub(super) fn newest(&self) -> Timestamp {
        self.newest
    }

    /// The folder of the segments.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes sure that an entry of this length can be pushed; starts a new segment if need be.
    pub(super) fn make_room(&mut self, payload: usize) -> Result<(), StoreError> {
        if payload > frame::MAX_ENTRY {
            return Err(StoreError::TooLarge(payload));
        }
        if self.buffer.len() >= BUFFER_MAX {
            self.flush()?;
        }
        let needed = (self.buffer.len() + frame::HEADER_LEN + payload) as u64;
        let is_empty = self.active.first == self.last.next();
        if self.active.end + needed > self.segment_size && !is_empty {
            self.rotate()?;
        }
        Ok(())
    }

    /// Where the next entry will lie, once [`make_room`](Self::make_room) was called for it.
    pub(super) fn next_place(&self) -> Place {
        let offset = self.active.end + self.buffer.len() as u64;
        Place { lsn: self.last.next(), segment: self.active.first, offset }
    }

    /// Takes the next entry. [`make_room`](Self::make_room) was called for it.
    pub(super) fn push(&mut self, time: Option<Timestamp>, stable: Lsn, payload: &[u8]) {
        self.last = self.last.next();
        frame::push(&mut self.buffer, self.active.salt, self.last, stable, payload);
        self.newest = self.newest.max(time.unwrap_or_default());
    }

    /// Hands all pushed entries to the kernel. When it fails the same bytes are written to the same place next time.
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

    /// The last entry that was handed to the kernel.
    pub(super) fn flushed(&self) -> Lsn {
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

    /// Removes the segments of which nobody needs an entry: all lie at or below `through` and are older than `before`.
    pub(super) fn drop_segments(
        &mut self,
        through: Lsn,
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

    /// The first entry that is still there.
    pub(super) fn first(&self) -> Lsn {
        self.sealed.front().map_or(self.active.first, |oldest| oldest.first)
    }

    /// Reads entries from a place on; `ahead` bytes at once, unless one has more.
    pub(super) fn read_from(&self, place: Place, ahead: usize) -> Reader<'_> {
        Reader::new(self, place, ahead)
    }

    /// The segment that begins with this entry; `None` if there is none.
    fn source(&self, first: Lsn) -> Result<Option<Source>, StoreError> {
        if first == self.active.first {
            let Active { file, salt, end, .. } = &self.active;
            return Ok(Some(Source { file: file.raw(), salt: *salt, end: *end, last: self.last }));
        }
        let Ok(found) = self.sealed.binary_search_by_key(&first, |sealed| sealed.first) else {
            return Ok(None);
        };
        let Some(Sealed { path, salt, end, last, .. }) = self.sealed.get(found) else { return Ok(None) };
        let file = self.disk.open(path).map_err(|error| StoreError::file(path, error))?;
        Ok(Some(Source { file, salt: *salt, end: *end, last: *last }))
    }

    /// Bytes of the active segment that wait to be handed to the kernel.
    fn buffered(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.active.end)?).ok()?;
        self.buffer.get(start..start.checked_add(length)?)
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
        let next = begin(&*self.disk, &self.dir, self.store, self.segment_size, self.last.next())?;
        self.names_unsynced = true;
        self.trim()?;
        let full = std::mem::replace(&mut self.active, next);
        self.unsynced.push(Unsynced { file: full.file, path: full.path.clone(), last: self.last });
        self.sealed.push_back(Sealed {
            path: full.path,
            first: full.first,
            last: self.last,
            newest: self.newest,
            salt: full.salt,
            end: full.end,
        });
        Ok(())
    }
}

/// Makes a segment and reserves its space.
fn begin(disk: &dyn Disk, dir: &Path, store: u64, size: u64, first: Lsn) -> Result<Active, StoreError> {
    let path = segment::path(dir, first);
    let salt = super::random_u64(&path)? as u32;
    let make = || {
        let file = disk.create(&path)?;
        // a segment that could not be finished before may lie there, without an entry
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
