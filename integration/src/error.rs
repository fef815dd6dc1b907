//! What can go wrong around the tests themselves.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a step could not be done. A check that found a defect is not an error but a failed check in a
/// [`crate::tally::Tally`]; this is for what keeps a suite from going on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call or file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, to which object.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A signal asked for the end.
    #[error("interrupted by a signal")]
    Interrupted,
    /// Something did not happen in time.
    #[error("{what}: not within {} s", .limit.as_secs())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// A program ended although it should have gone on, or with a status other than 0.
    #[error("{name} ended with {status}; its output is in {}", .log.display())]
    Ended {
        /// Which program.
        name: String,
        /// Its status.
        status: ExitStatus,
        /// Where its output is.
        log: PathBuf,
    },
    /// Something is not as it must be.
    #[error("{0}")]
    Wrong(String),
}

/// A result of the harness.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Says what was tried when an I/O operation fails.
pub(crate) trait Doing<T> {
    /// Adds the sentence; it is only made when needed.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Io { what: what(), source: errno.into() })
    }
}

/// An error that is a sentence.
pub(crate) fn wrong<T>(sentence: impl Into<String>) -> Result<T> {
    Err(Error::Wrong(sentence.into()))
}
