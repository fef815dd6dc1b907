//! What a namespace has to do, as plainly as possible: a state that is cheap to copy, and what each request may be answered with.
//!
//! The caller is root. Of an answer counts what programs go by: success or which error, kind, size, number of names, entries,
//! bytes. Two things are left open, because a volcano leaves them open, too: when a flare without a name that nobody holds open
//! dies (any time), and, after a loss of all power, what the bytes are that nobody had made durable (what was written, or zeros).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use magma_common::attr::{Attr, Kind};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::key::KeyRange;
use magma_common::name::Name;
use magma_common::proto::operation::{CreateHow, LockKind, LockOwner, Rename, RenameHow, WriteAt};
use magma_common::proto::{Reply, Request, SessionId};

use super::history::Asked;

/// What a flare is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Body {
    File(Content),
    Directory(Rc<BTreeMap<Name, Handle>>),
    Symlink(Bytes),
}

/// The bytes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    bytes: Rc<Vec<u8>>,
    /// Names the changes that have led here.
    history: u64,
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Cheaper than all the bytes.
        self.history.hash(state);
    }
}

impl Content {
    fn note(&mut self, change: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.history, change).hash(&mut hasher);
        self.history = hasher.finish();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    body: Body,
    names: u32,
    /// Of a directory.
    parent: Option<Handle>,
    /// Whose they are, and whether nobody else may hold one.
    locks: Vec<(SessionId, LockOwner, bool)>,
    /// Bytes that may be zeros instead.
    doubtful: Vec<Range<usize>>,
}

/// The state of a whole namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    nodes: BTreeMap<Handle, Rc<Node>>,
    opens: BTreeMap<(SessionId, Handle), u32>,
}

/// Why an answer is not what it has to be.
pub type Mismatch = String;

type Step = Result<Effect, Mismatch>;

/// What the model says about an answer that it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing has changed.
    Same,
    /// The state is another one now.
    Changed,
}

impl Default for Namespace {
    fn default() -> Self {
        let root = Node {
            body: Body::Directory(Rc::default()),
            names: 1,
            parent: None,
            locks: Vec::new(),
            doubtful: Vec::new(),
        };
        Self { nodes: BTreeMap::from([(Handle::root(), Rc::new(root))]), opens: BTreeMap::new() }
    }
}

type Checked<T> = Result<T, FlareError>;

impl Namespace {
    fn node(&self, handle: Handle) -> Checked<&Node> {
        self.nodes.get(&handle).map(|node| &**node).ok_or(FlareError::Stale)
    }

    fn change(&mut self, handle: Handle) -> &mut Node {
        Rc::make_mut(self.nodes.get_mut(&handle).expect("it was there just now"))
    }

    fn entries(&self, dir: Handle) -> Checked<&BTreeMap<Name, Handle>> {
        match &self.node(dir)?.body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(FlareError::NotDirectory),
        }
    }

    fn change_entries(&mut self, dir: Handle) -> &mut BTreeMap<Name, Handle> {
        match &mut self.change(dir).body {
            Body::Directory(entries) => Rc::make_mut(entries),
            _ => unreachable!("it was a directory just now"),
        }
    }

    fn file(&self, handle: Handle) -> Checked<&Rc<Vec<u8>>> {
        match &self.node(handle)?.body {
            Body::File(content) => Ok(&content.bytes),
            Body::Directory(_) => Err(FlareError::IsDirectory),
            Body::Symlink(_) => Err(FlareError::Invalid),
        }
    }

    fn existing(&self, dir: Handle, name: &Name) -> Checked<Handle> {
        self.entries(dir)?.get(name).copied().ok_or(FlareError::NotFound)
    }

    fn free(&self, dir: Handle, name: &Name) -> Checked<()> {
        if self.entries(dir)?.contains_key(name) {
            return Err(FlareError::Exists);
        }
        if self.node(dir)?.names == 0 { Err(FlareError::NotFound) } else { Ok(()) }
    }

    fn is_directory(&self, handle: Handle) -> bool {
        self.nodes.get(&handle).is_some_and(|node| matches!(node.body, Body::Directory(_)))
    }

    /// Whether the flare may be gone already, or go now: it has no name, and nobody is known to hold it open.
    fn may_die(&self, handle: Handle) -> bool {
        let is_open = || self.opens.iter().any(|((_, open), count)| *open == handle && *count > 0);
        self.nodes.get(&handle).is_some_and(|node| node.names == 0) && !is_open()
    }

    /// Whether nothing is different but what is held open.
    pub fn has_same_flares(&self, other: &Self) -> bool {
        self.nodes == other.nodes
    }

    /// The flares that this request names and that may die now: any one of them may be why it is told that a handle is stale.
    pub fn mortal(&self, asked: &Asked) -> Vec<Handle> {
        handles(&asked.request).into_iter().filter(|handle| self.may_die(*handle)).collect()
    }

    /// A flare that may die does.
    pub fn bury(&mut self, handle: Handle) {
        self.nodes.remove(&handle);
    }

    fn drop_name(&mut self, handle: Handle) {
        let node = self.change(handle);
        node.names -= 1;
        if node.names == 0 {
            node.parent = None;
        }
    }

    /// The number of names, the kind and the size that a flare has to show.
    fn check_attr(&self, handle: Handle, shown: &Attr) -> Result<(), Mismatch> {
        if shown.handle != handle {
            return Err(format!("it shows the flare {:?} instead of {handle:?}", shown.handle));
        }
        let node = self.node(handle).map_err(|_| format!("{handle:?} is not there"))?;
        let (kind, nlink, size) = match &node.body {
            Body::File(content) => (Kind::File, node.names, Some(content.bytes.len() as u64)),
            Body::Symlink(target) => (Kind::Symlink, node.names, Some(target.len() as u64)),
            Body::Directory(entries) => {
                let below = entries.values().filter(|child| self.is_directory(**child)).count() as u32;
                (Kind::Directory, if node.names == 0 { 0 } else { 2 + below }, None)
            }
        };
        if shown.kind != kind || shown.nlink != nlink || size.is_some_and(|size| size != shown.size) {
            return Err(format!(
                "it shows {:?} with {} names and {} bytes, which has to be {kind:?} with {nlink} names and {size:?} bytes",
                shown.kind, shown.nlink, shown.size
            ));
        }
        Ok(())
    }

    /// Whether the request may be answered so in this state, and what becomes of the state. After a mismatch it is as it was.
    pub fn step(&mut self, asked: &Asked, answer: &Result<(Reply, Bytes), FlareError>) -> Step {
        match answer {
            Err(error) => self.refused(asked, *error),
            Ok((reply, payload)) => self.granted(asked, Some((reply, payload))),
        }
    }

    /// The request takes effect without anybody hearing its answer, of which only the flare that it makes is told.
    pub fn step_unheard(&mut self, asked: &Asked, reply: &Reply) -> Step {
        self.granted(asked, Some((reply, &Bytes::new())))
    }

    fn refused(&mut self, asked: &Asked, error: FlareError) -> Step {
        match error {
            // Of the disk, not of the namespace.
            FlareError::NoSpace => return Ok(Effect::Same),
            // Who waits for whom is for the volcano to see.
            FlareError::Deadlock if matches!(asked.request, Request::Lock(_)) => return Ok(Effect::Same),
            _ => {}
        }
        match self.expected(asked) {
            Err(expected) if expected == error => Ok(Effect::Same),
            Err(expected) => Err(format!("it is refused as \"{error}\", which has to be \"{expected}\"")),
            Ok(()) => Err(format!("it is refused as \"{error}\", and has to succeed")),
        }
    }

    /// Whether the request has to succeed in this state.
    fn expected(&self, asked: &Asked) -> Checked<()> {
        match &asked.request {
            Request::Lookup(op) => self.existing(op.dir, &op.name).map(drop),
            Request::Getattr(op) => self.node(op.handle).map(drop),
            Request::Commit(op) => self.node(op.handle).map(drop),
            Request::Readlink(op) => match self.node(op.handle)?.body {
                Body::Symlink(_) => Ok(()),
                _ => Err(FlareError::NotSymlink),
            },
            Request::Readdir(op) => self.entries(op.dir).map(drop),
            Request::Read(op) => self.file(op.handle).map(drop),
            Request::Write(op) => self.file(op.handle).map(drop),
            Request::Setattr(op) => match self.node(op.handle)?.body {
                Body::Directory(_) => Err(FlareError::IsDirectory),
                Body::Symlink(_) => Err(FlareError::Invalid),
                Body::File(_) => Ok(()),
            },
            Request::Create(op) => match self.entries(op.dir)?.get(&op.name) {
                None => self.free(op.dir, &op.name),
                Some(found) => match (op.how, &self.node(*found)?.body) {
                    (CreateHow::Unchecked, Body::File(_)) => Ok(()),
                    (CreateHow::Unchecked, Body::Directory(_)) => Err(FlareError::IsDirectory),
                    _ => Err(FlareError::Exists),
                },
            },
            Request::Mkdir(op) => self.free(op.dir, &op.name),
            Request::Symlink(op) => self.free(op.dir, &op.name),
            Request::Link(op) => {
                let node = self.node(op.handle)?;
                self.free(op.dir, &op.name)?;
                match node.body {
                    Body::Directory(_) => Err(FlareError::NotPermitted),
                    _ if node.names == 0 => Err(FlareError::NotFound),
                    _ => Ok(()),
                }
            }
            Request::Unlink(op) => match self.existing(op.dir, &op.name)? {
                victim if self.is_directory(victim) => Err(FlareError::IsDirectory),
                _ => Ok(()),
            },
            Request::Rmdir(op) => match self.entries(self.existing(op.dir, &op.name)?)? {
                entries if entries.is_empty() => Ok(()),
                _ => Err(FlareError::NotEmpty),
            },
            Request::Rename(op) => self.rename_allowed(op).map(drop),
            Request::Open(op) => match self.node(op.handle)?.body {
                Body::File(_) => Ok(()),
                Body::Directory(_) if op.write => Err(FlareError::IsDirectory),
                Body::Directory(_) => Ok(()),
                Body::Symlink(_) => Err(FlareError::SymlinkLoop),
            },
            Request::Lock(op) => {
                let node = self.node(op.handle)?;
                let is_other =
                    |lock: &&(SessionId, LockOwner, bool)| (lock.0, lock.1) != (asked.session, op.owner);
                let conflicts = |lock: &(SessionId, LockOwner, bool)| {
                    op.kind != LockKind::Unlock && (op.kind == LockKind::Exclusive || lock.2)
                };
                let blocked = node.locks.iter().filter(is_other).any(conflicts);
                if blocked { Err(FlareError::WouldBlock) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// The order of the checks is the kernel's. The flares that are concerned.
    fn rename_allowed(&self, op: &Rename) -> Checked<(Handle, Option<Handle>)> {
        let moved = self.existing(op.from_dir, &op.from_name)?;
        let target = self.entries(op.to_dir)?.get(&op.to_name).copied();
        match (op.how, target) {
            (RenameHow::NoReplace, Some(_)) => return Err(FlareError::Exists),
            (RenameHow::Exchange, None) => return Err(FlareError::NotFound),
            _ => {}
        }
        if op.from_dir != op.to_dir {
            if self.is_directory(moved) && self.lies_below(op.to_dir, moved) {
                return Err(FlareError::Invalid);
            }
            if target.is_some_and(|target| self.is_directory(target) && self.lies_below(op.from_dir, target))
            {
                return Err(if op.how == RenameHow::Exchange {
                    FlareError::Invalid
                } else {
                    FlareError::NotEmpty
                });
            }
        }
        let Some(target) = target else {
            let is_gone = self.node(op.to_dir)?.names == 0;
            return if is_gone { Err(FlareError::NotFound) } else { Ok((moved, None)) };
        };
        if target == moved || op.how == RenameHow::Exchange {
            return Ok((moved, Some(target)));
        }
        match (self.is_directory(moved), self.is_directory(target)) {
            (true, false) => Err(FlareError::NotDirectory),
            (false, true) => Err(FlareError::IsDirectory),
            (true, true) if !self.entries(target)?.is_empty() => Err(FlareError::NotEmpty),
            _ => Ok((moved, Some(target))),
        }
    }

    fn lies_below(&self, dir: Handle, ancestor: Handle) -> bool {
        let mut at = Some(dir);
        while let Some(handle) = at {
            if handle == ancestor {
                return true;
            }
            at = self.nodes.get(&handle).and_then(|node| node.parent);
        }
        false
    }

    fn granted(&mut self, asked: &Asked, answer: Option<(&Reply, &Bytes)>) -> Step {
        if !matches!(asked.request, Request::Release(_)) {
            self.expected(asked)
                .map_err(|error| format!("it succeeds, and has to be refused as \"{error}\""))?;
        }
        let Some((reply, payload)) = answer else { return Ok(Effect::Same) };
        match (&asked.request, reply) {
            (Request::Lookup(op), Reply::Lookup(found)) => {
                let child = self.existing(op.dir, &op.name).map_err(|error| error.to_string())?;
                self.check_attr(child, &found.attr)?;
                self.check_attr(op.dir, &found.dir)?;
                Ok(Effect::Same)
            }
            (Request::Getattr(op), Reply::Getattr(attr)) => {
                self.check_attr(op.handle, attr)?;
                Ok(Effect::Same)
            }
            (Request::Readlink(op), Reply::Readlink(link)) => {
                match self.node(op.handle).map(|node| &node.body) {
                    Ok(Body::Symlink(target)) if *target == link.target => Ok(Effect::Same),
                    _ => Err("another target was given to that symbolic link".into()),
                }
            }
            (Request::Readdir(op), Reply::Readdir(listing)) => self.check_listing(op.dir, listing),
            (Request::Read(op), Reply::Read(read)) => {
                self.check_attr(op.handle, &read.attr)?;
                self.check_bytes(op.handle, op.offset as usize, op.length as usize, payload)?;
                Ok(Effect::Same)
            }
            (Request::Commit(_), Reply::Commit(_)) => Ok(Effect::Same),
            _ => self.changed(asked, reply),
        }
    }

    fn check_listing(&self, dir: Handle, listing: &magma_common::proto::operation::ReaddirReply) -> Step {
        self.check_attr(dir, &listing.dir)?;
        let expected = self.entries(dir).map_err(|error| error.to_string())?;
        let shown: BTreeMap<Name, Handle> =
            listing.entries.iter().map(|entry| (entry.name.clone(), entry.handle)).collect();
        if shown != *expected || shown.len() != listing.entries.len() || !listing.eof {
            return Err(format!("it lists {:?}, which has to be {:?}", shown.keys(), expected.keys()));
        }
        Ok(Effect::Same)
    }

    fn check_bytes(
        &self,
        handle: Handle,
        offset: usize,
        length: usize,
        shown: &[u8],
    ) -> Result<(), Mismatch> {
        let bytes = self.file(handle).map_err(|error| error.to_string())?;
        let start = offset.min(bytes.len());
        let expected = &bytes[start..(start + length).min(bytes.len())];
        if expected == shown {
            return Ok(());
        }
        if expected.len() != shown.len() {
            return Err(format!("{} bytes are read, which have to be {}", shown.len(), expected.len()));
        }
        let doubtful = &self.node(handle).map_err(|error| error.to_string())?.doubtful;
        let wrong = (0..shown.len()).find(|&at| {
            let may_be_zero = || shown[at] == 0 && doubtful.iter().any(|range| range.contains(&(start + at)));
            shown[at] != expected[at] && !may_be_zero()
        });
        match wrong {
            None => Ok(()),
            Some(at) => Err(format!(
                "the byte {} is read as {:#04x}, which has to be {:#04x}",
                start + at,
                shown[at],
                expected[at]
            )),
        }
    }

    fn changed(&mut self, asked: &Asked, reply: &Reply) -> Step {
        match (&asked.request, reply) {
            (Request::Create(op), Reply::Create(made)) => {
                let found = self.entries(op.dir).ok().and_then(|entries| entries.get(&op.name)).copied();
                if made.created == found.is_some() {
                    return Err(format!("it says created = {}, which has to be the other", made.created));
                }
                let handle = made.attr.handle;
                if found.is_none() {
                    self.make(op.dir, &op.name, handle, Body::File(Content::default()))?;
                }
                self.check_attr(handle, &made.attr)?;
                if op.open {
                    *self.opens.entry((asked.holder(), handle)).or_default() += 1;
                }
                Ok(Effect::Changed)
            }
            (Request::Mkdir(op), Reply::Mkdir(made)) => {
                self.make(op.dir, &op.name, made.attr.handle, Body::Directory(Rc::default()))?;
                self.change(made.attr.handle).parent = Some(op.dir);
                self.check_attr(made.attr.handle, &made.attr)?;
                Ok(Effect::Changed)
            }
            (Request::Symlink(op), Reply::Symlink(made)) => {
                self.make(op.dir, &op.name, made.attr.handle, Body::Symlink(op.target.clone()))?;
                self.check_attr(made.attr.handle, &made.attr)?;
                Ok(Effect::Changed)
            }
            (Request::Link(op), Reply::Link(linked)) => {
                self.change(op.handle).names += 1;
                self.change_entries(op.dir).insert(op.name.clone(), op.handle);
                self.check_attr(op.handle, &linked.attr)?;
                Ok(Effect::Changed)
            }
            (Request::Unlink(op), Reply::Unlink(removed)) => self.remove(op.dir, &op.name, &removed.attr),
            (Request::Rmdir(op), Reply::Rmdir(removed)) => self.remove(op.dir, &op.name, &removed.attr),
            (Request::Rename(op), Reply::Rename(renamed)) => {
                self.rename(op)?;
                self.check_attr(renamed.moved.handle, &renamed.moved)?;
                Ok(Effect::Changed)
            }
            (Request::Write(op), Reply::Write(written)) => {
                let length = self.file(op.handle).map_or(0, |bytes| bytes.len() as u64);
                let offset = match op.at {
                    WriteAt::Offset(offset) => offset,
                    WriteAt::End => length,
                };
                if written.offset != offset {
                    return Err(format!("it is written at {}, which has to be {offset}", written.offset));
                }
                self.write(op.handle, offset as usize, asked);
                Ok(Effect::Changed)
            }
            (Request::Setattr(op), Reply::Setattr(_)) => {
                let Some(size) = op.set.size else { return Ok(Effect::Same) };
                if self.file(op.handle).is_ok_and(|bytes| bytes.len() as u64 == size) {
                    return Ok(Effect::Same);
                }
                if let Body::File(content) = &mut self.change(op.handle).body {
                    content.note(asked.id);
                    Rc::make_mut(&mut content.bytes).resize(size as usize, 0);
                }
                Ok(Effect::Changed)
            }
            (Request::Open(op), Reply::Open(_)) => {
                *self.opens.entry((asked.holder(), op.handle)).or_default() += 1;
                Ok(Effect::Changed)
            }
            (Request::Release(op), Reply::Release(())) => {
                if let Some(count) = self.opens.get_mut(&(asked.holder(), op.handle)) {
                    *count = count.saturating_sub(op.count);
                }
                Ok(Effect::Changed)
            }
            (Request::Lock(op), Reply::Lock(())) => {
                let session = asked.session;
                let locks = &mut self.change(op.handle).locks;
                locks.retain(|(of, owner, _)| (*of, *owner) != (session, op.owner));
                if op.kind != LockKind::Unlock {
                    locks.push((session, op.owner, op.kind == LockKind::Exclusive));
                }
                locks.sort_unstable_by_key(|(of, owner, _)| (*of, *owner));
                Ok(Effect::Changed)
            }
            (request, reply) => Err(format!("{} is answered as something else: {reply:?}", request.name())),
        }
    }

    /// The session has ended for the flares of these keys: nobody holds a lock there for it any more.
    pub fn end_session(&mut self, session: SessionId, keys: KeyRange) {
        let locked = |node: &Node| node.locks.iter().any(|(of, ..)| *of == session);
        let is_there = |(handle, node): &(&Handle, &Rc<Node>)| keys.contains(&handle.key) && locked(node);
        let locked: Vec<Handle> = self.nodes.iter().filter(is_there).map(|(handle, _)| *handle).collect();
        for handle in locked {
            self.change(handle).locks.retain(|(of, ..)| *of != session);
        }
    }

    /// Whoever has opened something by this name needs nothing of it.
    pub fn forget_opens(&mut self, holder: SessionId) {
        self.opens.retain(|(of, _), _| *of != holder);
    }

    fn make(&mut self, dir: Handle, name: &Name, handle: Handle, body: Body) -> Result<(), Mismatch> {
        if self.nodes.contains_key(&handle) {
            return Err(format!("the new flare {handle:?} is an old one"));
        }
        let node = Node { body, names: 1, parent: None, locks: Vec::new(), doubtful: Vec::new() };
        self.nodes.insert(handle, Rc::new(node));
        self.change_entries(dir).insert(name.clone(), handle);
        Ok(())
    }

    fn remove(&mut self, dir: Handle, name: &Name, shown: &Attr) -> Step {
        let victim = self.existing(dir, name).map_err(|error| error.to_string())?;
        self.change_entries(dir).remove(name);
        self.drop_name(victim);
        self.check_attr(victim, shown)?;
        Ok(Effect::Changed)
    }

    fn rename(&mut self, op: &Rename) -> Result<(), Mismatch> {
        let (moved, target) = self.rename_allowed(op).map_err(|error| error.to_string())?;
        if target == Some(moved) {
            return Ok(());
        }
        self.change_entries(op.to_dir).insert(op.to_name.clone(), moved);
        match target {
            Some(target) if op.how == RenameHow::Exchange => {
                self.change_entries(op.from_dir).insert(op.from_name.clone(), target);
                self.move_to(target, op.from_dir);
            }
            other => {
                self.change_entries(op.from_dir).remove(&op.from_name);
                if let Some(replaced) = other {
                    self.drop_name(replaced);
                }
            }
        }
        self.move_to(moved, op.to_dir);
        Ok(())
    }

    fn move_to(&mut self, handle: Handle, parent: Handle) {
        if self.is_directory(handle) {
            self.change(handle).parent = Some(parent);
        }
    }

    fn write(&mut self, handle: Handle, offset: usize, asked: &Asked) {
        if let Body::File(content) = &mut self.change(handle).body {
            let data = &asked.payload;
            content.note((asked.id, offset));
            let bytes = Rc::make_mut(&mut content.bytes);
            let end = offset + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset..end].copy_from_slice(data);
        }
    }

    /// All power was lost: nobody has anything open, and these bytes may be zeros.
    pub fn lose_power(&mut self, unsynced: &[(Handle, Range<usize>)]) {
        self.opens.clear();
        for (handle, range) in unsynced {
            if self.nodes.contains_key(handle) {
                self.change(*handle).doubtful.push(range.clone());
            }
        }
    }
}

/// The flares that a request names.
fn handles(request: &Request) -> Vec<Handle> {
    match request {
        Request::Link(op) => vec![op.handle, op.dir],
        Request::Rename(op) => vec![op.from_dir, op.to_dir],
        other => other.handle().into_iter().collect(),
    }
}
