//! Changes that the log tells of: whether a body may be changed so, and how its file and its row come to say the same.

use std::sync::atomic::Ordering;

use magma_common::handle::Handle;

use super::overlay::Piece;
use super::state::{BodyState, Tail};
use super::{Bodies, By, checksum};
use crate::record::BodyChange;
use crate::rows::BodyId;
use crate::store::db::Db;
use crate::store::error::StoreError;
use crate::store::log::Lsn;
use crate::view::ReadError;

/// A change that is in the log and not yet in the file.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) lsn: Lsn,
    body: BodyId,
    offset: u64,
    end: u64,
    piece: Piece,
}

impl Bodies {
    /// Whether a record may make this change: what the caller must have kept to. `by` whom it comes now; in
    /// a replay nobody, and the bytes of appends may be missing.
    pub(in crate::store) fn check(
        &mut self,
        db: &Db,
        body: BodyId,
        change: &BodyChange,
        high: u64,
        by: Option<By>,
    ) -> Result<Result<u64, String>, ReadError> {
        let overflow = || Err("the range ends beyond all offsets".to_owned());
        Ok(match change {
            BodyChange::Append { offset, length } => {
                let Some(end) = offset.checked_add(*length) else { return Ok(overflow()) };
                let state = self.state(db, body)?;
                if *offset < high {
                    Err(format!("it appends at {offset}, below {high}"))
                } else if by.is_some_and(|by| state.row.is_none() && state.born != by.born()) {
                    Err("the bytes that begin a body went to another file than its own".to_owned())
                } else if by.is_some() && !state.has_written(*offset, end) {
                    Err(format!("the bytes {offset}..{end} that it appends were not written"))
                } else {
                    Ok(high.max(end))
                }
            }
            BodyChange::Overwrite { offset, data } => below(*offset, data.len() as u64, high),
            // were it to reach beyond, replay would do it over what was appended later
            BodyChange::Zero { offset, length } => below(*offset, *length, high),
            BodyChange::Reserve { offset, length } => {
                offset.checked_add(*length).map_or_else(overflow, |_| Ok(high))
            }
            BodyChange::Drop => Ok(0),
        })
    }

    /// Takes a change that is in the log. `rows`: the database does not have its effect yet.
    pub(in crate::store) fn apply(
        &mut self,
        db: &mut Db,
        (body, flare): (BodyId, Handle),
        change: &BodyChange,
        by: By,
        rows: bool,
    ) -> Result<(), ReadError> {
        if !rows && db.body(body)?.is_none_or(|row| by.lsn < row.born) {
            // it was dropped later in the log, and perhaps brought in anew
            return Ok(());
        }
        let lsn = by.lsn;
        if matches!(change, BodyChange::Drop) {
            return if rows { self.drop_body(db, body, flare, lsn) } else { Ok(()) };
        }
        self.ensure_row(db, body, flare, by.born())?;
        let now = self.now;
        let state = self.state(db, body)?;
        let high = state.high();
        let (start, end) = match change {
            BodyChange::Append { offset, length } | BodyChange::Zero { offset, length } => {
                (*offset, offset + length)
            }
            BodyChange::Overwrite { offset, data } => (*offset, offset + data.len() as u64),
            BodyChange::Reserve { .. } | BodyChange::Drop => return Ok(()),
        };
        state.changed_at = now;
        self.resting.disturb(body);
        let state = self.state(db, body)?;
        let has_sums = state.has_sums;
        if let Some(row) = &mut state.row {
            row.high = if matches!(change, BodyChange::Append { .. }) { high.max(end) } else { high };
            row.summed = false;
            state.row_changed = true;
            if has_sums {
                db.delete_sums(row.local, checksum::blocks(start, end))?;
            }
        }
        match change {
            BodyChange::Append { .. } => {
                if state.written.iter().any(|range| range.end > state.high()) {
                    state.tail = Tail::Unknown;
                }
                state.written.clear();
                if state.is_unsynced() {
                    state.appended_since.get_or_insert(lsn);
                }
                self.writing.retain(|&writing| writing != body);
            }
            BodyChange::Overwrite { data, .. } => {
                self.lay(db, body, start..end, Piece::Data(data.clone()), lsn)?;
            }
            BodyChange::Zero { .. } => self.lay(db, body, start..end, Piece::Hole, lsn)?,
            BodyChange::Reserve { .. } | BodyChange::Drop => {}
        }
        Ok(())
    }

    fn ensure_row(&mut self, db: &mut Db, body: BodyId, flare: Handle, born: Lsn) -> Result<(), ReadError> {
        if self.state(db, body)?.row.is_none() {
            db.insert_body(body, flare, born)?;
            let row = db.body(body)?;
            let state = self.state(db, body)?;
            if state.born != born {
                // in a replay nobody has said before that it would be brought in
                (state.born, state.file, state.tail) = (born, None, Tail::Unknown);
            }
            state.row = row;
        }
        Ok(())
    }

    fn lay(
        &mut self,
        db: &Db,
        body: BodyId,
        range: std::ops::Range<u64>,
        piece: Piece,
        lsn: Lsn,
    ) -> Result<(), ReadError> {
        if range.is_empty() {
            return Ok(());
        }
        if let Piece::Data(bytes) = &piece {
            self.pending_bytes += bytes.len() as u64;
        }
        let (offset, end) = (range.start, range.end);
        self.state(db, body)?.overlay.put(offset, end, piece.clone(), lsn);
        self.pending.push_back(Pending { lsn, body, offset, end, piece });
        Ok(())
    }

    fn drop_body(&mut self, db: &mut Db, body: BodyId, flare: Handle, lsn: Lsn) -> Result<(), ReadError> {
        // without a row there may still be a file, of an append that was never taken; with a dropped one that is removed anyway
        if self.state(db, body)?.row.is_some() || !db.knows_body(body, Lsn(0))? {
            self.ensure_row(db, body, flare, Lsn(0))?;
        }
        if let Some(row) = self.remove_state(body).and_then(|state| state.row) {
            db.drop_body(row.local, lsn)?;
        }
        Ok(())
    }

    /// Writes the changes of records up to `through`, which are on disk, to the files. If there is no room for one, over a hole, it waits with
    /// all later ones: the log keeps them, and readers see them.
    pub(in crate::store) fn settle(&mut self, db: &Db, through: Lsn) -> Result<(), StoreError> {
        let mut settled = through;
        let lacked_room = std::mem::take(&mut self.lacks_room);
        while self.pending.front().is_some_and(|pending| pending.lsn <= through)
            && let Some(pending) = self.pending.pop_front()
        {
            match self.write(db, &pending) {
                Ok(()) => {
                    if let Piece::Data(bytes) = &pending.piece {
                        self.pending_bytes = self.pending_bytes.saturating_sub(bytes.len() as u64);
                    }
                }
                Err(StoreError::NoSpace(path)) => {
                    if !lacked_room {
                        let path = path.display();
                        tracing::warn!(target: "volcano", %path, "no room for bytes that were written: they wait in the log");
                    }
                    settled = pending.lsn.before();
                    self.pending.push_front(pending);
                    self.lacks_room = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        // of the record that waits, some bodies may have their changes already
        let (written, lacks_room) = (std::mem::take(&mut self.written), self.lacks_room);
        for body in written {
            self.state(db, body)?.overlay.settle(settled);
            if lacks_room {
                self.written.insert(body);
            }
        }
        self.settled = self.settled.max(settled);
        Ok(())
    }

    /// Writes a change to its file, unless the body was dropped since or brought in anew.
    fn write(&mut self, db: &Db, pending: &Pending) -> Result<(), StoreError> {
        let is_over = |state: &BodyState| state.overlay.is_empty() || pending.lsn < state.born;
        if self.states.get(&pending.body).is_none_or(is_over) {
            return Ok(());
        }
        let file = self.create(db, pending.body)?;
        let (path, version) = (self.path_in_use(pending.body), self.next_version());
        let state = self.state(db, pending.body)?;
        state.changes.fetch_add(1, Ordering::AcqRel);
        let written = match &pending.piece {
            Piece::Data(bytes) => file.write_at(bytes, pending.offset),
            Piece::Hole => file.punch(pending.offset, pending.end - pending.offset),
        };
        state.changes.fetch_add(1, Ordering::AcqRel);
        state.version = version;
        state.used = None;
        state.overwritten_since.get_or_insert(pending.lsn);
        self.written.insert(pending.body);
        written.map_err(|source| StoreError::file(&path, source))
    }

    /// Whether changes wait for room in the file system.
    pub(in crate::store) fn lacks_room(&self) -> bool {
        self.lacks_room
    }
}

/// Whether a range that is overwritten lies below the body's end.
fn below(offset: u64, length: u64, high: u64) -> Result<u64, String> {
    match offset.checked_add(length) {
        Some(end) if end <= high => Ok(high),
        _ => Err(format!("it overwrites {length} bytes at {offset}, beyond {high}")),
    }
}
