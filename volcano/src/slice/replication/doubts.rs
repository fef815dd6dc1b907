//! Bytes that a power cut may have taken from this copy, and how the copies come to have the same ones again.

use bytes::Bytes;
use magma_common::key::KeyRange;

use crate::planted::{Bug, planted};
use crate::record::{BodyChange, Change};
use crate::rows::Content;
use crate::slice::{Now, Slice, Trouble};
use crate::store::{Doubts, SyncBodies};
use crate::view::{ReadError, View};

/// Bytes that are read and stated at once.
const STATED_AT_ONCE: u64 = 1 << 20;
/// Zeros are told from data in pieces of so many bytes: the blocks of most file systems.
const BLOCK: usize = 4096;

impl Slice<'_> {
    /// What this copy has where a power cut may have taken bytes is what the slice has from now on. Records say so, byte by byte,
    /// since other copies, one that comes back in a year included, may have what this one has lost.
    pub(super) fn settle_doubts(&mut self, now: Now) -> Result<(), Trouble> {
        let range = self.pass_doubts_on();
        let doubts = self.replication.doubtful.clone();
        if doubts.is_empty() {
            return Ok(());
        }
        for (flare, body, start, end) in doubts.ranges() {
            let content = self.store.flare(&flare.key)?.map(|row| row.content);
            let Some(Content::Body { body: present, high }) = content else { continue };
            let mut offset = start;
            while present == body && offset < end.min(high) {
                let length = (end.min(high) - offset).min(STATED_AT_ONCE);
                match self.store.read_body(body, offset, usize::try_from(length).unwrap_or(0)) {
                    Ok(data) => {
                        for change in as_it_is(offset, &data) {
                            self.record(now, vec![Change::Body { body, flare, change }], None)?;
                        }
                    }
                    // Readers are told so as well. It keeps nobody from the rest.
                    Err(error @ ReadError::Checksum { .. }) => {
                        tracing::error!(target: "magma::volcano", %error, "bytes that were in doubt cannot be read");
                    }
                    Err(error) => return Err(error.into()),
                }
                offset += length;
            }
        }
        self.store.sync_now(SyncBodies::None)?;
        self.store.trust(range)?;
        self.replication.doubtful = Doubts::default();
        Ok(())
    }

    /// Doubts about keys that this copy does not have any more, since it was divided, concern another slice. The keys that it has.
    pub(in crate::slice) fn pass_doubts_on(&mut self) -> KeyRange {
        let range = self.store.range(self.identity.slice).unwrap_or(self.range());
        let own = self.replication.doubtful.take_within(range);
        self.recovered.add_doubts(std::mem::replace(&mut self.replication.doubtful, own));
        range
    }

    /// A copy that joins counts what it is in doubt about as missing, and gets it from the primary.
    pub(super) fn resolve_doubts(&mut self) -> Result<(), Trouble> {
        // without a copy here they may concern one of which this slice is yet to be divided off
        let has_copy = self.store.position(self.identity.slice).is_some();
        if self.replication.doubtful.is_empty() || !has_copy || planted(Bug::KeepDoubtfulBytes) {
            return Ok(());
        }
        let range = self.pass_doubts_on();
        self.store.distrust(self.identity.slice, &self.replication.doubtful)?;
        self.store.sync_now(SyncBodies::None)?;
        self.store.trust(range)?;
        self.replication.doubtful = Doubts::default();
        Ok(())
    }
}

/// The changes that make a body what it is: `data` at `offset`. What reads as zeros may be a hole that the power cut has left, and
/// needs no space; to fill it would fail on a full disk.
fn as_it_is(offset: u64, data: &Bytes) -> Vec<BodyChange> {
    let is_hole = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let mut changes = Vec::new();
    let (mut at, mut rest) = (offset, data.clone());
    while !rest.is_empty() {
        let begins_as_hole = rest.chunks(BLOCK).next().is_some_and(is_hole);
        let run = rest.chunks(BLOCK).take_while(|block| is_hole(block) == begins_as_hole);
        let mut bytes = rest.split_to(run.map(<[u8]>::len).sum());
        let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let (begin, end) = (at, at + bytes.len() as u64);
        bytes.truncate(bytes.len() - zeros);
        if !bytes.is_empty() {
            changes.push(BodyChange::Overwrite { offset: begin, data: bytes });
        }
        if zeros > 0 {
            changes.push(BodyChange::Zero { offset: end - zeros as u64, length: zeros as u64 });
        }
        at = end;
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the changes begin, how many bytes they are, and whether they need space.
    fn stated(data: &[u8]) -> Vec<(u64, u64, bool)> {
        let shape = |change: BodyChange| match change {
            BodyChange::Overwrite { offset, data } => (offset, data.len() as u64, true),
            BodyChange::Zero { offset, length } => (offset, length, false),
            other => panic!("{other:?} states nothing"),
        };
        as_it_is(100, &Bytes::copy_from_slice(data)).into_iter().map(shape).collect()
    }

    #[test]
    fn zeros_are_stated_as_a_hole() {
        assert_eq!(stated(&[]), []);
        assert_eq!(stated(&[0; 5000]), [(100, 5000, false)]);
        assert_eq!(stated(&[7; 5000]), [(100, 5000, true)]);
        let mut cut_off = vec![7; 5000];
        cut_off.resize(20_000, 0);
        assert_eq!(stated(&cut_off), [(100, 5000, true), (5100, 3192, false), (8292, 11_808, false)]);
    }

    #[test]
    fn zeros_among_data_are_data() {
        let mut data = vec![0; 3 * BLOCK];
        data[10] = 1;
        data[2 * BLOCK + 1] = 1;
        let block = BLOCK as u64;
        let expected = [
            (100, 11, true),
            (111, block - 11, false),
            (100 + block, block, false),
            (100 + 2 * block, 2, true),
            (102 + 2 * block, block - 2, false),
        ];
        assert_eq!(stated(&data), expected);
    }
}
