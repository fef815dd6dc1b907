//! What clients ask for: a few names that many want.

use bytes::Bytes;
use magma_common::attr::{Attr, Kind, SetAttr};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::operation::{
    Commit, Create, CreateHow, Getattr, Link, Lock, LockFamily, LockKind, LockOwner, Lookup, Mkdir, Open,
    Read, Readdir, Readlink, Release, Rename, RenameHow, Rmdir, Setattr, Symlink, Unlink, Write, WriteAt,
};
use magma_common::proto::{Durability, Reply, Request};

use super::dice::Dice;
use super::striping::Striped;

/// Names in every directory.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Flares that a client remembers.
const REMEMBERED: usize = 10;
/// What is read at a time, in bytes.
pub const READ_LENGTH: u32 = 1 << 20;
/// No file grows beyond about this, in bytes.
const LARGE: u64 = 160 << 10;

/// How often each operation is asked for, as weights.
#[derive(Clone, Debug)]
pub struct Mix([u32; 18]);

impl Mix {
    /// The mix of a seed.
    pub fn draw(dice: &mut Dice) -> Self {
        let mut mix = [10, 4, 2, 4, 8, 4, 8, 8, 4, 8, 10, 14, 3, 4, 5, 4, 4, 1];
        // Some seeds love one kind of operation.
        for _ in 0..dice.below(3) {
            let at = dice.below(mix.len() as u64) as usize;
            mix[at] *= 6;
        }
        Self(mix)
    }
}

/// What a client is to ask.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The request.
    pub request: Request,
    /// Its bytes.
    pub payload: Bytes,
    /// How safe.
    pub durability: Durability,
    /// How long to wait at most, in milliseconds, if it may wait.
    pub deadline_ms: Option<u32>,
}

/// What a client knows of the namespace.
#[derive(Debug, Default)]
pub struct Known {
    flares: Vec<(Handle, Kind, u64)>,
    /// What it holds open, and how often.
    pub opens: Vec<(Handle, u32)>,
    locked: Vec<Handle>,
    striped: Striped,
}

impl Known {
    /// It has lost its session.
    pub fn forget_session(&mut self) {
        self.opens.clear();
        self.locked.clear();
    }

    /// A flare was seen.
    pub fn see(&mut self, attr: &Attr) {
        self.flares.retain(|(handle, ..)| *handle != attr.handle);
        self.flares.push((attr.handle, attr.kind, attr.size));
        if self.flares.len() > REMEMBERED {
            self.flares.remove(0);
        }
    }

    fn forget(&mut self, handle: Handle) {
        self.flares.retain(|(known, ..)| *known != handle);
    }

    /// An operation was answered.
    pub fn learn(&mut self, request: &Request, payload: &Bytes, reply: &Reply) {
        self.striped.learn(request, payload, reply);
        match reply {
            Reply::Lookup(found) => self.see(&found.attr),
            Reply::Getattr(attr) => self.see(attr),
            Reply::Create(made) | Reply::Mkdir(made) | Reply::Symlink(made) => self.see(&made.attr),
            Reply::Link(linked) => self.see(&linked.attr),
            Reply::Read(read) => self.see(&read.attr),
            Reply::Layout(layout) => self.see(&layout.attr),
            _ => {}
        }
        let opened = match (request, reply) {
            (Request::Create(create), Reply::Create(made)) if create.open => Some(made.attr.handle),
            (Request::Open(open), _) => Some(open.handle),
            _ => None,
        };
        if let Some(handle) = opened {
            match self.opens.iter_mut().find(|(open, _)| *open == handle) {
                Some((_, count)) => *count += 1,
                None => self.opens.push((handle, 1)),
            }
        }
        match request {
            Request::Lock(lock) if lock.kind == LockKind::Unlock => {
                self.locked.retain(|locked| *locked != lock.handle)
            }
            Request::Lock(lock) => self.locked.push(lock.handle),
            _ => {}
        }
    }

    /// An operation was refused.
    pub fn learn_refusal(&mut self, request: &Request, error: FlareError) {
        match error {
            FlareError::Stale => self.is_stale(request),
            FlareError::Striped => self.striped.is_striped(request),
            _ => {}
        }
    }

    /// A handle turned out to be stale.
    fn is_stale(&mut self, request: &Request) {
        self.striped.is_stale(request);
        if let Some(handle) = request.handle().filter(|handle| *handle != Handle::root()) {
            self.forget(handle);
        }
    }

    /// A release is about to be asked for: it counts as given back from now on.
    pub fn releases(&mut self, handle: Handle, count: u32) {
        for (open, held) in &mut self.opens {
            if *open == handle {
                *held = held.saturating_sub(count);
            }
        }
        self.opens.retain(|(_, held)| *held > 0);
    }

    fn directory(&self, dice: &mut Dice) -> Handle {
        let directories: Vec<Handle> = self
            .flares
            .iter()
            .filter(|(_, kind, _)| *kind == Kind::Directory)
            .map(|(handle, ..)| *handle)
            .collect();
        if directories.is_empty() || dice.one_in(2) { Handle::root() } else { *dice.pick(&directories) }
    }

    fn file(&self, dice: &mut Dice) -> Option<(Handle, u64)> {
        let files: Vec<(Handle, u64)> = self
            .flares
            .iter()
            .filter(|(_, kind, _)| *kind == Kind::File || dice.one_in(20))
            .map(|(handle, _, size)| (*handle, *size))
            .collect();
        if files.is_empty() { None } else { Some(*dice.pick(&files)) }
    }

    fn open(&self, dice: &mut Dice) -> Option<Handle> {
        if self.opens.is_empty() { None } else { Some(dice.pick(&self.opens).0) }
    }
}

fn name(dice: &mut Dice) -> Name {
    Name::new(dice.pick(&NAMES).as_bytes().to_vec()).expect("they are names")
}

/// The next thing that a client wants, of the stripes of a file if it knows some and deals with them itself. `number`: of the operation; no
/// two write the same bytes.
pub fn wish(mix: &Mix, known: &mut Known, client: usize, number: usize, dice: &mut Dice) -> Wish {
    match known.striped.wish(number, dice) {
        Some((request, payload)) => {
            Wish { request, payload, durability: durability(dice), deadline_ms: None }
        }
        None => wish_of_names(mix, known, client, number, dice),
    }
}

fn durability(dice: &mut Dice) -> Durability {
    if dice.one_in(7) { Durability::Stable } else { Durability::Replicated }
}

/// The next thing that a user of a file system wants.
pub fn wish_of_names(mix: &Mix, known: &Known, client: usize, number: usize, dice: &mut Dice) -> Wish {
    let mut payload = Bytes::new();
    let mut deadline_ms = None;
    let set = SetAttr::default;
    let how = |dice: &mut Dice| *dice.pick(&[CreateHow::Guarded, CreateHow::Unchecked]);
    let request: Option<Request> = match dice.weighted(&mix.0).unwrap_or(0) {
        0 => {
            let (dir, open) = (known.directory(dice), dice.one_in(4));
            let how = how(dice);
            Some(Create { dir, name: name(dice), mode: 0o644, umask: 0, how, set: set(), open }.into())
        }
        1 => Some(
            Mkdir { dir: known.directory(dice), name: name(dice), mode: 0o755, umask: 0, set: set() }.into(),
        ),
        2 => {
            let target = Bytes::from(format!("target {number}"));
            Some(Symlink { dir: known.directory(dice), name: name(dice), target, set: set() }.into())
        }
        3 => {
            let dir = known.directory(dice);
            known.file(dice).map(|(handle, _)| Link { handle, dir, name: name(dice) }.into())
        }
        4 => Some(Unlink { dir: known.directory(dice), name: name(dice) }.into()),
        5 => Some(Rmdir { dir: known.directory(dice), name: name(dice) }.into()),
        6 => {
            let how = *dice.pick(&[
                RenameHow::Replace,
                RenameHow::Replace,
                RenameHow::NoReplace,
                RenameHow::Exchange,
            ]);
            let (from_dir, to_dir) = (known.directory(dice), known.directory(dice));
            Some(Rename { from_dir, from_name: name(dice), to_dir, to_name: name(dice), how }.into())
        }
        7 => Some(Lookup { dir: known.directory(dice), name: name(dice) }.into()),
        8 => known.file(dice).map(|(handle, _)| Getattr { handle }.into()),
        9 => Some(listing(known.directory(dice))),
        10 => known.file(dice).map(|(handle, _)| read(handle)),
        11 => known.file(dice).map(|(handle, size)| {
            payload = bytes_of(number, dice);
            let at = match dice.below(3) {
                0 if size < LARGE => WriteAt::End,
                1 => WriteAt::Offset(dice.below(size.min(LARGE) + 1)),
                _ => WriteAt::Offset(dice.magnitude(1, 30 << 10)),
            };
            Write { handle, at, opened: true }.into()
        }),
        12 => known.file(dice).map(|(handle, size)| {
            let new = dice.below(size + 2).min(LARGE);
            let set = SetAttr { size: Some(if dice.one_in(4) { 0 } else { new }), ..SetAttr::default() };
            Setattr { handle, set, guard: None, opened: true }.into()
        }),
        13 => known.file(dice).map(|(handle, _)| Commit { handle }.into()),
        14 => known.file(dice).map(|(handle, _)| {
            let kind = *dice.pick(&[LockKind::Exclusive, LockKind::Exclusive, LockKind::Shared]);
            let wait = dice.one_in(3);
            deadline_ms = Some(dice.range(500, 8_000) as u32);
            lock(handle, client, kind, wait)
        }),
        15 => known.locked.last().map(|handle| lock(*handle, client, LockKind::Unlock, false)),
        16 => match known.open(dice).filter(|_| dice.one_in(2)) {
            Some(handle) => Some(Release { handle, count: 1 }.into()),
            None => known.file(dice).map(|(handle, _)| {
                Open { handle, read: true, write: dice.one_in(2), execute: false, truncate: false }.into()
            }),
        },
        _ => known.file(dice).map(|(handle, _)| Readlink { handle }.into()),
    };
    let request = request.unwrap_or_else(|| Lookup { dir: Handle::root(), name: name(dice) }.into());
    Wish { request, payload, durability: durability(dice), deadline_ms }
}

/// Lists a directory.
pub fn listing(dir: Handle) -> Request {
    Readdir { dir, cookie: 0, limit: 1000, attributes: false, opened: true }.into()
}

/// Reads a file.
pub fn read(handle: Handle) -> Request {
    read_of(handle, READ_LENGTH)
}

/// Reads the first bytes of a file.
pub fn read_of(handle: Handle, length: u32) -> Request {
    Read { handle, offset: 0, length, opened: true }.into()
}

fn lock(handle: Handle, client: usize, kind: LockKind, wait: bool) -> Request {
    let owner = LockOwner { owner: client as u64, pid: 1 };
    Lock { handle, family: LockFamily::Posix, owner, kind, start: 0, end: u64::MAX, wait }.into()
}

/// Bytes none of which is zero, and which say whose they are.
pub fn bytes_of(number: usize, dice: &mut Dice) -> Bytes {
    let length = match dice.below(10) {
        0 => dice.range(17 << 10, 60 << 10),
        1 => dice.range(60 << 10, 90 << 10),
        2 | 3 => dice.range(4 << 10, 16 << 10),
        _ => dice.magnitude(1, 3000),
    };
    let byte = |at: u64| ((number as u64).wrapping_mul(37).wrapping_add(at / 61) % 255) as u8 + 1;
    (0..length).map(byte).collect()
}
