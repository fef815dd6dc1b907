//! Single behaviours of the store.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use magma_common::attr::Kind;
use magma_common::topology::Seq;

use super::super::simulated::SimDisk;
use super::super::{Disk, FORMAT_VERSION, Lsn, OpenError, Store, StoreError, SyncBodies};
use super::making::{
    SLICE, body_change, create, entry, flare, name, open_sim, put, put_append, real, record, small, upkeep,
};
use crate::record::{BodyChange, Change};
use crate::rows::BodyId;
use crate::view::{ReadError, View};

const BODY: BodyId = BodyId(0x0102_0304_0506_0708);
const OTHER_BODY: BodyId = BodyId(0x0908_0706_0504_0302);

fn reopen(dir: &Path) -> (Store, super::super::Opened) {
    Store::open(dir, real(), small(false, "boot")).unwrap()
}

fn only_segment(dir: &Path) -> PathBuf {
    let mut segments: Vec<_> =
        fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    segments.remove(0)
}

fn body_file(dir: &Path) -> PathBuf {
    dir.join("data/01/02/0102030405060708")
}

fn flip(path: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 4]).unwrap();
}

#[test]
fn a_closed_store_opens_clean_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    put_append(&mut store, BODY, &file, 0, &vec![7; 100_000]);
    store.set_meta("nickname", b"wallace").unwrap();
    store.close().unwrap();
    let (store, opened) = reopen(dir.path());
    assert!(opened.clean && !opened.created && opened.replayed == 0 && opened.last == Lsn(2));
    assert_eq!(store.read_body(BODY, 99_990, 20).unwrap()[..], [[7; 10], [0; 10]].concat());
    assert_eq!(store.meta("nickname").unwrap()[..], *b"wallace");
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _store = create(dir.path());
    let error = Store::open(dir.path(), real(), small(false, "boot")).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
}

#[test]
fn making_a_store_where_one_is_and_opening_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Store::open(dir.path(), real(), small(false, "boot")).unwrap_err(),
        OpenError::Absent(_)
    ));
    create(dir.path()).close().unwrap();
    assert!(matches!(
        Store::open(dir.path(), real(), small(true, "boot")).unwrap_err(),
        OpenError::Exists(_)
    ));
}

#[test]
fn a_newer_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path()).close().unwrap();
    let conn = rusqlite::Connection::open(dir.path().join("magma.db")).unwrap();
    conn.pragma_update(None, "user_version", FORMAT_VERSION + 1).unwrap();
    drop(conn);
    let error = Store::open(dir.path(), real(), small(false, "boot")).unwrap_err();
    let OpenError::Newer { found, known, .. } = error else { panic!("{error}") };
    assert_eq!((found, known), (FORMAT_VERSION + 1, FORMAT_VERSION));
}

#[test]
fn a_torn_last_record_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    put(&mut store, vec![Change::PutFlare(flare(1, Kind::File))]);
    put(&mut store, vec![Change::PutFlare(flare(2, Kind::File))]);
    let end = store.log_bytes();
    drop(store);
    flip(&only_segment(dir.path()), end - 3);
    let (store, opened) = reopen(dir.path());
    assert_eq!((opened.last, opened.flares), (Lsn(1), 1));
    assert!(opened.cut > 0);
    assert!(store.flare(&flare(2, Kind::File).key()).unwrap().is_none());
}

#[test]
fn a_damaged_record_that_was_on_disk_is_not_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    put(&mut store, vec![Change::PutFlare(flare(1, Kind::File))]);
    store.sync_now(SyncBodies::None).unwrap();
    put(&mut store, vec![Change::PutFlare(flare(2, Kind::File))]);
    drop(store);
    flip(&only_segment(dir.path()), 64 + 40);
    // another boot of the machine: the later frame says that the damaged one was on disk
    let error = Store::open(dir.path(), real(), small(false, "other boot")).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged { .. }) && error.to_string().contains("entry 1"), "{error}");
}

/// A power cut left a hole in the log; the process died while it read the log under the new boot. The next one must not
/// think that the hole came about within one boot, and refuse it as damage.
#[test]
fn dying_while_the_log_is_read_after_a_power_cut_does_not_keep_the_store_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(dir.path());
    let (mut store, _) = open_sim(dir.path(), &disk, small(true, "first")).unwrap();
    put(&mut store, vec![Change::PutFlare(flare(1, Kind::File))]);
    put(&mut store, vec![Change::PutFlare(flare(2, Kind::File))]);
    drop(store);
    // the first record did not reach the disk, the second did
    let segment = disk.open(&dir.path().join("log/0000000000000001.log")).unwrap();
    segment.write_at(&[0; 60], 64).unwrap();
    for dies_at in 1..8 {
        disk.kill_after(dies_at);
        if open_sim(dir.path(), &disk, small(false, "second")).is_ok() {
            break;
        }
        disk.revive();
    }
    disk.revive();
    let (_, opened) = open_sim(dir.path(), &disk, small(false, "second")).unwrap();
    assert_eq!(opened.last, Lsn(0));
}

#[test]
fn a_flipped_bit_in_a_resting_body_is_noticed_by_the_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    put_append(&mut store, BODY, &file, 0, &vec![7; 200_000]);
    upkeep(&mut store, 100);
    upkeep(&mut store, 200);
    flip(&body_file(dir.path()), 70_000);
    assert_eq!(store.read_body(BODY, 0, 65_536).unwrap()[..], vec![7; 65_536]);
    let error = store.read_body(BODY, 100_000, 10).unwrap_err();
    assert!(matches!(error, ReadError::Checksum { body: BODY, block: 1 }), "{error}");
    assert_eq!(store.checksum_failures(), 1);
    // an overwrite of the whole block makes it good again
    put(
        &mut store,
        vec![body_change(
            BODY,
            &file,
            BodyChange::Overwrite { offset: 65_536, data: vec![8; 65_536].into() },
        )],
    );
    assert_eq!(store.read_body(BODY, 100_000, 2).unwrap()[..], [8, 8]);
    store.sync_now(SyncBodies::All).unwrap();
    assert_eq!(store.read_body(BODY, 100_000, 2).unwrap()[..], [8, 8]);
}

#[test]
fn appending_to_a_block_with_a_checksum_does_not_break_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    put_append(&mut store, BODY, &file, 0, &vec![7; 70_000]);
    upkeep(&mut store, 100);
    upkeep(&mut store, 200);
    // written, but its record has not come yet
    store.write_append(BODY, 70_000, &[9; 10]).unwrap();
    assert_eq!(store.read_body(BODY, 69_999, 2).unwrap()[..], [7, 0]);
    put_append(&mut store, BODY, &file, 70_000, &[9; 10]);
    assert_eq!(store.read_body(BODY, 69_999, 2).unwrap()[..], [7, 9]);
}

#[test]
fn a_sparse_body_has_holes_and_takes_little_space() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    let far = 5 << 30;
    put_append(&mut store, BODY, &file, far, &vec![7; 65_536]);
    assert_eq!(store.body_data(BODY, 0, u64::MAX).unwrap(), Some(far));
    assert_eq!(store.body_hole(BODY, far, u64::MAX).unwrap(), far + 65_536);
    assert_eq!(store.body_data(BODY, far + 65_536, u64::MAX).unwrap(), None);
    assert_eq!(store.read_body(BODY, 1 << 30, 3).unwrap()[..], [0; 3]);
    assert!(store.body_used(BODY).unwrap() < 1 << 20);
    // what waits in memory counts like what is in the file
    put(
        &mut store,
        vec![body_change(BODY, &file, BodyChange::Overwrite { offset: 1 << 20, data: vec![1; 9].into() })],
    );
    put(&mut store, vec![body_change(BODY, &file, BodyChange::Zero { offset: far, length: 65_536 })]);
    assert_eq!(store.body_data(BODY, 0, u64::MAX).unwrap(), Some(1 << 20));
    assert_eq!(store.body_hole(BODY, 1 << 20, u64::MAX).unwrap(), (1 << 20) + 9);
    upkeep(&mut store, 100);
    assert_eq!(store.body_data(BODY, 2 << 20, u64::MAX).unwrap(), None);
}

#[test]
fn ten_thousand_entries_are_listed_in_the_order_of_their_cookies() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let (folder, child) = (flare(1, Kind::Directory), flare(2, Kind::File));
    put(&mut store, vec![Change::PutFlare(folder.clone())]);
    for number in 0..10_000 {
        // names and cookies sort differently
        let entry = entry(number * 7919 % 10_000, &child, 3 + number);
        store.append(&record(&store, vec![Change::PutEntry { dir: folder.key(), entry }])).unwrap();
    }
    let (mut cookie, mut seen) = (0, 0);
    loop {
        let entries = store.entries_after(&folder.key(), cookie, 333).unwrap();
        let Some(last) = entries.last() else { break };
        assert!(entries.is_sorted_by_key(|entry| entry.cookie) && entries[0].cookie > cookie);
        (cookie, seen) = (last.cookie, seen + entries.len());
        // entries that come and go do not disturb the listing
        put(&mut store, vec![Change::DeleteEntry { dir: folder.key(), name: entries[0].name.clone() }]);
    }
    assert_eq!(seen, 10_000);
    assert!(store.entry(&folder.key(), &name(7919)).unwrap().is_some());
}

#[test]
fn a_dropped_body_leaves_no_file_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    put_append(&mut store, BODY, &file, 0, &[7; 100]);
    put(&mut store, vec![body_change(BODY, &file, BodyChange::Drop)]);
    assert!(body_file(dir.path()).exists(), "nothing is removed before the record is on disk");
    upkeep(&mut store, 100);
    upkeep(&mut store, 200);
    assert!(!body_file(dir.path()).exists());
}

#[test]
fn a_body_whose_record_never_came_is_swept_away_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    store.write_append(BODY, 0, &[7; 100]).unwrap();
    drop(store);
    assert!(body_file(dir.path()).exists());
    let (mut store, opened) = reopen(dir.path());
    assert!(!opened.clean && opened.same_boot);
    upkeep(&mut store, 100);
    assert!(!body_file(dir.path()).exists());
}

#[test]
fn the_log_is_shortened_but_not_below_what_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let fill = |store: &mut Store, count| {
        for number in 0..count {
            put(store, vec![Change::PutFlare(flare(number % 50, Kind::File))]);
        }
    };
    // the time of a record is its number in seconds, so these are older than the 120 s that are kept
    fill(&mut store, 400);
    store.keep_from(SLICE, Seq(1));
    upkeep(&mut store, 100);
    upkeep(&mut store, 200);
    let all = store.log_segments();
    assert!(all > 2, "{all}");
    store.keep_from(SLICE, Seq(u64::MAX));
    upkeep(&mut store, 300);
    assert_eq!(store.log_segments(), all, "the record that says so may be lost with the power");
    fill(&mut store, 1);
    upkeep(&mut store, 400);
    assert!(store.log_segments() < all);
    drop(store);
    let (_, opened) = reopen(dir.path());
    assert_eq!((opened.last, opened.flares), (Lsn(401), 50));
}

#[test]
fn a_record_that_does_not_fit_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    put_append(&mut store, BODY, &file, 0, &[7; 100]);
    let wrong = [
        Change::PutEntry { dir: flare(9, Kind::Directory).key(), entry: entry(1, &file, 3) },
        body_change(BODY, &file, BodyChange::Append { offset: 99, length: 1 }),
        body_change(BODY, &file, BodyChange::Append { offset: 100, length: 1 }),
        body_change(BODY, &file, BodyChange::Overwrite { offset: 99, data: vec![0; 2].into() }),
        body_change(BODY, &file, BodyChange::Zero { offset: 1, length: u64::MAX }),
        Change::PutInline { flare: file.key(), data: vec![0; (16 << 10) + 1].into() },
    ];
    for change in wrong {
        let before = store.last();
        let record = record(&store, vec![Change::PutFlare(flare(2, Kind::File)), change]);
        assert!(matches!(store.append(&record).unwrap_err(), StoreError::Rejected { .. }));
        assert_eq!(store.last(), before);
        assert!(store.flare(&flare(2, Kind::File).key()).unwrap().is_none());
    }
    put(&mut store, vec![Change::PutFlare(flare(2, Kind::File))]);
}

#[test]
fn a_failed_sync_stops_the_store_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(dir.path());
    let (mut store, _) = open_sim(dir.path(), &disk, small(true, "boot")).unwrap();
    put(&mut store, vec![Change::PutFlare(flare(1, Kind::File))]);
    disk.fail_next_sync();
    assert!(matches!(store.sync_now(SyncBodies::None).unwrap_err(), StoreError::File { .. }));
    assert_eq!(store.stable(), Lsn(0));
    // the kernel would call the next sync a success
    assert!(matches!(store.sync_now(SyncBodies::None).unwrap_err(), StoreError::Stopped(_)));
    assert!(matches!(store.append(&record(&store, Vec::new())).unwrap_err(), StoreError::Stopped(_)));
    assert!(store.flare(&flare(1, Kind::File).key()).is_err());
}

#[test]
fn a_full_disk_refuses_a_record_and_takes_it_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(dir.path());
    let (mut store, _) = open_sim(dir.path(), &disk, small(true, "boot")).unwrap();
    disk.set_full(true);
    let file = flare(1, Kind::File);
    // until the log's reserved space is used up, records are taken
    let refused = (0..1000).find_map(|_| {
        let record = record(&store, vec![Change::PutFlare(file.clone())]);
        let result = store.append(&record).and_then(|_| store.flush());
        result.err()
    });
    assert!(matches!(refused, Some(StoreError::NoSpace(_))), "{refused:?}");
    let last = store.last();
    assert!(matches!(store.write_append(BODY, 0, &[1; 10]).unwrap_err(), StoreError::NoSpace(_)));
    assert_eq!(store.space().available, 0);
    disk.set_full(false);
    put_append(&mut store, BODY, &file, 0, &[2; 10]);
    assert_eq!(store.last(), last.next());
    assert_eq!(store.read_body(BODY, 0, 10).unwrap()[..], [2; 10]);
}

/// Nobody has reserved space for what lies over a hole.
#[test]
fn what_a_full_disk_has_no_room_for_waits_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(dir.path());
    let (mut store, _) = open_sim(dir.path(), &disk, small(true, "boot")).unwrap();
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    put_append(&mut store, BODY, &file, 0, &[1; 100]);
    put_append(&mut store, OTHER_BODY, &file, 0, &[1; 10]);
    store.sync_now(SyncBodies::All).unwrap();
    let body = disk.open(&body_file(dir.path())).unwrap();
    body.truncate(50).unwrap();
    let over = |body, byte| {
        let data = vec![byte; 10].into();
        body_change(body, &file, BodyChange::Overwrite { offset: 0, data })
    };
    let beyond = BodyChange::Overwrite { offset: 60, data: vec![2; 40].into() };
    put(&mut store, vec![over(OTHER_BODY, 2), body_change(BODY, &file, beyond), over(OTHER_BODY, 3)]);
    disk.set_full(true);
    for _ in 0..2 {
        store.sync_now(SyncBodies::All).unwrap();
        assert_eq!(store.stable(), store.last());
        assert_eq!(store.read_body(BODY, 60, 40).unwrap()[..], [2; 40]);
        assert_eq!(store.read_body(OTHER_BODY, 0, 10).unwrap()[..], [3; 10]);
    }
    disk.set_full(false);
    upkeep(&mut store, 100);
    upkeep(&mut store, 200);
    assert!(!store.bodies.get_mut().lacks_room());
    let mut there = [0; 40];
    assert_eq!(body.read_at(&mut there, 60).unwrap(), 40);
    assert_eq!(there, [2; 40]);
    assert_eq!(store.read_body(OTHER_BODY, 0, 10).unwrap()[..], [3; 10]);
}

#[test]
fn a_planned_read_notices_that_the_body_was_overwritten_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    put_append(&mut store, BODY, &file, 0, &[7; 100]);
    let (early, late) =
        (store.plan_body_read(BODY, 0, 2).unwrap(), store.plan_body_read(BODY, 0, 2).unwrap());
    put(
        &mut store,
        vec![body_change(BODY, &file, BodyChange::Overwrite { offset: 0, data: vec![8].into() })],
    );
    assert_eq!(early.run().unwrap().unwrap()[..], [7, 7]);
    store.sync_now(SyncBodies::None).unwrap();
    assert!(late.run().unwrap().is_none());
    assert_eq!(store.plan_body_read(BODY, 0, 2).unwrap().run().unwrap().unwrap()[..], [8, 7]);
}

#[test]
fn the_store_can_be_given_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Store>();
    is_send::<super::super::SyncJob>();
    is_send::<super::super::BodyRead>();
    let _: Arc<dyn Disk> = real();
}
