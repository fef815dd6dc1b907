//! The file operations that the log, the bodies and the meta file are built on.
//!
//! There are two implementations: [`RealDisk`], and for simulations one that keeps what was not synced
//! apart and can lose it. `SQLite` does its own file operations.

mod real;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub use real::RealDisk;

/// A file system. Operations are visible at once and durable after the sync that names them.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file, making it first if there is none.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory; `false` if it was there.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;
    /// The names in a directory, in no order. A directory that does not exist is empty.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Renames a file, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; one that is not there is no error.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on this file system durable.
    fn sync_all(&self, path: &Path) -> io::Result<()>;
    /// Bytes in all and bytes available.
    fn space(&self, path: &Path) -> io::Result<(u64, u64)>;
    /// `SQLite` has made this database durable as it is now, its write-ahead log included. Of interest to a disk that can lose it.
    fn database_synced(&self, _path: &Path) {}
}

/// An open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads up to the buffer's length; fewer bytes only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The same if it need not wait for the disk; `None` if it would.
    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.read_at(buffer, offset).map(Some)
    }
    /// Writes all the bytes.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable (`fdatasync(2)`).
    fn sync(&self) -> io::Result<()>;
    /// Sets the length.
    fn truncate(&self, length: u64) -> io::Result<()>;
    /// Reserves space; with `grow` the length becomes at least the range's end. A file system that cannot reserve does nothing.
    fn allocate(&self, offset: u64, length: u64, grow: bool) -> io::Result<()>;
    /// Makes a range read as zeros, its space free if the file system can do that. The length stays.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Bytes of storage in use.
    fn used(&self) -> io::Result<u64>;
    /// The first offset at or after `offset` that is not in a hole; `None` if only a hole follows.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
    /// The first offset at or after `offset` that is in a hole; the end of the file counts as one.
    fn next_hole(&self, offset: u64) -> io::Result<u64>;
}

/// A file whose first failed sync stays failed.
///
/// The kernel reports a write-back error once per open file. Were a second thread to sync the same file, it would be told
/// that all is well. Here it waits, and hears the same error.
#[derive(Debug)]
pub(super) struct SyncedFile {
    file: Arc<dyn DiskFile>,
    failed: Mutex<Option<(io::ErrorKind, String)>>,
}

impl SyncedFile {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Arc<Self> {
        Arc::new(Self { file, failed: Mutex::new(None) })
    }

    /// The file, for one who only reads.
    pub(super) fn raw(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.file)
    }

    /// Makes the file durable, or says why it never will be.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((kind, text)) = &*failed {
            return Err(io::Error::new(*kind, text.clone()));
        }
        self.file.sync().inspect_err(|error| *failed = Some((error.kind(), error.to_string())))
    }
}

impl std::ops::Deref for SyncedFile {
    type Target = dyn DiskFile;

    fn deref(&self) -> &Self::Target {
        &*self.file
    }
}

/// Fills the buffer from a file; what lies beyond its end is zeros.
pub(super) fn read_padded(file: &SyncedFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.read_at(buffer, offset)?;
    pad(buffer, read);
    Ok(())
}

/// The same if it need not wait for the disk; `false` if it would.
pub(super) fn read_cached_padded(file: &SyncedFile, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    let read = file.read_cached_at(buffer, offset)?;
    if let Some(read) = read {
        pad(buffer, read);
    }
    Ok(read.is_some())
}

fn pad(buffer: &mut [u8], read: usize) {
    if let Some(rest) = buffer.get_mut(read..) {
        rest.fill(0);
    }
}
