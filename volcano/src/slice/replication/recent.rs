//! The newest records of a slice, kept in memory to be sent to its copies.

use std::collections::VecDeque;

use bytes::Bytes;
use magma_common::topology::Seq;

use crate::node::message::SentRecord;
use crate::record::{BodyChange, Change, Record};

/// Bytes that the kept records may take; the log has the older ones.
const MAX_BYTES: usize = 32 << 20;
/// What a record takes beside its bytes, about.
const OVERHEAD: usize = 256;

/// The newest records, without a gap.
#[derive(Debug, Default)]
pub(super) struct Recent {
    records: VecDeque<(SentRecord, usize)>,
    bytes: usize,
}

impl Recent {
    /// Keeps a record that was appended just now.
    pub(super) fn push(&mut self, record: Record, appended: Vec<Bytes>) {
        let size = size(&record, &appended);
        if self.records.back().is_some_and(|(last, _)| last.record.seq.0 + 1 != record.seq.0) {
            self.clear();
        }
        self.bytes += size;
        self.records.push_back((SentRecord { record, appended }, size));
        while self.bytes > MAX_BYTES
            && let Some((_, size)) = self.records.pop_front()
        {
            self.bytes -= size;
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }

    /// The records after `after`, at least one, about so many bytes of them, and their size. None if the first of them is
    /// not kept; empty if there is none.
    pub(super) fn after(&self, after: Seq, max_bytes: usize) -> Option<(Vec<SentRecord>, usize)> {
        let (first, _) = self.records.front()?;
        let skip = (after.0 + 1).checked_sub(first.record.seq.0)?;
        let mut bytes = 0;
        let mut taken = Vec::new();
        for (sent, size) in self.records.iter().skip(usize::try_from(skip).ok()?) {
            if !taken.is_empty() && bytes + size > max_bytes {
                break;
            }
            bytes += size;
            taken.push(sent.clone());
        }
        Some((taken, bytes))
    }
}

/// About how much memory, and how much of a message, a record takes.
pub(super) fn size(record: &Record, appended: &[Bytes]) -> usize {
    let of_change = |change: &Change| match change {
        Change::PutInline { data, .. } | Change::Body { change: BodyChange::Overwrite { data, .. }, .. } => {
            data.len()
        }
        Change::PutXattr { value, .. } => value.len(),
        Change::PutLocks { locks, .. } => locks.len() * 64,
        _ => 0,
    };
    let changes: usize = record.changes.iter().map(|change| OVERHEAD + of_change(change)).sum();
    let outcome = record.outcome.as_ref().map_or(0, |outcome| outcome.reply.len());
    OVERHEAD + changes + outcome + appended.iter().map(Bytes::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::time::Timestamp;
    use magma_common::topology::{Epoch, SliceId};

    fn record(seq: u64) -> Record {
        let (slice, epoch, time) = (SliceId(1), Epoch(1), Timestamp::default());
        Record { slice, epoch, seq: Seq(seq), time, changes: Vec::new(), outcome: None }
    }

    fn numbers(found: Option<(Vec<SentRecord>, usize)>) -> Option<Vec<u64>> {
        found.map(|(records, _)| records.iter().map(|sent| sent.record.seq.0).collect())
    }

    #[test]
    fn records_are_found_by_their_predecessor() {
        let mut recent = Recent::default();
        assert_eq!(numbers(recent.after(Seq(0), 1)), None);
        (5..9).for_each(|seq| recent.push(record(seq), Vec::new()));
        assert_eq!(numbers(recent.after(Seq(3), 1 << 20)), None, "4 is not kept");
        assert_eq!(numbers(recent.after(Seq(6), 1 << 20)), Some(vec![7, 8]));
        assert_eq!(numbers(recent.after(Seq(4), 0)), Some(vec![5]), "one at least");
        assert_eq!(numbers(recent.after(Seq(8), 1)), Some(vec![]));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let mut recent = Recent::default();
        for seq in 1..=3 {
            recent.push(record(seq), vec![Bytes::from(vec![0; MAX_BYTES / 2 - OVERHEAD])]);
        }
        assert_eq!(numbers(recent.after(Seq(0), 1)), None);
        assert_eq!(numbers(recent.after(Seq(1), usize::MAX)), Some(vec![2, 3]));
    }
}
