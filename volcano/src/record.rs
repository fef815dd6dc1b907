//! Records: what a slice's history is made of.
//!
//! A record is *physical*: puts and deletes of rows and byte ranges of bodies, with every
//! value decided by the primary that made it. Mirrors and replay after a crash need no
//! knowledge of POSIX. (slice, epoch, sequence) names one record for ever.

use bytes::Bytes;
use magma_common::handle::Handle;
use magma_common::key::{Key, KeyRange};
use magma_common::name::Name;
use magma_common::proto::operation::Outcome;
use magma_common::proto::{OpId, SessionId};
use magma_common::time::Timestamp;
use magma_common::topology::{Division, Epoch, Position, Seq, SliceId};
use serde::{Deserialize, Serialize};

use crate::missing::Missing;
use crate::rows::{BodyId, EntryRow, FlareRow, LockRow, ReferenceRow, SessionRow};
use crate::transaction::{Attempt, TransactionRow};

/// One step of a slice's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose log.
    pub slice: SliceId,
    /// Under which configuration of the slice it was made.
    pub epoch: Epoch,
    /// Its place, one more than its predecessor's.
    pub seq: Seq,
    /// The primary's clock, never before its predecessor's.
    pub time: Timestamp,
    /// What it changes, in this order.
    pub changes: Vec<Change>,
    /// What the operation that made it is answered with, for the ledger; none for the volcano's own records.
    pub outcome: Option<Outcome>,
}

impl Record {
    /// Its name within its slice.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
    }

    /// Where it divides its slice, if it does. Then it changes nothing else.
    pub fn division(&self) -> Option<Division> {
        match *self.changes.as_slice() {
            [Change::Divide(division)] => Some(division),
            _ => None,
        }
    }
}

/// What a volcano's log is made of: records, and what happens to a copy beside them while it catches up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A record. Of a copy that lacks keys only the changes that it can make are kept; its name and its outcome stay.
    Record(Record),
    /// The records after this one are no part of the slice's history. Whatever they touched is missing from now on.
    Rewind {
        /// Whose.
        slice: SliceId,
        /// The last record that stays.
        to: Position,
        /// All that the copy lacks from now on.
        missing: Missing,
    },
    /// The copy begins anew: everything is missing, and its next record is the one after this position.
    Place {
        /// Of which slice.
        slice: SliceId,
        /// The keys that it keeps.
        range: KeyRange,
        /// Where the copy stands now.
        position: Position,
        /// The first record of each epoch up to there.
        history: Vec<Position>,
        /// Outcomes of operations that may still be asked about.
        outcomes: Vec<(Seq, Outcome)>,
    },
    /// Rows and bytes brought in from another copy, or taken away to make room for them. They make no record.
    Copied {
        /// Of which slice.
        slice: SliceId,
        /// In this order.
        changes: Vec<Change>,
        /// The keys that are not missing any more.
        complete: Option<KeyRange>,
    },
}

/// One change of one row or of one range of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Inserts or replaces a flare's row.
    PutFlare(FlareRow),
    /// Removes a flare with its entries, references, extended attributes, small body and locks. Its body, if any, has its own change.
    DeleteFlare(Key),
    /// Inserts or replaces the bytes of a small body (at most [`INLINE_MAX`](crate::rows::INLINE_MAX)); empty removes the row.
    PutInline {
        /// The flare.
        flare: Key,
        /// All its bytes.
        data: Bytes,
    },
    /// Inserts or replaces a directory entry.
    PutEntry {
        /// The directory.
        dir: Key,
        /// The entry.
        entry: EntryRow,
    },
    /// Removes a directory entry.
    DeleteEntry {
        /// The directory.
        dir: Key,
        /// Its name.
        name: Name,
    },
    /// Inserts or replaces a back reference.
    PutReference {
        /// The flare that is referred to.
        flare: Key,
        /// The reference.
        reference: ReferenceRow,
    },
    /// Removes the back reference that this operation made under this parent and name.
    DeleteReference {
        /// The flare that is referred to.
        flare: Key,
        /// The directory.
        parent: Key,
        /// The name in it.
        name: Name,
        /// The operation that made it.
        made_by: OpId,
    },
    /// Inserts or replaces an extended attribute.
    PutXattr {
        /// The flare.
        flare: Key,
        /// Full name.
        name: Name,
        /// Value.
        value: Bytes,
    },
    /// Removes an extended attribute.
    DeleteXattr {
        /// The flare.
        flare: Key,
        /// Full name.
        name: Name,
    },
    /// Replaces all locks of one flare; empty removes them.
    PutLocks {
        /// The flare.
        flare: Key,
        /// Its locks.
        locks: Vec<LockRow>,
    },
    /// Opens or renews a session.
    PutSession(SessionRow),
    /// Ends a session for ever.
    EndSession(SessionId),
    /// Changes bytes of a body.
    Body {
        /// Which body.
        body: BodyId,
        /// Whose it is.
        flare: Handle,
        /// How.
        change: BodyChange,
    },
    /// Inserts or replaces what is kept of a transaction. Like a session it belongs to the slice as a whole.
    PutTransaction(Box<TransactionRow>),
    /// Forgets a transaction.
    DeleteTransaction {
        /// The flare for which it was kept.
        key: Key,
        /// Which one.
        attempt: Attempt,
        /// Whether the flare drove it.
        driven: bool,
    },
    /// Gives the upper part of the slice's keys to a new slice, whose history begins with this slice's. It is the only change of its record.
    Divide(Division),
}

impl Change {
    /// The flare whose row, or what hangs on it, this changes; none for what concerns the slice as a whole.
    pub fn flare(&self) -> Option<Key> {
        match self {
            Self::PutFlare(row) => Some(row.key()),
            Self::DeleteFlare(key) => Some(*key),
            Self::PutEntry { dir, .. } | Self::DeleteEntry { dir, .. } => Some(*dir),
            Self::PutInline { flare, .. }
            | Self::PutReference { flare, .. }
            | Self::DeleteReference { flare, .. }
            | Self::PutXattr { flare, .. }
            | Self::DeleteXattr { flare, .. }
            | Self::PutLocks { flare, .. } => Some(*flare),
            Self::Body { flare, .. } => Some(flare.key),
            Self::PutSession(_)
            | Self::EndSession(_)
            | Self::PutTransaction(_)
            | Self::DeleteTransaction { .. }
            | Self::Divide(_) => None,
        }
    }
}

/// A change of a body's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyChange {
    /// Bytes at or above everything ever written to this body. They are in the body before the
    /// record is in the log, so the log does not carry them; until the body is synced their blocks have no checksum.
    Append {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Bytes below that mark. They are carried here and reach the body only when this record is on the volcano's own disk.
    Overwrite {
        /// First byte.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// Makes a range below that mark a hole, under the same rule as an overwrite.
    Zero {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Reserves space for a range. Reads are not affected.
    Reserve {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// The body is not used any more; its file goes when this record is on disk.
    Drop,
}
