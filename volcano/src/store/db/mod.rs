//! The database: rows, as a checkpoint of the log.
//!
//! One transaction is always open. Entries are applied in it and read through it; it is committed every so often, together
//! with the position in the log that it has reached ([`Db::commit`]). What a crash takes from it, the log gives back.

mod attached;
mod bodies;
mod census;
mod columns;
mod flares;
mod names;
mod ranges;
mod schema;
mod slices;
mod whole;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use magma_common::key::{Ino, Key};
use magma_common::topology::SliceId;
use quick_cache::unsync::Cache;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};

pub(super) use bodies::{BlockSum, BodyRow};
pub(super) use flares::Flare;
pub(super) use whole::TransactionId;

use super::error::OpenError;
use super::log::Lsn;
use super::meta::FORMAT_VERSION;
use super::slices::SliceState;
use crate::view::ReadError;
use columns::{signed, unsigned};

/// Flares whose rows are kept in memory.
const CACHED_FLARES: usize = 32 << 10;
/// Prepared statements that are kept.
const CACHED_STATEMENTS: usize = 128;

/// How far the database has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// The last entry of the log whose rows are in it.
    pub(super) applied: Lsn,
    /// All changes of bodies up to this entry are in their files, and those synced.
    pub(super) bodies: Lsn,
    /// Number of flares.
    pub(super) flares: u64,
    /// Sizes of all regular files, added up, in bytes.
    pub(super) bytes: u64,
}

/// The database of one store.
#[derive(Debug)]
pub(super) struct Db {
    conn: Connection,
    path: PathBuf,
    /// As of the open transaction; the caller keeps it up to date.
    pub(super) state: State,
    /// The copies of slices that are kept here. The same holds for them.
    pub(super) slices: BTreeMap<SliceId, SliceState>,
    census: census::Census,
    flare_cache: RefCell<Cache<Ino, Arc<Flare>>>,
}

impl Db {
    /// Opens the database of a folder, or makes it.
    pub(super) fn open(dir: &Path, create: bool) -> Result<Self, OpenError> {
        let path = dir.join("magma.db");
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
        let conn = Connection::open_with_flags(&path, flags)?;
        // closing must not write: a checkpoint is made where its place is in the order of syncs
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // otherwise a statement with a bound LIMIT is compiled anew each time, in case another plan suits the number better
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        conn.execute_batch(schema::SETTINGS)?;
        let version = |pragma| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let (id, found) = (version("application_id")?, version("user_version")?);
        if create && id == 0 && found == 0 {
            conn.execute_batch("BEGIN IMMEDIATE")?;
            conn.execute_batch(schema::TABLES)?;
            conn.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
            conn.pragma_update(None, "user_version", FORMAT_VERSION)?;
            conn.execute_batch("COMMIT")?;
            // a power cut must not leave a store whose database has no tables
            checkpoint(&conn)?;
        } else if id != schema::APPLICATION_ID {
            return Err(OpenError::damaged(&path, "it is not a volcano's database"));
        } else if found != i64::from(FORMAT_VERSION) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(OpenError::other_format(&path, found));
        }
        let (state, slices) = (read_state(&conn)?, slices::read(&conn)?);
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let flare_cache = RefCell::new(Cache::new(CACHED_FLARES));
        Ok(Self { conn, path, state, slices, census: census::Census::default(), flare_cache })
    }

    /// Where the file lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Commits what was applied, with the state, and opens the next transaction. The log must be on disk up to `state.applied`.
    pub(super) fn commit(&mut self) -> Result<(), rusqlite::Error> {
        self.write_state()?;
        self.conn.execute_batch("COMMIT; BEGIN IMMEDIATE")
    }

    /// The same, and copies what is left in the write-ahead log into the database in between, so that `SQLite` starts it over.
    pub(super) fn commit_and_checkpoint(&mut self) -> Result<bool, rusqlite::Error> {
        self.write_state()?;
        self.conn.execute_batch("COMMIT")?;
        let complete = checkpoint(&self.conn)?;
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        Ok(complete)
    }

    fn write_state(&mut self) -> Result<(), rusqlite::Error> {
        let state = &self.state;
        let mut statement = self
            .conn
            .prepare_cached("UPDATE state SET applied = ?1, bodies = ?2, flares = ?3, bytes = ?4")?;
        statement.execute(params![
            signed(state.applied.0),
            signed(state.bodies.0),
            signed(state.flares),
            signed(state.bytes),
        ])?;
        drop(statement);
        self.write_slices()
    }

    /// Bytes of the write-ahead log's file.
    pub(super) fn wal_bytes(&self) -> u64 {
        let mut path = self.path.as_os_str().to_owned();
        path.push("-wal");
        std::fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    /// The local id of a flare.
    pub(super) fn local(&self, key: &Key) -> Result<Option<i64>, ReadError> {
        Ok(self.flare(key)?.map(|flare| flare.local))
    }
}

/// Copies the write-ahead log into the database, as another connection and so from another thread. Whether everything that
/// was committed before is in the database now, and on disk.
pub(super) fn checkpoint_from_outside(path: &Path) -> Result<bool, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")?;
    checkpoint(&conn)
}

fn checkpoint(conn: &Connection) -> Result<bool, rusqlite::Error> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, frames, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && frames == copied)
    })
}

fn read_state(conn: &Connection) -> Result<State, OpenError> {
    let mut statement = conn.prepare("SELECT applied, bodies, flares, bytes FROM state WHERE id = 1")?;
    let mut rows = statement.query([])?;
    let damaged = || ReadError::Damaged { what: "the state in magma.db".to_owned() };
    let row = rows.next()?.ok_or_else(damaged)?;
    Ok(State {
        applied: Lsn(unsigned(row, 0)?),
        bodies: Lsn(unsigned(row, 1)?),
        flares: unsigned(row, 2)?,
        bytes: unsigned(row, 3)?,
    })
}

/// A number of rows as `SQLite` takes it.
fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
