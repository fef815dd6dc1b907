//! Copying: what it must do in cases that chance seldom brings about. On a real file system, which knows holes.

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::key::{Ino, KeyRange};
use magma_common::proto::SessionId;

use super::super::super::{Imported, Inside, Store, SyncBodies};
use super::super::making::{
    SLICE, body_change, create, entry, flare, name, put, put_append, reference, small, time,
};
use crate::node::message::Part;
use crate::record::{BodyChange, Change};
use crate::rows::{BodyId, Content, FlareRow, SessionRow};
use crate::view::{ReadError, View};

const BODY: BodyId = BodyId(0x1234_5678_9ABC_DEF0);
const BLOCK: u64 = 64 << 10;
const BUDGET: usize = 100_000;

/// A source and a store that is to become a copy.
struct Pair {
    source: Store,
    copy: Store,
    dir: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut source = create(&dir.path().join("source"));
        let copy = create(&dir.path().join("copy"));
        put(
            &mut source,
            vec![Change::PutFlare(flare(1, Kind::File)), Change::PutFlare(flare(2, Kind::Directory))],
        );
        Self { source, copy, dir }
    }

    fn place(&mut self) {
        let (position, history) = (self.source.position(SLICE).unwrap(), self.source.history(SLICE));
        self.copy.place(SLICE, KeyRange::ALL, position, &history, &[]).unwrap();
    }

    /// Gives flare 1 a body with these bytes at this offset.
    fn append(&mut self, offset: u64, data: &[u8]) {
        let row = file(offset + data.len() as u64);
        put_append(&mut self.source, BODY, &row, offset, data);
        put(&mut self.source, vec![Change::PutFlare(row)]);
    }

    fn export(&self, inside: Option<&Inside>) -> (Part, Option<Inside>) {
        let within = *self.copy.missing(SLICE).ranges().first().unwrap();
        self.source.export(SLICE, within, inside, BUDGET).unwrap()
    }

    /// Brings over all that is missing; gives out how many parts it took.
    fn copy_all(&mut self) -> usize {
        let (mut inside, mut parts) = (None, 0);
        while !self.copy.missing(SLICE).is_empty() {
            let (part, next) = self.export(inside.as_ref());
            match self.copy.import(SLICE, &part).unwrap() {
                Imported::Done => inside = next,
                Imported::Later => {}
                Imported::OutOfPlace => panic!("out of place"),
            }
            parts += 1;
        }
        parts
    }

    /// Takes parts until the first of a flare that comes in several; that one is given out instead.
    fn first_of_several(&mut self) -> (Part, Inside) {
        loop {
            let (part, inside) = self.export(None);
            if let Some(inside) = inside {
                return (part, inside);
            }
            assert_eq!(self.copy.import(SLICE, &part).unwrap(), Imported::Done);
        }
    }

    fn assert_equal(&self) {
        assert_eq!(self.copy.fingerprint(SLICE).unwrap(), self.source.fingerprint(SLICE).unwrap());
    }
}

/// Flare 1 with a body that reaches so far.
fn file(high: u64) -> FlareRow {
    FlareRow { content: Content::Body { body: BODY, high }, size: high, ..flare(1, Kind::File) }
}

fn high(store: &Store) -> u64 {
    store.bodies.borrow_mut().high(&store.db, BODY).unwrap()
}

#[test]
fn holes_are_no_bytes_on_the_way_and_the_body_reaches_as_far() {
    let mut pair = Pair::new();
    pair.append(0, &[1; 10]);
    pair.append(1 << 40, &[2; 10]);
    let cut = BodyChange::Zero { offset: 1 << 39, length: (1 << 39) + 10 };
    put(&mut pair.source, vec![body_change(BODY, &file(0), cut)]);
    // so that the file has the hole, too
    pair.source.sync_now(SyncBodies::All).unwrap();
    pair.place();
    assert_eq!(pair.copy_all(), 1);
    assert_eq!(high(&pair.copy), (1 << 40) + 10);
    pair.assert_equal();
    // what comes next lies above, as at the source
    let data = Bytes::from_static(b"behind the hole");
    let record = super::super::making::record(
        &pair.source,
        vec![body_change(
            BODY,
            &file(0),
            BodyChange::Append { offset: (1 << 40) + 10, length: data.len() as u64 },
        )],
    );
    pair.source.write_append(BODY, (1 << 40) + 10, &data).unwrap();
    pair.source.append(&record).unwrap();
    pair.copy.receive(&record, &[data]).unwrap();
    pair.assert_equal();
}

#[test]
fn a_body_to_which_nothing_was_ever_written_can_be_written_to() {
    let mut pair = Pair::new();
    put(&mut pair.source, vec![Change::PutFlare(file(0))]);
    for _ in 0..2 {
        // the second time what the first brought is in the way
        pair.place();
        pair.copy_all();
        let record = super::super::making::record(
            &pair.source,
            vec![body_change(BODY, &file(0), BodyChange::Append { offset: high(&pair.source), length: 3 })],
        );
        pair.source.write_append(BODY, high(&pair.source), b"abc").unwrap();
        pair.source.append(&record).unwrap();
        pair.copy.receive(&record, &[Bytes::from_static(b"abc")]).unwrap();
        pair.assert_equal();
    }
}

#[test]
fn a_large_flare_comes_in_parts_of_its_own() {
    let mut pair = Pair::new();
    pair.append(0, &vec![7; 10 * BLOCK as usize]);
    let dir = flare(2, Kind::Directory);
    for number in 0..2000 {
        let child = entry(number, &flare(1, Kind::File), number + 3);
        let xattr =
            Change::PutXattr { flare: dir.key(), name: name(number % 9), value: vec![1; 60_000].into() };
        let names = Change::PutReference { flare: dir.key(), reference: reference(number, &dir) };
        put(&mut pair.source, vec![Change::PutEntry { dir: dir.key(), entry: child }, xattr, names]);
    }
    pair.place();
    let parts = pair.copy_all();
    assert!(parts > 15, "{parts}");
    pair.assert_equal();
}

#[test]
fn a_large_directory_that_is_in_the_way_goes_piece_by_piece() {
    let mut pair = Pair::new();
    pair.place();
    let dir = flare(2, Kind::Directory);
    put(&mut pair.copy, vec![Change::EndSession(SessionId(1))]);
    pair.copy_all();
    for page in 0..100 {
        let entries = (page * 100..page * 100 + 100).map(|number| entry(number, &dir, number + 3));
        put(&mut pair.copy, entries.map(|entry| Change::PutEntry { dir: dir.key(), entry }).collect());
    }
    pair.place();
    let mut later = 0;
    while !pair.copy.missing(SLICE).is_empty() {
        let (part, _) = pair.export(None);
        later += usize::from(pair.copy.import(SLICE, &part).unwrap() == Imported::Later);
    }
    assert_eq!(later, 2);
    pair.assert_equal();
}

#[test]
fn sessions_that_the_source_does_not_have_end() {
    let mut pair = Pair::new();
    let session = |id| SessionRow { id: SessionId(id), client: "c".into(), opened: time(1), acknowledged: 7 };
    put(&mut pair.source, vec![Change::PutSession(session(5))]);
    pair.place();
    let record = super::super::making::record(&pair.copy, vec![Change::PutSession(session(6))]);
    pair.copy.receive(&record, &[]).unwrap();
    pair.copy_all();
    assert_eq!(pair.copy.sessions().unwrap(), [session(5)]);
}

#[test]
fn a_rotten_block_is_not_given_out() {
    let mut pair = Pair::new();
    pair.append(0, &[7; 100]);
    pair.source.sync_now(SyncBodies::All).unwrap();
    for second in 10..12 {
        let job = pair.source.maintain(std::time::Duration::from_secs(second)).unwrap().job;
        if let Some(job) = job {
            pair.source.finish_sync(job.run()).unwrap();
        }
    }
    let file = pair.source.bodies.borrow().path(BODY, super::super::super::Lsn(0));
    std::fs::write(file, [8; 100]).unwrap();
    let exported = pair.source.export(SLICE, KeyRange::ALL, None, BUDGET);
    assert!(matches!(exported, Err(ReadError::Checksum { body: BODY, block: 0 })), "{exported:?}");
}

#[test]
fn a_flare_is_begun_anew_when_its_body_is_another_by_now() {
    let mut pair = Pair::new();
    pair.append(0, &vec![7; 10 * BLOCK as usize]);
    pair.place();
    let (part, inside) = pair.first_of_several();
    pair.copy.import(SLICE, &part).unwrap();
    let mut row = file(0);
    row.content = Content::Body { body: BodyId(9), high: 0 };
    let record = super::super::making::record(
        &pair.source,
        vec![body_change(BODY, &row, BodyChange::Drop), Change::PutFlare(row)],
    );
    pair.source.append(&record).unwrap();
    pair.copy.receive(&record, &[]).unwrap();
    let (part, _) = pair.export(Some(&inside));
    assert!(part.first);
    pair.copy_all();
    pair.assert_equal();
}

#[test]
fn a_part_that_goes_on_with_what_the_copy_has_forgotten_is_out_of_place() {
    let mut pair = Pair::new();
    pair.append(0, &vec![7; 10 * BLOCK as usize]);
    pair.place();
    let (part, inside) = pair.first_of_several();
    pair.copy.import(SLICE, &part).unwrap();
    pair.copy.flush().unwrap();
    let Pair { source, copy, dir } = pair;
    drop(copy);
    let disk = super::super::making::real();
    let copy = Store::open(&dir.path().join("copy"), disk, small(false, "boot")).unwrap().0;
    let mut pair = Pair { source, copy, dir };
    let (part, _) = pair.export(Some(&inside));
    assert_eq!(pair.copy.import(SLICE, &part).unwrap(), Imported::OutOfPlace);
    pair.copy_all();
    pair.assert_equal();
}

#[test]
fn keys_that_are_here_are_not_replaced() {
    let mut pair = Pair::new();
    pair.place();
    let (whole, _) = pair.source.export(SLICE, KeyRange::ALL, None, BUDGET).unwrap();
    pair.copy_all();
    assert_eq!(pair.copy.import(SLICE, &whole).unwrap(), Imported::Done);
    let ino = flare(1, Kind::File).handle.ino();
    pair.place();
    let below = KeyRange::new(Ino(0), ino).unwrap();
    let (part, _) = pair.source.export(SLICE, below, None, BUDGET).unwrap();
    pair.copy.import(SLICE, &part).unwrap();
    // What is missing of a part is taken, what is here already stays.
    assert_eq!(pair.copy.import(SLICE, &whole).unwrap(), Imported::Done);
    assert!(pair.copy.missing(SLICE).is_empty());
    pair.copy_all();
    pair.assert_equal();
}

#[test]
fn a_range_with_bodies_is_safe_only_after_they_were_synced() {
    let mut pair = Pair::new();
    pair.append(0, &[7; 100]);
    pair.place();
    pair.copy_all();
    pair.copy.sync_now(SyncBodies::None).unwrap();
    assert!(pair.copy.missing(SLICE).is_empty() && !pair.copy.is_complete(SLICE));
    let mut steps = 0;
    while !pair.copy.is_complete(SLICE) {
        if let Some(job) = pair.copy.maintain(std::time::Duration::ZERO).unwrap().job {
            pair.copy.finish_sync(job.run()).unwrap();
        }
        steps += 1;
        assert!(steps < 5, "upkeep does not hurry");
    }
}
