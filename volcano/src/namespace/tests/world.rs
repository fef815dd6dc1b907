//! A tree in memory with callers, opens and a clock; after every operation the tree is checked as a whole.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use magma_common::attr::{Attr, Kind, SetAttr};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::limits::MAX_THROUGH_HEAD;
use magma_common::proto::operation::*;
use magma_common::proto::{Credentials, Failure, OpId, Operation, SessionId};
use magma_common::stripes::StripeUnit;
use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Seq};

use super::split::{Split, compare};
use crate::namespace::memory::Memory;
use crate::namespace::{Caller, Moment, Opens, Plan, Planned, Stop, execute};
use crate::rows::{Content, EntryRow, FlareRow, Head, INLINE_MAX, Life, Striping};

pub(super) const ALICE: u32 = 1000;
pub(super) const BOB: u32 = 1001;
pub(super) const STAFF: u32 = 50;
pub(super) const SESSION: SessionId = SessionId(7);

/// A user whose only group has the same number.
pub(super) fn user(uid: u32) -> Credentials {
    Credentials { uid, gid: uid, groups: Vec::new() }
}

/// A user with one more group.
pub(super) fn member(uid: u32, group: u32) -> Credentials {
    Credentials { uid, gid: uid, groups: vec![group] }
}

pub(super) fn root() -> Credentials {
    Credentials::ROOT
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text.to_owned()).unwrap()
}

pub(super) fn next_random(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random
}

#[derive(Default)]
pub(super) struct OpenTable(pub(super) HashSet<Handle>);

impl Opens for OpenTable {
    fn is_open(&self, handle: &Handle) -> bool {
        self.0.contains(handle)
    }
}

pub(super) struct World {
    pub(super) memory: Memory,
    pub(super) opens: OpenTable,
    pub(super) now: Timestamp,
    /// Number of changes of the last operation.
    pub(super) changed: usize,
    /// How new files are striped.
    pub(super) stripes: Option<StripeUnit>,
    seq: u64,
    random: u64,
    /// The same tree, cut into slices: everything that is done here is done there, too, across them.
    split: Split,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Timestamp::new(1_000_000, 0).unwrap();
        let (memory, split) = (Memory::new(now), Split::new(now));
        let (opens, stripes) = (OpenTable::default(), None);
        Self { memory, opens, now, changed: 0, stripes, seq: 0, random: 1, split }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, seconds: i64) {
        self.now = Timestamp::new(self.now.seconds() + seconds, self.now.nanos()).unwrap();
    }

    fn moment_at(&self, seq: u64) -> Moment {
        Moment {
            now: self.now,
            seq: Seq(seq),
            epoch: Epoch(3),
            op: OpId::Session { session: SESSION, sequence: seq },
            generation: 3 << 40 | seq,
            stripes: self.stripes,
        }
    }

    /// Runs steps on a plan and applies what comes of them, in the tree that is cut into slices as well.
    pub(super) fn plan<T>(&mut self, steps: impl Fn(&mut Plan<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        let moment = self.moment_at(self.seq + 1);
        self.split.plan(&self.memory, &self.opens, moment, self.random, &steps);
        self.plan_here(steps)
    }

    fn plan_here<T>(&mut self, steps: impl FnOnce(&mut Plan<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        self.seq += 1;
        let moment = self.moment_at(self.seq);
        let random = &mut self.random;
        let mut next = || next_random(random);
        let mut plan = Plan::new(&self.memory, &self.opens, moment, &mut next);
        let done = steps(&mut plan);
        let planned = if done.is_ok() { plan.finish() } else { Planned::default() };
        self.changed = planned.changes.len();
        self.memory.apply(planned);
        done
    }

    /// One operation with its payload.
    pub(super) fn exchange<O: Operation>(
        &mut self,
        who: &Credentials,
        op: O,
        payload: &Bytes,
    ) -> Result<(O::Reply, Bytes), Box<Failure>> {
        let request = op.into();
        let caller = Caller { credentials: who, session: SESSION, stable: false };
        let (random, seq) = (self.random, self.seq + 1);
        let split = self.split.perform(
            &self.memory,
            &self.opens,
            self.moment_at(seq),
            random,
            &caller,
            &request,
            payload,
        );
        let done = self.plan_here(|plan| execute(plan, &caller, &request, payload));
        compare(&request, &done, &split);
        check(&self.memory);
        self.split.compare(&self.memory);
        match done {
            Ok((reply, data)) => Ok((O::reply(reply).expect("the operation's own reply"), data)),
            Err(Stop::Failure(failure)) => Err(failure),
            Err(other) => panic!("the store failed: {other}"),
        }
    }

    pub(super) fn ask<O: Operation>(&mut self, who: &Credentials, op: O) -> Result<O::Reply, FlareError> {
        self.exchange(who, op, &Bytes::new()).map(|(reply, _)| reply).map_err(|failure| failure.error)
    }

    pub(super) fn create(&mut self, who: &Credentials, dir: Handle, child: &str) -> Handle {
        self.create_as(who, dir, child, 0o644).unwrap()
    }

    pub(super) fn create_as(
        &mut self,
        who: &Credentials,
        dir: Handle,
        child: &str,
        mode: u32,
    ) -> Result<Handle, FlareError> {
        self.ask(who, guarded(dir, child, mode)).map(|made| made.attr.handle)
    }

    pub(super) fn mkdir(&mut self, who: &Credentials, dir: Handle, child: &str) -> Handle {
        self.mkdir_as(who, dir, child, 0o755).unwrap()
    }

    pub(super) fn mkdir_as(
        &mut self,
        who: &Credentials,
        dir: Handle,
        child: &str,
        mode: u32,
    ) -> Result<Handle, FlareError> {
        let op = Mkdir { dir, name: name(child), mode, umask: 0, set: SetAttr::default() };
        self.ask(who, op).map(|made| made.attr.handle)
    }

    pub(super) fn mknod(&mut self, dir: Handle, child: &str, kind: Kind) -> Handle {
        let set = SetAttr::default();
        let op = Mknod { dir, name: name(child), kind, mode: 0o644, umask: 0, rdev: 0x103, set };
        self.ask(&root(), op).unwrap().attr.handle
    }

    pub(super) fn symlink(&mut self, dir: Handle, child: &str, target: &str) -> Handle {
        let target = Bytes::from(target.to_owned());
        let op = Symlink { dir, name: name(child), target, set: SetAttr::default() };
        self.ask(&root(), op).unwrap().attr.handle
    }

    pub(super) fn unlink(&mut self, who: &Credentials, dir: Handle, child: &str) -> Result<Attr, FlareError> {
        self.ask(who, Unlink { dir, name: name(child) }).map(|removed| removed.attr)
    }

    pub(super) fn rmdir(&mut self, who: &Credentials, dir: Handle, child: &str) -> Result<Attr, FlareError> {
        self.ask(who, Rmdir { dir, name: name(child) }).map(|removed| removed.attr)
    }

    pub(super) fn link(
        &mut self,
        who: &Credentials,
        handle: Handle,
        dir: Handle,
        child: &str,
    ) -> Result<Attr, FlareError> {
        self.ask(who, Link { handle, dir, name: name(child) }).map(|linked| linked.attr)
    }

    pub(super) fn rename(
        &mut self,
        who: &Credentials,
        from: (Handle, &str),
        to: (Handle, &str),
        how: RenameHow,
    ) -> Result<RenameReply, FlareError> {
        let (from_dir, to_dir) = (from.0, to.0);
        self.ask(who, Rename { from_dir, from_name: name(from.1), to_dir, to_name: name(to.1), how })
    }

    pub(super) fn lookup(&mut self, dir: Handle, child: &str) -> Result<Handle, FlareError> {
        self.ask(&root(), Lookup { dir, name: name(child) }).map(|found| found.attr.handle)
    }

    pub(super) fn attr(&mut self, handle: Handle) -> Attr {
        self.ask(&root(), Getattr { handle }).unwrap()
    }

    pub(super) fn chmod(&mut self, handle: Handle, mode: u32) {
        self.set(&root(), handle, SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
    }

    pub(super) fn chown(&mut self, handle: Handle, uid: u32, gid: u32) {
        let set = SetAttr { uid: Some(uid), gid: Some(gid), ..SetAttr::default() };
        self.set(&root(), handle, set).unwrap();
    }

    pub(super) fn set(
        &mut self,
        who: &Credentials,
        handle: Handle,
        set: SetAttr,
    ) -> Result<Attr, FlareError> {
        self.ask(who, Setattr { handle, set, guard: None, opened: false }).map(|wcc| wcc.after.unwrap())
    }

    pub(super) fn truncate(&mut self, handle: Handle, size: u64) -> Result<Attr, FlareError> {
        self.set(&root(), handle, SetAttr { size: Some(size), ..SetAttr::default() })
    }

    pub(super) fn write(&mut self, handle: Handle, offset: u64, data: &[u8]) -> Result<u64, FlareError> {
        self.write_by(&root(), handle, WriteAt::Offset(offset), data)
    }

    pub(super) fn write_by(
        &mut self,
        who: &Credentials,
        handle: Handle,
        at: WriteAt,
        data: &[u8],
    ) -> Result<u64, FlareError> {
        let op = Write { handle, at, opened: false };
        match self.exchange(who, op, &Bytes::copy_from_slice(data)) {
            Ok((reply, _)) => Ok(reply.offset),
            Err(failure) if failure.error == FlareError::Striped => {
                self.write_in_pieces(who, handle, at, data)
            }
            Err(failure) => Err(failure.error),
        }
    }

    /// Writes more than goes through the head of a striped file at a time.
    fn write_in_pieces(
        &mut self,
        who: &Credentials,
        handle: Handle,
        at: WriteAt,
        data: &[u8],
    ) -> Result<u64, FlareError> {
        let mut offsets = Vec::new();
        for (number, piece) in (0..).zip(data.chunks(MAX_THROUGH_HEAD)) {
            let at = match at {
                WriteAt::Offset(offset) => WriteAt::Offset(offset + number * MAX_THROUGH_HEAD as u64),
                WriteAt::End => WriteAt::End,
            };
            let op = Write { handle, at, opened: false };
            let done = self.exchange(who, op, &Bytes::copy_from_slice(piece));
            offsets.push(done.map(|(reply, _)| reply.offset).map_err(|failure| failure.error)?);
        }
        Ok(offsets[0])
    }

    pub(super) fn read(&mut self, handle: Handle, offset: u64, length: u32) -> (Vec<u8>, bool) {
        let op = Read { handle, offset, length, opened: false };
        let (reply, data) = self.exchange(&root(), op, &Bytes::new()).unwrap();
        (data.to_vec(), reply.eof)
    }

    pub(super) fn row(&self, handle: Handle) -> &FlareRow {
        self.memory.flares.get(&handle.key).expect("the flare exists")
    }

    pub(super) fn exists(&self, handle: Handle) -> bool {
        self.memory.flares.get(&handle.key).is_some_and(|row| row.handle == handle)
    }
}

/// A create that fails if the name exists.
pub(super) fn guarded(dir: Handle, child: &str, mode: u32) -> Create {
    let (how, set) = (CreateHow::Guarded, SetAttr::default());
    Create { dir, name: name(child), mode, umask: 0, how, set, open: false }
}

/// Everything that must hold of a tree at any time.
pub(super) fn check(memory: &Memory) {
    let mut names: BTreeMap<Handle, u32> = BTreeMap::new();
    for (dir, entries) in &memory.entries {
        let dir = memory.flares.get(dir).expect("entries belong to a flare");
        if let Striping::Head(head) = &dir.striping {
            check_stripes(memory, dir, head, entries);
        } else {
            assert_eq!(dir.kind, Kind::Directory);
            assert!(dir.life == Life::Named || entries.is_empty(), "an orphan is empty");
            check_directory(memory, dir, entries.values().cloned().collect());
        }
        for entry in entries.values() {
            *names.entry(entry.child).or_default() += 1;
        }
    }
    for row in memory.flares.values() {
        let references = memory.references.get(&row.key()).map_or(0, Vec::len) as u32;
        let named = names.get(&row.handle).copied().unwrap_or(0);
        assert_eq!(references, named, "names and references of {:?} agree", row.handle);
        check_flare(memory, row, named);
    }
}

fn check_stripes(memory: &Memory, row: &FlareRow, head: &Head, entries: &BTreeMap<Name, EntryRow>) {
    assert_eq!(head.count, entries.len() as u64, "stripes are counted");
    let is_needed = |entry: &EntryRow| !head.is_dying(entry.cookie);
    assert!(row.life != Life::Dying || !entries.values().any(is_needed), "all of a dying file goes");
    assert!(head.dying.is_none() || !entries.values().all(is_needed), "what is dying is there");
    for entry in entries.values() {
        assert!(entry.cookie > 0 && entry.name == name(&entry.cookie.to_string()));
        let stripe = memory.flares.get(&entry.child.key).expect("stripes are there");
        assert_eq!(stripe.handle, entry.child);
        let Striping::Stripe { cut, .. } = stripe.striping else { panic!("{stripe:?} is a stripe") };
        assert!(cut <= head.cut, "a stripe knows no more than its head");
        assert!(stripe.size <= head.unit.bytes(), "a stripe has a unit's bytes");
        let reference = &memory.references[&stripe.key()][0];
        assert_eq!(
            (reference.parent, &reference.name, reference.made_by),
            (row.handle, &entry.name, entry.made_by)
        );
    }
}

fn check_directory(memory: &Memory, dir: &FlareRow, entries: Vec<crate::rows::EntryRow>) {
    assert_eq!(dir.entries, entries.len() as u64);
    assert_eq!(dir.size, 32 * dir.entries);
    let mut cookies = HashSet::new();
    for entry in entries {
        assert!(entry.cookie < dir.next_cookie && cookies.insert(entry.cookie), "cookies are unique");
        let child = memory.flares.get(&entry.child.key).expect("entries lead somewhere");
        assert_eq!((child.handle, child.kind), (entry.child, entry.kind));
        let references = memory.references.get(&child.key()).expect("who has a name has a reference");
        let matching = references.iter().filter(|reference| {
            (reference.parent, &reference.name, reference.made_by) == (dir.handle, &entry.name, entry.made_by)
        });
        assert_eq!(matching.count(), 1, "an entry and its reference agree");
    }
}

fn check_flare(memory: &Memory, row: &FlareRow, named: u32) {
    let is_root = row.handle == Handle::root();
    assert_eq!(row.life == Life::Named, named > 0 || is_root, "only orphans have no name");
    if row.kind == Kind::Directory {
        let subdirectories = |entries: &BTreeMap<Name, crate::rows::EntryRow>| {
            entries.values().filter(|entry| entry.kind == Kind::Directory).count() as u32
        };
        let children = memory.entries.get(&row.key()).map_or(0, subdirectories);
        assert_eq!(row.nlink, if row.life == Life::Orphan { 0 } else { 2 + children });
        assert_eq!(row.entries, memory.entries.get(&row.key()).map_or(0, |entries| entries.len() as u64));
        assert!(named <= 1, "a directory has one name");
        check_reachable(memory, row);
    } else {
        assert_eq!(row.nlink, named);
    }
    match row.content {
        Content::Inline => {
            let stored = memory.inline.get(&row.key()).map_or(0, |data| data.len() as u64);
            assert!(stored <= row.size.min(INLINE_MAX), "no byte is stored beyond the end");
        }
        Content::Body { .. } => assert!(!memory.inline.contains_key(&row.key())),
    }
    let acls = memory.xattrs.get(&row.key()).into_iter().flat_map(BTreeMap::keys);
    assert_eq!(row.has_acl, acls.into_iter().any(|name| name.as_bytes().starts_with(b"system.")));
}

fn check_reachable(memory: &Memory, row: &FlareRow) {
    let mut at = row.handle;
    for _ in 0..=memory.flares.len() {
        if at == Handle::root() {
            return;
        }
        let references = memory.references.get(&at.key);
        let Some(reference) = references.and_then(|references| references.first()) else {
            assert_eq!(memory.flares.get(&at.key).expect("parents exist").life, Life::Orphan);
            return;
        };
        at = reference.parent;
    }
    panic!("{:?} lies below itself", row.handle);
}
