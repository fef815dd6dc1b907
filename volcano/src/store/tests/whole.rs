//! What belongs to a slice as a whole, its sessions and transactions; and stores that hold several slices.

use std::path::Path;

use magma_common::attr::Kind;
use magma_common::key::{Ino, Key, KeyRange};
use magma_common::proto::SessionId;
use magma_common::proto::operation::{LockFamily, LockKind, LockOwner};
use magma_common::topology::{Epoch, Position, Seq, SliceId};

use super::super::simulated::{Dice, SimDisk};
use super::super::{Doubts, Imported, Inside, Rewound, Store, StoreError, SyncBodies};
use super::making::{
    OTHER, SLICE, create, delete_transaction, flare, found, open_sim, put, put_in, put_transaction, real,
    session, small, transaction,
};
use crate::missing::Missing;
use crate::node::message;
use crate::record::Change;
use crate::rows::{BodyId, Life, LockRow};
use crate::transaction::{Part, TransactionRow};
use crate::view::View;

const MIDDLE: Ino = Ino(1 << 63);
const BUDGET: usize = 100_000;

fn lower() -> KeyRange {
    KeyRange::new(Ino(0), Ino(MIDDLE.0 - 1)).unwrap()
}

fn upper() -> KeyRange {
    KeyRange::new(MIDDLE, Ino(u64::MAX)).unwrap()
}

/// A store with [`SLICE`] below and [`OTHER`] above, and in both of them sessions and transactions, some under the same ids.
fn two_slices(dir: &Path) -> Store {
    let mut store = create(dir);
    found(&mut store, SLICE, lower());
    found(&mut store, OTHER, upper());
    let whole = |ids: [u64; 2]| -> Vec<Change> {
        let rows = ids.map(|id| put_transaction(&transaction(id, Part::Applied, 10)));
        ids.map(|id| Change::PutSession(session(id))).into_iter().chain(rows).collect()
    };
    put_in(&mut store, SLICE, whole([1, 2]));
    put_in(&mut store, OTHER, whole([2, 3]));
    store
}

fn assert_has(store: &Store, slice: SliceId, ids: &[u64]) {
    let sessions: Vec<_> = ids.iter().map(|&id| session(id)).collect();
    assert_eq!(store.sessions_of(slice).unwrap(), sessions);
    let mut rows: Vec<_> = ids.iter().map(|&id| transaction(id, Part::Applied, 10)).collect();
    rows.sort_by_key(TransactionRow::id);
    assert_eq!(store.transactions(slice).unwrap(), rows);
}

/// Lets a store have a copy of a slice of another one; gives out the parts that it took.
fn copy(source: &Store, store: &mut Store, slice: SliceId) -> Vec<message::Part> {
    let (range, position) = (source.range(slice).unwrap(), source.position(slice).unwrap());
    store.place(slice, range, position, &source.history(slice), &[]).unwrap();
    let mut inside: Option<Inside> = None;
    let mut parts = Vec::new();
    while let Some(&within) = store.missing(slice).ranges().first() {
        let (part, next) = source.export(slice, within, inside.as_ref(), BUDGET).unwrap();
        match store.import(slice, &part).unwrap() {
            Imported::Done => {
                inside = next;
                parts.push(part);
            }
            Imported::Later => {}
            Imported::OutOfPlace => panic!("out of place"),
        }
    }
    parts
}

fn reopen(store: Store, dir: &Path) -> Store {
    drop(store);
    Store::open(dir, real(), small(false, "boot")).unwrap().0
}

#[test]
fn transactions_are_there_again_after_the_death_of_the_process_in_the_order_of_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    // some reigns are too large for a signed number
    let mut rows: Vec<_> = (0..40).map(|number| transaction(number, Part::Prepared, 10)).collect();
    put(&mut store, rows.iter().map(put_transaction).collect());
    rows[3].part = Part::Applied;
    put(&mut store, vec![put_transaction(&rows[3]), delete_transaction(&rows[7])]);
    rows.remove(7);
    rows.sort_by_key(TransactionRow::id);
    assert!(rows.iter().any(|row| row.transaction.attempt.reign > Epoch(1 << 63)));
    for _ in 0..2 {
        assert_eq!(store.transactions(SLICE).unwrap(), rows);
        // the first time from the log, then from the database
        store = reopen(store, dir.path());
        store.commit().unwrap();
    }
    assert!(store.transactions(OTHER).unwrap().is_empty());
}

#[test]
fn a_flare_may_drive_a_transaction_in_which_it_takes_part() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let (applied, driven) = (transaction(1, Part::Applied, 10), transaction(1, Part::Driven, 10));
    put(&mut store, vec![put_transaction(&driven), put_transaction(&applied)]);
    assert_eq!(store.transactions(SLICE).unwrap(), [applied.clone(), driven.clone()]);
    put(&mut store, vec![delete_transaction(&applied)]);
    assert_eq!(store.transactions(SLICE).unwrap(), [driven]);
}

#[test]
fn a_transaction_stays_whether_or_not_its_flare_exists() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let row = transaction(1, Part::Prepared, 10);
    put(&mut store, vec![put_transaction(&row)]);
    put(&mut store, vec![Change::PutFlare(flare(1, Kind::File))]);
    put(&mut store, vec![Change::DeleteFlare(row.key)]);
    assert_eq!(store.transactions(SLICE).unwrap(), [row]);
}

#[test]
fn a_power_cut_takes_no_transaction_that_was_on_disk_and_brings_none_back() {
    let dir = tempfile::tempdir().unwrap();
    let (home, mut dice) = (dir.path().join("store"), Dice::new(1));
    for committed in [false, true] {
        drop(std::fs::remove_dir_all(&home));
        let disk = SimDisk::new(&home);
        let (mut store, _) = open_sim(&home, &disk, small(true, "first")).unwrap();
        let [settled, kept] = [1, 2].map(|number| transaction(number, Part::Driven, 5000));
        put(&mut store, vec![put_transaction(&settled)]);
        put(&mut store, vec![put_transaction(&kept)]);
        if committed {
            store.sync_now(SyncBodies::None).unwrap();
            store.commit().unwrap();
        }
        put(&mut store, vec![delete_transaction(&settled)]);
        store.sync_now(SyncBodies::None).unwrap();
        drop(store);
        disk.cut_power(&mut dice);
        let (store, opened) = open_sim(&home, &disk, small(false, "second")).unwrap();
        assert!(!opened.same_boot);
        assert_eq!(store.transactions(SLICE).unwrap(), [kept], "committed: {committed}");
    }
}

#[test]
fn slices_know_their_ranges_and_one_founded_by_its_first_record_covers_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    assert_eq!(store.range(SLICE), None);
    found(&mut store, OTHER, upper());
    put(&mut store, Vec::new());
    for _ in 0..2 {
        assert_eq!((store.range(SLICE), store.range(OTHER)), (Some(KeyRange::ALL), Some(upper())));
        store = reopen(store, dir.path());
        store.commit().unwrap();
    }
    // a copy that begins anew may be about other keys
    let position = store.position(SLICE).unwrap();
    store.place(SLICE, lower(), position, &store.history(SLICE), &[]).unwrap();
    store.flush().unwrap();
    assert_eq!(reopen(store, dir.path()).range(SLICE), Some(lower()));
}

#[test]
fn slices_in_one_store_have_each_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = two_slices(dir.path());
    let renewed = crate::rows::SessionRow { client: "renewed".into(), ..session(2) };
    put_in(&mut store, OTHER, vec![Change::PutSession(renewed.clone())]);
    put(&mut store, vec![Change::EndSession(SessionId(1)), Change::EndSession(SessionId(3))]);
    put(&mut store, vec![delete_transaction(&transaction(2, Part::Applied, 10))]);
    let store = reopen(store, dir.path());
    assert_eq!(store.sessions_of(SLICE).unwrap(), [session(2)]);
    assert_eq!(store.sessions_of(OTHER).unwrap(), [renewed.clone(), session(3)]);
    assert_eq!(store.session_of(SLICE, SessionId(2)).unwrap(), Some(session(2)));
    assert_eq!(store.session_of(OTHER, SessionId(2)).unwrap(), Some(renewed));
    assert_eq!(store.session_of(SLICE, SessionId(3)).unwrap(), None);
    assert_eq!(store.transactions(SLICE).unwrap().len(), 1);
    assert_eq!(store.transactions(OTHER).unwrap().len(), 2);
    // whoever asks for all of them gets each session once
    assert_eq!(store.sessions().unwrap().len(), 2);
}

#[test]
fn sessions_are_in_the_order_of_their_numbers_though_large_ones_are_stored_as_negative() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let ids = [0, 1, i64::MAX as u64, 1 << 63, u64::MAX];
    put(&mut store, ids.iter().rev().map(|&id| Change::PutSession(session(id))).collect());
    assert_eq!(store.sessions_of(SLICE).unwrap(), ids.map(session));
    let other_dir = tempfile::tempdir().unwrap();
    let mut other = create(other_dir.path());
    copy(&store, &mut other, SLICE);
    assert_eq!(other.sessions_of(SLICE).unwrap(), ids.map(session));
}

#[test]
fn a_copy_that_begins_anew_leaves_the_other_slice_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = two_slices(dir.path());
    let (slice, other) = (store.fingerprint(SLICE).unwrap(), store.fingerprint(OTHER).unwrap());
    let position = store.position(OTHER).unwrap();
    store.place(OTHER, upper(), position, &store.history(OTHER), &[]).unwrap();
    assert_has(&store, OTHER, &[]);
    assert_has(&store, SLICE, &[1, 2]);
    assert_eq!(store.fingerprint(SLICE).unwrap(), slice);
    assert_ne!(store.fingerprint(OTHER).unwrap(), other);
    store.flush().unwrap();
    let store = reopen(store, dir.path());
    assert_has(&store, OTHER, &[]);
    assert_has(&store, SLICE, &[1, 2]);
}

#[test]
fn a_slice_that_begins_in_the_middle_is_copied_with_its_sessions_and_transactions_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let source = two_slices(&dir.path().join("source"));
    let mut store = create(&dir.path().join("copy"));
    found(&mut store, SLICE, lower());
    put_in(&mut store, SLICE, vec![Change::PutSession(session(2)), Change::PutSession(session(9))]);
    let before = store.fingerprint(SLICE).unwrap();
    for _ in 0..2 {
        // the second time what the first brought is in the way
        assert_eq!(copy(&source, &mut store, OTHER).len(), 1);
        assert_has(&store, OTHER, &[2, 3]);
        assert_eq!(store.fingerprint(OTHER).unwrap(), source.fingerprint(OTHER).unwrap());
        assert_eq!(store.fingerprint(SLICE).unwrap(), before);
    }
    store.flush().unwrap();
    let store = reopen(store, &dir.path().join("copy"));
    assert_has(&store, OTHER, &[2, 3]);
    assert_eq!(store.fingerprint(SLICE).unwrap(), before);
}

#[test]
fn what_the_source_does_not_have_any_more_goes_and_the_other_slice_keeps_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = two_slices(&dir.path().join("source"));
    let mut store = two_slices(&dir.path().join("copy"));
    put_in(&mut source, OTHER, vec![Change::EndSession(SessionId(2))]);
    put_in(&mut source, OTHER, vec![delete_transaction(&transaction(2, Part::Applied, 10))]);
    put_in(&mut store, OTHER, Vec::new());
    put_in(&mut store, OTHER, vec![Change::PutSession(session(4))]);
    // only the first key is missing, so what is there is not gone beforehand
    let to = Position { epoch: Epoch(1), seq: Seq(2) };
    assert_eq!(store.rewind(OTHER, to).unwrap(), Rewound::Done);
    assert_eq!(store.missing(OTHER), &Missing::all(KeyRange::single(MIDDLE)));
    put_in(&mut store, OTHER, Vec::new());
    let (part, _) = source.export(OTHER, KeyRange::single(MIDDLE), None, BUDGET).unwrap();
    assert_eq!(store.import(OTHER, &part).unwrap(), Imported::Done);
    assert_has(&store, OTHER, &[3]);
    assert_has(&store, SLICE, &[1, 2]);
}

#[test]
fn a_rewind_of_a_transaction_lets_the_first_key_of_its_slice_be_missing() {
    for change in [
        put_transaction(&transaction(5, Part::Prepared, 10)),
        delete_transaction(&transaction(3, Part::Applied, 10)),
        Change::PutSession(session(5)),
        Change::EndSession(SessionId(3)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = two_slices(dir.path());
        let to = store.position(OTHER).unwrap();
        put_in(&mut store, OTHER, Vec::new());
        let between = store.position(OTHER).unwrap();
        put_in(&mut store, OTHER, vec![change]);
        // of the other slice, in the same log
        put_in(&mut store, SLICE, vec![put_transaction(&transaction(6, Part::Prepared, 10))]);
        put_in(&mut store, OTHER, Vec::new());
        assert_eq!(store.rewind(OTHER, between).unwrap(), Rewound::Done);
        assert_eq!(store.missing(OTHER), &Missing::all(KeyRange::single(MIDDLE)));
        assert_eq!(store.rewind(OTHER, to).unwrap(), Rewound::Done);
        assert_eq!(store.missing(OTHER), &Missing::all(KeyRange::single(MIDDLE)));
        assert!(store.missing(SLICE).is_empty());
        assert_eq!(store.transactions(SLICE).unwrap().len(), 3);
        store.flush().unwrap();
        let mut store = reopen(store, dir.path());
        assert_eq!(store.missing(OTHER), &Missing::all(KeyRange::single(MIDDLE)));
        // they come anew with that key
        let source_dir = tempfile::tempdir().unwrap();
        let source = two_slices(source_dir.path());
        let (part, _) = source.export(OTHER, KeyRange::single(MIDDLE), None, BUDGET).unwrap();
        assert_eq!(store.import(OTHER, &part).unwrap(), Imported::Done);
        assert_has(&store, OTHER, &[2, 3]);
    }
}

/// A power cut leaves doubts about flares of all slices, and each slice is told of all of them.
#[test]
fn doubts_about_one_slices_flares_do_not_let_the_other_one_lack_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = two_slices(dir.path());
    let mut doubts = Doubts::default();
    let [low, high] = [lower(), upper()].map(flare_in);
    for (number, row) in (1..).zip([&low, &high]) {
        doubts.note(row.handle, BodyId(number), 0, 10);
    }
    store.distrust(SLICE, &doubts).unwrap();
    assert_eq!(store.missing(SLICE), &Missing::all(KeyRange::single(low.key().ino())));
    assert!(store.missing(OTHER).is_empty());
}

/// The first flare in a range.
fn flare_in(range: KeyRange) -> crate::rows::FlareRow {
    (0..1000).map(|number| flare(number, Kind::File)).find(|row| range.contains(&row.key())).unwrap()
}

#[test]
fn however_many_they_are_no_part_is_much_larger_than_its_budget() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = two_slices(&dir.path().join("source"));
    for number in 10..210 {
        put_in(&mut source, OTHER, vec![put_transaction(&transaction(number, Part::Prepared, 5000))]);
        let sessions = (number * 50..number * 50 + 50).map(|id| Change::PutSession(session(id)));
        put_in(&mut source, OTHER, sessions.collect());
    }
    put_in(&mut source, OTHER, vec![Change::PutFlare(flare_in(upper()))]);
    let mut store = two_slices(&dir.path().join("copy"));
    let parts = copy(&source, &mut store, OTHER);
    let sizes: Vec<_> = parts.iter().map(|part| postcard::to_stdvec(part).unwrap().len()).collect();
    assert!(sizes.len() > 10 && sizes.iter().all(|&size| size < BUDGET + 10_000), "{sizes:?}");
    // all but the first and the last go on with what the one before began
    let is_single = |part: &message::Part| part.range == KeyRange::single(MIDDLE);
    assert!(parts.iter().rev().skip(1).all(is_single));
    assert_eq!(parts.iter().filter(|part| part.first).count(), 2);
    assert_eq!(store.fingerprint(OTHER).unwrap(), source.fingerprint(OTHER).unwrap());
    assert_has(&store, SLICE, &[1, 2]);
}

/// What the first part of several does not have may come with a later one; what has changed meanwhile comes by record.
#[test]
fn records_between_parts_change_what_has_come_and_what_is_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = two_slices(&dir.path().join("source"));
    let rows: Vec<_> = (10..40).map(|number| transaction(number, Part::Prepared, 9000)).collect();
    put_in(&mut source, OTHER, rows.iter().map(put_transaction).collect());
    let mut store = create(&dir.path().join("copy"));
    let position = source.position(OTHER).unwrap();
    store.place(OTHER, upper(), position, &source.history(OTHER), &[]).unwrap();
    let (part, inside) = source.export(OTHER, upper(), None, BUDGET).unwrap();
    assert!(part.first && !part.last);
    store.import(OTHER, &part).unwrap();
    let came = store.transactions(OTHER).unwrap();
    let to_come: Vec<_> = rows.iter().filter(|row| !came.contains(row)).collect();
    assert!(came.len() > 3 && to_come.len() > 3);
    let mut changed = to_come[1].clone();
    changed.part = Part::Applied;
    let changes = vec![
        delete_transaction(&came[0]),
        delete_transaction(to_come[0]),
        put_transaction(&changed),
        put_transaction(&transaction(50, Part::Driven, 10)),
        Change::EndSession(SessionId(2)),
    ];
    let record = super::making::record_in(&source, OTHER, changes);
    source.append(&record).unwrap();
    store.receive(&record, &[]).unwrap();
    let (mut inside, mut times) = (inside, 0);
    while inside.is_some() {
        let (part, next) = source.export(OTHER, upper(), inside.as_ref(), BUDGET).unwrap();
        // the answer to one of two is lost
        assert_eq!(store.import(OTHER, &part).unwrap(), Imported::Done);
        times += 1;
        inside = if times % 2 == 0 { next } else { inside };
    }
    assert!(!store.missing(OTHER).contains(MIDDLE));
    assert_eq!(store.transactions(OTHER).unwrap(), source.transactions(OTHER).unwrap());
    assert_eq!(store.sessions_of(OTHER).unwrap(), source.sessions_of(OTHER).unwrap());
}

#[test]
fn whoever_opens_the_store_again_in_between_begins_them_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = two_slices(&dir.path().join("source"));
    let rows = (10..40).map(|number| put_transaction(&transaction(number, Part::Prepared, 9000)));
    put_in(&mut source, OTHER, rows.collect());
    let mut store = create(&dir.path().join("copy"));
    let position = source.position(OTHER).unwrap();
    store.place(OTHER, upper(), position, &source.history(OTHER), &[]).unwrap();
    let (part, inside) = source.export(OTHER, upper(), None, BUDGET).unwrap();
    store.import(OTHER, &part).unwrap();
    store.flush().unwrap();
    let mut store = reopen(store, &dir.path().join("copy"));
    assert_eq!(store.missing(OTHER), &Missing::all(upper()));
    let (next, _) = source.export(OTHER, upper(), inside.as_ref(), BUDGET).unwrap();
    assert_eq!(store.import(OTHER, &next).unwrap(), Imported::OutOfPlace);
    copy(&source, &mut store, OTHER);
    assert_eq!(store.fingerprint(OTHER).unwrap(), source.fingerprint(OTHER).unwrap());
}

#[test]
fn many_that_are_in_the_way_go_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let source = two_slices(&dir.path().join("source"));
    let mut store = two_slices(&dir.path().join("copy"));
    for page in 0..50 {
        let sessions = (page * 100..page * 100 + 100).map(|id| Change::PutSession(session(10 + id)));
        put_in(&mut store, OTHER, sessions.collect());
    }
    store.rewind(OTHER, Position { epoch: Epoch(1), seq: Seq(1) }).unwrap();
    let (part, _) = source.export(OTHER, KeyRange::single(MIDDLE), None, BUDGET).unwrap();
    assert_eq!(store.import(OTHER, &part).unwrap(), Imported::Later);
    assert_eq!(store.import(OTHER, &part).unwrap(), Imported::Done);
    assert_has(&store, OTHER, &[2, 3]);
}

#[test]
fn a_part_that_brings_them_without_the_first_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = two_slices(dir.path());
    let range = KeyRange::new(Ino(MIDDLE.0 + 1), Ino(u64::MAX)).unwrap();
    for change in [Change::PutSession(session(1)), put_transaction(&transaction(1, Part::Prepared, 10))] {
        let part =
            message::Part { range, first: true, last: true, changes: vec![change], appended: Vec::new() };
        let refused = store.import(OTHER, &part).unwrap_err();
        assert!(matches!(refused, StoreError::Rejected { .. }), "{refused}");
    }
}

#[test]
fn orphans_and_locks_are_found_in_a_range() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let lock = |session: u64| LockRow {
        family: LockFamily::Flock,
        session: SessionId(session),
        owner: LockOwner { owner: 1, pid: 7 },
        kind: LockKind::Shared,
        start: 0,
        end: u64::MAX,
    };
    let mut keys: Vec<Key> = Vec::new();
    for number in 0..60 {
        let row = crate::rows::FlareRow { life: Life::Orphan, ..flare(number, Kind::File) };
        keys.push(row.key());
        // two locks of one session on one flare
        let locks = vec![lock(5), lock(5), lock(6)];
        put(&mut store, vec![Change::PutFlare(row.clone()), Change::PutLocks { flare: row.key(), locks }]);
        let named = flare(number + 1000, Kind::File);
        let locks = vec![lock(6)];
        put(
            &mut store,
            vec![Change::PutFlare(named.clone()), Change::PutLocks { flare: named.key(), locks }],
        );
    }
    keys.sort();
    let exactly = KeyRange::new(keys[10].ino(), keys[20].ino()).unwrap();
    for range in [lower(), upper(), KeyRange::ALL, exactly, KeyRange::single(keys[0].ino())] {
        let within: Vec<_> = keys.iter().copied().filter(|key| range.contains(key)).collect();
        assert_eq!(store.locked_by_in(range, SessionId(5)).unwrap(), within);
        assert_eq!(store.orphans_in(range, None, 1000).unwrap(), within);
        let (mut found, mut after) = (Vec::new(), None);
        while let Some(last) = {
            let page = store.orphans_in(range, after, 7).unwrap();
            found.extend(page.iter().copied());
            page.last().copied()
        } {
            after = Some(last);
        }
        assert_eq!(found, within);
        // to go on after a key that lies before or behind the range
        assert_eq!(store.orphans_in(range, Some(Key::MIN), 1000).unwrap(), within);
        assert!(store.orphans_in(range, Some(Key::MAX), 1000).unwrap().is_empty());
    }
    assert_eq!(store.orphans(Some(keys[30]), 2).unwrap(), keys[31..33]);
    assert_eq!(store.locked_by(SessionId(6)).unwrap().len(), 120);
    assert!(store.locked_by_in(KeyRange::ALL, SessionId(7)).unwrap().is_empty());
}
