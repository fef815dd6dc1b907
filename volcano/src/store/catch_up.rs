//! Reading records back for a copy that lacks them.

use bytes::Bytes;
use magma_common::topology::{Seq, SliceId};

use super::Store;
use super::error::StoreError;
use super::log::ReadEntry;
use crate::node::message::SentRecord;
use crate::record::{BodyChange, Change, Entry, Record};

/// Most bytes of the log that are read at once.
const READ_AHEAD: usize = 1 << 20;
/// Fewest bytes that are read at once.
const SMALL_READ: usize = 64 << 10;

impl Store {
    /// The records of a slice after this one, in order: about `max_bytes` of them, at least one if there is one. `None` if the log
    /// does not reach back so far, or lacks parts of them.
    ///
    /// Records that are not [flushed](Self::flush) yet are among them. The bytes of appends are what their bodies hold now; records that follow bring what was changed since. For a body that is
    /// gone they are zeros.
    pub fn read_log(
        &self,
        slice: SliceId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Option<Vec<SentRecord>>, StoreError> {
        self.alive()?;
        let Some(state) = self.db.slices.get(&slice).filter(|state| after >= state.floor()) else {
            return Ok(None);
        };
        let mut batch = Batch { records: Vec::new(), bytes: 0, max_bytes };
        if after >= state.position.seq {
            return Ok(Some(batch.records));
        }
        if let Some(recent) = self.index.recent(slice, after) {
            for (length, record) in recent {
                if batch.is_full() {
                    break;
                }
                self.add(&mut batch, record.clone(), *length)?;
            }
            return Ok(Some(batch.records));
        }
        let Some(start) = self.index.place_after(slice, after) else { return Ok(None) };
        let mut reader = self.log.read_from(start, max_bytes.clamp(SMALL_READ, READ_AHEAD));
        let mut last = after;
        while !batch.is_full()
            && let Some(ReadEntry { lsn, entry, length }) = reader.next()?
        {
            if let Entry::Record(record) = entry
                && record.slice == slice
                && record.seq > after
                && self.index.is_live(slice, record.seq, lsn)
            {
                last = record.seq;
                self.add(&mut batch, record, length)?;
            }
        }
        self.index.remember(slice, last, reader.place());
        Ok(Some(batch.records))
    }

    /// Adds a record with the bytes of its appends.
    fn add(&self, batch: &mut Batch, record: Record, length: usize) -> Result<(), StoreError> {
        let mut appended = Vec::new();
        for change in &record.changes {
            if let Change::Body { body, change: BodyChange::Append { offset, length }, .. } = change {
                let length = usize::try_from(*length).unwrap_or(usize::MAX);
                appended.push(self.bodies.borrow_mut().read(&self.db, *body, *offset, length)?);
            }
        }
        batch.bytes += length + appended.iter().map(Bytes::len).sum::<usize>();
        batch.records.push(SentRecord { record, appended });
        Ok(())
    }
}

/// Records on their way.
struct Batch {
    records: Vec<SentRecord>,
    bytes: usize,
    max_bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= self.max_bytes && !self.records.is_empty()
    }
}
