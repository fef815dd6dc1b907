//! What a store should hold: entries applied to plain maps.

use std::collections::BTreeMap;

use bytes::Bytes;
use magma_common::key::Key;
use magma_common::name::Name;
use magma_common::proto::SessionId;

use super::super::{Lsn, Store};
use super::making::SLICE;
use crate::record::{BodyChange, Change, Entry};
use crate::rows::{BodyId, EntryRow, FlareRow, LockRow, ReferenceRow, SessionRow};
use crate::transaction::{Attempt, TransactionRow};
use crate::view::View;

/// One byte of a body, and the entry that appended it if that byte was not synced since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Byte {
    pub(super) value: u8,
    pub(super) loose: Option<Lsn>,
}

/// The state that entries lead to.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) flares: BTreeMap<Key, FlareRow>,
    pub(super) inlines: BTreeMap<Key, Vec<u8>>,
    pub(super) entries: BTreeMap<(Key, Name), EntryRow>,
    references: BTreeMap<Key, Vec<ReferenceRow>>,
    xattrs: BTreeMap<(Key, Name), Vec<u8>>,
    locks: BTreeMap<Key, Vec<LockRow>>,
    sessions: BTreeMap<SessionId, SessionRow>,
    transactions: BTreeMap<(Key, Attempt, bool), TransactionRow>,
    pub(super) bodies: BTreeMap<BodyId, Vec<Byte>>,
}

impl Model {
    /// Applies an entry of the log; `appended` are the bytes of its appends.
    pub(super) fn apply(&mut self, lsn: Lsn, entry: &Entry, appended: &[Bytes]) {
        match entry {
            Entry::Record(record) => self.change(lsn, &record.changes, appended),
            Entry::Copied { changes, .. } => self.change(lsn, changes, appended),
            Entry::Place { .. } => {
                self.sessions.clear();
                self.transactions.clear();
            }
            Entry::Rewind { .. } => {}
        }
    }

    fn change(&mut self, lsn: Lsn, changes: &[Change], appended: &[Bytes]) {
        let mut appended = appended.iter();
        for change in changes {
            match change.clone() {
                Change::PutFlare(row) => {
                    self.flares.insert(row.key(), row);
                }
                Change::DeleteFlare(key) => {
                    self.flares.remove(&key);
                    self.inlines.remove(&key);
                    self.references.remove(&key);
                    self.locks.remove(&key);
                    self.entries.retain(|(dir, _), _| *dir != key);
                    self.xattrs.retain(|(flare, _), _| *flare != key);
                }
                Change::PutInline { flare, data } if data.is_empty() => {
                    self.inlines.remove(&flare);
                }
                Change::PutInline { flare, data } => {
                    self.inlines.insert(flare, data.to_vec());
                }
                Change::PutEntry { dir, entry } => {
                    drop(self.entries.insert((dir, entry.name.clone()), entry));
                }
                Change::DeleteEntry { dir, name } => {
                    self.entries.remove(&(dir, name));
                }
                Change::PutReference { flare, reference } => {
                    let references = self.references.entry(flare).or_default();
                    references.retain(|there| *there != reference);
                    references.push(reference);
                }
                Change::DeleteReference { flare, parent, name, made_by } => {
                    self.references.entry(flare).or_default().retain(|there| {
                        there.parent.key != parent || there.name != name || there.made_by != made_by
                    });
                }
                Change::PutXattr { flare, name, value } => {
                    drop(self.xattrs.insert((flare, name), value.to_vec()));
                }
                Change::DeleteXattr { flare, name } => {
                    self.xattrs.remove(&(flare, name));
                }
                Change::PutLocks { flare, locks } => {
                    self.locks.insert(flare, locks);
                }
                Change::PutSession(session) => {
                    self.sessions.insert(session.id, session);
                }
                Change::EndSession(id) => {
                    self.sessions.remove(&id);
                }
                Change::PutTransaction(row) => {
                    self.transactions.insert(row.id(), *row);
                }
                Change::DeleteTransaction { key, attempt, driven } => {
                    self.transactions.remove(&(key, attempt, driven));
                }
                Change::Body { body, change, .. } => self.apply_body(body, change, lsn, &mut appended),
                Change::Divide(_) => panic!("a model is about one slice"),
            }
        }
    }

    fn apply_body<'a>(
        &mut self,
        body: BodyId,
        change: BodyChange,
        lsn: Lsn,
        appended: &mut impl Iterator<Item = &'a Bytes>,
    ) {
        let bytes = self.bodies.entry(body).or_default();
        match change {
            BodyChange::Append { offset, .. } => {
                bytes.resize(offset as usize, Byte::default());
                let data = appended.next().unwrap();
                bytes.extend(data.iter().map(|&value| Byte { value, loose: Some(lsn) }));
            }
            BodyChange::Overwrite { offset, data } => {
                for (byte, &value) in bytes[offset as usize..].iter_mut().zip(&data) {
                    *byte = Byte { value, loose: None };
                }
            }
            BodyChange::Zero { offset, length } => {
                let end = (offset + length).min(bytes.len() as u64) as usize;
                bytes[offset as usize..end].fill(Byte::default());
            }
            BodyChange::Reserve { .. } => {}
            BodyChange::Drop => {
                self.bodies.remove(&body);
            }
        }
    }

    /// The bodies (all without a choice) were synced with the entries up to `through`.
    pub(super) fn synced(&mut self, bodies: Option<&[BodyId]>, through: Lsn) {
        for (body, bytes) in &mut self.bodies {
            if bodies.is_some_and(|bodies| !bodies.contains(body)) {
                continue;
            }
            for byte in bytes.iter_mut().filter(|byte| byte.loose.is_some_and(|lsn| lsn <= through)) {
                byte.loose = None;
            }
        }
    }

    /// After a power cut a byte that was never synced may read as zero; what is read now counts from here on.
    pub(super) fn adopt_lost_bytes(&mut self, store: &Store, what: &str) {
        for (body, bytes) in &mut self.bodies {
            let read = store.read_body(*body, 0, bytes.len()).unwrap();
            for (at, (byte, &found)) in bytes.iter_mut().zip(&read).enumerate() {
                assert!(
                    byte.value == found || (found == 0 && byte.loose.is_some()),
                    "{what}: {body:x?} at {at}: {byte:?} reads {found}"
                );
                *byte = Byte { value: found, loose: None };
            }
        }
    }

    /// Everything that the store answers is what the model says.
    pub(super) fn assert_equals(&self, store: &Store, what: &str) {
        assert_eq!(store.space().flares, self.flares.len() as u64, "{what}: number of flares");
        for (key, row) in &self.flares {
            assert_eq!(store.flare(key).unwrap().as_ref(), Some(row), "{what}");
            assert_eq!(
                store.inline(key).unwrap(),
                self.inlines.get(key).cloned().unwrap_or_default(),
                "{what}"
            );
            assert_eq!(store.locks(key).unwrap(), self.locks.get(key).cloned().unwrap_or_default(), "{what}");
            let by_name = |row: &ReferenceRow| row.name.clone();
            let mut references = store.references(key).unwrap();
            let mut expected = self.references.get(key).cloned().unwrap_or_default();
            references.sort_by_key(by_name);
            expected.sort_by_key(by_name);
            assert_eq!(references, expected, "{what}: references of {key}");
            let mut entries: Vec<_> =
                self.entries.range((*key, first_name())..).map(|(_, entry)| entry).collect();
            entries.retain(|entry| self.entries.get(&(*key, entry.name.clone())) == Some(entry));
            entries.sort_by_key(|entry| entry.cookie);
            assert_eq!(
                store.entries_after(key, 0, 10_000).unwrap().iter().collect::<Vec<_>>(),
                entries,
                "{what}"
            );
            let mut names = store.xattr_names(key).unwrap();
            names.sort();
            let own = self.xattrs.iter().filter(|((flare, _), _)| flare == key);
            assert_eq!(names, own.clone().map(|((_, name), _)| name.clone()).collect::<Vec<_>>(), "{what}");
            for ((_, name), value) in own {
                assert_eq!(store.xattr(key, name).unwrap().unwrap(), *value, "{what}");
            }
        }
        let sessions: Vec<_> = self.sessions.values().cloned().collect();
        assert_eq!(store.sessions_of(SLICE).unwrap(), sessions, "{what}");
        let transactions: Vec<_> = self.transactions.values().cloned().collect();
        assert_eq!(store.transactions(SLICE).unwrap(), transactions, "{what}");
        for (body, bytes) in &self.bodies {
            let read = store.read_body(*body, 0, bytes.len() + 10).unwrap();
            let values: Vec<_> = bytes.iter().map(|byte| byte.value).chain([0; 10]).collect();
            let wrong = read.iter().zip(&values).position(|(read, value)| read != value);
            let wrong = wrong.map(|at| (at, read[at], bytes.get(at)));
            assert_eq!(wrong, None, "{what}: {body:x?}, {} bytes", bytes.len());
        }
    }
}

fn first_name() -> Name {
    Name::new(&b"\x01"[..]).unwrap()
}
