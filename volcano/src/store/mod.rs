//! The store: what a volcano keeps on its disk. `docs/FORMAT.md` describes the files.
//!
//! * [`log`](self): [entries](crate::record::Entry) in order, each at its [`Lsn`]. It is the truth.
//! * `db`: the rows that the entries put and delete, a checkpoint of the log in `SQLite`.
//! * `body`: the bytes of files that are too large for their rows.
//!
//! A [`Store`] belongs to one thread. In the order in which they are used:
//!
//! * [`open`](Store::open) locks the folder, reads the log back and applies what the database had not got.
//! * Changes: [`write_append`](Store::write_append) for bytes at a body's end, then [`append`](Store::append) for the record,
//!   then [`flush`](Store::flush). After the flush the record survives the death of the process; only then may anybody hear of it.
//! * Copies: another copy's records are read with [`read_log`](Store::read_log) there and taken with [`receive`](Store::receive)
//!   here. A copy that has gone another way is set back with [`rewind`](Store::rewind), or begins anew with
//!   [`place`](Store::place); what it lacks since comes with [`import`](Store::import).
//! * Division: a record can [divide](crate::record::Change::Divide) a slice's copy in two, without moving a row.
//! * Reads: the store is a [`View`](crate::view::View); [`plan_body_read`](Store::plan_body_read) gives a read to another thread.
//! * Durability: [`begin_sync`](Store::begin_sync) makes a [`SyncJob`] that runs on any thread, [`finish_sync`](Store::finish_sync)
//!   takes its result and raises [`stable`](Store::stable): entries up to there survive a power cut.
//! * Upkeep: [`maintain`](Store::maintain), a few times a second.
//! * [`close`](Store::close). A store that is dropped instead is as after a crash.
//!
//! It does not know what a record means, it does not check permissions, and it does not decide what may be answered when.

mod append;
mod body;
mod catch_up;
mod copy;
mod copying;
mod db;
mod disk;
mod dividing;
mod doubts;
mod error;
mod lock;
mod log;
mod maintain;
mod median;
mod meta;
mod open;
mod reading;
#[cfg(any(test, feature = "simulation"))]
#[allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::indexing_slicing,
    reason = "what goes wrong in a simulation has to end it"
)]
pub mod simulated;
mod slices;
mod strays;
mod sweep;
mod sync;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use magma_common::key::KeyRange;
use magma_common::time::Timestamp;
use magma_common::topology::{Position, Seq, SliceId};
use serde_bytes::ByteBuf;

pub use body::BodyRead;
pub use copy::{Filtered, Imported, Inside, Partial, filter};
pub use copying::Rewound;
pub use disk::{Disk, DiskFile, RealDisk};
pub use doubts::Doubts;
pub(crate) use error::is_full;
pub use error::{OpenError, StoreError};
pub use log::Lsn;
pub use maintain::Maintenance;
pub use meta::FORMAT_VERSION;
pub use open::{OpenOptions, Opened, RetainedOutcome};
pub use sync::{SyncBodies, SyncDone, SyncJob};

use crate::missing::Missing;
use body::Bodies;
use db::Db;
use log::Log;
use log::index::Index;
use meta::MetaFile;

/// Names of the files and folders that a store consists of. Whether others may lie beside them is for the owner of the folder to say.
pub const FILES: &[&str] = &[
    "lock",
    "log",
    "data",
    "meta",
    "meta.new",
    "magma.db",
    "magma.db-wal",
    "magma.db-shm",
    "consensus.a",
    "consensus.b",
];

/// The store of one volcano.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    log: Log,
    index: Index,
    db: Db,
    bodies: RefCell<Bodies>,
    meta: MetaFile,
    /// All entries up to here are on disk.
    stable: Lsn,
    /// Why the store stopped, if it did.
    stopped: Option<String>,
    upkeep: maintain::Upkeep,
    /// An encoded entry; kept for its memory.
    scratch: Vec<u8>,
    /// Keeps other processes out until the store is dropped.
    _lock: lock::FolderLock,
}

impl Store {
    /// The last entry of the log.
    pub fn last(&self) -> Lsn {
        self.log.last()
    }

    /// The last entry that is on disk, with all before it.
    pub fn stable(&self) -> Lsn {
        self.stable
    }

    /// The last entry that survives the death of the process.
    pub fn flushed(&self) -> Lsn {
        self.log.flushed()
    }

    /// The slices of which there is a copy here.
    pub fn slices(&self) -> Vec<SliceId> {
        self.db.slices.keys().copied().collect()
    }

    /// The keys that a slice is about: those that the copy was placed with, or all. None if there is no such copy.
    pub fn range(&self, slice: SliceId) -> Option<KeyRange> {
        self.db.slices.get(&slice).map(|state| state.range)
    }

    /// The last record of a copy; none if there is no such copy.
    pub fn position(&self, slice: SliceId) -> Option<Position> {
        self.db.slices.get(&slice).map(|state| state.position)
    }

    /// The first record of each epoch, ascending; those of old epochs may be left out.
    pub fn history(&self, slice: SliceId) -> Vec<Position> {
        self.db.slices.get(&slice).map_or(Vec::new(), |state| state.history.clone())
    }

    /// The position of the record with this number: which epoch it had. None if it is not there yet, or older than the history tells.
    pub fn position_at(&self, slice: SliceId, seq: Seq) -> Option<Position> {
        self.db.slices.get(&slice)?.position_at(seq)
    }

    /// What a copy lacks.
    pub fn missing(&self, slice: SliceId) -> &Missing {
        static NOTHING: Missing = Missing::NOTHING;
        self.db.slices.get(&slice).map_or(&NOTHING, |state| &state.missing)
    }

    /// The latest time of any record that a copy has had.
    pub fn time(&self, slice: SliceId) -> Timestamp {
        self.db.slices.get(&slice).map_or(Timestamp::default(), |state| state.time)
    }

    /// The folder that the store lies in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Blocks that failed their checksum since the store was opened.
    pub fn checksum_failures(&self) -> u64 {
        self.bodies.borrow().mismatches()
    }

    /// Segments that the log consists of.
    pub fn log_segments(&self) -> usize {
        self.log.segments()
    }

    /// Bytes of the log segment that is written to.
    pub fn log_bytes(&self) -> u64 {
        self.log.active_bytes()
    }

    /// A small value of the volcano's own.
    pub fn meta(&self, key: &str) -> Option<Bytes> {
        self.meta.content().values.get(key).map(|value| Bytes::copy_from_slice(value))
    }

    /// Sets a small value of the volcano's own; it is on disk when this returns.
    pub fn set_meta(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.alive()?;
        let set = self.meta.update(|meta| drop(meta.values.insert(key.to_owned(), ByteBuf::from(value))));
        self.stop_on_error(set)
    }

    /// Hands all entries taken to the kernel with one write. No reply to any of them may leave before.
    ///
    /// [`StoreError::NoSpace`] stops nothing: the same entries are tried again by the next call.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.alive()?;
        let flushed = self.log.flush();
        self.stop_on_error(flushed)
    }

    /// Plans a read of a body that can run on another thread; see [`BodyRead::run`].
    pub fn plan_body_read(
        &self,
        body: crate::rows::BodyId,
        offset: u64,
        length: usize,
    ) -> Result<BodyRead, crate::view::ReadError> {
        self.readable()?;
        self.bodies.borrow_mut().plan(&self.db, body, offset, length)
    }

    /// Refuses everything after the store stopped.
    fn alive(&self) -> Result<(), StoreError> {
        self.stopped.clone().map_or(Ok(()), |why| Err(StoreError::Stopped(why)))
    }

    /// The same for reads.
    fn readable(&self) -> Result<(), crate::view::ReadError> {
        match &self.stopped {
            None => Ok(()),
            Some(why) => Err(std::io::Error::other(format!("the store has stopped: {why}")).into()),
        }
    }

    /// Stops the store for good after an error that leaves the disk's state unknown.
    fn stop_on_error<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && !error.is_harmless()
        {
            tracing::error!(target: "volcano", %error, "the store stops");
            if self.stopped.is_none() {
                self.stopped = Some(error.to_string());
                self.distrust_the_kernel();
            }
        }
        result
    }
}

impl Store {
    /// A kernel that could not write pages back drops them, says so once, and calls the next sync a success. So the next start must
    /// not take what this process wrote for there because the machine has run on: it looks as after a power cut.
    fn distrust_the_kernel(&mut self) {
        let marked = self.meta.update(|meta| meta.running = Some("after a failure of the disk".to_owned()));
        if let Err(error) = marked {
            tracing::error!(target: "volcano", %error, "the failure cannot be noted for the next start");
        }
    }
}

/// A random number from the operating system.
fn random_u64(path: &Path) -> Result<u64, StoreError> {
    let failed = |error: getrandom::Error| StoreError::file(path, std::io::Error::other(error.to_string()));
    getrandom::u64().map_err(failed)
}
