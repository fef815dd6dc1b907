//! A file system and a volcano in memory, as little as the commands need.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use magma_common::attr::{Attr, Kind, Wcc};
use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::{BirthString, Ino, Key};
use magma_common::logging::{Channel, Channels, LoggingError};
use magma_common::name::Name;
use magma_common::proto::operation::{
    Dirent, EntryReply, Read, ReadReply, ReaddirReply, ReadlinkReply, RemovedReply, Request,
};
use magma_common::proto::{Failure, OpId, Operation, Reply, SessionId};
use magma_common::time::Timestamp;
use magma_common::topology::{SliceId, VolcanoId};

use super::ring::ring;
use crate::console::admin::{AclRule, Admin, CacheFigures, Inspection, Lava};
use crate::console::files::Files;
use crate::coordinator::{Change, Refusal, SliceChange};
use crate::rows::{Content, FlareRow, Life, ReferenceRow, Striping};
use crate::view::ReadError;

#[derive(Clone)]
enum Body {
    Directory(Vec<(Name, Handle, u64)>),
    File(Bytes),
    /// So many bytes `x`, which nobody holds in memory.
    Endless,
    Symlink(Bytes),
}

#[derive(Clone)]
struct Node {
    birth: BirthString,
    body: Body,
    mode: u32,
}

/// A tree of flares.
#[derive(Clone)]
pub(super) struct Tree {
    nodes: Rc<RefCell<BTreeMap<Key, Node>>>,
    pub(super) reads: Rc<RefCell<u64>>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node { birth: BirthString::root(), body: Body::Directory(Vec::new()), mode: 0o755 };
        let nodes = BTreeMap::from([(Handle::root().key, root)]);
        Self { nodes: Rc::new(RefCell::new(nodes)), reads: Rc::default() }
    }

    pub(super) fn dir(&self, path: &str) {
        self.add(path, Body::Directory(Vec::new()), 0o755);
    }

    pub(super) fn file(&self, path: &str, content: &[u8]) {
        self.add(path, Body::File(Bytes::copy_from_slice(content)), 0o644);
    }

    pub(super) fn endless(&self, path: &str) {
        self.add(path, Body::Endless, 0o644);
    }

    pub(super) fn link(&self, path: &str, target: &str) {
        self.add(path, Body::Symlink(Bytes::copy_from_slice(target.as_bytes())), 0o777);
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.borrow().len()
    }

    fn add(&self, path: &str, body: Body, mode: u32) {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let birth = BirthString::from_stored(path.as_bytes().to_vec());
        let parent = if parent.is_empty() { "/" } else { parent };
        let parent = BirthString::from_stored(parent.as_bytes().to_vec()).key();
        let handle = Handle { key: birth.key(), birth: BirthNumber(7) };
        let mut nodes = self.nodes.borrow_mut();
        let Body::Directory(entries) = &mut nodes.get_mut(&parent).unwrap().body else {
            panic!("no directory")
        };
        let cookie = entries.last().map_or(3, |(_, _, cookie)| cookie + 1);
        entries.push((Name::new(name.as_bytes().to_vec()).unwrap(), handle, cookie));
        nodes.insert(birth.key(), Node { birth, body, mode });
    }

    fn attr(&self, handle: &Handle) -> Result<Attr, FlareError> {
        let nodes = self.nodes.borrow();
        let node = nodes.get(&handle.key).ok_or(FlareError::Stale)?;
        let (kind, size) = match &node.body {
            Body::Directory(entries) => (Kind::Directory, 32 * entries.len() as u64),
            Body::File(content) => (Kind::File, content.len() as u64),
            Body::Endless => (Kind::File, 1 << 40),
            Body::Symlink(target) => (Kind::Symlink, target.len() as u64),
        };
        let time = Timestamp::new(1_795_409_333, 0).unwrap();
        Ok(Attr {
            handle: *handle,
            kind,
            mode: node.mode,
            nlink: 1,
            uid: 1000,
            gid: 100,
            rdev: 0,
            size,
            used: size,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            change: 5,
        })
    }

    fn entries(&self, dir: &Handle) -> Result<Vec<(Name, Handle, u64)>, FlareError> {
        match &self.nodes.borrow().get(&dir.key).ok_or(FlareError::Stale)?.body {
            Body::Directory(entries) => Ok(entries.clone()),
            _ => Err(FlareError::NotDirectory),
        }
    }

    fn remove(&self, dir: &Handle, name: &Name) -> Result<Reply, FlareError> {
        let entries = self.entries(dir)?;
        let (_, handle, _) = entries.iter().find(|entry| entry.0 == *name).ok_or(FlareError::NotFound)?;
        if self.entries(handle).is_ok_and(|entries| !entries.is_empty()) {
            return Err(FlareError::NotEmpty);
        }
        let attr = self.attr(handle)?;
        let mut nodes = self.nodes.borrow_mut();
        nodes.remove(&handle.key);
        if let Body::Directory(entries) = &mut nodes.get_mut(&dir.key).unwrap().body {
            entries.retain(|entry| entry.0 != *name);
        }
        let reply = RemovedReply { attr: attr.clone(), dir: Wcc::default() };
        Ok(if attr.kind == Kind::Directory { Reply::Rmdir(reply) } else { Reply::Unlink(reply) })
    }

    fn answer(&self, request: &Request) -> Result<Reply, FlareError> {
        match request {
            Request::Getattr(op) => self.attr(&op.handle).map(Reply::Getattr),
            Request::Lookup(op) => {
                let entries = self.entries(&op.dir)?;
                let found = entries.iter().find(|entry| entry.0 == op.name).ok_or(FlareError::NotFound)?;
                Ok(Reply::Lookup(EntryReply { attr: self.attr(&found.1)?, dir: self.attr(&op.dir)? }))
            }
            Request::Readdir(op) => {
                let mut entries = self.entries(&op.dir)?;
                entries.retain(|entry| entry.2 > op.cookie);
                let eof = entries.len() <= op.limit as usize;
                entries.truncate(op.limit as usize);
                let entry = |(name, handle, cookie): (Name, Handle, u64)| {
                    let attr = self.attr(&handle).unwrap();
                    Dirent { name, handle, kind: attr.kind, cookie, attr: op.attributes.then_some(attr) }
                };
                let entries = entries.into_iter().map(entry).collect();
                Ok(Reply::Readdir(ReaddirReply { entries, eof, dir: self.attr(&op.dir)? }))
            }
            Request::Readlink(op) => {
                match &self.nodes.borrow().get(&op.handle.key).ok_or(FlareError::Stale)?.body {
                    Body::Symlink(target) => Ok(Reply::Readlink(ReadlinkReply {
                        target: target.clone(),
                        attr: self.attr(&op.handle)?,
                    })),
                    _ => Err(FlareError::NotSymlink),
                }
            }
            Request::Unlink(op) => self.remove(&op.dir, &op.name),
            Request::Rmdir(op) => self.remove(&op.dir, &op.name),
            _ => Err(FlareError::NotSupported),
        }
    }
}

impl Files for Tree {
    async fn call<O: Operation>(&self, operation: O) -> Result<O::Reply, Failure> {
        // As over a network, others get to run while we wait.
        tokio::task::yield_now().await;
        let reply = self.answer(&operation.into())?;
        Ok(O::reply(reply).unwrap())
    }

    async fn read(&self, read: Read) -> Result<(ReadReply, Bytes), Failure> {
        tokio::task::yield_now().await;
        *self.reads.borrow_mut() += 1;
        let attr = self.attr(&read.handle)?;
        let data = match &self.nodes.borrow()[&read.handle.key].body {
            Body::File(content) => {
                let start = content.len().min(read.offset as usize);
                // Small pieces, so that characters are cut.
                content.slice(start..content.len().min(start + 3.min(read.length as usize)))
            }
            Body::Endless => Bytes::from(vec![b'x'; read.length as usize]),
            _ => return Err(FlareError::IsDirectory.into()),
        };
        let eof = read.offset + data.len() as u64 >= attr.size;
        Ok((ReadReply { eof, attr }, data))
    }
}

/// How the others take a proposal.
pub(super) enum Votes {
    Agree,
    Refuse(Refusal),
    Silent,
}

/// A volcano that remembers what it was told.
pub(super) struct Volcano {
    pub(super) tree: Tree,
    pub(super) channels: RefCell<Channels>,
    /// Whether the whole network was shut down, if anything was.
    pub(super) shut_down: RefCell<Option<bool>>,
    pub(super) lava: RefCell<Lava>,
    pub(super) votes: Votes,
    pub(super) proposed: RefCell<Vec<Change>>,
    pub(super) forced_out: RefCell<Vec<VolcanoId>>,
}

impl Volcano {
    pub(super) fn new(tree: Tree) -> Self {
        Self {
            tree,
            channels: RefCell::default(),
            shut_down: RefCell::default(),
            lava: ring(1, &[1]).into(),
            votes: Votes::Agree,
            proposed: RefCell::default(),
            forced_out: RefCell::default(),
        }
    }
}

impl Admin for Volcano {
    fn lava(&self) -> Lava {
        self.lava.borrow().clone()
    }

    fn inspect(&self, key: &Key) -> Result<Option<Inspection>, ReadError> {
        let nodes = self.tree.nodes.borrow();
        let Some(node) = nodes.get(key) else { return Ok(None) };
        let handle = Handle { key: *key, birth: BirthNumber(7) };
        let attr = self.tree.attr(&handle).unwrap();
        let row = FlareRow {
            handle,
            birth: node.birth.clone(),
            kind: attr.kind,
            life: Life::Named,
            mode: attr.mode,
            nlink: 1,
            uid: attr.uid,
            gid: attr.gid,
            rdev: 0,
            size: attr.size,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            btime: attr.btime,
            change: 5,
            content: Content::Inline,
            verifier: None,
            entries: 0,
            next_cookie: 3,
            has_acl: false,
            striping: Striping::Whole,
        };
        let made_by = OpId::Session { session: SessionId(9), sequence: 1 };
        let reference =
            ReferenceRow { parent: Handle::root(), name: Name::new(&b"a.txt"[..]).unwrap(), made_by };
        let xattrs = vec![Name::new(&b"user.color"[..]).unwrap()];
        let references = vec![reference];
        Ok(Some(Inspection {
            row,
            slice: SliceId(1),
            used: 512,
            references,
            xattrs,
            locks: Vec::new(),
            opens: 0,
        }))
    }

    fn median(&self, slice: SliceId) -> Result<Option<Ino>, ReadError> {
        let is_here = |known: &&magma_common::topology::Slice| {
            known.id == slice && known.copies().any(|copy| copy.volcano == self.lava.borrow().own)
        };
        let topology = self.lava.borrow().topology.clone();
        Ok(topology.slices.iter().find(is_here).map(|_| Ino(0xabcd << 48)))
    }

    fn caches(&self) -> Vec<CacheFigures> {
        vec![CacheFigures { name: "flares".to_owned(), entries: 5, capacity: 1000, hits: 30, misses: 10 }]
    }

    fn acl(&self) -> Vec<AclRule> {
        Vec::new()
    }

    fn channels(&self) -> Channels {
        *self.channels.borrow()
    }

    fn set_channel(&self, channel: Channel, on: bool) -> Result<(), LoggingError> {
        let channels = self.channels.borrow().with(channel, on);
        *self.channels.borrow_mut() = channels;
        Ok(())
    }

    fn propose(&self, change: Change) {
        self.proposed.borrow_mut().push(change.clone());
        if matches!(self.votes, Votes::Agree) {
            let mut lava = self.lava.borrow_mut();
            let topology = Arc::make_mut(&mut lava.topology);
            change.apply(topology).unwrap();
            if let Change::Slice(id, _, SliceChange::Divide(_)) = change {
                // its copies do it at once
                let epoch = topology.slices.iter().find(|slice| slice.id == id).unwrap().epoch;
                Change::Slice(id, epoch, SliceChange::Divided).apply(topology).unwrap();
            }
        }
    }

    fn refusal(&self, change: &Change) -> Option<Refusal> {
        match &self.votes {
            Votes::Refuse(refusal) => self.proposed.borrow().contains(change).then(|| refusal.clone()),
            Votes::Agree | Votes::Silent => None,
        }
    }

    fn force_out(&self, who: VolcanoId) -> Result<(), Refusal> {
        self.forced_out.borrow_mut().push(who);
        match &self.votes {
            Votes::Refuse(refusal) => Err(refusal.clone()),
            Votes::Agree | Votes::Silent => Ok(()),
        }
    }

    fn shutdown(&self, everywhere: bool) {
        *self.shut_down.borrow_mut() = Some(everywhere);
    }
}
