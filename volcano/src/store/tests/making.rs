//! Making stores, rows and records for tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use magma_common::attr::Kind;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::{BirthString, KeyRange};
use magma_common::name::Name;
use magma_common::proto::{OpId, SessionId};
use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Position, Seq, SliceId};

use super::super::log::EntryRef;
use super::super::simulated::SimDisk;
use super::super::{
    Disk, Imported, Lsn, OpenError, OpenOptions, Opened, RealDisk, Store, StoreError, SyncBodies,
};
use crate::node::message::Part;
use crate::record::{BodyChange, Change, Record};
use crate::rows::{BodyId, Content, EntryRow, FlareRow, Life, ReferenceRow, SessionRow, Striping};
use crate::transaction::{
    self, Attempt, Link, Newborn, Participant, Seen, Step, Transaction, TransactionRow,
};

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

/// Runs upkeep with everything due until it has nothing to do.
pub(super) fn upkeep(store: &mut Store, seconds: u64) {
    for _ in 0..1000 {
        let maintenance = store.maintain(Duration::from_secs(seconds)).unwrap();
        let is_done = maintenance.job.is_none() && maintenance.again >= Duration::from_millis(100);
        match maintenance.job {
            Some(job) => store.finish_sync(job.run()).unwrap(),
            None if is_done => return,
            None => {}
        }
    }
    panic!("upkeep does not come to an end");
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
        striping: Striping::Whole,
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

/// Another slice.
pub(super) const OTHER: SliceId = SliceId(2);

/// The next record of a store, with these changes; of the epoch of the one before.
pub(super) fn record(store: &Store, changes: Vec<Change>) -> Record {
    record_in(store, SLICE, changes)
}

/// The same of any slice.
pub(super) fn record_in(store: &Store, slice: SliceId, changes: Vec<Change>) -> Record {
    let Position { epoch, seq } = store.position(slice).unwrap_or_default();
    let (epoch, seq) = (epoch.max(Epoch(1)), Seq(seq.0 + 1));
    Record { slice, epoch, seq, time: time(seq.0), changes, outcome: None }
}

/// The next record of a store, of this epoch.
pub(super) fn record_of(store: &Store, epoch: Epoch, changes: Vec<Change>) -> Record {
    Record { epoch, ..record(store, changes) }
}

/// Appends and flushes a record with these changes.
pub(super) fn put(store: &mut Store, changes: Vec<Change>) {
    put_in(store, SLICE, changes);
}

/// The same of any slice.
pub(super) fn put_in(store: &mut Store, slice: SliceId, changes: Vec<Change>) {
    let record = record_in(store, slice, changes);
    store.append(&record).unwrap();
    store.flush().unwrap();
}

/// Makes a slice of this range, in which there is nothing.
pub(super) fn found(store: &mut Store, slice: SliceId, range: KeyRange) {
    store.place(slice, range, Position::default(), &[], &[]).unwrap();
    let nothing = Part { range, first: true, last: true, changes: Vec::new(), appended: Vec::new() };
    assert_eq!(store.import(slice, &nothing).unwrap(), Imported::Done);
    store.sync_now(SyncBodies::None).unwrap();
}

pub(super) fn session(id: u64) -> SessionRow {
    SessionRow { id: SessionId(id), client: "client".into(), opened: time(1), acknowledged: id / 2 }
}

/// What flare `number` keeps of a transaction that makes a file with a small body of `size` bytes. Different numbers have
/// different ids.
pub(super) fn transaction(number: u64, part: transaction::Part, size: usize) -> TransactionRow {
    let (dir, file) = (flare(number % 3, Kind::Directory), flare(number % 14, Kind::File));
    let attempt = Attempt { driver: dir.key(), reign: Epoch(number << 63 | 7), number };
    let link = Link { name: name(number), child: file.handle, kind: file.kind, made_by: op(number) };
    let reference = ReferenceRow { parent: dir.handle, name: name(number), made_by: op(number) };
    let inline = vec![number as u8; size].into();
    let newborn = Newborn { row: file.clone(), reference, inline, xattrs: Vec::new() };
    let steps = vec![Step::Birth { newborn: Box::new(newborn), opened_by: Some(SessionId(number)) }];
    let seen = Some(Seen::new(&file, vec![(name(1), vec![7; 9].into())]));
    let participants = vec![Participant { key: file.key(), seen, steps }];
    let transaction = Transaction {
        attempt,
        op: op(number),
        time: time(number),
        own: vec![Participant { key: dir.key(), seen: None, steps: vec![Step::AddEntry(link)] }],
        participants,
        outcome: None,
        committed: Position { epoch: Epoch(number), seq: Seq(number) },
    };
    TransactionRow { key: file.key(), part, transaction }
}

/// Begins or changes a transaction.
pub(super) fn put_transaction(row: &TransactionRow) -> Change {
    Change::PutTransaction(Box::new(row.clone()))
}

/// Forgets a transaction.
pub(super) fn delete_transaction(row: &TransactionRow) -> Change {
    let (key, attempt, driven) = row.id();
    Change::DeleteTransaction { key, attempt, driven }
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
