//! Taking a record: check, make room, apply, put into the log.

use std::collections::HashMap;

use magma_common::handle::Handle;
use magma_common::key::{Ino, Key};
use magma_common::topology::Seq;

use super::Store;
use super::body::Bodies;
use super::db::Db;
use super::error::{StoreError, is_full};
use crate::record::{BodyChange, Change, Record};
use crate::rows::{BodyId, INLINE_MAX};
use crate::view::ReadError;

impl Store {
    /// Writes bytes at or above everything ever written to a body. The record with the [`BodyChange::Append`] that says so
    /// must come next; if another one comes, or none, the bytes are as never written.
    pub fn write_append(&mut self, body: BodyId, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        self.alive()?;
        if self.bodies.get_mut().is_crowded() {
            self.sync_now(super::SyncBodies::All)?;
        }
        let bodies = self.bodies.get_mut();
        let written = bodies.write_append(&self.db, body, offset, data);
        if written.is_err() {
            bodies.abandon_writes();
        }
        self.stop_on_error(written)
    }

    /// Takes the next record: it is visible when this returns, and safe after [`flush`](Self::flush).
    ///
    /// [`Rejected`](StoreError::Rejected), [`TooLarge`](StoreError::TooLarge) and [`NoSpace`](StoreError::NoSpace) leave everything as it was.
    pub fn append(&mut self, record: &Record) -> Result<(), StoreError> {
        self.alive()?;
        let taken = self.try_append(record);
        // what was written for a record that was not taken, or that the record does not mention
        self.bodies.get_mut().abandon_writes();
        self.stop_on_error(taken)
    }

    fn try_append(&mut self, record: &Record) -> Result<(), StoreError> {
        let reject = |reason: String| Err(StoreError::Rejected { seq: record.seq, reason });
        if record.seq != Seq(self.last().0 + 1) {
            return reject(format!("the next record is {}", self.last().0 + 1));
        }
        if let Err(reason) = check(record, &self.db, self.bodies.get_mut(), true)? {
            return reject(reason);
        }
        self.make_room_for_overwrites()?;
        self.scratch.clear();
        postcard::to_io(record, &mut self.scratch)
            .map_err(|error| StoreError::Rejected { seq: record.seq, reason: error.to_string() })?;
        self.log.make_room(self.scratch.len())?;
        reserve_space(record, &self.db, self.bodies.get_mut())?;
        apply(record, &mut self.db, self.bodies.get_mut(), true)?;
        self.log.push(record.seq, record.time, self.stable, &self.scratch);
        self.upkeep.appended(self.scratch.len());
        Ok(())
    }

    /// Overwrites wait in memory for their records to be on disk; when there are too many, that is waited for here.
    fn make_room_for_overwrites(&mut self) -> Result<(), StoreError> {
        let bodies = self.bodies.get_mut();
        let limit = &self.upkeep.options;
        if bodies.pending_bytes() > limit.overlay_bytes || bodies.pending_changes() > limit.overlay_changes {
            self.sync_now(super::SyncBodies::None)?;
        }
        Ok(())
    }
}

/// Whether a record fits the state, so that applying it cannot fail half-way but for a failing disk.
pub(super) fn check(
    record: &Record,
    db: &Db,
    bodies: &mut Bodies,
    strict: bool,
) -> Result<Result<(), String>, ReadError> {
    let state = &db.state;
    if state.slice.is_some_and(|slice| slice != record.slice) {
        return Ok(Err("it belongs to another slice".to_owned()));
    }
    if record.epoch < state.epoch {
        return Ok(Err(format!("its epoch lies before {}", state.epoch.0)));
    }
    let mut flares = HashMap::new();
    let mut highs = HashMap::new();
    for change in &record.changes {
        let checked = match change {
            Change::Body { body, change, .. } => {
                let high = match highs.get(body) {
                    Some(&high) => high,
                    None => bodies.high(db, *body)?,
                };
                bodies.check(db, *body, change, high, strict)?.map(|high| {
                    highs.insert(*body, high);
                })
            }
            change => check_flare(change, db, &mut flares)?,
        };
        if checked.is_err() {
            return Ok(checked);
        }
    }
    Ok(Ok(()))
}

/// Checks a change of rows; `flares` holds what earlier changes of the record did to the flares they name.
fn check_flare(
    change: &Change,
    db: &Db,
    flares: &mut HashMap<Ino, Option<Key>>,
) -> Result<Result<(), String>, ReadError> {
    let bearer = |ino: Ino| -> Result<Option<Key>, ReadError> {
        match flares.get(&ino) {
            Some(bearer) => Ok(*bearer),
            None => Ok(db.flare_by_ino(ino)?.map(|flare| flare.row.handle.key)),
        }
    };
    let key = match change {
        Change::PutFlare(row) => {
            let (ino, key) = (row.handle.ino(), row.handle.key);
            if bearer(ino)?.is_some_and(|bearer| bearer != key) {
                return Ok(Err(format!("the inode number of {key} is taken")));
            }
            flares.insert(ino, Some(key));
            return Ok(Ok(()));
        }
        Change::DeleteFlare(key) => {
            flares.insert(key.ino(), None);
            return Ok(Ok(()));
        }
        Change::PutInline { data, .. } if data.len() as u64 > INLINE_MAX => {
            return Ok(Err(format!("{} bytes are too many for a row", data.len())));
        }
        Change::PutInline { flare, .. }
        | Change::PutReference { flare, .. }
        | Change::PutXattr { flare, .. }
        | Change::PutLocks { flare, .. } => flare,
        Change::PutEntry { dir, entry } if i64::try_from(entry.cookie).is_err() => {
            return Ok(Err(format!("a cookie in {dir} is too large")));
        }
        Change::PutEntry { dir, .. } => dir,
        Change::DeleteEntry { .. }
        | Change::DeleteReference { .. }
        | Change::DeleteXattr { .. }
        | Change::PutSession(_)
        | Change::EndSession(_)
        | Change::Body { .. } => return Ok(Ok(())),
    };
    Ok(if bearer(key.ino())? == Some(*key) { Ok(()) } else { Err(format!("there is no flare {key}")) })
}

/// Reserves the space that the record says is reserved; a full disk is noticed here, before the record is taken.
fn reserve_space(record: &Record, db: &Db, bodies: &mut Bodies) -> Result<(), StoreError> {
    for change in &record.changes {
        if let Change::Body { body, change: BodyChange::Reserve { offset, length }, .. } = change {
            bodies.reserve(db, *body, *offset, *length)?;
        }
    }
    Ok(())
}

/// Applies a record, which was checked. `rows`: the database does not have it yet; else only its bodies may lack it.
pub(super) fn apply(record: &Record, db: &mut Db, bodies: &mut Bodies, rows: bool) -> Result<(), ReadError> {
    for change in &record.changes {
        match change {
            Change::Body { body, flare, change } => {
                bodies.apply(db, (*body, *flare), change, record.seq, rows)?;
            }
            change if rows => apply_row(change, db, record.seq)?,
            _ => {}
        }
    }
    if rows {
        let state = &mut db.state;
        state.slice = Some(record.slice);
        state.applied = record.seq;
        state.epoch = record.epoch;
        state.time = record.time;
    }
    Ok(())
}

fn apply_row(change: &Change, db: &mut Db, seq: Seq) -> Result<(), ReadError> {
    match change {
        Change::PutFlare(row) => db.put_flare(row, seq),
        Change::DeleteFlare(key) => db.delete_flare(key),
        Change::PutInline { flare, data } => {
            let flare = existing(db, flare)?;
            db.put_inline(flare, data, seq)
        }
        Change::PutEntry { dir, entry } => {
            let dir = existing(db, dir)?;
            db.put_entry(dir, entry, seq)
        }
        Change::DeleteEntry { dir, name } => db.delete_entry(dir, name, seq),
        Change::PutReference { flare, reference } => {
            let flare = existing(db, flare)?;
            db.put_reference(flare, reference, seq)
        }
        Change::DeleteReference { flare, parent, name, made_by } => {
            db.delete_reference(flare, parent, name, *made_by)
        }
        Change::PutXattr { flare, name, value } => {
            let flare = existing(db, flare)?;
            db.put_xattr(flare, name, value, seq)
        }
        Change::DeleteXattr { flare, name } => db.delete_xattr(flare, name),
        Change::PutLocks { flare, locks } => {
            let flare = existing(db, flare)?;
            db.put_locks(flare, locks, seq)
        }
        Change::PutSession(session) => db.put_session(session, seq),
        Change::EndSession(session) => db.end_session(*session),
        Change::Body { .. } => Ok(()),
    }
}

/// The local id of a flare that the check has seen.
fn existing(db: &Db, key: &Key) -> Result<i64, ReadError> {
    db.local(key)?.ok_or_else(|| ReadError::Damaged { what: format!("the row of flare {key}") })
}

/// Reserves what a replayed record reserved; what does not fit any more is no loss.
pub(super) fn reserve_again(
    db: &Db,
    bodies: &mut Bodies,
    (body, _): (BodyId, Handle),
    (offset, length): (u64, u64),
) -> Result<(), StoreError> {
    match bodies.reserve(db, body, offset, length) {
        Err(StoreError::NoSpace(_)) => Ok(()),
        Err(StoreError::File { source, .. }) if is_full(&source) => Ok(()),
        result => result,
    }
}
