//! A digest of everything that a copy must have in common with the others.

use magma_common::topology::SliceId;
use serde::Serialize;

use super::super::Store;
use super::super::db::Flare;
use super::after;
use crate::rows::Content;
use crate::view::{ReadError, View};

/// Flares and rows that are fetched at a time.
const PAGE: usize = 256;
/// Bytes of a body that are looked at together; those that are all zeros do not count.
const GRID: u64 = 4096;
/// Bytes of a body that are read at a time, a multiple of that.
const CHUNK: u64 = 64 * GRID;

impl Store {
    /// A digest of all rows of a slice and all bytes of its bodies, in the order of inode numbers. Equal for two stores that hold
    /// the same; what is each store's own (local ids, places in the log, storage in use) is left out.
    pub fn fingerprint(&self, slice: SliceId) -> Result<[u8; 32], ReadError> {
        let mut hash = blake3::Hasher::new();
        add(&mut hash, &self.sessions_of(slice)?)?;
        add(&mut hash, &self.transactions(slice)?)?;
        let mut left = self.range(slice);
        while let Some(range) = left {
            let inos = self.db.inos(range, PAGE)?;
            left = inos.last().and_then(|&last| after(range, last));
            for ino in inos {
                if let Some(flare) = self.db.flare_by_ino(ino)? {
                    self.add_flare(&mut hash, &flare)?;
                }
            }
        }
        Ok(*hash.finalize().as_bytes())
    }

    /// The handles of all flares of a slice, in the order of inode numbers.
    #[cfg(feature = "simulation")]
    pub fn handles_of(&self, slice: SliceId) -> Result<Vec<magma_common::handle::Handle>, ReadError> {
        let mut handles = Vec::new();
        let mut left = self.range(slice);
        while let Some(range) = left {
            let inos = self.db.inos(range, PAGE)?;
            left = inos.last().and_then(|&last| after(range, last));
            for ino in inos {
                handles.extend(self.db.flare_by_ino(ino)?.map(|flare| flare.row.handle));
            }
        }
        Ok(handles)
    }

    fn add_flare(&self, hash: &mut blake3::Hasher, flare: &Flare) -> Result<(), ReadError> {
        let key = flare.row.key();
        add(hash, &flare.row)?;
        add(hash, &self.inline(&key)?)?;
        add(hash, &self.locks(&key)?)?;
        let mut last = None;
        loop {
            let page = self.db.references_after(flare.local, last.as_ref(), PAGE)?;
            add(hash, &page)?;
            last = page.last().cloned();
            if last.is_none() {
                break;
            }
        }
        let mut last = None;
        while let Some((name, value)) = self.db.xattr_after(flare.local, last.as_ref())? {
            add(hash, &(&name, value))?;
            last = Some(name);
        }
        let mut last = 0;
        loop {
            let page = self.entries_after(&key, last, PAGE)?;
            add(hash, &page)?;
            let Some(entry) = page.last() else { break };
            last = entry.cookie;
        }
        self.add_body(hash, flare)
    }

    fn add_body(&self, hash: &mut blake3::Hasher, flare: &Flare) -> Result<(), ReadError> {
        let Content::Body { body, .. } = flare.row.content else { return Ok(()) };
        let high = self.bodies.borrow_mut().high(&self.db, body)?;
        add(hash, &high)?;
        let mut at = 0;
        // a hole and zeros are the same to a reader, and a hole may be as large as a file may be
        while let Some(data) = self.body_data(body, at, high)? {
            let start = data / GRID * GRID;
            at = start.saturating_add(CHUNK).min(high);
            let bytes = self.read_body(body, start, usize::try_from(at - start).unwrap_or(0))?;
            for (offset, bytes) in (start..).step_by(GRID as usize).zip(bytes.chunks(GRID as usize)) {
                if bytes.iter().any(|&byte| byte != 0) {
                    add(hash, &(offset, bytes))?;
                }
            }
        }
        Ok(())
    }
}

/// Adds a value with its length, so that no two sequences of values look alike.
fn add(hash: &mut blake3::Hasher, value: &impl Serialize) -> Result<(), ReadError> {
    let bytes = postcard::to_stdvec(value)
        .map_err(|error| ReadError::Damaged { what: format!("a row that cannot be encoded ({error})") })?;
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(&bytes);
    Ok(())
}
