//! The store that a slice is copied from: random records, made as a primary would make them.

use std::path::Path;

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::handle::BirthNumber;
use magma_common::key::{Ino, Key, KeyRange};
use magma_common::proto::SessionId;
use magma_common::proto::operation::{LockFamily, LockKind, LockOwner};
use magma_common::topology::Position;

use super::super::super::Store;
use super::super::super::simulated::{Dice, SimDisk};
use super::super::making::{
    SLICE, body_change, delete_transaction, entry, flare, found, name, open_sim, put_transaction, record,
    reference, session, small, time, transaction,
};
use crate::node::message::SentRecord;
use crate::record::{BodyChange, Change};
use crate::rows::{BodyId, Content, FlareRow, LockRow, SessionRow};
use crate::transaction::{Part, TransactionRow};
use crate::view::View;

/// Flares that the records are about. The first [`DIRECTORIES`] are directories.
const FLARES: u64 = 14;
const DIRECTORIES: u64 = 3;

/// A store with a slice.
pub(super) struct Source {
    pub(super) store: Store,
    pub(super) dice: Dice,
    next_body: u64,
}

/// The changes of a record in the making.
#[derive(Default)]
struct Made {
    changes: Vec<Change>,
    appended: Vec<Bytes>,
}

impl Made {
    fn body(&mut self, row: &FlareRow, body: BodyId, change: BodyChange) {
        self.changes.push(body_change(body, row, change));
    }
}

impl Source {
    /// Makes a store with nothing in it but the slice, whose range depends on the seed.
    pub(super) fn create(home: &Path, seed: u64) -> Self {
        let disk = SimDisk::new(home);
        let (mut store, _) = open_sim(home, &disk, small(true, "0")).unwrap();
        if let Some((_, upper)) = halves(seed) {
            found(&mut store, SLICE, upper);
        }
        Self::new(store, seed)
    }

    pub(super) fn new(store: Store, seed: u64) -> Self {
        Self { store, dice: Dice::new(seed), next_body: seed << 40 }
    }

    /// Where it stands, and by which way it came there.
    pub(super) fn standing(&self) -> (Position, Vec<Position>) {
        (self.store.position(SLICE).unwrap_or_default(), self.store.history(SLICE))
    }

    /// Appends a random record.
    pub(super) fn act(&mut self) -> SentRecord {
        let mut made = Made::default();
        let first = self.dice.below(FLARES);
        // different flares, as a change is made of what the store had before
        for step in 0..=self.dice.below(3) {
            self.change((first + step * 5) % FLARES, &mut made);
        }
        let sent = SentRecord { record: record(&self.store, made.changes), appended: made.appended };
        self.store.append(&sent.record).unwrap();
        self.store.flush().unwrap();
        sent
    }

    fn change(&mut self, number: u64, made: &mut Made) {
        let kind = if number < DIRECTORIES { Kind::Directory } else { Kind::File };
        let mut row = flare(number, kind);
        let key = row.key();
        let Some(known) = self.store.flare(&key).unwrap() else {
            if self.dice.one_in(2) {
                row.handle.birth = BirthNumber(self.dice.next());
                made.changes.push(Change::PutFlare(row));
            }
            return;
        };
        row.handle = known.handle;
        let random = self.dice.below(8);
        let change = match self.dice.below(23) {
            0 if self.dice.one_in(2) => return self.delete(&known, made),
            1 | 2 => Change::PutInline { flare: key, data: vec![random as u8; random as usize * 100].into() },
            3 => {
                Change::PutReference { flare: key, reference: reference(random, &flare(0, Kind::Directory)) }
            }
            4 => Change::DeleteReference {
                flare: key,
                parent: flare(0, kind).key(),
                name: name(random),
                made_by: reference(random, &row).made_by,
            },
            5 => Change::PutXattr { flare: key, name: name(random), value: vec![random as u8; 300].into() },
            6 => Change::DeleteXattr { flare: key, name: name(random) },
            7 => Change::PutLocks { flare: key, locks: locks(random) },
            8 => Change::PutSession(SessionRow { opened: time(self.dice.below(100)), ..session(random) }),
            9 => Change::EndSession(SessionId(random)),
            10 | 11 => put_transaction(&self.transaction()),
            12 => delete_transaction(&self.transaction()),
            _ if kind == Kind::Directory => return self.change_entries(known, made),
            _ => return self.change_body(known, made),
        };
        made.changes.push(change);
    }

    /// One of a few, together too large for many a part.
    fn transaction(&mut self) -> TransactionRow {
        let part = [Part::Prepared, Part::Applied, Part::Driven][self.dice.below(3) as usize];
        let (number, size) = (self.dice.below(10), self.dice.below(16_000) as usize);
        transaction(number, part, size)
    }

    fn delete(&mut self, known: &FlareRow, made: &mut Made) {
        if let Content::Body { body, .. } = known.content {
            made.body(known, body, BodyChange::Drop);
        }
        made.changes.push(Change::DeleteFlare(known.key()));
        if self.dice.one_in(3) {
            // the key's next bearer comes with the same record
            let mut next = flare(1000, known.kind);
            next.handle = known.handle;
            next.handle.birth = BirthNumber(self.dice.next());
            made.changes.push(Change::PutFlare(next));
        }
    }

    fn change_entries(&mut self, mut dir: FlareRow, made: &mut Made) {
        let key = dir.key();
        for _ in 0..8 {
            let number = self.dice.below(200);
            if self.dice.one_in(4) {
                made.changes.push(Change::DeleteEntry { dir: key, name: name(number) });
                continue;
            }
            let child = flare(self.dice.below(FLARES), Kind::File);
            // one that is replaced keeps its cookie
            let there = self.store.entry(&key, &name(number)).unwrap();
            let is_new = !made.changes.iter().any(|change| is_about(change, &key, number));
            let cookie = if let Some(there) = there.filter(|_| is_new && self.dice.one_in(2)) {
                there.cookie
            } else {
                dir.next_cookie += 1;
                dir.next_cookie
            };
            made.changes.push(Change::PutEntry { dir: key, entry: entry(number, &child, cookie) });
        }
        made.changes.push(Change::PutFlare(dir));
    }

    fn change_body(&mut self, mut row: FlareRow, made: &mut Made) {
        row.change = self.dice.next();
        let Content::Body { body, high } = row.content else {
            self.next_body += 1;
            let body = BodyId(self.next_body);
            row.content = Content::Body { body, high: 0 };
            self.append(row, body, 0, made);
            return;
        };
        let offset = self.dice.below(high.max(1));
        let length = 1 + self.dice.below((high - offset).clamp(1, 5000));
        match self.dice.below(10) {
            0..4 if high > offset => {
                let data = vec![self.dice.next() as u8 | 1; length.min(high - offset) as usize].into();
                made.body(&row, body, BodyChange::Overwrite { offset, data });
            }
            4 if high > offset => {
                let length = (length * 30).min(high - offset);
                made.body(&row, body, BodyChange::Zero { offset, length });
            }
            5 => made.body(&row, body, BodyChange::Reserve { offset: high, length }),
            6 => {
                made.body(&row, body, BodyChange::Drop);
                row.content = Content::Inline;
                made.changes.push(Change::PutFlare(row));
            }
            _ => self.append(row, body, high, made),
        }
    }

    fn append(&mut self, mut row: FlareRow, body: BodyId, high: u64, made: &mut Made) {
        let offset = high + if self.dice.one_in(4) { self.dice.below(150_000) } else { 0 };
        let data = vec![self.dice.next() as u8 | 1; 1 + self.dice.below(90_000) as usize];
        let length = data.len() as u64;
        self.store.write_append(body, offset, &data).unwrap();
        made.body(&row, body, BodyChange::Append { offset, length });
        made.appended.push(data.into());
        row.content = Content::Body { body, high: offset + length };
        row.size = offset + length;
        made.changes.push(Change::PutFlare(row));
    }
}

/// With every other seed the slice does not cover everything but begins exactly with its first flare: what lies below, and its range.
pub(super) fn halves(seed: u64) -> Option<(KeyRange, KeyRange)> {
    let first = (0..FLARES).map(|number| flare(number, Kind::File).key().ino()).min().unwrap();
    let lower = KeyRange::new(Ino(0), Ino(first.0 - 1)).unwrap();
    let upper = KeyRange::new(first, KeyRange::ALL.stop()).unwrap();
    seed.is_multiple_of(2).then_some((lower, upper))
}

/// Whether a change is one of this entry.
fn is_about(change: &Change, of: &Key, number: u64) -> bool {
    match change {
        Change::PutEntry { dir, entry } => dir == of && entry.name == name(number),
        Change::DeleteEntry { dir, name: other } => dir == of && *other == name(number),
        _ => false,
    }
}

fn locks(count: u64) -> Vec<LockRow> {
    let lock = |number| LockRow {
        family: LockFamily::Flock,
        session: SessionId(number),
        owner: LockOwner { owner: u64::MAX, pid: 7 },
        kind: LockKind::Exclusive,
        start: number,
        end: u64::MAX,
    };
    (0..count).map(lock).collect()
}
