//! The rows that a slice consists of. `docs/FORMAT.md` shows how they lie on disk.

use magma_common::attr::{Attr, Kind};
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::{BirthString, Key};
use magma_common::name::Name;
use magma_common::proto::operation::{LockFamily, LockKind, LockOwner};
use magma_common::proto::{OpId, SessionId};
use magma_common::stripes::StripeUnit;
use magma_common::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The largest body that is kept in the flare's row instead of a file of its own, in bytes.
pub const INLINE_MAX: u64 = 16 << 10;

/// The first cookie of a directory entry. 0 means "from the start"; 1 and 2 are the doors' `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;

/// A body file: a random number chosen in the record that starts it, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BodyId(pub u64);

/// Where a regular file's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// In the small-body table, or nowhere. Bytes from the stored length up to the size are zero.
    #[default]
    Inline,
    /// In a body file. Bytes from `high` up to the size are zero.
    Body {
        /// Which.
        body: BodyId,
        /// One more than the highest byte ever written to this body; never lowered, not by truncation either.
        high: u64,
    },
}

/// How a file's bytes are spread over flares; see `docs/STRIPES.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Striping {
    /// All are in the flare itself.
    #[default]
    Whole,
    /// The flare has those of the first unit, and the rest is in stripes.
    Head(Box<Head>),
    /// The flare is a stripe. Its only reference is to its head, under its number.
    Stripe {
        /// The cut number that it was told last.
        cut: u64,
        /// How many bytes it can have.
        unit: StripeUnit,
    },
}

impl Striping {
    /// How many bytes of a file of this size are in the flare itself, or may be.
    pub fn own_bytes(&self, size: u64) -> u64 {
        match self {
            Self::Head(head) => size.min(head.unit.bytes()),
            Self::Whole | Self::Stripe { .. } => size,
        }
    }
}

/// What the head of a striped file knows of its stripes. Each of them has an entry there, under its number, which is also the entry's cookie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How many bytes are in each flare.
    pub unit: StripeUnit,
    /// How often the file was made smaller.
    pub cut: u64,
    /// How many stripes there are, dying ones among them.
    pub count: u64,
    /// From this number on all stripes that there are have to be removed, and none is made before they have been.
    pub dying: Option<u64>,
    /// Stripes whose ends have to be cleared before anybody but the head writes to them.
    pub trims: Vec<Trim>,
}

/// The end of a stripe that has to be cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trim {
    /// Which stripe.
    pub number: u64,
    /// From this byte of it on.
    pub from: u64,
}

impl Head {
    /// The head of a new file.
    pub fn new(unit: StripeUnit) -> Self {
        Self { unit, cut: 0, count: 0, dying: None, trims: Vec::new() }
    }

    /// Whether a stripe of this number is dying, if there is one.
    pub fn is_dying(&self, number: u64) -> bool {
        self.dying.is_some_and(|first| first <= number)
    }

    /// From where on a stripe's bytes are to be cleared.
    pub fn trimmed(&self, number: u64) -> Option<u64> {
        self.trims.iter().find(|trim| trim.number == number).map(|trim| trim.from)
    }
}

/// Whether a flare still has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It has.
    Named,
    /// It has not, but a session may hold it open. Its key stays taken.
    Orphan,
    /// It has not, and nobody has it open, but its stripes have not been removed yet. Its key stays taken.
    Dying,
}

/// One flare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlareRow {
    /// Key and birth number.
    pub handle: Handle,
    /// What the key is the hash of.
    pub birth: BirthString,
    /// What it is.
    pub kind: Kind,
    /// Whether it has a name.
    pub life: Life,
    /// Permission bits.
    pub mode: u32,
    /// Number of confirmed references (a directory: 2 and the number of subdirectories).
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Device number.
    pub rdev: u64,
    /// Size in bytes; a directory's is its number of entries times 32, a symlink's the length of its target.
    pub size: u64,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// When it was made.
    pub btime: Timestamp,
    /// The sequence number of the record that changed it last.
    pub change: u64,
    /// Where its bytes are. A symlink's target is its small body.
    pub content: Content,
    /// The verifier of the exclusive create that made it, if one did.
    pub verifier: Option<u64>,
    /// A directory's number of entries; else 0.
    pub entries: u64,
    /// The cookie that a directory gives to its next entry.
    pub next_cookie: u64,
    /// It has a POSIX ACL (access or default), so permission checks must read it.
    pub has_acl: bool,
    /// Whether it is the head of a striped file, or a stripe of one.
    pub striping: Striping,
}

impl FlareRow {
    /// The flare's key.
    pub fn key(&self) -> Key {
        self.handle.key
    }

    /// The birth number.
    pub fn birth_number(&self) -> BirthNumber {
        self.handle.birth
    }

    /// Bytes of a regular file that are in this flare, or may be.
    pub fn own_bytes(&self) -> u64 {
        if self.kind == Kind::File { self.striping.own_bytes(self.size) } else { 0 }
    }

    /// Bytes that its stripes have, if each of them is full.
    pub fn in_stripes(&self) -> u64 {
        let Striping::Head(head) = &self.striping else { return 0 };
        let unit = head.unit.bytes();
        head.count.saturating_mul(unit).min(self.size.saturating_sub(unit))
    }

    /// Whether something of it has to be removed in the background.
    pub fn is_to_shed(&self) -> bool {
        let Striping::Head(head) = &self.striping else { return false };
        self.life == Life::Dying || head.dying.is_some() || !head.trims.is_empty()
    }

    /// The attributes that doors show; `used` is the storage its bytes take.
    pub fn attr(&self, used: u64) -> Attr {
        Attr {
            handle: self.handle,
            kind: self.kind,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: self.size,
            used,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            change: self.change,
        }
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    /// Its name.
    pub name: Name,
    /// The flare it leads to.
    pub child: Handle,
    /// What that flare is.
    pub kind: Kind,
    /// Its position in listings: from the directory's counter, kept while the entry exists.
    pub cookie: u64,
    /// The operation that made the entry: together with parent and name it identifies the child's back reference.
    pub made_by: OpId,
}

/// One name of a flare, seen from the flare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceRow {
    /// The directory.
    pub parent: Handle,
    /// The name in it.
    pub name: Name,
    /// The operation that made it, so that a late removal cannot hit a later namesake.
    pub made_by: OpId,
}

/// One advisory lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRow {
    /// Which family.
    pub family: LockFamily,
    /// Whose session.
    pub session: SessionId,
    /// Who there.
    pub owner: LockOwner,
    /// Shared or exclusive.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its number.
    pub id: SessionId,
    /// Who it is, for people.
    pub client: String,
    /// When it was opened.
    pub opened: Timestamp,
    /// It has the answers to its operations up to this sequence number: a request for one of them is a stray copy. It may have more.
    pub acknowledged: u64,
}
