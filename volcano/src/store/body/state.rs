//! What is kept in memory of a body in use.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::super::log::Lsn;

use super::super::db::BodyRow;
use super::super::disk::SyncedFile;
use super::overlay::Overlay;

/// What is known of the bytes in the file beyond the body's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// There may be some: written before a crash, or by a write whose record never came. They are cut off before the next append.
    Unknown,
    /// There are none but those being written for the record to come.
    Clean,
}

/// A body in use.
#[derive(Debug)]
pub(super) struct BodyState {
    /// Its row, as it will be written; none before its first change.
    pub(super) row: Option<BodyRow>,
    /// The row differs from the database's.
    pub(super) row_changed: bool,
    /// The entry of the log that brought it in, which names its file; 0 if a record began it.
    pub(super) born: Lsn,
    /// Blocks of it may have checksums.
    pub(super) has_sums: bool,
    /// The file, once it was opened.
    pub(super) file: Option<Arc<SyncedFile>>,
    /// The file's name may not be durable.
    pub(super) name_unsynced: bool,
    pub(super) tail: Tail,
    /// Ranges written for the record to come.
    pub(super) written: Vec<Range<u64>>,
    pub(super) overlay: Overlay,
    /// Grows with every write to any body's file: one that is forgotten and used again must not look like it was before.
    pub(super) version: u64,
    /// The version that is durable.
    pub(super) synced: u64,
    /// The first record whose overwrite is in the file but may not be durable there.
    pub(super) overwritten_since: Option<Lsn>,
    /// The first record that appended bytes which may not be durable.
    pub(super) appended_since: Option<Lsn>,
    /// Counts changes of bytes that a planned read may be reading.
    pub(super) changes: Arc<AtomicU64>,
    pub(super) used: Option<u64>,
    /// When it was last changed, on the caller's clock.
    pub(super) changed_at: Duration,
    /// Grows with every use of any body.
    pub(super) used_at: u64,
}

impl BodyState {
    pub(super) fn new(row: Option<BodyRow>) -> Self {
        Self {
            row,
            row_changed: false,
            born: row.map_or(Lsn(0), |row| row.born),
            has_sums: row.is_some(),
            file: None,
            name_unsynced: false,
            tail: Tail::Unknown,
            written: Vec::new(),
            overlay: Overlay::default(),
            version: 0,
            synced: 0,
            overwritten_since: None,
            appended_since: None,
            changes: Arc::default(),
            used: row.and_then(|row| row.used),
            changed_at: Duration::ZERO,
            used_at: 0,
        }
    }

    /// One more than the highest byte ever written.
    pub(super) fn high(&self) -> u64 {
        self.row.map_or(0, |row| row.high)
    }

    /// The file holds something that is not durable.
    pub(super) fn is_unsynced(&self) -> bool {
        self.version > self.synced || self.name_unsynced
    }

    /// It can be forgotten without loss, once its row is written.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_unsynced() && self.written.is_empty() && self.overlay.is_empty()
    }

    /// Whether the range was written for the record to come.
    pub(super) fn has_written(&self, start: u64, end: u64) -> bool {
        if start == end {
            // no bytes, but they must have been asked for: what lay behind the body's end was cut off then
            return self.written.iter().any(|range| range.end == end);
        }
        let mut reached = start;
        // in order of their starts each range takes the reach further, or leaves a gap
        let mut ranges: Vec<_> = self.written.iter().filter(|range| range.end > start).cloned().collect();
        ranges.sort_unstable_by_key(|range| range.start);
        for range in ranges {
            if range.start > reached {
                break;
            }
            reached = reached.max(range.end);
        }
        reached >= end
    }
}
