//! A view kept in memory, strict about what a store may rely on: for tests.

use std::collections::BTreeMap;

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::key::{BirthString, Ino, Key};
use magma_common::name::Name;
use magma_common::proto::SessionId;
use magma_common::time::Timestamp;

use super::plan::{Append, Planned};
use crate::record::{BodyChange, Change};
use crate::rows::{
    BodyId, Content, EntryRow, FIRST_COOKIE, FlareRow, INLINE_MAX, Life, LockRow, ReferenceRow, SessionRow,
    Striping,
};
use crate::view::{ReadError, Space, View};

/// Unit of holes, in bytes.
const BLOCK: u64 = 4096;

/// A whole slice in memory.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) flares: BTreeMap<Key, FlareRow>,
    pub(crate) entries: BTreeMap<Key, BTreeMap<Name, EntryRow>>,
    pub(crate) references: BTreeMap<Key, Vec<ReferenceRow>>,
    pub(crate) inline: BTreeMap<Key, Bytes>,
    pub(crate) xattrs: BTreeMap<Key, BTreeMap<Name, Bytes>>,
    pub(crate) locks: BTreeMap<Key, Vec<LockRow>>,
    pub(crate) bodies: BTreeMap<BodyId, Body>,
    /// What is left to write, in bytes.
    pub(crate) available: u64,
    /// A body whose reads fail their checksum.
    pub(crate) damaged: Option<BodyId>,
    /// Whether the database answers.
    pub(crate) broken: bool,
}

/// A body: its blocks that are not holes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Body {
    blocks: BTreeMap<u64, Vec<u8>>,
    high: u64,
}

impl Memory {
    /// An empty tree.
    pub(crate) fn new(now: Timestamp) -> Self {
        let root = root(now, 0o755);
        Self {
            flares: BTreeMap::from([(root.key(), root)]),
            entries: BTreeMap::new(),
            references: BTreeMap::new(),
            inline: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            locks: BTreeMap::new(),
            bodies: BTreeMap::new(),
            available: 1 << 40,
            damaged: None,
            broken: false,
        }
    }

    /// Applies what was planned, as a record would be.
    pub(crate) fn apply(&mut self, planned: Planned) {
        for (body, offset, data) in &planned.appends {
            assert!(!data.is_empty(), "an append has bytes");
            self.bodies.entry(*body).or_default().append(*offset, data);
        }
        for change in planned.changes {
            self.change(change, &planned.appends);
        }
    }

    fn change(&mut self, change: Change, appends: &[Append]) {
        match change {
            Change::PutFlare(row) => {
                self.flares.insert(row.key(), row);
            }
            Change::DeleteFlare(key) => {
                self.flares.remove(&key).expect("only what exists dies");
                assert!(self.entries.remove(&key).unwrap_or_default().is_empty(), "a directory dies empty");
                self.references.remove(&key);
                self.inline.remove(&key);
                self.xattrs.remove(&key);
                self.locks.remove(&key);
            }
            Change::PutInline { flare, data } => {
                assert!(self.flares.contains_key(&flare), "a row comes before its bytes");
                assert!(data.len() as u64 <= INLINE_MAX);
                if data.is_empty() {
                    self.inline.remove(&flare);
                } else {
                    self.inline.insert(flare, data);
                }
            }
            Change::PutEntry { dir, entry } => {
                self.entries.entry(dir).or_default().insert(entry.name.clone(), entry);
            }
            Change::DeleteEntry { dir, name } => {
                self.entries.entry(dir).or_default().remove(&name).expect("only what exists is removed");
            }
            Change::PutReference { flare, reference } => {
                assert!(self.flares.contains_key(&flare), "a row comes before its references");
                self.references.entry(flare).or_default().push(reference);
            }
            Change::DeleteReference { flare, parent, name, made_by } => {
                let references = self.references.entry(flare).or_default();
                let before = references.len();
                references.retain(|r| !(r.parent.key == parent && r.name == name && r.made_by == made_by));
                assert_eq!(references.len() + 1, before, "exactly one reference is dropped");
            }
            Change::PutXattr { flare, name, value } => {
                assert!(self.flares.contains_key(&flare), "a row comes before its attributes");
                self.xattrs.entry(flare).or_default().insert(name, value);
            }
            Change::DeleteXattr { flare, name } => {
                self.xattrs.entry(flare).or_default().remove(&name).expect("only what exists is removed");
            }
            Change::PutLocks { flare, locks } => {
                if locks.is_empty() {
                    self.locks.remove(&flare);
                } else {
                    self.locks.insert(flare, locks);
                }
            }
            Change::Body { body, change, .. } => self.change_body(body, change, appends),
            Change::PutSession(_)
            | Change::EndSession(_)
            | Change::PutTransaction(_)
            | Change::DeleteTransaction { .. }
            | Change::Divide(_) => {
                panic!("what belongs to the slice as a whole is its business")
            }
        }
    }

    fn change_body(&mut self, id: BodyId, change: BodyChange, appends: &[Append]) {
        match change {
            BodyChange::Append { offset, length } => {
                let bytes = appends.iter().find(|(body, at, _)| *body == id && *at == offset);
                assert_eq!(bytes.expect("an append has its bytes").2.len() as u64, length);
            }
            BodyChange::Overwrite { offset, data } => {
                let body = self.bodies.get_mut(&id).expect("only what exists is overwritten");
                assert!(offset + data.len() as u64 <= body.high, "an overwrite stays below the high mark");
                body.write(offset, &data);
            }
            BodyChange::Zero { offset, length } => {
                let body = self.bodies.get_mut(&id).expect("only what exists is cleared");
                assert!(length > 0 && offset + length <= body.high, "zeros stay below the high mark");
                body.clear(offset, offset + length);
            }
            BodyChange::Reserve { .. } => {
                self.bodies.entry(id).or_default();
            }
            BodyChange::Drop => {
                self.bodies.remove(&id);
            }
        }
    }

    fn alive(&self) -> Result<(), ReadError> {
        if self.broken { Err(ReadError::Damaged { what: "the database".into() }) } else { Ok(()) }
    }

    /// The handles of all flares.
    pub(crate) fn handles(&self) -> Vec<Handle> {
        self.flares.values().map(|row| row.handle).collect()
    }
}

impl Body {
    fn append(&mut self, offset: u64, data: &[u8]) {
        assert!(offset >= self.high, "an append is at or above the high mark");
        self.write(offset, data);
        self.high = offset + data.len() as u64;
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            let block = self.blocks.entry(at / BLOCK).or_insert_with(|| vec![0; BLOCK as usize]);
            block[(at % BLOCK) as usize] = *byte;
        }
    }

    fn clear(&mut self, start: u64, end: u64) {
        self.blocks.retain(|block, bytes| {
            let first = block * BLOCK;
            let (from, to) = (start.clamp(first, first + BLOCK), end.clamp(first, first + BLOCK));
            bytes[(from - first) as usize..(to - first) as usize].fill(0);
            to - from < BLOCK
        });
    }

    fn byte(&self, at: u64) -> u8 {
        self.blocks.get(&(at / BLOCK)).map_or(0, |block| block[(at % BLOCK) as usize])
    }
}

/// The root directory of a new network.
fn root(now: Timestamp, mode: u32) -> FlareRow {
    FlareRow {
        handle: Handle::root(),
        birth: BirthString::root(),
        kind: Kind::Directory,
        life: Life::Named,
        mode,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        change: 0,
        content: Content::Inline,
        verifier: None,
        entries: 0,
        next_cookie: FIRST_COOKIE,
        has_acl: false,
        striping: Striping::Whole,
    }
}

impl View for Memory {
    fn flare(&self, key: &Key) -> Result<Option<FlareRow>, ReadError> {
        self.alive()?;
        Ok(self.flares.get(key).cloned())
    }

    fn ino_taken(&self, ino: Ino) -> Result<bool, ReadError> {
        Ok(self.flares.keys().any(|key| key.ino() == ino))
    }

    fn entry(&self, dir: &Key, name: &Name) -> Result<Option<EntryRow>, ReadError> {
        Ok(self.entries.get(dir).and_then(|entries| entries.get(name)).cloned())
    }

    fn entries_after(&self, dir: &Key, cookie: u64, limit: usize) -> Result<Vec<EntryRow>, ReadError> {
        let mut after: Vec<_> = self
            .entries
            .get(dir)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|entry| entry.cookie > cookie)
            .cloned()
            .collect();
        after.sort_unstable_by_key(|entry| entry.cookie);
        after.truncate(limit);
        Ok(after)
    }

    fn references(&self, flare: &Key) -> Result<Vec<ReferenceRow>, ReadError> {
        Ok(self.references.get(flare).cloned().unwrap_or_default())
    }

    fn inline(&self, flare: &Key) -> Result<Bytes, ReadError> {
        Ok(self.inline.get(flare).cloned().unwrap_or_default())
    }

    fn xattr(&self, flare: &Key, name: &Name) -> Result<Option<Bytes>, ReadError> {
        Ok(self.xattrs.get(flare).and_then(|xattrs| xattrs.get(name)).cloned())
    }

    fn xattr_names(&self, flare: &Key) -> Result<Vec<Name>, ReadError> {
        Ok(self.xattrs.get(flare).into_iter().flat_map(BTreeMap::keys).cloned().collect())
    }

    fn locks(&self, flare: &Key) -> Result<Vec<LockRow>, ReadError> {
        Ok(self.locks.get(flare).cloned().unwrap_or_default())
    }

    fn locked_by(&self, session: SessionId) -> Result<Vec<Key>, ReadError> {
        let holds = |locks: &[LockRow]| locks.iter().any(|lock| lock.session == session);
        Ok(self.locks.iter().filter(|(_, locks)| holds(locks)).map(|(key, _)| *key).collect())
    }

    fn session(&self, _: SessionId) -> Result<Option<SessionRow>, ReadError> {
        Ok(None)
    }

    fn sessions(&self) -> Result<Vec<SessionRow>, ReadError> {
        Ok(Vec::new())
    }

    fn orphans(&self, after: Option<Key>, limit: usize) -> Result<Vec<Key>, ReadError> {
        let orphan = |row: &&FlareRow| row.life == crate::rows::Life::Orphan && Some(row.key()) > after;
        Ok(self.flares.values().filter(orphan).map(FlareRow::key).take(limit).collect())
    }

    fn read_body(&self, body: BodyId, offset: u64, length: usize) -> Result<Bytes, ReadError> {
        if self.damaged == Some(body) {
            return Err(ReadError::Checksum { body, block: 0 });
        }
        let body = self.bodies.get(&body).expect("only what exists is read");
        Ok((offset..offset + length as u64).map(|at| body.byte(at)).collect())
    }

    fn body_data(&self, body: BodyId, offset: u64, end: u64) -> Result<Option<u64>, ReadError> {
        let body = self.bodies.get(&body).expect("only what exists is read");
        let mut blocks = body.blocks.range(offset / BLOCK..).map(|(block, _)| (block * BLOCK).max(offset));
        Ok(blocks.next().filter(|at| *at < end))
    }

    fn body_hole(&self, body: BodyId, offset: u64, end: u64) -> Result<u64, ReadError> {
        let body = self.bodies.get(&body).expect("only what exists is read");
        let mut at = offset;
        while at < end && body.blocks.contains_key(&(at / BLOCK)) {
            at = (at / BLOCK + 1) * BLOCK;
        }
        Ok(at.min(end))
    }

    fn body_used(&self, body: BodyId) -> Result<u64, ReadError> {
        let body = self.bodies.get(&body).expect("only what exists is read");
        Ok(body.blocks.len() as u64 * BLOCK)
    }

    fn space(&self) -> Space {
        Space {
            total: 1 << 41,
            available: self.available,
            flares: self.flares.len() as u64,
            bytes: self.flares.values().map(|row| row.size).sum(),
        }
    }
}
