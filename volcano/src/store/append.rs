//! Taking an entry: check, make room, apply, put into the log.

use std::collections::BTreeMap;

use magma_common::handle::Handle;
use magma_common::key::{Ino, Key};
use magma_common::topology::SliceId;

use super::Store;
use super::body::{Bodies, By};
use super::db::Db;
use super::dividing;
use super::error::{StoreError, is_full};
use super::log::{EntryRef, Lsn};
use super::slices::{self, SliceState};
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

    /// Takes the next record of a slice: it is visible when this returns, and safe after [`flush`](Self::flush).
    ///
    /// [`Rejected`](StoreError::Rejected), [`TooLarge`](StoreError::TooLarge) and [`NoSpace`](StoreError::NoSpace) leave everything as it was.
    pub fn append(&mut self, record: &Record) -> Result<Lsn, StoreError> {
        self.take(EntryRef::Record(record))
    }

    /// Takes the next entry of the log; gives out its place.
    pub(super) fn take(&mut self, entry: EntryRef<'_>) -> Result<Lsn, StoreError> {
        self.alive()?;
        let taken = self.try_take(entry);
        // what was written for an entry that was not taken, or that the entry does not mention
        self.bodies.get_mut().abandon_writes();
        self.stop_on_error(taken)
    }

    fn try_take(&mut self, entry: EntryRef<'_>) -> Result<Lsn, StoreError> {
        if let Err(reason) = check(entry, &self.db, self.bodies.get_mut(), true)? {
            return Err(self.rejected(reason));
        }
        self.make_room_for_overwrites()?;
        self.scratch.clear();
        let encoded = postcard::to_io(&entry, &mut self.scratch).map(drop);
        encoded.map_err(|error| self.rejected(error.to_string()))?;
        let length = self.scratch.len();
        self.log.make_room(length)?;
        reserve_space(entry.changes(), &self.db, self.bodies.get_mut())?;
        let place = self.log.next_place();
        apply(entry, place.lsn, &mut self.db, self.bodies.get_mut(), true)?;
        self.log.push(entry.time(), self.stable, &self.scratch);
        self.index.note(entry, place, length);
        self.upkeep.appended(length);
        Ok(place.lsn)
    }

    /// Refuses the next entry.
    pub(super) fn rejected(&self, reason: String) -> StoreError {
        StoreError::Rejected { lsn: self.last().next(), reason }
    }

    /// Overwrites wait in memory for their records to be on disk; when there are too many, that is waited for here.
    fn make_room_for_overwrites(&mut self) -> Result<(), StoreError> {
        let bodies = self.bodies.get_mut();
        let limit = &self.upkeep.options;
        if bodies.pending_bytes() > limit.overlay_bytes || bodies.pending_changes() > limit.overlay_changes {
            self.sync_now(super::SyncBodies::None)?;
            let bodies = self.bodies.get_mut();
            if bodies.lacks_room() {
                return Err(StoreError::NoSpace(bodies.root().to_path_buf()));
            }
        }
        Ok(())
    }
}

/// Whether an entry fits the state, so that applying it cannot fail half-way but for a failing disk.
pub(super) fn check(
    entry: EntryRef<'_>,
    db: &Db,
    bodies: &mut Bodies,
    strict: bool,
) -> Result<Result<(), String>, ReadError> {
    if let Err(reason) = check_slice(entry, db) {
        return Ok(Err(reason));
    }
    let by = By { lsn: db.state.applied.next(), copied: matches!(entry, EntryRef::Copied { .. }) };
    let mut flares = BTreeMap::new();
    let mut highs = BTreeMap::new();
    for change in entry.changes() {
        let checked = match change {
            Change::Body { body, change, .. } => {
                let high = match highs.get(body) {
                    Some(&high) => high,
                    None => bodies.high(db, *body)?,
                };
                let by = strict.then_some(by);
                bodies.check(db, *body, change, high, by)?.map(|high| {
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

/// Whether an entry fits what is known of its slice.
pub(super) fn check_slice(entry: EntryRef<'_>, db: &Db) -> Result<(), String> {
    match (entry, db.slices.get(&entry.slice())) {
        (EntryRef::Record(record), state) => {
            // without a copy it founds the slice
            state.unwrap_or(&SliceState::default()).check_next(record.position())?;
            dividing::check(record, db)
        }
        (EntryRef::Place { position, history, .. }, _) => slices::check_history(history, position),
        (EntryRef::Rewind { .. } | EntryRef::Copied { .. }, Some(_)) => Ok(()),
        (EntryRef::Rewind { slice, .. } | EntryRef::Copied { slice, .. }, None) => {
            Err(format!("there is no copy of slice {} here", slice.0))
        }
    }
}

/// Checks a change of rows; `flares` holds what earlier changes of the entry did to the flares they name.
fn check_flare(
    change: &Change,
    db: &Db,
    flares: &mut BTreeMap<Ino, Option<Key>>,
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
        | Change::PutTransaction(_)
        | Change::DeleteTransaction { .. }
        | Change::Divide(_)
        | Change::Body { .. } => return Ok(Ok(())),
    };
    Ok(if bearer(key.ino())? == Some(*key) { Ok(()) } else { Err(format!("there is no flare {key}")) })
}

/// Reserves the space that changes say is reserved; a full disk is noticed here, before the entry is taken.
fn reserve_space(changes: &[Change], db: &Db, bodies: &mut Bodies) -> Result<(), StoreError> {
    for change in changes {
        if let Change::Body { body, change: BodyChange::Reserve { offset, length }, .. } = change {
            bodies.reserve(db, *body, *offset, *length)?;
        }
    }
    Ok(())
}

/// Applies an entry, which was checked. `rows`: the database does not have it yet; else only its bodies may lack it.
pub(super) fn apply(
    entry: EntryRef<'_>,
    lsn: Lsn,
    db: &mut Db,
    bodies: &mut Bodies,
    rows: bool,
) -> Result<(), ReadError> {
    let by = By { lsn, copied: matches!(entry, EntryRef::Copied { .. }) };
    for change in entry.changes() {
        match change {
            Change::Body { body, flare, change } => bodies.apply(db, (*body, *flare), change, by, rows)?,
            change if rows => apply_row(change, db, entry.slice())?,
            _ => {}
        }
    }
    if rows {
        apply_to_slice(entry, db)?;
        db.state.applied = lsn;
    }
    Ok(())
}

/// Applies what an entry means to the copy of its slice.
fn apply_to_slice(entry: EntryRef<'_>, db: &mut Db) -> Result<(), ReadError> {
    if let EntryRef::Place { slice, range, position, history, .. } = entry {
        db.wipe_slice(slice)?;
        dividing::make_way(slice, range, db)?;
        let placed = SliceState::placed(db.slices.get(&slice), range, position, history);
        db.slices.insert(slice, placed);
        return Ok(());
    }
    let state = db.slices.entry(entry.slice()).or_default();
    match entry {
        EntryRef::Record(record) => state.advance(record.position(), record.time),
        EntryRef::Rewind { to, missing, .. } => state.rewind(to, missing),
        EntryRef::Copied { complete: Some(range), .. } => state.complete(range),
        EntryRef::Copied { .. } | EntryRef::Place { .. } => {}
    }
    match entry {
        EntryRef::Record(record) => {
            record.division().map_or(Ok(()), |it| dividing::apply(record.slice, it, db))
        }
        EntryRef::Rewind { slice, to, .. } => dividing::take_back(slice, to.seq, db),
        EntryRef::Copied { .. } | EntryRef::Place { .. } => Ok(()),
    }
}

fn apply_row(change: &Change, db: &mut Db, slice: SliceId) -> Result<(), ReadError> {
    match change {
        Change::PutFlare(row) => db.put_flare(row),
        Change::DeleteFlare(key) => db.delete_flare(key),
        Change::PutInline { flare, data } => {
            let flare = existing(db, flare)?;
            db.put_inline(flare, data)
        }
        Change::PutEntry { dir, entry } => {
            let dir = existing(db, dir)?;
            db.put_entry(dir, entry)
        }
        Change::DeleteEntry { dir, name } => db.delete_entry(dir, name),
        Change::PutReference { flare, reference } => {
            let flare = existing(db, flare)?;
            db.put_reference(flare, reference)
        }
        Change::DeleteReference { flare, parent, name, made_by } => {
            db.delete_reference(flare, parent, name, *made_by)
        }
        Change::PutXattr { flare, name, value } => {
            let flare = existing(db, flare)?;
            db.put_xattr(flare, name, value)
        }
        Change::DeleteXattr { flare, name } => db.delete_xattr(flare, name),
        Change::PutLocks { flare, locks } => {
            let flare = existing(db, flare)?;
            db.put_locks(flare, locks)
        }
        Change::PutSession(session) => db.put_session(slice, session),
        Change::EndSession(session) => db.end_session(slice, *session),
        Change::PutTransaction(row) => db.put_transaction(slice, row),
        Change::DeleteTransaction { key, attempt, driven } => {
            db.delete_transaction(slice, &(*key, *attempt, *driven))
        }
        // what a division does, it does when the copy has advanced
        Change::Body { .. } | Change::Divide(_) => Ok(()),
    }
}

/// The local id of a flare that the check has seen.
fn existing(db: &Db, key: &Key) -> Result<i64, ReadError> {
    db.local(key)?.ok_or_else(|| ReadError::Damaged { what: format!("the row of flare {key}") })
}

/// Reserves what a replayed entry reserved; what does not fit any more is no loss.
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
