//! What a record means to a copy that lacks keys.
//!
//! Nothing of a missing key is touched: a part that comes later is newer than the record and brings what the record did. Of a
//! flare that comes in several parts the bytes of its body come first, in ascending order. Up to where they have come records
//! change them; above, the parts to come will be newer. Then comes its row, and from then on every change of it applies: what a
//! later page puts is newer, and what it does not put because it was deleted has been deleted here, too, or never was here.
//! The same holds from the beginning for sessions and transactions, whether they come in one part or in several.

use bytes::Bytes;
use magma_common::handle::Handle;
use magma_common::key::Ino;

use crate::record::{BodyChange, Change};
use crate::rows::BodyId;

/// How much is here of the flare that comes in several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partial {
    /// Of what belongs to the slice as a whole a part, and nothing of the flare with this inode number.
    Whole {
        /// The first of the slice's range.
        ino: Ino,
    },
    /// The bytes of its body below a mark, and nothing else.
    Bytes {
        /// Which flare.
        flare: Handle,
        /// Its body.
        body: BodyId,
        /// The first byte that is not here.
        upto: u64,
    },
    /// Its body and its row; of what hangs on the row a part.
    Rows {
        /// Which flare.
        flare: Handle,
    },
}

impl Partial {
    /// The inode number of the flare.
    pub fn ino(&self) -> Ino {
        match self {
            Self::Whole { ino } => *ino,
            Self::Bytes { flare, .. } | Self::Rows { flare } => flare.ino(),
        }
    }
}

/// What a copy makes of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// The changes that apply, in their order.
    pub changes: Vec<Change>,
    /// The bytes of the appends among them.
    pub appended: Vec<Bytes>,
    /// How much of the partial flare is here now; none if the record ended it. Then a part that goes on with it has no place any more.
    pub partial: Option<Partial>,
}

/// The part of a record that applies to a copy which `lacks` keys. `appended` are the bytes of the record's appends, in their order.
pub fn filter(
    changes: Vec<Change>,
    appended: Vec<Bytes>,
    lacks: impl Fn(Ino) -> bool,
    partial: Option<Partial>,
) -> Filtered {
    let mut appended = appended.into_iter();
    let mut filtered = Filtered { partial, ..Filtered::default() };
    for change in changes {
        let is_append = matches!(change, Change::Body { change: BodyChange::Append { .. }, .. });
        let bytes = if is_append { appended.next() } else { None };
        let applies = match subject(&change) {
            Some(ino) if lacks(ino) => filtered.of_missing(ino, change),
            _ => Some(change),
        };
        if let Some(change) = applies {
            filtered.appended.extend(bytes.map(|bytes| clip_bytes(&change, bytes)));
            filtered.changes.push(change);
        }
    }
    filtered
}

/// The inode number of the flare that a change is about; none for what concerns the slice as a whole, which every copy has.
fn subject(change: &Change) -> Option<Ino> {
    Some(match change {
        Change::PutFlare(row) => row.handle.ino(),
        Change::DeleteFlare(flare)
        | Change::PutInline { flare, .. }
        | Change::PutEntry { dir: flare, .. }
        | Change::DeleteEntry { dir: flare, .. }
        | Change::PutReference { flare, .. }
        | Change::DeleteReference { flare, .. }
        | Change::PutXattr { flare, .. }
        | Change::DeleteXattr { flare, .. }
        | Change::PutLocks { flare, .. } => flare.ino(),
        Change::Body { flare, .. } => flare.ino(),
        Change::PutSession(_)
        | Change::EndSession(_)
        | Change::PutTransaction(_)
        | Change::DeleteTransaction { .. }
        | Change::Divide(_) => return None,
    })
}

impl Filtered {
    /// What is left of a change of a flare that is missing, wholly or in part.
    fn of_missing(&mut self, ino: Ino, change: Change) -> Option<Change> {
        match self.partial? {
            partial if partial.ino() != ino => None,
            Partial::Whole { .. } => None,
            Partial::Bytes { flare, body, upto } => match change {
                Change::Body { body: of, flare, change } if of == body => {
                    if matches!(change, BodyChange::Drop) {
                        self.partial = None;
                    }
                    clip(change, upto).map(|change| Change::Body { body, flare, change })
                }
                Change::DeleteFlare(key) if key == flare.key => {
                    self.partial = None;
                    None
                }
                _ => None,
            },
            Partial::Rows { flare } => {
                let ends = match &change {
                    Change::DeleteFlare(key) => *key == flare.key,
                    Change::PutFlare(row) if row.handle != flare => {
                        // another flare under this number: the one that was coming is gone, and nothing of this one is here
                        self.partial = None;
                        return None;
                    }
                    _ => false,
                };
                if ends {
                    self.partial = None;
                }
                Some(change)
            }
        }
    }
}

/// The part of a body's change that lies below `upto`.
fn clip(change: BodyChange, upto: u64) -> Option<BodyChange> {
    let left = |offset: u64, length: u64| {
        upto.checked_sub(offset).filter(|&left| left > 0).map(|left| left.min(length))
    };
    Some(match change {
        BodyChange::Append { offset, length } => BodyChange::Append { offset, length: left(offset, length)? },
        BodyChange::Overwrite { offset, mut data } => {
            let left = left(offset, data.len() as u64)?;
            data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            BodyChange::Overwrite { offset, data }
        }
        BodyChange::Zero { offset, length } => BodyChange::Zero { offset, length: left(offset, length)? },
        BodyChange::Reserve { offset, length } => {
            BodyChange::Reserve { offset, length: left(offset, length)? }
        }
        BodyChange::Drop => BodyChange::Drop,
    })
}

/// The bytes of an append that may have been clipped.
fn clip_bytes(change: &Change, mut bytes: Bytes) -> Bytes {
    if let Change::Body { change: BodyChange::Append { length, .. }, .. } = change {
        bytes.truncate(usize::try_from(*length).unwrap_or(usize::MAX));
    }
    bytes
}
