//! What volcanos say to each other (the node protocol, UDP port 12001).
//!
//! Every message stands for itself: it may be lost, repeated, or overtake another one, and nothing worse than delay comes of
//! it. What needs an answer is said again until the answer has come. Messages about a slice carry the epoch under which they
//! were sent, and are ignored under another one.

use bytes::Bytes;
use magma_common::key::{Key, KeyRange};
use magma_common::proto::operation::Outcome;
use magma_common::topology::{BootId, Epoch, Member, Position, Replica, Seq, SliceId, Topology, VolcanoId};
use serde::{Deserialize, Serialize};

use crate::coordinator::{Change as TopologyChange, Refusal};
use crate::dht::Figures;
use crate::missing::Missing;
use crate::record::{Change, Record};
use crate::rows::BodyId;
use crate::slice::across::message::AcrossMessage;

/// A message with its sender and its addressee.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender's network; 0 while it asks to be taken in.
    pub network: u64,
    /// The sender's line of history. Another one than the receiver's is refused.
    pub lineage: u64,
    /// Who sends, in this life.
    pub from: Replica,
    /// For whom; nobody in particular while the sender knows only an address.
    pub to: Option<VolcanoId>,
    /// For which life of it, where that matters.
    pub boot: Option<BootId>,
    /// The newest topology that the sender knows.
    pub version: u64,
    /// What is said.
    pub message: Message,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// A sign of life, some times a second to everybody.
    Alive(Box<Figures>),
    /// The newest topology, to one who has an older one.
    Topology(Box<Topology>),
    /// Asks for the newest topology.
    FetchTopology,
    /// A message of the consensus among the voters, encoded by its library.
    Consensus(Bytes),
    /// Asks the coordinator for a change. That it was made is seen from the topology.
    Propose(TopologyChange),
    /// The coordinator will not make that change, and why; for the one who asked.
    Refused(TopologyChange, Refusal),
    /// A volcano without a network asks to be taken in.
    Join(Box<Member>),
    /// To the one that asked to be taken in: it is not, and why.
    NotTaken(String),
    /// The whole network stops, in order.
    Shutdown,
    /// About a slice.
    Slice(SliceId, Epoch, SliceMessage),
    /// About an operation across slices, to the slice of this flare.
    Across(Key, Box<AcrossMessage>),
}

/// What the copies of a slice say to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SliceMessage {
    /// The primary to a copy: records that follow each other, none for a beacon alone.
    Records {
        /// Names the moment at which this was sent, for the lease; grows with each message to this copy. 0 asks for an answer,
        /// but for no promise.
        beacon: u64,
        /// The position of the record before the first one; the copy must stand there, or beyond it on the same history.
        after: Position,
        /// The records.
        records: Vec<SentRecord>,
    },
    /// A copy to the primary: how far it has come.
    Standing {
        /// The beacon that this answers.
        beacon: u64,
        /// Its last record. It and all before it survive the death of its process.
        position: Position,
        /// All syncs up to this number are done.
        synced: u64,
        /// It lacks parts of the slice, or has parts that it must not use.
        incomplete: bool,
        /// The number of the last [`Refresh`](Self::Refresh) that it has taken.
        refreshed: u64,
        /// Bytes that it can still store.
        space: u64,
    },
    /// The primary to a copy: everything up to here must be on disk, and these bodies.
    Sync {
        /// Counts these messages. Each carries what the earlier ones asked for, too, as long as they are not answered.
        number: u64,
        /// The last record.
        through: Seq,
        /// The bodies; `None` for all.
        bodies: Option<Vec<BodyId>>,
    },
    /// The primary asks a copy for [`Stand`](Self::Stand).
    WhereAreYou {
        /// Names the moment at which this was sent, for the lease.
        beacon: u64,
    },
    /// A copy's whole standing, for the primary that it follows or, after all have started anew, for the others of its group.
    Stand(Box<Stand>),
    /// The primary to a joining copy: forget the records after this one, and mark what they touched as missing.
    Rewind {
        /// A copy that has seen a later number ignores this.
        beacon: u64,
        /// The last record that both have.
        to: Position,
    },
    /// The primary to a joining copy: forget the whole history and mark everything as missing. The copy goes on from this position.
    Place {
        /// A copy that has seen a later number ignores this.
        beacon: u64,
        /// The primary's position.
        position: Position,
        /// The primary's history up to there.
        history: Vec<Position>,
        /// Outcomes of operations that may still be asked about.
        outcomes: Vec<(Seq, Outcome)>,
    },
    /// The primary to a copy that stands at `at` exactly: a part of the slice as it is there.
    Refresh {
        /// Counts these messages of this primary.
        number: u64,
        /// The position at which this is true.
        at: Position,
        /// The part.
        part: Box<Part>,
    },
    /// The primary, which hears nobody, to a mirror: it does without the promises not to take over that were made up to a beacon. To be
    /// answered like a beacon that asks for none.
    Released {
        /// The newest beacon that it has sent to anybody.
        upto: u64,
    },
}

/// A record on its way, with the bytes that its appends have put into bodies, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SentRecord {
    /// The record.
    pub record: Record,
    /// The bytes of its appends.
    pub appended: Vec<Bytes>,
}

/// What a copy has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// Its last record.
    pub position: Position,
    /// The first record of each epoch that it knows of, ascending; old ones may be left out.
    pub history: Vec<Position>,
    /// What it lacks of the slice.
    pub missing: Missing,
    /// Its last stop may have cost it what was not on disk.
    pub may_have_lost: bool,
    /// Bytes that it has records of may be missing from its bodies: other copies may differ from it.
    pub is_doubtful: bool,
}

/// A part of a slice as it is at some position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The keys that it is about.
    pub range: KeyRange,
    /// Whether it begins with the first bytes of the range. Then everything that the copy has there goes first.
    pub first: bool,
    /// Whether this completes the range.
    pub last: bool,
    /// Puts of rows and of bytes.
    pub changes: Vec<Change>,
    /// The bytes of the appends among them.
    pub appended: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `docs/NODE-PROTOCOL.md`: the rows `| number | name | ...` of the table that begins with this name.
    fn documented(first: &str) -> Vec<(u8, &'static str)> {
        let document = include_str!("../../../docs/NODE-PROTOCOL.md");
        let start = format!("| 0 | {first} |");
        let rows = document
            .lines()
            .skip_while(|line| !line.starts_with(&start))
            .take_while(|line| line.starts_with('|'));
        let row = |line: &'static str| {
            let mut cells = line.split(" | ");
            let number = cells.next()?.trim_start_matches("| ").parse().ok()?;
            Some((number, cells.next()?))
        };
        rows.map(|line| row(line).unwrap()).collect()
    }

    fn encoded<T: Serialize + std::fmt::Debug>(messages: &[T]) -> Vec<(u8, String)> {
        let one = |message: &T| {
            let debug = format!("{message:?}");
            let name = debug.split(|letter: char| !letter.is_alphanumeric()).next().unwrap().to_owned();
            (postcard::to_stdvec(message).unwrap()[0], name)
        };
        messages.iter().map(one).collect()
    }

    fn check<T: Serialize + std::fmt::Debug>(messages: &[T]) {
        let encoded = encoded(messages);
        let documented = documented(&encoded[0].1);
        let encoded: Vec<_> = encoded.iter().map(|(number, name)| (*number, name.as_str())).collect();
        assert_eq!(encoded, documented);
    }

    #[test]
    fn messages_have_the_numbers_of_the_document() {
        let member = Member {
            id: VolcanoId(1),
            boot: BootId(1),
            nickname: String::new(),
            servername: String::new(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            port: 0,
            bandwidth: 0,
            witness: false,
            leaving: false,
        };
        let (epoch, at) = (Epoch(0), Position::default());
        let key = magma_common::handle::Handle::root().key;
        let attempt = crate::transaction::Attempt { driver: key, reign: epoch, number: 0 };
        check(&[
            Message::Alive(Box::default()),
            Message::Topology(Box::default()),
            Message::FetchTopology,
            Message::Consensus(Bytes::new()),
            Message::Propose(TopologyChange::Copies(1)),
            Message::Refused(TopologyChange::Copies(1), Refusal::Stale),
            Message::Join(Box::new(member)),
            Message::NotTaken(String::new()),
            Message::Shutdown,
            Message::Slice(SliceId(1), epoch, SliceMessage::WhereAreYou { beacon: 0 }),
            Message::Across(key, Box::new(AcrossMessage::Dead { attempt, key })),
        ]);
        let part = Part { range: KeyRange::ALL, first: true, last: true, changes: vec![], appended: vec![] };
        check(&[
            SliceMessage::Records { beacon: 0, after: at, records: vec![] },
            SliceMessage::Standing {
                beacon: 0,
                position: at,
                synced: 0,
                incomplete: false,
                refreshed: 0,
                space: 0,
            },
            SliceMessage::Sync { number: 0, through: Seq(0), bodies: None },
            SliceMessage::WhereAreYou { beacon: 0 },
            SliceMessage::Stand(Box::default()),
            SliceMessage::Rewind { beacon: 0, to: at },
            SliceMessage::Place { beacon: 0, position: at, history: vec![], outcomes: vec![] },
            SliceMessage::Refresh { number: 0, at, part: Box::new(part) },
            SliceMessage::Released { upto: 0 },
        ]);
    }
}
