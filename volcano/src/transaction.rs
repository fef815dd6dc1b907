//! Transactions: operations whose steps concern flares of several slices. `docs/ACROSS.md` tells how one happens.

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::key::Key;
use magma_common::name::Name;
use magma_common::proto::operation::Outcome;
use magma_common::proto::{Credentials, OpId, SessionId};
use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Position};
use serde::{Deserialize, Serialize};

use crate::rows::{BodyId, EntryRow, FlareRow, Life, ReferenceRow, Striping, Trim};

/// One try to do an operation across slices. No two tries bear the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The directory that gains or loses the name: its slice drives the operation.
    pub driver: Key,
    /// The epoch in which the driver's primary began to serve.
    pub reign: Epoch,
    /// Counts the attempts of that primary.
    pub number: u64,
}

/// Everything that an operation does, with what it relies upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Its name.
    pub attempt: Attempt,
    /// The operation; it names the references and entries that the steps make.
    pub op: OpId,
    /// When it happens: later than everything that it relies upon.
    pub time: Timestamp,
    /// The flares of the driver's own slice.
    pub own: Vec<Participant>,
    /// Everybody else.
    pub participants: Vec<Participant>,
    /// What the operation is answered with, for the driver's ledger; none before it is committed.
    pub outcome: Option<Outcome>,
    /// The driver's record; 0 before it is committed. A driver that has this record and keeps the transaction no more has settled it.
    pub committed: Position,
}

impl Transaction {
    /// What one participant has to prepare.
    #[must_use]
    pub fn only(&self, participant: &Participant) -> Self {
        let Self { attempt, op, time, committed, .. } = *self;
        let participants = vec![participant.clone()];
        Self { attempt, op, time, own: Vec::new(), participants, outcome: None, committed }
    }

    /// How many bytes of files it carries.
    pub fn bytes(&self) -> usize {
        let parts = self.participants.iter().chain(&self.own);
        let bytes = |step: &Step| match step {
            Step::Fill { data, .. } | Step::Extend { data, .. } => data.len(),
            Step::Birth { newborn, .. } => newborn.inline.len(),
            _ => 0,
        };
        parts.flat_map(|part| &part.steps).map(bytes).sum()
    }

    /// Whether it gives a stripe something, or takes it away.
    pub fn concerns_stripes(&self) -> bool {
        self.participants.iter().flat_map(|part| &part.steps).any(|step| match step {
            Step::Fill { .. } | Step::ClearEnd { .. } | Step::DropStripe { .. } => true,
            Step::Birth { newborn, .. } => matches!(newborn.row.striping, Striping::Stripe { .. }),
            _ => false,
        })
    }

    /// Whether it destroys bytes because of something that happened before it: that must be on disk first.
    pub fn destroys(&self) -> bool {
        let destroys = |step: &Step| matches!(step, Step::DropStripe { .. } | Step::ClearEnd { .. });
        self.participants.iter().any(|part| part.steps.iter().any(destroys))
    }

    /// What happens to this flare.
    pub fn part_of(&self, key: &Key) -> Option<&Participant> {
        self.participants.iter().chain(&self.own).find(|part| part.key == *key)
    }
}

/// What happens to one flare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// The flare.
    pub key: Key,
    /// What the operation has seen of it, if it is not in the driver's slice; none if it is born, or if nothing depends on it.
    pub seen: Option<Seen>,
    /// In this order.
    pub steps: Vec<Step>,
}

/// What decides whether an operation on a flare is allowed. As long as it is the same, the decision is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which flare bears the key.
    pub handle: Handle,
    /// What it is.
    pub kind: Kind,
    /// Whether it has a name.
    pub life: Life,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Its POSIX ACLs.
    pub acls: Vec<(Name, Bytes)>,
}

impl Seen {
    /// What is seen of a flare with these ACLs.
    pub fn new(row: &FlareRow, acls: Vec<(Name, Bytes)>) -> Self {
        let FlareRow { handle, kind, life, mode, uid, gid, .. } = *row;
        Self { handle, kind, life, mode, uid, gid, acls }
    }
}

/// A flare with everything that it is born with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newborn {
    /// Its row. The number of the record that makes it is not known yet: 0.
    pub row: FlareRow,
    /// Its first name.
    pub reference: ReferenceRow,
    /// Its small body.
    pub inline: Bytes,
    /// Its extended attributes.
    pub xattrs: Vec<(Name, Bytes)>,
}

/// A name that leads to a flare, and the operation that made it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The name.
    pub name: Name,
    /// The flare.
    pub child: Handle,
    /// What it is.
    pub kind: Kind,
    /// The operation that made the entry and the flare's reference.
    pub made_by: OpId,
}

impl From<&EntryRow> for Link {
    fn from(entry: &EntryRow) -> Self {
        let EntryRow { name, child, kind, made_by, .. } = entry;
        Self { name: name.clone(), child: *child, kind: *kind, made_by: *made_by }
    }
}

/// A stripe of a file, seen from its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeLink {
    /// Which.
    pub number: u64,
    /// Its flare.
    pub child: Handle,
    /// The operation that made it.
    pub made_by: OpId,
}

/// What happens to a flare. Steps are logical: each can be carried out on whatever has become of the flare meanwhile, and once
/// more without harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// It comes to life.
    Birth {
        /// What it is.
        newborn: Box<Newborn>,
        /// Who has it open from the beginning.
        opened_by: Option<SessionId>,
    },
    /// A directory gains a name.
    AddEntry(Link),
    /// A name of a directory leads to another flare.
    ReplaceEntry {
        /// To which one it led.
        old: Link,
        /// To which one it leads.
        new: Link,
    },
    /// A directory loses a name.
    RemoveEntry(Link),
    /// The flare gains a name.
    AddReference(ReferenceRow),
    /// The flare is not called that any more, but has got another name in its place.
    DropMoved(ReferenceRow),
    /// The flare has lost that name. It dies if it was the last one and nobody has it open. A directory must be empty.
    DropRemoved(ReferenceRow),
    /// A file that was to be created exists: it is opened and cut, as far as the caller may.
    TakeExisting {
        /// Who asks.
        credentials: Credentials,
        /// Who has it open from now on.
        opened_by: Option<SessionId>,
        /// Its size from now on, if it changes.
        size: Option<u64>,
    },
    /// A striped file gets bytes, some of them beyond its first unit. At the head, like the next three.
    Extend {
        /// Who writes.
        credentials: Credentials,
        /// First byte.
        offset: u64,
        /// Those that the head has itself.
        data: Bytes,
        /// One more than the last byte, wherever it is.
        end: u64,
    },
    /// It has a stripe more.
    GainStripe {
        /// Which.
        link: StripeLink,
        /// The cut number that the stripe was born with. The head's is never lower, whatever it has lost.
        cut: u64,
    },
    /// It has a stripe less.
    LoseStripe(StripeLink),
    /// The end of a stripe has been cleared.
    ForgetTrim {
        /// Which, and from where on.
        trim: Trim,
        /// The cut number that the stripe was told.
        cut: u64,
    },
    /// A stripe gets bytes.
    Fill {
        /// Which.
        stripe: Handle,
        /// First byte, counted from its beginning.
        offset: u64,
        /// The bytes.
        data: Bytes,
        /// Its body from now on, if it needs one and has none.
        body: BodyId,
        /// They are on disk when its record is: somebody is told that they are who does not ask the stripe.
        stable: bool,
    },
    /// A stripe loses its bytes from there on, and learns the cut number.
    ClearEnd {
        /// Which.
        stripe: Handle,
        /// First byte to go.
        from: u64,
        /// The head's cut number.
        cut: u64,
    },
    /// A stripe is removed.
    DropStripe {
        /// Which.
        stripe: Handle,
    },
    /// A directory is moved to another parent somewhere: only one at a time. At the root.
    MoveDirectory,
}

/// Which part a flare has in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Part {
    /// A step of it is checked, and waits for the outcome.
    Prepared,
    /// Its step is carried out.
    Applied,
    /// It drives the transaction, which is committed.
    Driven,
}

/// What a slice keeps of a transaction, for one of its flares, until it is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionRow {
    /// The flare: a participant, or the driver.
    pub key: Key,
    /// Its part.
    pub part: Part,
    /// All of the transaction.
    pub transaction: Transaction,
}

impl TransactionRow {
    /// What distinguishes it from the other rows of its slice.
    pub fn id(&self) -> (Key, Attempt, bool) {
        (self.key, self.transaction.attempt, self.part == Part::Driven)
    }
}
