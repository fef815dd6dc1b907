//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use super::log::Lsn;
use super::meta::FORMAT_VERSION;
use crate::view::ReadError;

/// Why a change was not taken.
///
/// After [`Rejected`](Self::Rejected), [`TooLarge`](Self::TooLarge) and [`NoSpace`](Self::NoSpace) the store is as it was
/// before the call. Every other error stops the store: whatever it is asked afterwards is answered
/// [`Stopped`](Self::Stopped), because what reached the disk is not known any more.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store stopped earlier.
    #[error("the store has stopped: {0}; look at the disk, then start the volcano again")]
    Stopped(String),
    /// The change contradicts the state; nothing was changed.
    #[error("entry {} of the log was not taken: {reason}", .lsn.0)]
    Rejected {
        /// The place in the log that it would have had.
        lsn: Lsn,
        /// What contradicts.
        reason: String,
    },
    /// The encoded entry is larger than one may be; nothing was changed.
    #[error("an entry of {0} bytes is too large for the log")]
    TooLarge(usize),
    /// The file system is full; nothing was changed.
    #[error("no space left in {}", .0.display())]
    NoSpace(PathBuf),
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// A file failed.
    #[error("{} failed: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
}

impl StoreError {
    /// An I/O error on a file; a full file system is told apart.
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::NoSpace(path.to_path_buf());
        }
        Self::File { path: path.to_path_buf(), source }
    }

    /// Whether the state is the same as before the call.
    pub(super) fn is_harmless(&self) -> bool {
        matches!(self, Self::Rejected { .. } | Self::TooLarge(_) | Self::NoSpace(_) | Self::Stopped(_))
    }
}

/// Whether the error says that the file system or the quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a store was not opened. Nothing was changed in its folder unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder holds no store, and none was to be made.
    #[error("{} holds no store; make one with -b, or give the right folder with -d", .0.display())]
    Absent(PathBuf),
    /// A store was to be made where one is.
    #[error("{} holds a store already; start without -b to use it", .0.display())]
    Exists(PathBuf),
    /// Another process has it open.
    #[error("{} is in use by another magmad", .0.display())]
    InUse(PathBuf),
    /// A newer version wrote it.
    #[error("{} was written in format {found}, but this magmad knows formats up to {known}; use a newer magmad", .path.display())]
    Newer {
        /// The folder or file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// A version from before the first release wrote it.
    #[error("{} was written by a pre-release in format {found}, which this magmad does not read; make a new store in another folder", .path.display())]
    PreRelease {
        /// The folder or file.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
    /// Something that was on disk for certain is damaged.
    #[error("{} is damaged: {what}; restore it from a copy, or take this volcano out of the network", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file failed.
    #[error("{} failed: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// The database failed.
    #[error("magma.db failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// Replaying the log failed.
    #[error("replaying the log failed: {0}")]
    Replay(#[from] StoreError),
}

impl OpenError {
    /// An I/O error on a file.
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_path_buf(), source }
    }

    /// A file in another format than this version's.
    pub(super) fn other_format(path: &Path, found: u32) -> Self {
        let path = path.to_path_buf();
        if found < FORMAT_VERSION {
            return Self::PreRelease { path, found };
        }
        Self::Newer { path, found, known: FORMAT_VERSION }
    }

    /// Damage in a file.
    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), what: what.into() }
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        Self::Replay(StoreError::Read(error))
    }
}
