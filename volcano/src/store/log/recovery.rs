//! Reading the log back: where it ends, whether that is a torn tail or damage, and the entries it holds.
//!
//! The log may end early after a power cut: what was never synced may be missing, whole or in part, and later bytes may be
//! there while earlier ones are not. That is cut off. It may not end before an entry that was on disk for certain, which
//! is known from three sources: the database (committed only after the log was synced), the `stable` field of every later
//! frame that survived, and, if the machine did not stop, any later frame at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Lsn;
use magma_common::time::Timestamp;

use super::super::disk::Disk;
use super::super::error::OpenError;
use super::super::meta::FORMAT_VERSION;
use super::segment::{self, Sealed, SegmentHeader};
use super::{EntryRef, Place, frame, segment::HEADER_LEN};
use crate::record::Entry;

/// Largest segment that is read, in bytes; more than any that is written.
const MAX_SEGMENT: u64 = 1 << 30;

/// What is known before the log is read.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Known {
    /// Whose log.
    pub(in super::super) store: u64,
    /// The database has everything up to here, so the log had it on disk.
    pub(in super::super) applied: Lsn,
    /// The machine has not been restarted since the log was written.
    pub(in super::super) same_boot: bool,
}

/// The log as it was found.
#[derive(Debug)]
pub(in super::super) struct Found {
    /// Its segments, all whole and durable.
    pub(in super::super) sealed: Vec<Sealed>,
    /// Its last entry.
    pub(in super::super) last: Lsn,
    /// The latest time of any record in it.
    pub(in super::super) newest: Timestamp,
    /// Bytes that were cut off its end.
    pub(in super::super) cut: u64,
}

/// One segment while the log is checked.
struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    named: Lsn,
    header: Option<SegmentHeader>,
}

/// Takes each entry of the log, with its place and its encoded length.
pub(in super::super) type Visit<'a> = dyn FnMut(Place, usize, Entry) -> Result<(), OpenError> + 'a;

/// Checks the log, cuts a torn tail off, makes the rest durable, and hands each entry to `visit`.
///
/// `visit` hears of an entry only when that entry is on disk.
pub(in super::super) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    known: Known,
    visit: &mut Visit<'_>,
) -> Result<Found, OpenError> {
    let mut names: Vec<_> = list(disk, dir)?.iter().filter_map(|name| segment::first_of(name)).collect();
    names.sort_unstable();
    let mut found = Found { sealed: Vec::new(), last: known.applied, newest: Timestamp::default(), cut: 0 };
    let mut next = None;
    let mut position = names.iter().copied();
    while let Some(named) = position.next() {
        let segment = load(disk, dir, named, known.store)?;
        let expected = next.unwrap_or(named);
        let chained = segment.header.filter(|header| header.first == named && named == expected);
        let Some(header) = chained else {
            judge(&segment, 0, expected, known)?;
            let rest: Vec<_> = position.collect();
            judge_rest(disk, dir, &rest, expected, known)?;
            found.cut += segment.bytes.len() as u64;
            remove(disk, dir, [named].into_iter().chain(rest))?;
            break;
        };
        let (end, after) = whole_frames(&segment.bytes, header.salt, expected);
        next = Some(after);
        let ends_clean = segment.bytes.get(end..).is_none_or(|rest| rest.iter().all(|&byte| byte == 0));
        if !ends_clean {
            judge(&segment, end, after, known)?;
            found.cut += (segment.bytes.len() - end) as u64;
        }
        seal(disk, &segment.path, end, segment.bytes.len())?;
        visit_frames(&segment, header.salt, end, &mut found.newest, visit)?;
        if after > expected {
            found.sealed.push(Sealed {
                path: segment.path,
                first: expected,
                last: after.before(),
                newest: found.newest,
                salt: header.salt,
                end: end as u64,
            });
        } else {
            remove(disk, dir, [named])?;
        }
    }
    let missing = |lsn: Lsn| OpenError::damaged(dir, format!("entry {} was on disk and is missing", lsn.0));
    match next {
        None if known.applied > Lsn(0) => return Err(missing(known.applied)),
        Some(next) if next.0 <= known.applied.0 => return Err(missing(next)),
        Some(next) => found.last = next.before(),
        None => {}
    }
    disk.sync_dir(dir).map_err(|error| OpenError::file(dir, error))?;
    Ok(found)
}

fn list(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Vec<String>, OpenError> {
    disk.list(dir).map_err(|error| OpenError::file(dir, error))
}

fn load(disk: &Arc<dyn Disk>, dir: &Path, named: Lsn, store: u64) -> Result<Segment, OpenError> {
    let path = segment::path(dir, named);
    let read = || {
        let file = disk.open(&path)?;
        let length = file.length()?;
        if length > MAX_SEGMENT {
            return Err(std::io::Error::other("the segment is too long"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    };
    let bytes = read().map_err(|error| OpenError::file(&path, error))?;
    let header = SegmentHeader::decode(&bytes);
    if let Some(header) = header {
        if header.version != FORMAT_VERSION {
            return Err(OpenError::other_format(&path, header.version));
        }
        if header.store != store {
            return Err(OpenError::damaged(&path, "it belongs to another store"));
        }
    }
    Ok(Segment { path, bytes, named, header })
}

/// Where the whole frames end that follow each other from `first` on, and the entry that would come next.
fn whole_frames(bytes: &[u8], salt: u32, first: Lsn) -> (usize, Lsn) {
    let (mut at, mut next) = (HEADER_LEN, first);
    while let Some((header, payload)) = bytes.get(at..).and_then(|rest| frame::read(rest, salt)) {
        if header.lsn != next {
            break;
        }
        at += frame::HEADER_LEN + payload.len();
        next = next.next();
    }
    (at, next)
}

/// Refuses to cut at entry `missing` if what lies behind shows that it was on disk.
fn judge(segment: &Segment, end: usize, missing: Lsn, known: Known) -> Result<(), OpenError> {
    let damaged = || {
        let what = format!("entry {} was on disk and cannot be read (at byte {end})", missing.0);
        OpenError::damaged(&segment.path, what)
    };
    if missing <= known.applied {
        return Err(damaged());
    }
    // the header's salt is needed to know a frame of this segment; without it nothing in the segment can be told from noise
    let (Some(header), Some(rest)) = (segment.header, segment.bytes.get(end..)) else { return Ok(()) };
    for (_, survivor) in frame::survivors(rest, header.salt) {
        if survivor.stable >= missing || known.same_boot {
            return Err(damaged());
        }
    }
    Ok(())
}

/// The same for all segments behind.
fn judge_rest(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    rest: &[Lsn],
    missing: Lsn,
    known: Known,
) -> Result<(), OpenError> {
    rest.iter().try_for_each(|&named| judge(&load(disk, dir, named, known.store)?, 0, missing, known))
}

/// Cuts a segment at the end of its last whole frame and makes it durable, so that nothing behind it is ever taken for an entry.
fn seal(disk: &Arc<dyn Disk>, path: &Path, end: usize, length: usize) -> Result<(), OpenError> {
    let seal = || {
        let file = disk.open(path)?;
        if end < length {
            file.truncate(end as u64)?;
        }
        file.sync()
    };
    seal().map_err(|error| OpenError::file(path, error))
}

fn remove(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    segments: impl IntoIterator<Item = Lsn>,
) -> Result<(), OpenError> {
    for first in segments {
        let path = segment::path(dir, first);
        disk.unlink(&path).map_err(|error| OpenError::file(&path, error))?;
    }
    Ok(())
}

/// Decodes the segment's entries, and keeps the latest time of its records.
fn visit_frames(
    segment: &Segment,
    salt: u32,
    end: usize,
    newest: &mut Timestamp,
    visit: &mut Visit<'_>,
) -> Result<(), OpenError> {
    let mut at = HEADER_LEN;
    while let Some((header, payload)) = segment.bytes.get(at..end).and_then(|rest| frame::read(rest, salt)) {
        let Ok((entry, [])) = postcard::take_from_bytes::<Entry>(payload) else {
            let what = format!("entry {} does not decode", header.lsn.0);
            return Err(OpenError::damaged(&segment.path, what));
        };
        let time = EntryRef::from(&entry).time();
        *newest = time.unwrap_or_default().max(*newest);
        visit(Place { lsn: header.lsn, segment: segment.named, offset: at as u64 }, payload.len(), entry)?;
        at += frame::HEADER_LEN + payload.len();
    }
    Ok(())
}
