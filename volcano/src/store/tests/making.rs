//! Making stores, rows and records for tests.

use std::path::Path;
use std::sync::Arc;

use magma_common::attr::Kind;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::{BirthString, KeyRange};
use magma_common::name::Name;
use magma_common::proto::{OpId, SessionId};
use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Position, Seq, SliceId};

use super::super::log::EntryRef;
use super::super::simulated::SimDisk;
use super::super::{Disk, Lsn, OpenError, OpenOptions, Opened, RealDisk, Store, StoreError};
use crate::record::{BodyChange, Change, Record};
use crate::rows::{BodyId, Content, EntryRow, FlareRow, Life, ReferenceRow};

/// Options with small limits, so that short tests reach them.
pub(super) fn small(create: bool, boot: &str) -> OpenOptions {
    OpenOptions {
        create,
        machine_boot: boot.to_owned(),
        segment_size: 16 << 10,
        commit_records: 20,
        wal_bytes: 64 << 10,
        bodies: 8,
        overlay_bytes: 16 << 10,
        overlay_changes: 24,
        ..OpenOptions::default()
    }
}

pub(super) fn open_sim(
    dir: &Path,
    disk: &SimDisk,
    options: OpenOptions,
) -> Result<(Store, Opened), OpenError> {
    Store::open(dir, Arc::new(disk.clone()), options)
}

pub(super) fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

/// A new store on the real disk.
pub(super) fn create(dir: &Path) -> Store {
    Store::open(dir, real(), small(true, "boot")).unwrap().0
}

pub(super) fn time(number: u64) -> Timestamp {
    Timestamp::new(number.cast_signed(), 5).unwrap()
}

pub(super) fn name(number: u64) -> Name {
    Name::new(format!("name {number}").into_bytes()).unwrap()
}

pub(super) fn op(number: u64) -> OpId {
    OpId::Session { session: SessionId(9), sequence: number }
}

/// The flare born as `/<number>`.
pub(super) fn flare(number: u64, kind: Kind) -> FlareRow {
    let birth = BirthString::root().child(number.to_string().as_bytes());
    FlareRow {
        handle: Handle { key: birth.key(), birth: BirthNumber(number) },
        birth,
        kind,
        life: Life::Named,
        mode: 0o640,
        nlink: 1,
        uid: 1000,
        gid: u32::MAX,
        rdev: u64::MAX,
        size: number,
        atime: time(number),
        mtime: Timestamp::new(-1, 999_999_999).unwrap(),
        ctime: time(3),
        btime: time(4),
        change: number,
        content: Content::Inline,
        verifier: Some(u64::MAX - number),
        entries: 0,
        next_cookie: 3,
        has_acl: number.is_multiple_of(2),
    }
}

pub(super) fn entry(number: u64, child: &FlareRow, cookie: u64) -> EntryRow {
    EntryRow { name: name(number), child: child.handle, kind: child.kind, cookie, made_by: op(number) }
}

pub(super) fn reference(number: u64, parent: &FlareRow) -> ReferenceRow {
    ReferenceRow { parent: parent.handle, name: name(number), made_by: OpId::Call(u128::from(number) << 70) }
}

pub(super) fn body_change(body: BodyId, flare: &FlareRow, change: BodyChange) -> Change {
    Change::Body { body, flare: flare.handle, change }
}

/// The slice that the tests' records belong to.
pub(super) const SLICE: SliceId = SliceId(1);

/// The next record of a store, with these changes; of the epoch of the one before.
pub(super) fn record(store: &Store, changes: Vec<Change>) -> Record {
    let last = store.position(SLICE).unwrap_or(Position { epoch: Epoch(1), seq: Seq(0) });
    record_of(store, last.epoch, changes)
}

/// The next record of a store, of this epoch.
pub(super) fn record_of(store: &Store, epoch: Epoch, changes: Vec<Change>) -> Record {
    let seq = Seq(store.position(SLICE).unwrap_or_default().seq.0 + 1);
    Record { slice: SLICE, epoch, seq, time: time(seq.0), changes, outcome: None }
}

/// Appends and flushes a record with these changes.
pub(super) fn put(store: &mut Store, changes: Vec<Change>) {
    let record = record(store, changes);
    store.append(&record).unwrap();
    store.flush().unwrap();
}

/// Writes bytes at the end of a body, with the record that says so.
pub(super) fn put_append(store: &mut Store, body: BodyId, owner: &FlareRow, offset: u64, data: &[u8]) {
    store.write_append(body, offset, data).unwrap();
    let change = BodyChange::Append { offset, length: data.len() as u64 };
    put(store, vec![body_change(body, owner, change)]);
}

/// Takes changes that are no record. What they append was written to the bodies, after [`begin`] if it begins one.
pub(super) fn copied(
    store: &mut Store,
    changes: &[Change],
    complete: Option<KeyRange>,
) -> Result<Lsn, StoreError> {
    store.take(EntryRef::Copied { slice: SLICE, changes, complete })
}

/// The next entry, which is no record, begins this body, unless it is there.
pub(super) fn begin(store: &mut Store, body: BodyId) {
    let born = store.last().next();
    if store.db.body(body).unwrap().is_none() {
        store.bodies.get_mut().begin(&store.db, body, born).unwrap();
    }
}
