//! The rows of the copies that are kept here.

use std::collections::BTreeMap;

use magma_common::key::{Ino, KeyRange};
use magma_common::topology::{Epoch, Position, Seq, SliceId};
use rusqlite::{Connection, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::error::OpenError;
use super::super::slices::SliceState;
use super::Db;
use super::columns::{damaged, signed, time, unsigned};
use crate::view::ReadError;

impl Db {
    /// Writes the rows of all copies.
    pub(super) fn write_slices(&self) -> Result<(), rusqlite::Error> {
        // a slice that was divided off may have been taken back
        self.conn.prepare_cached("DELETE FROM slices")?.execute([])?;
        let mut statement = self.conn.prepare_cached(
            "INSERT INTO slices VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?;
        for (id, state) in &self.slices {
            statement.execute(params![
                id.0,
                signed(state.position.epoch.0),
                signed(state.position.seq.0),
                state.time.seconds(),
                state.time.nanos(),
                signed(state.floor.0),
                blob(&state.history)?,
                blob(&state.missing_on_disk())?,
                signed(state.range.start().0),
                signed(state.range.stop().0),
                state.parent.map(|(parent, _)| parent.0),
                state.parent.map(|(_, seq)| signed(seq.0)),
            ])?;
        }
        Ok(())
    }
}

/// Reads the rows of all copies.
pub(super) fn read(conn: &Connection) -> Result<BTreeMap<SliceId, SliceState>, OpenError> {
    let mut statement = conn
        .prepare("SELECT id, epoch, seq, time_s, time_n, floor, history, missing, first, last, parent, divided FROM slices")?;
    let mut rows = statement.query([])?;
    let mut slices = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let range = KeyRange::new(Ino(unsigned(row, 8)?), Ino(unsigned(row, 9)?));
        let parent = match row.get(10)? {
            Some(parent) => Some((SliceId(parent), Seq(unsigned(row, 11)?))),
            None => None,
        };
        let state = SliceState {
            range: range.ok_or_else(no_slice)?,
            position: Position { epoch: Epoch(unsigned(row, 1)?), seq: Seq(unsigned(row, 2)?) },
            time: time(row, 3)?,
            floor: Seq(unsigned(row, 5)?),
            history: value(row.get_ref(6)?.as_blob())?,
            missing: value(row.get_ref(7)?.as_blob())?,
            parent,
            ..SliceState::default()
        };
        slices.insert(SliceId(row.get(0)?), state);
    }
    Ok(slices)
}

fn blob(value: &impl Serialize) -> Result<Vec<u8>, rusqlite::Error> {
    postcard::to_stdvec(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn value<T: DeserializeOwned>(blob: Result<&[u8], rusqlite::types::FromSqlError>) -> Result<T, OpenError> {
    let value = blob.ok().and_then(|bytes| postcard::from_bytes(bytes).ok());
    value.ok_or_else(|| no_slice().into())
}

fn no_slice() -> ReadError {
    damaged("the row of a slice in magma.db")
}
