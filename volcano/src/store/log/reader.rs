//! Reading entries back while the log is written.

use std::ops::Range;
use std::sync::Arc;

use super::super::disk::DiskFile;
use super::super::error::StoreError;
use super::{Log, Lsn, Place, frame};
use crate::record::Entry;
use crate::view::ReadError;

/// An entry as it was found.
#[derive(Debug)]
pub(in super::super) struct ReadEntry {
    pub(in super::super) lsn: Lsn,
    pub(in super::super) entry: Entry,
    /// Its encoded length in bytes.
    pub(in super::super) length: usize,
}

/// The segment that is read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) salt: u32,
    /// Where its frames end; for the active segment, those in its file.
    pub(super) end: u64,
    /// Its last entry; for the active segment, so far.
    pub(super) last: Lsn,
}

/// Reads one entry after the other, those that still wait in the log's buffer included.
#[derive(Debug)]
pub(in super::super) struct Reader<'a> {
    log: &'a Log,
    at: Place,
    source: Option<Source>,
    /// How many bytes are read at once, unless one entry has more.
    ahead: usize,
    chunk: Vec<u8>,
    /// Where the chunk lies in the segment.
    chunk_at: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(log: &'a Log, at: Place, ahead: usize) -> Self {
        Self { log, at, source: None, ahead, chunk: Vec::new(), chunk_at: 0 }
    }

    /// Where the next entry lies, or will.
    pub(in super::super) fn place(&self) -> Place {
        self.at
    }

    /// The next entry; `None` if there is none yet.
    pub(in super::super) fn next(&mut self) -> Result<Option<ReadEntry>, StoreError> {
        if self.at.lsn > self.log.last() {
            return Ok(None);
        }
        let mut source = self.source()?;
        if self.at.lsn > source.last {
            self.at = Place::start_of_segment(self.at.lsn);
            source = self.source()?;
        }
        let (lsn, salt) = (self.at.lsn, source.salt);
        let header = frame::header(self.bytes(&source, frame::HEADER_LEN)?, salt);
        let length = header.ok_or_else(|| damaged(lsn))?.length as usize;
        let whole = frame::HEADER_LEN + length;
        let (header, payload) = frame::read(self.bytes(&source, whole)?, salt).ok_or_else(|| damaged(lsn))?;
        let entry = match postcard::take_from_bytes::<Entry>(payload) {
            Ok((entry, [])) if header.lsn == lsn => entry,
            _ => return Err(damaged(lsn)),
        };
        self.at = Place { lsn: lsn.next(), offset: self.at.offset + whole as u64, ..self.at };
        self.source = Some(source);
        Ok(Some(ReadEntry { lsn, entry, length }))
    }

    fn source(&mut self) -> Result<Source, StoreError> {
        match self.source.take() {
            Some(source) if self.at.offset > super::segment::HEADER_LEN as u64 => Ok(source),
            _ => {
                self.chunk.clear();
                self.log.source(self.at.segment)?.ok_or_else(|| damaged(self.at.lsn))
            }
        }
    }

    /// So many bytes at the reader's place.
    fn bytes(&mut self, source: &Source, length: usize) -> Result<&[u8], StoreError> {
        let offset = self.at.offset;
        if offset >= source.end {
            // frames are handed to the kernel whole
            return self.log.buffered(offset, length).ok_or_else(|| damaged(self.at.lsn));
        }
        if self.within(length).is_none() {
            let left = usize::try_from(source.end - offset).unwrap_or(usize::MAX);
            self.chunk.resize(length.max(self.ahead).min(left), 0);
            let read = source.file.read_at(&mut self.chunk, offset).map_err(ReadError::Disk)?;
            self.chunk.truncate(read);
            self.chunk_at = offset;
        }
        let range = self.within(length);
        range.and_then(|range| self.chunk.get(range)).ok_or_else(|| damaged(self.at.lsn))
    }

    /// Where so many bytes at the reader's place lie in the chunk, if it has them.
    fn within(&self, length: usize) -> Option<Range<usize>> {
        let start = usize::try_from(self.at.offset.checked_sub(self.chunk_at)?).ok()?;
        let end = start.checked_add(length)?;
        (end <= self.chunk.len()).then_some(start..end)
    }
}

fn damaged(lsn: Lsn) -> StoreError {
    ReadError::Damaged { what: format!("entry {} of the log", lsn.0) }.into()
}
