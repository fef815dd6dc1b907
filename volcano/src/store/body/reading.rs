//! Reading bodies: bytes, holes, and the storage they take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::db::Db;
use super::read::BodyRead;
use super::{Bodies, checksum, lost};
use crate::rows::BodyId;
use crate::view::ReadError;

impl Bodies {
    /// Plans a read; what is asked for beyond the body reads as zeros.
    pub(in super::super) fn plan(
        &mut self,
        db: &Db,
        body: BodyId,
        offset: u64,
        length: usize,
    ) -> Result<BodyRead, ReadError> {
        // the file of a body that was dropped may be removed at any time: it must not stay open under a name that is used again
        let file = if self.high(db, body)? > 0 { self.open(db, body)? } else { None };
        let mismatches = Arc::clone(&self.mismatches);
        let state = self.state(db, body)?;
        let end = offset.saturating_add(length as u64).min(state.high());
        let sums = match state.row.filter(|_| state.has_sums && offset < end) {
            Some(row) => db.sums(row.local, checksum::blocks(offset, end))?,
            None => BTreeMap::default(),
        };
        Ok(BodyRead {
            body,
            file,
            offset,
            length,
            reach: end.saturating_sub(offset),
            sums,
            pieces: state.overlay.cut(offset, end),
            planned_at: state.changes.load(Ordering::Acquire),
            changes: Arc::clone(&state.changes),
            mismatches,
        })
    }

    /// Reads at once.
    pub(in super::super) fn read(
        &mut self,
        db: &Db,
        body: BodyId,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, ReadError> {
        // nothing changes the body between plan and run on the thread that owns the store
        self.plan(db, body, offset, length)?.run()?.ok_or_else(|| lost(body))
    }

    /// The first offset from `offset` on, below `end`, that holds data.
    pub(in super::super) fn data(
        &mut self,
        db: &Db,
        body: BodyId,
        offset: u64,
        end: u64,
    ) -> Result<Option<u64>, ReadError> {
        let file = self.open(db, body)?;
        let state = self.state(db, body)?;
        let end = end.min(state.high());
        let mut at = offset;
        while at < end {
            at = match state.overlay.at(at) {
                Ok((_, true)) => return Ok(Some(at)),
                Ok((hole_end, false)) => hole_end,
                Err(next) => {
                    let limit = next.map_or(end, |next| next.min(end));
                    let found = file.as_ref().map_or(Ok(None), |file| file.next_data(at))?;
                    match found.filter(|&found| found < limit) {
                        Some(found) => return Ok(Some(found)),
                        None => limit,
                    }
                }
            };
        }
        Ok(None)
    }

    /// The first offset from `offset` on that lies in a hole; `end` if there is none before it.
    pub(in super::super) fn hole(
        &mut self,
        db: &Db,
        body: BodyId,
        offset: u64,
        end: u64,
    ) -> Result<u64, ReadError> {
        let file = self.open(db, body)?;
        let state = self.state(db, body)?;
        let high = state.high().min(end);
        let mut at = offset;
        while at < high {
            at = match state.overlay.at(at) {
                Ok((_, false)) => return Ok(at),
                Ok((data_end, true)) => data_end,
                Err(next) => {
                    let limit = next.map_or(high, |next| next.min(high));
                    let found = file.as_ref().map_or(Ok(at), |file| file.next_hole(at))?;
                    if found < limit {
                        return Ok(found);
                    }
                    limit
                }
            };
        }
        // what lies beyond the body's reach is a hole too
        Ok(if at < end { at.max(offset) } else { end })
    }

    /// Storage that a body takes.
    pub(in super::super) fn used(&mut self, db: &Db, body: BodyId) -> Result<u64, ReadError> {
        if let Some(used) = self.state(db, body)?.used {
            return Ok(used);
        }
        let used = self.open(db, body)?.map_or(Ok(0), |file| file.used())?;
        let state = self.state(db, body)?;
        state.used = Some(used);
        if let Some(row) = &mut state.row {
            row.used = Some(used);
            state.row_changed = true;
        }
        Ok(used)
    }
}
