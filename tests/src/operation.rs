//! Random operations on a small tree, and what each may be answered with.
//!
//! The names are few, so that operations meet each other. Files and directories are called `a` to `d`, symbolic
//! links `l0` and `l1`: a link never stands in the middle of a path, so that a walk that follows links and one that does
//! not see the same tree.

use proptest::prelude::*;
use rustix::io::Errno;

/// A path of one to three names, relative to the tree's root.
pub type Path = Vec<&'static str>;

/// One operation.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields say what the system call of that name takes")]
pub enum Operation {
    Create {
        path: Path,
        mode: u32,
        exclusive: bool,
    },
    Mkdir {
        path: Path,
        mode: u32,
    },
    Symlink {
        path: Path,
        target: String,
    },
    Link {
        from: Path,
        to: Path,
    },
    Unlink {
        path: Path,
    },
    Rmdir {
        path: Path,
    },
    Rename {
        from: Path,
        to: Path,
        how: How,
    },
    Write {
        path: Path,
        offset: u64,
        length: usize,
        seed: u8,
    },
    Append {
        path: Path,
        length: usize,
        seed: u8,
    },
    Read {
        path: Path,
        offset: u64,
        length: usize,
    },
    Truncate {
        path: Path,
        size: u64,
    },
    Punch {
        path: Path,
        offset: u64,
        length: u64,
    },
    Chmod {
        path: Path,
        mode: u32,
    },
    SetXattr {
        path: Path,
        name: &'static str,
        value: Vec<u8>,
    },
    GetXattr {
        path: Path,
        name: &'static str,
    },
    RemoveXattr {
        path: Path,
        name: &'static str,
    },
    Stat {
        path: Path,
    },
    Readlink {
        path: Path,
    },
    List {
        path: Path,
    },
    /// Opens into a slot, closing what was there.
    Open {
        path: Path,
        slot: usize,
    },
    WriteOpen {
        slot: usize,
        offset: u64,
        length: usize,
        seed: u8,
    },
    ReadOpen {
        slot: usize,
        offset: u64,
        length: usize,
    },
    Close {
        slot: usize,
    },
    Fsync {
        path: Path,
    },
}

/// The flags of `renameat2(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the manual page")]
pub enum How {
    Replace,
    NoReplace,
    Exchange,
}

/// Number of slots for open files.
pub const SLOTS: usize = 3;

/// What an operation that succeeded shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing but success.
    Done,
    /// Bytes.
    Bytes(Vec<u8>),
    /// Attributes.
    Attributes(Attributes),
    /// Names, sorted.
    Names(Vec<String>),
}

/// The attributes that do not depend on clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// `f`, `d` or `l`.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Number of links.
    pub nlink: u32,
    /// Size in bytes; 0 for directories, whose size is nobody's business.
    pub size: u64,
}

/// What became of an operation.
pub type Outcome = Result<Shown, Errno>;

/// Something that carries out operations on a tree.
pub trait Tree {
    /// Carries one out.
    fn apply(&mut self, operation: &Operation) -> Outcome;
}

/// The bytes that a write with this seed writes at this offset: recognisable wherever they turn up.
pub fn pattern(seed: u8, offset: u64, length: usize) -> Vec<u8> {
    (offset..).take(length).map(|at| (at as u8).wrapping_mul(31) ^ seed ^ ((at >> 8) as u8)).collect()
}

/// Any operation.
pub fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![making(), naming(), data(), attributes(), looking(), opened(),]
}

fn making() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (path(), mode(), any::<bool>()).prop_map(|(path, mode, exclusive)| Operation::Create { path, mode, exclusive }),
        3 => (path(), mode()).prop_map(|(path, mode)| Operation::Mkdir { path, mode }),
        1 => (link_path(), "[xyz]{1,9}").prop_map(|(path, target)| Operation::Symlink { path, target }),
    ]
}

fn naming() -> impl Strategy<Value = Operation> {
    let how = prop_oneof![4 => Just(How::Replace), 1 => Just(How::NoReplace), 1 => Just(How::Exchange)];
    prop_oneof![
        1 => (path(), path()).prop_map(|(from, to)| Operation::Link { from, to }),
        1 => (any_path()).prop_map(|path| Operation::Unlink { path }),
        1 => (path()).prop_map(|path| Operation::Rmdir { path }),
        3 => (path(), path(), how).prop_map(|(from, to, how)| Operation::Rename { from, to, how }),
        1 => (link_path(), link_path())
            .prop_map(|(from, to)| Operation::Rename { from, to, how: How::Replace }),
    ]
}

fn data() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (path(), offset(), length(), any::<u8>())
            .prop_map(|(path, offset, length, seed)| Operation::Write { path, offset, length, seed }),
        1 => (path(), length(), any::<u8>()).prop_map(|(path, length, seed)| Operation::Append { path, length, seed }),
        2 => (path(), offset(), length()).prop_map(|(path, offset, length)| Operation::Read { path, offset, length }),
        2 => (path(), offset()).prop_map(|(path, size)| Operation::Truncate { path, size }),
        1 => (path(), offset(), 1u64..60_000)
            .prop_map(|(path, offset, length)| Operation::Punch { path, offset, length }),
        1 => (path()).prop_map(|path| Operation::Fsync { path }),
    ]
}

fn attributes() -> impl Strategy<Value = Operation> {
    let name = prop_oneof![Just("user.one"), Just("user.two")];
    prop_oneof![
        (path(), mode()).prop_map(|(path, mode)| Operation::Chmod { path, mode }),
        (path(), name.clone(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(path, name, value)| Operation::SetXattr { path, name, value }),
        (path(), name.clone()).prop_map(|(path, name)| Operation::GetXattr { path, name }),
        (path(), name).prop_map(|(path, name)| Operation::RemoveXattr { path, name }),
    ]
}

fn looking() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (any_path()).prop_map(|path| Operation::Stat { path }),
        (link_path()).prop_map(|path| Operation::Readlink { path }),
        (path()).prop_map(|path| Operation::List { path }),
        Just(Operation::List { path: Vec::new() }),
    ]
}

fn opened() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (path(), 0..SLOTS).prop_map(|(path, slot)| Operation::Open { path, slot }),
        (0..SLOTS, offset(), length(), any::<u8>())
            .prop_map(|(slot, offset, length, seed)| Operation::WriteOpen { slot, offset, length, seed }),
        (0..SLOTS, offset(), length()).prop_map(|(slot, offset, length)| Operation::ReadOpen {
            slot,
            offset,
            length
        }),
        (0..SLOTS).prop_map(|slot| Operation::Close { slot }),
    ]
}

fn path() -> impl Strategy<Value = Path> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")], 1..4)
}

fn link_path() -> impl Strategy<Value = Path> {
    let dirs = proptest::collection::vec(prop_oneof![Just("a"), Just("b")], 0..2);
    (dirs, prop_oneof![Just("l0"), Just("l1")]).prop_map(|(mut path, name)| {
        path.push(name);
        path
    })
}

fn any_path() -> impl Strategy<Value = Path> {
    prop_oneof![3 => path(), 1 => link_path()]
}

fn mode() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0o644), Just(0o755), Just(0o600), Just(0o1777), Just(0o4755), Just(0)]
}

/// Offsets around the places where a body changes its form: 0, 16 KiB (small bodies), 64 KiB (checksummed blocks).
fn offset() -> impl Strategy<Value = u64> {
    let near = |at: u64| at.saturating_sub(40)..at + 40;
    prop_oneof![3 => 0u64..400, 1 => near(16 << 10), 1 => near(64 << 10), 1 => near(128 << 10), 1 => 0u64..300_000]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0usize..300, 1 => 16_000usize..17_000, 1 => 60_000usize..140_000]
}
