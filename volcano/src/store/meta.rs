//! The meta file: what must be known before anything else is opened, and small values of the volcano's own.
//!
//! It is replaced as a whole (new file, sync, rename, sync of the folder), so it is always the old one or the new one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::disk::Disk;
use super::error::{OpenError, StoreError};

/// The store's format; `docs/FORMAT.md` describes it.
pub const FORMAT_VERSION: u32 = 6;

const MAGIC: &[u8; 8] = b"MAGMAMET";
const HEADER_LEN: usize = 20;
/// Largest meta file, in bytes.
const MAX_LEN: usize = 16 << 20;

/// What the meta file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Random; the log's segments carry it, so that files of another store are noticed.
    pub(super) store: u64,
    /// The machine's boot while the store is open; none after an orderly close.
    pub(super) running: Option<String>,
    /// Bodies without a row may lie in `data/` since an unclean stop.
    pub(super) sweep: bool,
    /// The volcano's values.
    pub(super) values: BTreeMap<String, ByteBuf>,
}

/// The meta file and its content.
#[derive(Debug)]
pub(super) struct MetaFile {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    content: Meta,
}

impl MetaFile {
    /// Reads the meta file of a folder; `None` if there is none.
    pub(super) fn read(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join("meta");
        let file = match disk.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| OpenError::file(&path, error))?,
        };
        let length = file.length().map_err(|error| OpenError::file(&path, error))?;
        let length = usize::try_from(length).ok().filter(|&length| length <= MAX_LEN);
        let mut bytes = vec![0; length.ok_or_else(|| OpenError::damaged(&path, "it is too long"))?];
        file.read_at(&mut bytes, 0).map_err(|error| OpenError::file(&path, error))?;
        let content = decode(&path, &bytes)?;
        Ok(Some(Self { disk: Arc::clone(disk), dir: dir.to_path_buf(), content }))
    }

    /// A new store's meta, not written yet.
    pub(super) fn new(disk: &Arc<dyn Disk>, dir: &Path, store: u64) -> Self {
        let content = Meta { store, ..Meta::default() };
        Self { disk: Arc::clone(disk), dir: dir.to_path_buf(), content }
    }

    pub(super) fn content(&self) -> &Meta {
        &self.content
    }

    /// Changes the content and makes the change durable before returning.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Meta)) -> Result<(), StoreError> {
        let mut content = self.content.clone();
        change(&mut content);
        let (path, new) = (self.dir.join("meta"), self.dir.join("meta.new"));
        let bytes = encode(&content).ok_or(StoreError::TooLarge(MAX_LEN))?;
        let write = || {
            let file = self.disk.create(&new)?;
            file.truncate(0)?;
            file.write_at(&bytes, 0)?;
            file.sync()?;
            self.disk.rename(&new, &path)?;
            self.disk.sync_dir(&self.dir)
        };
        write().map_err(|error| StoreError::file(&path, error))?;
        self.content = content;
        Ok(())
    }
}

fn encode(content: &Meta) -> Option<Vec<u8>> {
    let body = postcard::to_stdvec(content).ok().filter(|body| body.len() + HEADER_LEN <= MAX_LEN)?;
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(body.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Some(bytes)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Meta, OpenError> {
    let (header, body) =
        bytes.split_first_chunk::<HEADER_LEN>().ok_or_else(|| OpenError::damaged(path, "it is too short"))?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let mut numbers = rest.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    let mut number = || numbers.next().unwrap_or(0);
    let (version, length, crc) = (number(), number(), number());
    if magic != MAGIC {
        return Err(OpenError::damaged(path, "it is not a meta file"));
    }
    // before the checksum: another version may compute another one
    if version != FORMAT_VERSION {
        return Err(OpenError::other_format(path, version));
    }
    if body.len() != length as usize || crc32c::crc32c(body) != crc {
        return Err(OpenError::damaged(path, "its checksum does not match"));
    }
    postcard::from_bytes(body).map_err(|error| OpenError::damaged(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::disk::RealDisk;
    use super::*;

    fn real() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    #[test]
    fn a_value_is_there_after_reading_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(MetaFile::read(&real(), dir.path()).unwrap().is_none());
        let mut meta = MetaFile::new(&real(), dir.path(), 42);
        meta.update(|meta| drop(meta.values.insert("a".into(), ByteBuf::from(b"1".to_vec())))).unwrap();
        let again = MetaFile::read(&real(), dir.path()).unwrap().unwrap();
        assert_eq!(again.content(), meta.content());
    }

    #[test]
    fn a_newer_format_is_refused_with_both_numbers() {
        let mut bytes = encode(&Meta::default()).unwrap();
        bytes[8] = 9;
        let error = decode(Path::new("/m/meta"), &bytes).unwrap_err();
        let text = error.to_string();
        let known = format!("up to {FORMAT_VERSION}");
        assert!(
            text.contains("format 9") && text.contains(&known) && text.contains("newer magmad"),
            "{text}"
        );
    }

    #[test]
    fn the_format_of_a_pre_release_is_refused_as_that() {
        let mut bytes = encode(&Meta::default()).unwrap();
        for version in 1..FORMAT_VERSION {
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let error = decode(Path::new("/m/meta"), &bytes).unwrap_err();
            assert!(error.to_string().contains(&format!("pre-release in format {version}")), "{error}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(&Meta { store: 7, ..Meta::default() }).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(Path::new("m"), &bad).is_err(), "bit {bit}");
        }
    }
}
