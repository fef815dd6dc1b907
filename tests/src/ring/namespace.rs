//! What a namespace has to do, as plainly as possible: a state that is cheap to copy, and what each request may be answered with.
//!
//! The caller is root. Of an answer counts what programs go by: success or which error, kind, size, number of names, entries,
//! bytes. Two things are left open, because a volcano leaves them open, too: when a flare without a name that nobody holds open
//! dies (any time), and, after a loss of all power, what the bytes are that nobody had made durable (what was written, or zeros).

mod file;

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use magma_common::attr::{Attr, Kind};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::key::KeyRange;
use magma_common::name::Name;
use magma_common::proto::limits::{MAX_STRIPES_MADE, MAX_THROUGH_HEAD};
use magma_common::proto::operation::{CreateHow, LockKind, LockOwner, Rename, RenameHow, WriteAt};
use magma_common::proto::{Reply, Request, SessionId};
use magma_common::stripes::StripeUnit;

use self::file::{File, Stripe};
use super::chronicle::Shed;
use super::history::Asked;

/// What a flare is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Body {
    File(File),
    Directory(Rc<BTreeMap<Name, Handle>>),
    Symlink(Bytes),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    body: Body,
    names: u32,
    /// Of a directory.
    parent: Option<Handle>,
    /// Whose they are, and whether nobody else may hold one.
    locks: Vec<(SessionId, LockOwner, bool)>,
}

/// The state of a whole namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    nodes: BTreeMap<Handle, Rc<Node>>,
    opens: BTreeMap<(SessionId, Handle), u32>,
    /// New files are striped by this unit.
    unit: Option<StripeUnit>,
    /// What was kept is done again after something else was lost: answers may show sizes and numbers of names that are lost.
    is_redone: bool,
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

type Checked<T> = Result<T, FlareError>;

impl Namespace {
    /// An empty one; new files are striped by this unit.
    pub fn new(unit: Option<StripeUnit>) -> Self {
        let root = Node { body: Body::Directory(Rc::default()), names: 1, parent: None, locks: Vec::new() };
        Self {
            nodes: BTreeMap::from([(Handle::root(), Rc::new(root))]),
            opens: BTreeMap::new(),
            unit,
            is_redone: false,
        }
    }

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

    fn file(&self, handle: Handle) -> Checked<&File> {
        match &self.node(handle)?.body {
            Body::File(file) => Ok(file),
            Body::Directory(_) => Err(FlareError::IsDirectory),
            Body::Symlink(_) => Err(FlareError::Invalid),
        }
    }

    fn change_file(&mut self, handle: Handle) -> Option<&mut File> {
        match self.nodes.get_mut(&handle).map(|node| &mut Rc::make_mut(node).body) {
            Some(Body::File(file)) => Some(file),
            _ => None,
        }
    }

    /// A stripe of a file that is there, for who goes by this cut number.
    fn stripe(&self, head: Handle, stripe: Handle, cut: u64) -> Checked<&Stripe> {
        let found = self.file(head)?.stripe(stripe).filter(|stripe| stripe.takes(cut));
        found.ok_or(FlareError::Stale)
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
            Body::File(file) => (Kind::File, node.names, Some(file.size())),
            Body::Symlink(target) => (Kind::Symlink, node.names, Some(target.len() as u64)),
            Body::Directory(entries) => {
                let below = entries.values().filter(|child| self.is_directory(**child)).count() as u32;
                (Kind::Directory, if node.names == 0 { 0 } else { 2 + below }, None)
            }
        };
        let is_as_shown = shown.nlink == nlink && size.is_none_or(|size| size == shown.size);
        if shown.kind != kind || !(is_as_shown || self.is_redone) {
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

    /// The request takes effect once more, without anybody hearing its answer.
    pub fn redo(&mut self, asked: &Asked, reply: &Reply) -> Step {
        self.is_redone = true;
        let step = self.granted(asked, Some((reply, &Bytes::new())));
        self.is_redone = false;
        step
    }

    fn refused(&mut self, asked: &Asked, error: FlareError) -> Step {
        match error {
            // Of the disk, not of the namespace.
            FlareError::NoSpace => return Ok(Effect::Same),
            FlareError::Stale if self.concerns_what_is_gone(&asked.request) => return Ok(Effect::Same),
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
            Request::Commit(op) => match &self.node(op.handle)?.body {
                Body::File(file) if file.has_stripes() => Err(FlareError::Striped),
                _ => Ok(()),
            },
            Request::Readlink(op) => match self.node(op.handle)?.body {
                Body::Symlink(_) => Ok(()),
                _ => Err(FlareError::NotSymlink),
            },
            Request::Readdir(op) => self.entries(op.dir).map(drop),
            Request::Read(op) => {
                let file = self.file(op.handle)?;
                let end = op.offset.saturating_add(op.length.into()).min(file.size());
                let is_beyond = end > op.offset && file.unit_beyond(end).is_some();
                if is_beyond { Err(FlareError::Striped) } else { Ok(()) }
            }
            Request::Write(op) => {
                let file = self.file(op.handle)?;
                let end = start(file, op.at) + asked.payload.len() as u64;
                let is_too_much = asked.payload.len() > MAX_THROUGH_HEAD && file.unit_beyond(end).is_some();
                if is_too_much { Err(FlareError::Striped) } else { Ok(()) }
            }
            Request::MakeStripes(op) => {
                let unit = self.file(op.handle)?.unit().ok_or(FlareError::Invalid)?;
                let stripes = unit.parts(op.offset, op.length).filter(|part| part.number > 0).count();
                if stripes > MAX_STRIPES_MADE { Err(FlareError::Invalid) } else { Ok(()) }
            }
            Request::Layout(op) => self.file(op.handle).map(drop),
            Request::WriteDone(op) => self.file(op.handle)?.unit().map(drop).ok_or(FlareError::Invalid),
            Request::CommitPart(op) if op.part == op.head => self.node(op.head).map(drop),
            Request::CommitPart(op) => self.stripe(op.head, op.part, u64::MAX).map(drop),
            Request::ReadStripe(op) => self.stripe(op.head, op.stripe, op.cut).map(drop),
            Request::WriteStripe(op) => self.stripe(op.head, op.stripe, op.cut).map(drop),
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

    /// Whether a request concerns a stripe of a file that is gone: it goes as well, at any time, and what it says until then does not matter.
    fn concerns_what_is_gone(&self, request: &Request) -> bool {
        let head = match request {
            Request::ReadStripe(op) => op.head,
            Request::WriteStripe(op) => op.head,
            Request::CommitPart(op) => op.head,
            _ => return false,
        };
        !self.nodes.contains_key(&head)
    }

    fn granted(&mut self, asked: &Asked, answer: Option<(&Reply, &Bytes)>) -> Step {
        if self.concerns_what_is_gone(&asked.request) {
            return Ok(Effect::Same);
        }
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
                let file = self.file(op.handle).map_err(|error| error.to_string())?;
                file.check_own(op.offset, op.length.into(), payload)?;
                Ok(Effect::Same)
            }
            (Request::Layout(op), Reply::Layout(layout)) => {
                self.check_attr(op.handle, &layout.attr)?;
                let file = self.file(op.handle).map_err(|error| error.to_string())?;
                file.check_layout(op, layout)?;
                Ok(Effect::Same)
            }
            (Request::ReadStripe(op), Reply::ReadStripe(())) => {
                let stripe = self.stripe(op.head, op.stripe, op.cut).map_err(|error| error.to_string())?;
                stripe.content.check(op.offset as usize, op.length as usize, payload)?;
                Ok(Effect::Same)
            }
            (Request::Commit(_), Reply::Commit(_)) | (Request::CommitPart(_), Reply::CommitPart(_)) => {
                Ok(Effect::Same)
            }
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

    fn changed(&mut self, asked: &Asked, reply: &Reply) -> Step {
        match (&asked.request, reply) {
            (Request::Create(op), Reply::Create(made)) => {
                let found = self.entries(op.dir).ok().and_then(|entries| entries.get(&op.name)).copied();
                if made.created == found.is_some() {
                    return Err(format!("it says created = {}, which has to be the other", made.created));
                }
                let handle = made.attr.handle;
                if found.is_none() {
                    self.make(op.dir, &op.name, handle, Body::File(File::new(self.unit)))?;
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
                let offset = self.file(op.handle).map_or(0, |file| start(file, op.at));
                if written.offset != offset {
                    return Err(format!("it is written at {}, which has to be {offset}", written.offset));
                }
                let Some(file) = self.change_file(op.handle) else { return Err("it is no file".into()) };
                let unit = file.unit_beyond(offset + asked.payload.len() as u64);
                if written.unit != unit {
                    return Err(format!("it says unit {:?}, which has to be {unit:?}", written.unit));
                }
                file.write(asked.id, offset, &asked.payload);
                Ok(Effect::Changed)
            }
            (Request::MakeStripes(op), Reply::MakeStripes(())) => {
                let Some(file) = self.change_file(op.handle) else { return Err("it is no file".into()) };
                file.make(op.offset, op.length);
                Ok(Effect::Changed)
            }
            (Request::WriteStripe(op), Reply::WriteStripe(_)) => {
                let file = self.change_file(op.head);
                let Some(stripe) = file.and_then(|file| file.change_stripe(op.stripe)) else {
                    return Err("it is no stripe".into());
                };
                stripe.write(asked.id, op.offset, &asked.payload);
                Ok(Effect::Changed)
            }
            (Request::WriteDone(op), Reply::WriteDone(_)) => {
                let Some(file) = self.change_file(op.handle) else { return Err("it is no file".into()) };
                file.written(op.end, op.cut);
                Ok(Effect::Changed)
            }
            (Request::Setattr(op), Reply::Setattr(_)) => {
                let Some(size) = op.set.size else { return Ok(Effect::Same) };
                if self.file(op.handle).is_ok_and(|file| file.size() == size) {
                    return Ok(Effect::Same);
                }
                if let Some(file) = self.change_file(op.handle) {
                    file.resize(asked.id, size);
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
        let node = Node { body, names: 1, parent: None, locks: Vec::new() };
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

    /// The record of the last change says that the file has these stripes more.
    pub fn gain(&mut self, head: Handle, stripes: &[(u64, Handle)]) {
        if let Some(file) = self.change_file(head) {
            file.gain(stripes);
        }
    }

    /// A striped file has shed something in the background.
    pub fn shed(&mut self, shed: &Shed) {
        if let Some(file) = self.change_file(shed.head) {
            file.shed(shed);
        }
    }

    /// All power was lost: nobody has anything open, and these bytes may be zeros.
    pub fn lose_power(&mut self, unsynced: &[(Handle, Range<usize>)]) {
        self.opens.clear();
        for (handle, range) in unsynced {
            match self.change_file(*handle) {
                Some(file) => file.own.doubt(range.clone()),
                None => self.doubt_stripe(*handle, range),
            }
        }
    }

    fn doubt_stripe(&mut self, handle: Handle, range: &Range<usize>) {
        let has_it = |(_, node): &(&Handle, &Rc<Node>)| matches!(&node.body, Body::File(file) if file.stripe(handle).is_some());
        let head = self.nodes.iter().find(has_it).map(|(head, _)| *head);
        let file = head.and_then(|head| self.change_file(head));
        if let Some(stripe) = file.and_then(|file| file.change_stripe(handle)) {
            stripe.content.doubt(range.clone());
        }
    }
}

/// Where a write begins.
fn start(file: &File, at: WriteAt) -> u64 {
    match at {
        WriteAt::Offset(offset) => offset,
        WriteAt::End => file.size(),
    }
}

/// The flares that a request names.
fn handles(request: &Request) -> Vec<Handle> {
    match request {
        Request::Link(op) => vec![op.handle, op.dir],
        Request::Rename(op) => vec![op.from_dir, op.to_dir],
        Request::ReadStripe(op) => vec![op.head],
        Request::WriteStripe(op) => vec![op.head],
        Request::CommitPart(op) => vec![op.head],
        other => other.handle().into_iter().collect(),
    }
}
