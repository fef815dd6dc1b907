//! Segments: the files that the log consists of, named by the first entry they hold.

use std::path::{Path, PathBuf};

use super::Lsn;
use magma_common::time::Timestamp;

use super::super::meta::FORMAT_VERSION;

/// Length of a segment's header in bytes.
pub(crate) const HEADER_LEN: usize = 64;

const MAGIC: &[u8; 8] = b"MAGMALOG";

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The format that it is written in.
    pub(crate) version: u32,
    /// What its frames' checksums start from.
    pub(crate) salt: u32,
    /// Whose log.
    pub(crate) store: u64,
    /// Its first entry; the segment may hold none yet.
    pub(crate) first: Lsn,
}

impl SegmentHeader {
    /// A header of this version's format.
    pub(crate) fn new(salt: u32, store: u64, first: Lsn) -> Self {
        Self { version: FORMAT_VERSION, salt, store, first }
    }

    /// As it stands at the start of the file.
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut fields = Vec::with_capacity(HEADER_LEN);
        fields.extend_from_slice(MAGIC);
        fields.extend_from_slice(&self.version.to_le_bytes());
        fields.extend_from_slice(&self.salt.to_le_bytes());
        fields.extend_from_slice(&self.store.to_le_bytes());
        fields.extend_from_slice(&self.first.0.to_le_bytes());
        fields.resize(HEADER_LEN - 4, 0);
        fields.extend_from_slice(&crc32c::crc32c(&fields).to_le_bytes());
        bytes.copy_from_slice(&fields);
        bytes
    }

    /// Reads a header; `None` if it is not whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let (covered, crc) = header.split_last_chunk::<4>()?;
        if !covered.starts_with(MAGIC) || crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (words, _) = covered.as_chunks::<4>();
        let word = |index: usize| words.get(index).map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let long = |index: usize| u64::from(word(index)) | u64::from(word(index + 1)) << 32;
        Some(Self { version: word(2), salt: word(3), store: long(4), first: Lsn(long(6)) })
    }
}

/// A segment that is not written to any more.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) path: PathBuf,
    /// Its first entry.
    pub(crate) first: Lsn,
    /// Its last entry.
    pub(crate) last: Lsn,
    /// The latest time of any record up to its end.
    pub(crate) newest: Timestamp,
    /// What its frames' checksums start from.
    pub(crate) salt: u32,
    /// Where its frames end.
    pub(crate) end: u64,
}

/// Where the segment that starts with this entry lies.
pub(crate) fn path(dir: &Path, first: Lsn) -> PathBuf {
    dir.join(format!("{:016x}.log", first.0))
}

/// The first entry of the segment with this file name; `None` if it is not a segment's name.
pub(crate) fn first_of(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(Lsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_not_when_damaged() {
        let header = SegmentHeader::new(1, 2, Lsn(3));
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        bytes[20] ^= 1;
        assert_eq!(SegmentHeader::decode(&bytes), None);
    }

    #[test]
    fn names_sort_like_their_entries() {
        let (low, high) = (path(Path::new("/"), Lsn(9)), path(Path::new("/"), Lsn(1 << 40)));
        assert!(low < high);
        assert_eq!(first_of("0000000000000009.log"), Some(Lsn(9)));
        assert_eq!(first_of("9.log"), None);
    }
}
