//! Copies of slices: their histories, how they are set back, placed and filled, and how they are read for others.

use std::path::Path;

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::key::{Ino, KeyRange};
use magma_common::proto::operation::Outcome;
use magma_common::topology::{Epoch, Position, Seq, SliceId};

use super::super::{Lsn, OpenOptions, Opened, Rewound, Store, StoreError, SyncBodies};
use super::making::{
    SLICE, begin, body_change, copied, create, flare, op, put, put_append, real, record, record_of, session,
    small, time, upkeep,
};
use crate::missing::Missing;
use crate::node::message::SentRecord;
use crate::record::{BodyChange, Change, Record};
use crate::rows::BodyId;
use crate::view::View;

const BODY: BodyId = BodyId(0x0102_0304_0506_0708);

fn at(epoch: u64, seq: u64) -> Position {
    Position { epoch: Epoch(epoch), seq: Seq(seq) }
}

fn put_flare(number: u64) -> Change {
    Change::PutFlare(flare(number, Kind::File))
}

fn range_of(number: u64) -> KeyRange {
    let ino = flare(number, Kind::File).key().ino();
    KeyRange::new(ino, ino).unwrap()
}

fn missing(numbers: impl IntoIterator<Item = u64>) -> Missing {
    let mut missing = Missing::NOTHING;
    numbers.into_iter().for_each(|number| missing.insert(range_of(number)));
    missing
}

fn put_in_epoch(store: &mut Store, epoch: u64, changes: Vec<Change>) {
    let record = record_of(store, Epoch(epoch), changes);
    store.append(&record).unwrap();
}

fn outcome(number: u64) -> Outcome {
    Outcome { id: op(number), opcode: 7, reply: Bytes::new() }
}

/// The process dies, and the next one opens the store.
fn reopen(store: Store, dir: &Path) -> (Store, Opened) {
    drop(store);
    Store::open(dir, real(), small(false, "boot")).unwrap()
}

fn read(store: &Store, after: u64, max_bytes: usize) -> Option<Vec<SentRecord>> {
    store.read_log(SLICE, Seq(after), max_bytes).unwrap()
}

/// The numbers of the records that a copy gets that asks again and again.
fn numbers(store: &Store, mut after: u64, max_bytes: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let sent = read(store, after, max_bytes).unwrap();
        let Some(last) = sent.last() else { return numbers };
        after = last.record.seq.0;
        numbers.extend(sent.iter().map(|sent| sent.record.seq.0));
    }
}

/// A store whose log has lost its first segments.
fn shortened(dir: &Path) -> Store {
    let mut store = create(dir);
    for number in 0..400 {
        put(&mut store, vec![put_flare(number % 50)]);
    }
    upkeep(&mut store, 100);
    upkeep(&mut store, 200);
    assert!(store.log.first() > Lsn(1));
    store
}

#[test]
fn the_history_names_the_first_record_of_each_epoch_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    for epoch in [1, 1, 5, 5, 9] {
        put_in_epoch(&mut store, epoch, Vec::new());
    }
    store.flush().unwrap();
    for _ in 0..2 {
        assert_eq!(store.position(SLICE), Some(at(9, 5)));
        assert_eq!(store.history(SLICE), [at(1, 1), at(5, 3), at(9, 5)]);
        assert_eq!(store.position_at(SLICE, Seq(4)), Some(at(5, 4)));
        assert_eq!(store.position_at(SLICE, Seq(6)), None);
        assert_eq!((store.slices(), store.time(SLICE)), (vec![SLICE], time(5)));
        // the first time from the log, then from the database
        store = reopen(store, dir.path()).0;
        store.commit().unwrap();
    }
}

#[test]
fn a_record_out_of_place_or_of_an_older_epoch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    put_in_epoch(&mut store, 5, Vec::new());
    let next = record(&store, Vec::new());
    let wrong = [
        Record { seq: Seq(1), ..next.clone() },
        Record { seq: Seq(3), ..next.clone() },
        Record { epoch: Epoch(4), ..next.clone() },
        // another slice begins with its first record
        Record { slice: SliceId(2), ..next.clone() },
    ];
    for record in wrong {
        assert!(matches!(store.append(&record).unwrap_err(), StoreError::Rejected { .. }), "{record:?}");
    }
    assert_eq!((store.last(), store.position(SliceId(2))), (Lsn(1), None));
    store.append(&next).unwrap();
}

#[test]
fn two_slices_share_a_log_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    for _ in 0..3 {
        let first = record(&store, vec![Change::PutSession(session(1))]);
        let second =
            Record { slice: SliceId(2), changes: vec![Change::PutSession(session(2))], ..first.clone() };
        store.append(&first).unwrap();
        store.append(&second).unwrap();
    }
    store.rewind(SLICE, at(1, 1)).unwrap();
    store.place(SLICE, KeyRange::ALL, at(7, 9), &[at(7, 9)], &[]).unwrap();
    store.flush().unwrap();
    let (store, _) = reopen(store, dir.path());
    assert_eq!(store.slices(), [SLICE, SliceId(2)]);
    assert_eq!(store.position(SliceId(2)), Some(at(1, 3)));
    assert!(store.missing(SliceId(2)).is_empty());
    assert_eq!(store.sessions().unwrap(), [session(2)]);
    let sent = store.read_log(SliceId(2), Seq(1), 1 << 20).unwrap().unwrap();
    assert!(sent.iter().map(|sent| sent.record.position()).eq([at(1, 2), at(1, 3)]));
}

#[test]
fn the_log_is_read_over_its_segments_by_two_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    for number in 0..400 {
        store.append(&record(&store, vec![put_flare(number)])).unwrap();
    }
    assert!(store.log_segments() > 3);
    let (all, late): (Vec<_>, Vec<_>) = ((1..=400).collect(), (251..=400).collect());
    // the first round reads the files and what waits in memory for the next write; later records are kept as they come
    for round in 0..2 {
        assert_eq!(numbers(&store, 0, 1), all, "{round}");
        let (mut one, mut other) = (0, 200);
        while one < 200 {
            assert_eq!(read(&store, one, 1).unwrap()[0].record.seq.0, one + 1);
            assert_eq!(read(&store, other, 1).unwrap()[0].record.seq.0, other + 1);
            (one, other) = (one + 1, other + 1);
        }
        assert_eq!(numbers(&store, 250, 3000), late, "{round}");
        assert_eq!(numbers(&store, 0, usize::MAX), all, "{round}");
        store = reopen(store, dir.path()).0;
        // what had not been flushed is gone
        while store.position(SLICE).unwrap().seq < Seq(400) {
            store.append(&record(&store, Vec::new())).unwrap();
        }
    }
    assert_eq!(read(&store, 400, 1), Some(Vec::new()));
}

#[test]
fn one_segment_is_read_from_any_place_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions { segment_size: 64 << 20, ..small(true, "boot") };
    let (mut store, _) = Store::open(dir.path(), real(), options).unwrap();
    put(&mut store, vec![put_flare(1)]);
    let data = Bytes::from(vec![7; 16 << 10]);
    for _ in 0..100 {
        let change = Change::PutInline { flare: flare(1, Kind::File).key(), data: data.clone() };
        put(&mut store, vec![change]);
    }
    assert_eq!(store.log_segments(), 1);
    for after in [0, 99, 1, 50, 17, 16, 15, 77] {
        assert_eq!(read(&store, after, 1).unwrap()[0].record.seq.0, after + 1);
    }
}

#[test]
fn records_come_with_the_bytes_that_their_bodies_hold_now() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    put_append(&mut store, BODY, &file, 0, &[1; 4]);
    put_append(&mut store, BODY, &file, 4, &[2; 4]);
    let overwrite = BodyChange::Overwrite { offset: 3, data: vec![9; 2].into() };
    put(&mut store, vec![body_change(BODY, &file, overwrite)]);
    let bytes = |store: &Store| -> Vec<Bytes> {
        read(store, 1, 1 << 20).unwrap().into_iter().flat_map(|sent| sent.appended).collect()
    };
    assert_eq!(bytes(&store), [&[1, 1, 1, 9][..], &[9, 2, 2, 2]]);
    put(&mut store, vec![body_change(BODY, &file, BodyChange::Drop)]);
    assert_eq!(bytes(&store), [vec![0; 4], vec![0; 4]], "the body is gone");
}

/// A primary and one that follows it record by record.
#[test]
fn a_copy_that_receives_the_log_of_another_is_like_it() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut store, mut other) = (create(dir.path()), create(other_dir.path()));
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    put_append(&mut store, BODY, &file, 0, &[1; 100]);
    let overwrite = BodyChange::Overwrite { offset: 50, data: vec![9; 2].into() };
    put(&mut store, vec![body_change(BODY, &file, overwrite)]);
    put_in_epoch(&mut store, 3, vec![Change::PutSession(session(1))]);
    for sent in read(&store, 0, usize::MAX).unwrap() {
        other.receive(&sent.record, &sent.appended).unwrap();
    }
    assert_eq!(other.position(SLICE), store.position(SLICE));
    assert_eq!(other.history(SLICE), store.history(SLICE));
    assert_eq!(other.flare(&file.key()).unwrap(), Some(file));
    assert_eq!(other.read_body(BODY, 0, 110).unwrap(), store.read_body(BODY, 0, 110).unwrap());
    assert_eq!(other.sessions().unwrap(), [session(1)]);
}

#[test]
fn a_received_record_without_its_bytes_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let file = flare(1, Kind::File);
    put(&mut store, vec![Change::PutFlare(file.clone())]);
    let change = body_change(BODY, &file, BodyChange::Append { offset: 0, length: 4 });
    let record = record(&store, vec![change]);
    for wrong in [Vec::new(), vec![Bytes::from(vec![1; 3])]] {
        let refused = store.receive(&record, &wrong).unwrap_err();
        assert!(matches!(refused, StoreError::Rejected { .. }), "{refused}");
    }
    assert_eq!(store.position(SLICE), Some(at(1, 1)));
    store.receive(&record, &[Bytes::from(vec![1; 4])]).unwrap();
    assert_eq!(store.read_body(BODY, 0, 4).unwrap()[..], [1; 4]);
}

#[test]
fn what_a_rewind_takes_back_is_missing_and_not_told_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    for number in 1..=5 {
        put_in_epoch(&mut store, number, vec![put_flare(number)]);
    }
    assert_eq!(store.rewind(SLICE, at(2, 2)).unwrap(), Rewound::Done);
    assert_eq!(store.missing(SLICE), &missing([3, 4, 5]));
    for number in 6..=7 {
        put_in_epoch(&mut store, number, vec![put_flare(number)]);
    }
    store.flush().unwrap();
    let (store, _) = reopen(store, dir.path());
    assert_eq!(store.position(SLICE), Some(at(7, 4)));
    assert_eq!(store.history(SLICE), [at(1, 1), at(2, 2), at(6, 3), at(7, 4)]);
    assert_eq!(store.missing(SLICE), &missing([3, 4, 5]));
    // the rows stay until they are replaced
    assert_eq!(store.space().flares, 7);
    assert_eq!(read(&store, 0, usize::MAX), None, "a copy that lacks something has nothing to tell");
}

#[test]
fn records_that_were_taken_back_are_skipped_when_the_log_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let mut made = Vec::new();
    for round in 1..=3 {
        for _ in 0..60 {
            // nothing that would be missing
            put_in_epoch(&mut store, round, Vec::new());
        }
        let back = store.position(SLICE).unwrap().seq.0 - 20;
        store.rewind(SLICE, at(round, back)).unwrap();
        made.resize(back as usize, round);
    }
    store.flush().unwrap();
    for _ in 0..2 {
        let sent = read(&store, 0, usize::MAX).unwrap();
        let epochs: Vec<_> = sent.iter().map(|sent| sent.record.epoch.0).collect();
        assert_eq!(epochs, made);
        assert_eq!(numbers(&store, 0, 300), (1..=120).collect::<Vec<_>>());
        store = reopen(store, dir.path()).0;
    }
}

#[test]
fn sessions_that_a_rewind_takes_back_are_missing_with_the_first_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    put(&mut store, Vec::new());
    put(&mut store, vec![Change::PutSession(session(1))]);
    put(&mut store, Vec::new());
    assert_eq!(store.rewind(SLICE, at(1, 2)).unwrap(), Rewound::Done);
    assert_eq!(store.rewind(SLICE, at(1, 1)).unwrap(), Rewound::Done);
    assert_eq!(store.missing(SLICE), &Missing::all(KeyRange::single(Ino(0))));
}

#[test]
fn a_copy_is_not_set_back_to_a_record_that_it_never_had() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    for epoch in [1, 4, 4] {
        put_in_epoch(&mut store, epoch, Vec::new());
    }
    for wrong in [at(1, 2), at(4, 4), at(4, 1), at(9, 9)] {
        let refused = store.rewind(SLICE, wrong).unwrap_err();
        assert!(matches!(refused, StoreError::Rejected { .. }), "{wrong:?}");
    }
    assert!(matches!(store.rewind(SliceId(2), at(1, 1)).unwrap_err(), StoreError::Rejected { .. }));
    assert_eq!(store.last(), Lsn(3));
}

#[test]
fn a_copy_can_be_set_back_to_before_its_first_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    put(&mut store, vec![put_flare(1)]);
    store.rewind(SLICE, Position::default()).unwrap();
    assert_eq!((store.position(SLICE), store.history(SLICE)), (Some(Position::default()), Vec::new()));
    assert_eq!(store.missing(SLICE), &missing([1]));
    put_in_epoch(&mut store, 2, Vec::new());
    assert_eq!(store.position(SLICE), Some(at(2, 1)));
}

#[test]
fn segments_that_are_gone_are_neither_told_nor_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = shortened(dir.path());
    assert_eq!(read(&store, 0, 1), None);
    assert_eq!(store.rewind(SLICE, at(1, 1)).unwrap(), Rewound::NotInLog);
    assert_eq!(store.position(SLICE), Some(at(1, 400)));
    let first = store.log.first().0;
    assert_eq!(read(&store, first - 2, 1), None);
    assert_eq!(numbers(&store, first - 1, 1 << 10), (first..=400).collect::<Vec<_>>());
    assert_eq!(store.rewind(SLICE, at(1, first)).unwrap(), Rewound::Done);
}

#[test]
fn a_reader_that_was_not_there_while_segments_went_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let fill = |store: &mut Store| (0..200).for_each(|number| put(store, vec![put_flare(number % 50)]));
    fill(&mut store);
    assert_eq!(read(&store, 9, 1).unwrap().len(), 1);
    drop(read(&store, 10, 1));
    fill(&mut store);
    store = reopen(store, dir.path()).0;
    assert_eq!(read(&store, 10, 1).unwrap()[0].record.seq, Seq(11));
    upkeep(&mut store, 100);
    upkeep(&mut store, 200);
    assert!(store.log.first() > Lsn(12));
    assert_eq!(read(&store, 11, 1), None);
}

#[test]
fn a_placed_copy_lacks_everything_and_goes_on_from_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    put(&mut store, vec![put_flare(1), Change::PutSession(session(1))]);
    let half = KeyRange::new(Ino(0), Ino(u64::MAX / 2)).unwrap();
    let history = [at(2, 1), at(6, 80)];
    store.place(SLICE, half, at(6, 100), &history, &[(Seq(90), outcome(1))]).unwrap();
    for _ in 0..2 {
        assert_eq!((store.position(SLICE), store.history(SLICE)), (Some(at(6, 100)), history.to_vec()));
        assert_eq!(store.missing(SLICE), &Missing::all(half));
        assert_eq!(store.position_at(SLICE, Seq(79)), Some(at(2, 79)));
        assert!(store.sessions().unwrap().is_empty());
        store.flush().unwrap();
        store = reopen(store, dir.path()).0;
    }
    put_in_epoch(&mut store, 6, Vec::new());
    assert_eq!(store.position(SLICE), Some(at(6, 101)));
    assert_eq!(store.rewind(SLICE, at(6, 90)).unwrap(), Rewound::NotInLog);
    assert_eq!(store.rewind(SLICE, at(6, 100)).unwrap(), Rewound::Done);
}

#[test]
fn a_copy_is_not_placed_where_its_history_does_not_lead() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    for history in [&[][..], &[at(2, 1)], &[at(6, 101)], &[at(7, 1), at(6, 2)]] {
        let refused = store.place(SLICE, KeyRange::ALL, at(6, 100), history, &[]).unwrap_err();
        assert!(matches!(refused, StoreError::Rejected { .. }), "{history:?}");
    }
    assert!(store.slices().is_empty());
}

#[test]
fn a_filled_copy_tells_what_came_after_it_was_complete() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    store.place(SLICE, KeyRange::ALL, at(6, 100), &[at(6, 1)], &[]).unwrap();
    put_in_epoch(&mut store, 6, Vec::new());
    let rows = vec![put_flare(1), Change::PutSession(session(1))];
    copied(&mut store, &rows, Some(range_of(1))).unwrap();
    assert!(!store.missing(SLICE).contains(range_of(1).start()));
    assert_eq!(read(&store, 100, 1 << 20), None, "the record may not be here as a whole");
    put_in_epoch(&mut store, 6, Vec::new());
    begin(&mut store, BODY);
    store.write_append(BODY, 0, &[7; 10]).unwrap();
    let append = body_change(BODY, &flare(1, Kind::File), BodyChange::Append { offset: 0, length: 10 });
    copied(&mut store, &[append], Some(KeyRange::ALL)).unwrap();
    put_in_epoch(&mut store, 6, Vec::new());
    store.flush().unwrap();
    let (store, _) = reopen(store, dir.path());
    assert_eq!(store.position(SLICE), Some(at(6, 103)));
    assert!(store.missing(SLICE).is_empty());
    assert_eq!(store.sessions().unwrap(), [session(1)]);
    assert_eq!(store.read_body(BODY, 0, 10).unwrap()[..], [7; 10]);
    assert_eq!(read(&store, 101, 1 << 20), None);
    assert_eq!(numbers(&store, 102, 1 << 20), [103]);
}

/// Where a body's bytes lie depends on what begins it. To a record they must not have gone where an import puts them, or the other way round.
#[test]
fn bytes_that_went_to_the_wrong_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    put(&mut store, vec![put_flare(1)]);
    let append = body_change(BODY, &flare(1, Kind::File), BodyChange::Append { offset: 0, length: 10 });
    store.write_append(BODY, 0, &[7; 10]).unwrap();
    assert!(matches!(copied(&mut store, &[append], None).unwrap_err(), StoreError::Rejected { .. }));
}

/// A part that was copied when the copy stood further on is not true any more where it is set back to.
#[test]
fn a_rewind_counts_what_was_copied_later_as_missing_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    store.place(SLICE, KeyRange::ALL, at(6, 100), &[at(6, 1)], &[]).unwrap();
    copied(&mut store, &[], Some(KeyRange::ALL)).unwrap();
    put_in_epoch(&mut store, 6, Vec::new());
    store.rewind(SLICE, at(6, 100)).unwrap();
    assert_eq!(store.missing(SLICE), &Missing::all(KeyRange::ALL));
}

#[test]
fn nothing_is_copied_into_a_slice_that_is_not_here() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let refused = copied(&mut store, &[put_flare(1)], None).unwrap_err();
    assert!(matches!(refused, StoreError::Rejected { .. }));
}

#[test]
fn outcomes_of_records_that_were_taken_back_are_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let with_outcome = |store: &mut Store, number| {
        let record = Record { outcome: Some(outcome(number)), ..record(store, Vec::new()) };
        store.append(&record).unwrap();
        store.flush().unwrap();
    };
    let found = |opened: &Opened| -> Vec<_> {
        opened.outcomes.iter().map(|kept| (kept.seq.0, kept.outcome.clone())).collect()
    };
    (1..=3).for_each(|number| with_outcome(&mut store, number));
    store.rewind(SLICE, at(1, 1)).unwrap();
    with_outcome(&mut store, 9);
    let (mut store, opened) = reopen(store, dir.path());
    assert_eq!(found(&opened), [(1, outcome(1)), (2, outcome(9))]);
    store.place(SLICE, KeyRange::ALL, at(1, 50), &[at(1, 1)], &[(Seq(40), outcome(40))]).unwrap();
    store.append(&record(&store, Vec::new())).unwrap();
    store.sync_now(SyncBodies::None).unwrap();
    let (_, opened) = reopen(store, dir.path());
    assert_eq!(found(&opened), [(40, outcome(40))]);
}

#[test]
fn the_log_keeps_a_place_whose_outcomes_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    store.place(SLICE, KeyRange::ALL, at(1, 50), &[at(1, 1)], &[(Seq(40), outcome(40))]).unwrap();
    store.keep_from(SLICE, Seq(40));
    for number in 0..400 {
        put(&mut store, vec![put_flare(number % 50)]);
    }
    upkeep(&mut store, 100);
    upkeep(&mut store, 200);
    assert_eq!(store.log.first(), Lsn(1));
    // record 300 is the entry 251
    store.keep_from(SLICE, Seq(300));
    put(&mut store, vec![put_flare(1)]);
    upkeep(&mut store, 300);
    assert!(store.log.first() > Lsn(1) && store.log.first() <= Lsn(251), "{:?}", store.log.first());
}

#[test]
fn the_log_keeps_what_each_slice_needs_by_its_own_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let of_other = |store: &Store| Record { slice: SliceId(2), ..record(store, Vec::new()) };
    for number in 0..400 {
        put(&mut store, vec![put_flare(number % 50)]);
    }
    // the other slice's first record is the entry 401
    let first = Record { seq: Seq(1), ..of_other(&store) };
    store.append(&first).unwrap();
    for number in 0..400 {
        put(&mut store, vec![put_flare(number % 50)]);
    }
    store.keep_from(SliceId(2), Seq(1));
    upkeep(&mut store, 100);
    upkeep(&mut store, 200);
    assert!(store.log.first() > Lsn(1) && store.log.first() <= Lsn(401), "{:?}", store.log.first());
    store.keep_from(SliceId(2), Seq(u64::MAX));
    put(&mut store, vec![put_flare(1)]);
    upkeep(&mut store, 300);
    assert!(store.log.first() > Lsn(401), "{:?}", store.log.first());
}

#[test]
fn a_slice_that_is_founded_lacks_nothing_and_knows_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let range = KeyRange::new(Ino(1 << 62), Ino(1 << 63)).unwrap();
    store.found(SliceId(2), range).unwrap();
    let first = Record { slice: SliceId(2), ..record(&store, Vec::new()) };
    store.append(&first).unwrap();
    store.flush().unwrap();
    let (mut store, _) = reopen(store, dir.path());
    assert_eq!((store.range(SliceId(2)), store.position(SliceId(2))), (Some(range), Some(at(1, 1))));
    assert!(store.missing(SliceId(2)).is_empty());
    store.rewind(SliceId(2), Position::default()).unwrap();
    assert_eq!(store.missing(SliceId(2)).ranges(), [range]);
}
