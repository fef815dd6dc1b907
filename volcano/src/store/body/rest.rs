//! Giving checksums to the blocks of bodies that have come to rest.
//!
//! A body rests when it is synced, nothing waits to be written to it, and it has not been changed for a while. What is read
//! back then is what is on disk, or in the page cache from which that was written.

use std::time::Duration;

use super::super::db::Db;
use super::super::disk::read_padded;
use super::checksum::{self, BLOCK};
use super::{Bodies, write_row};
use crate::rows::BodyId;
use crate::view::ReadError;

/// How long a body must not have been changed.
const REST: Duration = Duration::from_secs(5);
/// Bodies that are looked at in one step.
const BODIES_PER_STEP: usize = 8;
/// Blocks that are looked at in one step.
const BLOCKS_PER_STEP: u64 = 16;

/// Where the search stands.
#[derive(Debug, Default)]
pub(super) struct Resting {
    /// The local id of the body looked at last.
    cursor: i64,
    /// The body in work and its next block. Any change of the body ends the work on it.
    current: Option<(BodyId, u64)>,
}

impl Resting {
    /// This body is changed.
    pub(super) fn disturb(&mut self, body: BodyId) {
        self.current = self.current.filter(|&(current, _)| current != body);
    }
}

impl Bodies {
    /// Does a bounded piece of the work. Whether there may be more to do now.
    pub(in super::super) fn sum_step(&mut self, db: &mut Db) -> Result<bool, ReadError> {
        for _ in 0..BODIES_PER_STEP {
            let Some((body, block)) = self.next_resting(db)? else { return Ok(false) };
            if self.is_resting(db, body)? {
                self.sum_blocks(db, body, block)?;
                return Ok(true);
            }
            self.resting.current = None;
        }
        Ok(false)
    }

    fn next_resting(&mut self, db: &Db) -> Result<Option<(BodyId, u64)>, ReadError> {
        if self.resting.current.is_none() {
            let next = db.unsummed_body(self.resting.cursor)?;
            self.resting.cursor = next.map_or(0, |(local, _)| local);
            self.resting.current = next.map(|(_, body)| (body, 0));
        }
        Ok(self.resting.current)
    }

    fn is_resting(&mut self, db: &Db, body: BodyId) -> Result<bool, ReadError> {
        let now = self.now;
        let state = self.state(db, body)?;
        let quiet = now.saturating_sub(state.changed_at) >= REST;
        Ok(quiet && !state.is_unsynced() && state.overlay.is_empty() && state.written.is_empty())
    }

    fn sum_blocks(&mut self, db: &mut Db, body: BodyId, first: u64) -> Result<(), ReadError> {
        let file = self.open(db, body)?;
        let state = self.state(db, body)?;
        let Some(row) = state.row else { return Ok(()) };
        let all = row.high.div_ceil(BLOCK);
        let last = first.saturating_add(BLOCKS_PER_STEP).min(all);
        let (mut block, mut buffer) = (first, vec![0; BLOCK as usize]);
        if let Some(file) = &file {
            let present = db.sums(row.local, first..last)?;
            while block < last {
                // a hole of any length costs one step
                let Some(data) = file.next_data(block * BLOCK)? else {
                    block = all;
                    break;
                };
                block = block.max(data / BLOCK);
                if block >= last {
                    break;
                }
                if !present.contains_key(&block) {
                    let length = usize::try_from((row.high - block * BLOCK).min(BLOCK)).unwrap_or(0);
                    let bytes = buffer.get_mut(..length).unwrap_or_default();
                    read_padded(file, bytes, block * BLOCK)?;
                    db.put_sum(row.local, block, checksum::sum(bytes))?;
                }
                block += 1;
            }
        } else {
            block = all;
        }
        state.has_sums = true;
        self.resting.current = Some((body, block));
        if block >= all {
            self.resting.current = None;
            let state = self.state(db, body)?;
            if let Some(row) = &mut state.row {
                row.summed = true;
                state.row_changed = true;
            }
            write_row(db, state)?;
        }
        Ok(())
    }
}
