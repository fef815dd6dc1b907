//! Division of a slice: what it does to a copy, and how that survives, is taken back, and is told to others.

use std::path::Path;

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::key::{Ino, Key, KeyRange};
use magma_common::proto::operation::Outcome;
use magma_common::topology::{Division, Epoch, Position, Seq, SliceId};

use super::super::simulated::{Dice, SimDisk};
use super::super::{Imported, Opened, Rewound, Store, StoreError, SyncBodies};
use super::making::{
    SLICE, copied, create, flare, found, op, open_sim, put, put_in, put_transaction, real, record_in,
    session, small, transaction, upkeep,
};
use crate::missing::Missing;
use crate::record::{Change, Record};
use crate::transaction::Part;
use crate::view::View;

const NEW: SliceId = SliceId(5);
const AT: Ino = Ino(1 << 63);
const DIVISION: Division = Division { at: AT, new: NEW };

fn at(epoch: u64, seq: u64) -> Position {
    Position { epoch: Epoch(epoch), seq: Seq(seq) }
}

fn lower() -> KeyRange {
    KeyRange::ALL.cut(AT).unwrap().0
}

fn upper() -> KeyRange {
    KeyRange::ALL.cut(AT).unwrap().1
}

/// The first of some flares in this half.
fn number_in(half: KeyRange, nth: usize) -> u64 {
    (0..).filter(|number| half.contains(&flare(*number, Kind::File).key())).nth(nth).unwrap()
}

fn put_flare(number: u64) -> Change {
    Change::PutFlare(flare(number, Kind::File))
}

fn key(number: u64) -> Key {
    flare(number, Kind::File).key()
}

/// Flares in both halves, a session, and a transaction for each of some flares: five records.
fn fill(store: &mut Store) {
    for half in [lower(), upper()] {
        put(store, vec![put_flare(number_in(half, 0)), put_flare(number_in(half, 1))]);
    }
    put(store, vec![Change::PutSession(session(1)), Change::PutSession(session(2))]);
    for numbers in [[1, 8], [9, 2]] {
        let rows = numbers.map(|number| put_transaction(&transaction(number, Part::Prepared, 9)));
        put(store, rows.to_vec());
    }
}

fn divide(store: &mut Store) {
    put(store, vec![Change::Divide(DIVISION)]);
}

/// A copy that is divided as long as it has these keys only, and these rows.
fn divided_while_it_has(dir: &Path, keys: KeyRange, rows: &[Change]) -> Store {
    let mut store = create(dir);
    store.place(SLICE, KeyRange::ALL, at(6, 100), &[at(6, 1)], &[]).unwrap();
    copied(&mut store, rows, Some(keys)).unwrap();
    let division = Record { epoch: Epoch(6), ..record_in(&store, SLICE, vec![Change::Divide(DIVISION)]) };
    store.receive(&division, &[]).unwrap();
    store
}

/// The process dies, and the next one opens the store.
fn reopen(store: Store, dir: &Path) -> (Store, Opened) {
    drop(store);
    Store::open(dir, real(), small(false, "boot")).unwrap()
}

fn assert_divided(store: &Store) {
    assert_eq!(store.slices(), [SLICE, NEW]);
    assert_eq!((store.range(SLICE), store.range(NEW)), (Some(lower()), Some(upper())));
    assert_eq!(store.parent(NEW), Some((SLICE, Seq(6))));
    assert_eq!(store.sessions_of(SLICE).unwrap(), store.sessions_of(NEW).unwrap());
    assert_eq!(store.sessions_of(NEW).unwrap(), [session(1), session(2)]);
    let keys = |slice| store.transactions(slice).unwrap().into_iter().map(|row| row.key).collect::<Vec<_>>();
    let (kept, given) = (keys(SLICE), keys(NEW));
    assert_eq!(kept.len() + given.len(), 4);
    assert!(!given.is_empty() && !kept.is_empty());
    assert!(kept.iter().all(|key| lower().contains(key)) && given.iter().all(|key| upper().contains(key)));
    for half in [lower(), upper()] {
        assert!(store.flare(&key(number_in(half, 0))).unwrap().is_some(), "rows stay where they are");
    }
}

#[test]
fn a_divided_slice_is_two_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    fill(&mut store);
    divide(&mut store);
    for round in 0..3 {
        assert_divided(&store);
        assert_eq!((store.position(SLICE), store.position(NEW)), (Some(at(1, 6)), Some(at(1, 6))));
        assert_eq!(store.history(NEW), store.history(SLICE));
        assert!(store.missing(NEW).is_empty() && store.is_complete(NEW));
        // the first time from the log, then from the database
        store = reopen(store, dir.path()).0;
        if round == 0 {
            store.commit().unwrap();
        }
    }
    put_in(&mut store, NEW, vec![put_flare(number_in(upper(), 2)), Change::EndSession(session(1).id)]);
    put(&mut store, vec![put_flare(number_in(lower(), 2))]);
    put(&mut store, vec![]);
    for _ in 0..2 {
        assert_eq!((store.position(SLICE), store.position(NEW)), (Some(at(1, 8)), Some(at(1, 7))));
        assert_eq!(store.sessions_of(SLICE).unwrap().len(), 2);
        assert_eq!(store.sessions_of(NEW).unwrap(), [session(2)]);
        store = reopen(store, dir.path()).0;
    }
}

#[test]
fn a_record_that_cannot_divide_the_slice_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    fill(&mut store);
    let refused = |store: &mut Store, slice, changes: Vec<Change>| {
        let record = record_in(store, slice, changes);
        let refused = store.append(&record).unwrap_err();
        assert!(matches!(refused, StoreError::Rejected { .. }), "{record:?}: {refused}");
    };
    let division = |at, new| Change::Divide(Division { at: Ino(at), new });
    refused(&mut store, SLICE, vec![division(0, NEW)]);
    refused(&mut store, SLICE, vec![division(AT.0, SLICE)]);
    refused(&mut store, SLICE, vec![Change::Divide(DIVISION), Change::EndSession(session(1).id)]);
    refused(&mut store, SliceId(9), vec![Change::Divide(DIVISION)]);
    divide(&mut store);
    refused(&mut store, SLICE, vec![division(AT.0, SliceId(6))]);
    refused(&mut store, SLICE, vec![division(7, NEW)]);
    assert_divided(&store);
}

#[test]
fn a_power_cut_takes_a_division_whole_or_not_at_all() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 1..40 {
        let home = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(home.path());
        let (mut store, _) = open_sim(home.path(), &disk, small(true, "0")).unwrap();
        fill(&mut store);
        store.sync_now(SyncBodies::All).unwrap();
        divide(&mut store);
        drop(store);
        disk.cut_power(&mut Dice::new(seed));
        disk.revive();
        store = open_sim(home.path(), &disk, small(false, "1")).unwrap().0;
        if store.position(SLICE) == Some(at(1, 5)) {
            lost += 1;
            assert_eq!((store.slices(), store.range(SLICE)), (vec![SLICE], Some(KeyRange::ALL)));
            assert_eq!(store.transactions(SLICE).unwrap().len(), 4);
        } else {
            kept += 1;
            assert_divided(&store);
        }
    }
    assert!(lost > 0 && kept > 0, "{lost} {kept}");
}

#[test]
fn a_division_that_is_on_disk_outlives_every_power_cut() {
    let home = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(home.path());
    let (mut store, _) = open_sim(home.path(), &disk, small(true, "0")).unwrap();
    fill(&mut store);
    divide(&mut store);
    store.sync_now(SyncBodies::None).unwrap();
    for boot in 1..10 {
        put_in(&mut store, NEW, vec![put_flare(number_in(upper(), 3))]);
        put(&mut store, vec![put_flare(number_in(lower(), 3))]);
        drop(store);
        disk.cut_power(&mut Dice::new(boot));
        disk.revive();
        store = open_sim(home.path(), &disk, small(false, &boot.to_string())).unwrap().0;
        assert_divided(&store);
    }
}

#[test]
fn a_rewind_takes_a_division_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    fill(&mut store);
    let (low, high) = (number_in(lower(), 4), number_in(upper(), 4));
    put(&mut store, vec![put_flare(low), put_flare(high)]);
    divide(&mut store);
    put(&mut store, vec![put_flare(number_in(lower(), 5))]);
    assert_eq!(store.rewind(SLICE, at(1, 5)).unwrap(), Rewound::Done);
    for _ in 0..2 {
        assert_eq!((store.slices(), store.range(SLICE)), (vec![SLICE], Some(KeyRange::ALL)));
        assert_eq!(store.position(SLICE), Some(at(1, 5)));
        for number in [low, high, number_in(lower(), 5)] {
            assert!(store.missing(SLICE).contains(key(number).ino()));
        }
        // sessions and transactions come anew with the first key
        assert!(store.missing(SLICE).contains(Ino(0)));
        assert!(!store.missing(SLICE).contains(key(number_in(upper(), 0)).ino()));
        assert_eq!((store.sessions_of(NEW).unwrap().len(), store.transactions(NEW).unwrap().len()), (0, 0));
        store.flush().unwrap();
        store = reopen(store, dir.path()).0;
    }
}

#[test]
fn a_slice_can_be_divided_again_after_the_division_was_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    fill(&mut store);
    divide(&mut store);
    store.rewind(SLICE, at(1, 5)).unwrap();
    let missing: Vec<_> = store.missing(SLICE).ranges().to_vec();
    for range in missing {
        copied(&mut store, &[], Some(range)).unwrap();
    }
    let again = Record { epoch: Epoch(2), ..record_in(&store, SLICE, vec![Change::Divide(DIVISION)]) };
    store.append(&again).unwrap();
    put_in(&mut store, NEW, vec![put_flare(number_in(upper(), 2))]);
    for _ in 0..2 {
        assert_eq!((store.position(SLICE), store.position(NEW)), (Some(at(2, 6)), Some(at(2, 7))));
        let sent = store.read_log(NEW, Seq(6), 1 << 20).unwrap().unwrap();
        assert_eq!(sent.iter().map(|sent| sent.record.seq).collect::<Vec<_>>(), [Seq(7)]);
        store = reopen(store, dir.path()).0;
    }
}

#[test]
fn what_has_gone_on_since_it_was_divided_is_not_set_back_to_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    fill(&mut store);
    divide(&mut store);
    assert_eq!(store.rewind(NEW, at(1, 5)).unwrap(), Rewound::NotInLog);
    put_in(&mut store, NEW, vec![put_flare(number_in(upper(), 2))]);
    assert_eq!(store.rewind(SLICE, at(1, 5)).unwrap(), Rewound::NotInLog);
    assert_divided(&store);
    assert_eq!(store.rewind(NEW, at(1, 6)).unwrap(), Rewound::Done);
    assert_eq!(store.missing(NEW), &Missing::all(KeyRange::single(key(number_in(upper(), 2)).ino())));
}

#[test]
fn the_log_of_the_new_slice_begins_with_the_division() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    fill(&mut store);
    divide(&mut store);
    put(&mut store, vec![put_flare(number_in(lower(), 2))]);
    (0..3).for_each(|nth| put_in(&mut store, NEW, vec![put_flare(number_in(upper(), nth))]));
    for _ in 0..2 {
        assert_eq!(store.read_log(NEW, Seq(5), 1 << 20).unwrap(), None, "that is another slice's");
        let sent = store.read_log(NEW, Seq(6), 1 << 20).unwrap().unwrap();
        assert_eq!(sent.iter().map(|sent| sent.record.seq.0).collect::<Vec<_>>(), [7, 8, 9]);
        let sent = store.read_log(SLICE, Seq(4), 1 << 20).unwrap().unwrap();
        assert_eq!(sent.iter().map(|sent| sent.record.seq.0).collect::<Vec<_>>(), [5, 6, 7]);
        store = reopen(store, dir.path()).0;
    }
}

#[test]
fn both_halves_know_the_outcomes_from_before_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let outcome = |number| Some(Outcome { id: op(number), opcode: 7, reply: Bytes::new() });
    let with_outcome = |store: &mut Store, slice, number| {
        let record = Record { outcome: outcome(number), ..record_in(store, slice, Vec::new()) };
        store.append(&record).unwrap();
        store.flush().unwrap();
    };
    (1..4).for_each(|number| with_outcome(&mut store, SLICE, number));
    put(&mut store, vec![Change::Divide(DIVISION)]);
    with_outcome(&mut store, NEW, 10);
    with_outcome(&mut store, SLICE, 11);
    let (mut store, opened) = reopen(store, dir.path());
    let of = |opened: &Opened, slice| {
        let of_slice = opened.outcomes.iter().filter(|kept| kept.slice == slice);
        of_slice.map(|kept| (kept.seq.0, kept.outcome.id)).collect::<Vec<_>>()
    };
    let before = [(1, op(1)), (2, op(2)), (3, op(3))];
    assert_eq!(of(&opened, SLICE), [&before[..], &[(5, op(11))]].concat());
    assert_eq!(of(&opened, NEW), [&before[..], &[(5, op(10))]].concat());
    // taken back, the outcomes of the new slice go with it
    store.rewind(NEW, at(1, 4)).unwrap();
    store.rewind(SLICE, at(1, 2)).unwrap();
    store.flush().unwrap();
    let (_, opened) = reopen(store, dir.path());
    assert_eq!((of(&opened, SLICE), of(&opened, NEW)), (before[..2].to_vec(), Vec::new()));
}

#[test]
fn what_a_copy_lacks_it_lacks_in_the_half_where_it_belongs() {
    let dir = tempfile::tempdir().unwrap();
    let whole = KeyRange::new(Ino(0), Ino(1 << 60)).unwrap();
    let mut store = divided_while_it_has(dir.path(), whole, &[Change::PutSession(session(1))]);
    let rest = KeyRange::new(Ino((1 << 60) + 1), Ino(AT.0 - 1)).unwrap();
    for _ in 0..2 {
        assert_eq!((store.missing(SLICE), store.missing(NEW)), (&Missing::all(rest), &Missing::all(upper())));
        assert_eq!(store.position(NEW), Some(at(6, 101)));
        store.flush().unwrap();
        store = reopen(store, dir.path()).0;
    }
    copied(&mut store, &[], Some(rest)).unwrap();
    assert!(store.is_complete(SLICE) && !store.is_complete(NEW));
}

#[test]
fn who_lacks_the_sessions_lacks_them_in_both_halves() {
    let dir = tempfile::tempdir().unwrap();
    let store = divided_while_it_has(dir.path(), KeyRange::new(Ino(1), Ino(u64::MAX)).unwrap(), &[]);
    assert_eq!(store.missing(SLICE), &Missing::all(KeyRange::single(Ino(0))));
    assert_eq!(store.missing(NEW), &Missing::all(KeyRange::single(AT)));
}

#[test]
fn a_copy_that_is_placed_with_fewer_keys_loses_the_rows_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    fill(&mut store);
    store.place(SLICE, lower(), at(6, 100), &[at(6, 1)], &[]).unwrap();
    store.remove_strays();
    upkeep(&mut store, 100);
    for nth in 0..2 {
        assert_eq!(store.flare(&key(number_in(upper(), nth))).unwrap(), None);
        assert!(store.flare(&key(number_in(lower(), nth))).unwrap().is_some(), "until it is replaced");
    }
    assert_eq!(store.missing(SLICE), &Missing::all(lower()));
    store = reopen(store, dir.path()).0;
    assert_eq!(store.flare(&key(number_in(upper(), 0))).unwrap(), None);
}

#[test]
fn a_copy_that_was_not_divided_makes_way_for_the_new_slice() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    fill(&mut store);
    assert_eq!(store.overlapping(NEW, upper()), [SLICE]);
    store.place(NEW, upper(), at(6, 100), &[at(6, 1)], &[]).unwrap();
    for _ in 0..2 {
        assert_eq!((store.slices(), store.parent(NEW)), (vec![NEW], None));
        assert!(store.sessions_of(SLICE).unwrap().is_empty());
        store.flush().unwrap();
        store = reopen(store, dir.path()).0;
    }
    store.remove_strays();
    upkeep(&mut store, 100);
    assert_eq!(store.flare(&key(number_in(lower(), 0))).unwrap(), None, "it belongs to no copy");
    assert!(store.flare(&key(number_in(upper(), 0))).unwrap().is_some(), "until it is replaced");
}

#[test]
fn either_half_can_be_copied_to_another_store() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = create(dir.path());
    fill(&mut store);
    divide(&mut store);
    let mut copy = create(other.path());
    found(&mut copy, SliceId(9), KeyRange::single(Ino(77)));
    for slice in [NEW, SLICE] {
        let (position, history) = (store.position(slice).unwrap(), store.history(slice));
        let range = store.range(slice).unwrap();
        if slice == SLICE {
            // the stranger in between makes way
            assert_eq!(copy.overlapping(SLICE, range), [SliceId(9)]);
        }
        copy.place(slice, range, position, &history, &[]).unwrap();
        let (mut within, mut inside) = (Some(range), None);
        while let Some(left) = within {
            let (part, next) = store.export(slice, left, inside.as_ref(), 500).unwrap();
            assert_eq!(copy.import(slice, &part).unwrap(), Imported::Done);
            if next.is_none() {
                within =
                    part.range.stop().0.checked_add(1).and_then(|at| KeyRange::new(Ino(at), range.stop()));
            }
            inside = next;
        }
        assert!(copy.missing(slice).is_empty());
        assert_eq!(copy.fingerprint(slice).unwrap(), store.fingerprint(slice).unwrap());
    }
    assert_eq!(copy.slices(), [SLICE, NEW]);
}

#[test]
fn the_median_has_half_of_the_flares_on_each_side() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    found(&mut store, SLICE, KeyRange::ALL);
    assert_eq!(store.median(SLICE).unwrap(), Some(Ino(u64::MAX / 2)));
    assert_eq!(store.median(NEW).unwrap(), None);
    (0..300).for_each(|number| put(&mut store, vec![put_flare(number)]));
    let median = store.median(SLICE).unwrap().unwrap();
    let below = (0..300).filter(|number| key(*number).ino() < median).count();
    assert!((130..170).contains(&below), "{below}");
}
