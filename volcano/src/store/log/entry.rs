//! Entries, as they are encoded.

use magma_common::key::KeyRange;
use magma_common::proto::operation::Outcome;
use magma_common::time::Timestamp;
use magma_common::topology::{Position, Seq, SliceId};
use serde::Serialize;

use crate::missing::Missing;
use crate::record::{Change, Entry, Record};

/// An [`Entry`] whose parts lie elsewhere. It is encoded like that one.
#[derive(Clone, Copy, Debug, Serialize)]
pub(in super::super) enum EntryRef<'a> {
    Record(&'a Record),
    Rewind {
        slice: SliceId,
        to: Position,
        missing: &'a Missing,
    },
    Place {
        slice: SliceId,
        range: KeyRange,
        position: Position,
        history: &'a [Position],
        outcomes: &'a [(Seq, Outcome)],
    },
    Copied {
        slice: SliceId,
        changes: &'a [Change],
        complete: Option<KeyRange>,
    },
}

impl<'a> From<&'a Entry> for EntryRef<'a> {
    fn from(entry: &'a Entry) -> Self {
        match entry {
            Entry::Record(record) => Self::Record(record),
            Entry::Rewind { slice, to, missing } => Self::Rewind { slice: *slice, to: *to, missing },
            Entry::Place { slice, range, position, history, outcomes } => {
                Self::Place { slice: *slice, range: *range, position: *position, history, outcomes }
            }
            Entry::Copied { slice, changes, complete } => {
                Self::Copied { slice: *slice, changes, complete: *complete }
            }
        }
    }
}

impl<'a> EntryRef<'a> {
    /// Which slice it is about.
    pub(in super::super) fn slice(&self) -> SliceId {
        match self {
            Self::Record(record) => record.slice,
            Self::Rewind { slice, .. } | Self::Place { slice, .. } | Self::Copied { slice, .. } => *slice,
        }
    }

    /// What it changes.
    pub(in super::super) fn changes(&self) -> &'a [Change] {
        match self {
            Self::Record(record) => &record.changes,
            Self::Copied { changes, .. } => changes,
            Self::Rewind { .. } | Self::Place { .. } => &[],
        }
    }

    /// The time of a record.
    pub(in super::super) fn time(&self) -> Option<Timestamp> {
        match self {
            Self::Record(record) => Some(record.time),
            Self::Rewind { .. } | Self::Place { .. } | Self::Copied { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::key::Ino;
    use magma_common::proto::{OpId, SessionId};
    use magma_common::topology::Epoch;

    #[test]
    fn an_entry_is_encoded_the_same_wherever_its_parts_lie() {
        let slice = SliceId(3);
        let range = KeyRange::new(Ino(1), Ino(2)).unwrap();
        let position = Position { epoch: Epoch(5), seq: Seq(300) };
        let outcome = Outcome { id: OpId::Call(9), opcode: 2, reply: vec![1, 2].into() };
        let changes = vec![Change::EndSession(SessionId(4))];
        let record = Record {
            slice,
            epoch: position.epoch,
            seq: position.seq,
            time: Timestamp::default(),
            changes: changes.clone(),
            outcome: Some(outcome.clone()),
        };
        let entries = [
            Entry::Record(record),
            Entry::Rewind { slice, to: position, missing: Missing::all(range) },
            Entry::Place {
                slice,
                range,
                position,
                history: vec![position],
                outcomes: vec![(position.seq, outcome)],
            },
            Entry::Copied { slice, changes, complete: Some(range) },
        ];
        for entry in entries {
            let encoded = postcard::to_stdvec(&EntryRef::from(&entry)).unwrap();
            assert_eq!(encoded, postcard::to_stdvec(&entry).unwrap(), "{entry:?}");
            assert_eq!(postcard::from_bytes::<Entry>(&encoded).unwrap(), entry);
        }
    }
}
