//! Reading a range of a body: file, checksums, overlay. A planned read can run on any thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use super::super::db::BlockSum;
use super::super::disk::{SyncedFile, read_cached_padded, read_padded};
use super::checksum;
use super::overlay::{Piece, lay};
use crate::rows::BodyId;
use crate::view::ReadError;

/// Reads up to this length are done at once if they need not wait for the disk; copying more takes longer than waking another thread.
const QUICK_LENGTH: usize = 128 << 10;

/// A read of a body, ready to run away from the thread that owns the store.
#[derive(Debug)]
pub struct BodyRead {
    pub(super) body: BodyId,
    /// None: there is no file, all is zeros.
    pub(super) file: Option<Arc<SyncedFile>>,
    pub(super) offset: u64,
    /// How many bytes are asked for.
    pub(super) length: usize,
    /// How many of them the body reaches; the rest is zeros.
    pub(super) reach: u64,
    pub(super) sums: BTreeMap<u64, BlockSum>,
    pub(super) pieces: Vec<(u64, u64, Piece)>,
    /// The body's counter of changes to its file below its end, and where that stood.
    pub(super) changes: Arc<AtomicU64>,
    pub(super) planned_at: u64,
    pub(super) mismatches: Arc<AtomicU64>,
}

impl BodyRead {
    /// Reads. `None`: the body was changed meanwhile and what was read may be mixed; plan the read again.
    pub fn run(self) -> Result<Option<Bytes>, ReadError> {
        let (start, mut buffer) = self.buffer();
        if let Some(file) = &self.file {
            read_padded(file, &mut buffer, start)?;
        }
        self.finish(start, buffer)
    }

    /// Reads here and now if that is quick: few bytes, all in the page cache. Else the plan comes back, to be [`run`](Self::run) elsewhere.
    pub fn run_if_quick(self) -> Result<Result<Option<Bytes>, ReadError>, Self> {
        if self.length > QUICK_LENGTH {
            return Err(self);
        }
        let (start, mut buffer) = self.buffer();
        let read = match &self.file {
            Some(file) => read_cached_padded(file, &mut buffer, start),
            None => Ok(true),
        };
        match read {
            Ok(true) => Ok(self.finish(start, buffer)),
            Ok(false) => Err(self),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// Room for the range and what must be read with it for its checksums, and where that begins.
    fn buffer(&self) -> (u64, BytesMut) {
        let wide = checksum::widen(&self.sums, self.offset, self.offset + self.reach);
        (wide.start, BytesMut::zeroed(usize::try_from(wide.end - wide.start).unwrap_or(0)))
    }

    fn finish(self, start: u64, mut buffer: BytesMut) -> Result<Option<Bytes>, ReadError> {
        if self.changes.load(Ordering::Acquire) != self.planned_at {
            return Ok(None);
        }
        if let Some(block) = checksum::mismatch(&self.sums, start, &buffer) {
            self.mismatches.fetch_add(1, Ordering::Relaxed);
            tracing::error!(target: "garbage", body = %format_args!("{:016x}", self.body.0), block,
                "a block fails its checksum");
            return Err(ReadError::Checksum { body: self.body, block });
        }
        let mut bytes = buffer.split_off(usize::try_from(self.offset - start).unwrap_or(0));
        bytes.truncate(usize::try_from(self.reach).unwrap_or(0));
        bytes.resize(self.length, 0);
        lay(&self.pieces, self.offset, &mut bytes);
        Ok(Some(bytes.freeze()))
    }
}
