//! The topology: who is in the lava network and who serves which part of the keyspace.
//!
//! It is small, changes rarely and is versioned. The version serves routing
//! only; what fences a slice is its own [`Epoch`].

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::key::{Ino, Key, KeyRange};

/// A volcano's ports hang together: this is the node protocol's distance from the flare protocol's.
pub const NODE_PORT_OFFSET: u16 = 1;
/// Distance of the console's port.
pub const CONSOLE_PORT_OFFSET: u16 = 2;
/// Distance of the status page's port.
pub const STATUS_PORT_OFFSET: u16 = 3;
/// Most copies of a slice.
pub const MAX_COPIES: u8 = 5;
/// Most slices of a network.
pub const MAX_SLICES: u32 = 128;
/// Copies of a slice unless told otherwise.
pub const DEFAULT_COPIES: u8 = 2;
/// The flare protocol's port unless told otherwise.
pub const DEFAULT_PORT: u16 = 12_000;

/// One life of a volcano's process. A later start of the same volcano has a greater one: the high half counts starts, the
/// low half is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u64);

/// A volcano, for as long as its folder exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolcanoId(pub u64);

/// A slice: a replica group and the range of keys that it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SliceId(pub u32);

/// The topology version in which a slice's bounds or members last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A record's place in its slice's log, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// A record's name within its slice. Positions are ordered by epoch first: of two logs that may differ, the greater position
/// is the one that a later configuration acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Under which configuration of the slice the record was made.
    pub epoch: Epoch,
    /// Its place in the slice's log.
    pub seq: Seq,
}

/// One life of one volcano, as a member of slices: a restart ends membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// Which volcano.
    pub volcano: VolcanoId,
    /// Which life of it.
    pub boot: BootId,
}

/// A volcano as the others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which volcano.
    pub id: VolcanoId,
    /// Which life of it.
    pub boot: BootId,
    /// Its short name.
    pub nickname: String,
    /// Its host name.
    pub servername: String,
    /// Where it listens.
    pub address: IpAddr,
    /// The flare protocol's port; the others follow from it.
    pub port: u16,
    /// What its link carries, in KiB/s; 0 if nobody said.
    pub bandwidth: u64,
    /// It votes and stores nothing.
    pub witness: bool,
    /// It is to give its copies away, and then to be forgotten.
    pub leaving: bool,
}

impl Member {
    /// Where clients reach it.
    pub fn flare_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Where other volcanos reach it.
    pub fn node_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port.saturating_add(NODE_PORT_OFFSET))
    }

    /// This life of it.
    pub fn replica(&self) -> Replica {
        Replica { volcano: self.id, boot: self.boot }
    }
}

/// Who keeps a range of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Its number, never used again.
    pub id: SliceId,
    /// Its keys.
    pub range: KeyRange,
    /// Fences replication; see [`Epoch`].
    pub epoch: Epoch,
    /// The epoch in which the present primary became primary. A primary keeps opens in memory: one of another reign than
    /// before knows of none.
    pub reign: Epoch,
    /// Who serves it.
    pub primary: Replica,
    /// Who has every record of it.
    pub mirrors: Vec<Replica>,
    /// Who is catching up.
    pub joining: Vec<Replica>,
    /// It may have lost records and has not asked the other slices yet: it does not serve.
    pub recalling: bool,
    /// It is being divided in two.
    pub dividing: Option<Division>,
}

/// How a slice is being divided. The range stays whole until all in-sync copies have done it on their disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Division {
    /// The first inode number that the slice gives away, with all above it.
    pub at: Ino,
    /// The slice that gets them.
    pub new: SliceId,
}

impl Slice {
    /// The copies that have every acknowledged record: the primary, then the mirrors.
    pub fn in_sync(&self) -> impl Iterator<Item = Replica> {
        std::iter::once(self.primary).chain(self.mirrors.iter().copied())
    }

    /// All copies, the joining ones last.
    pub fn copies(&self) -> impl Iterator<Item = Replica> {
        self.in_sync().chain(self.joining.iter().copied())
    }
}

/// The whole network at one version. The default is no network: version 0, network 0, nobody in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Grows with every change.
    pub version: u64,
    /// The network, chosen at its bootstrap.
    pub network: u64,
    /// The line of history; a forced eviction starts another.
    pub lineage: u64,
    /// Raised before a slice that may have lost unsynced data serves again.
    pub loss_counter: u64,
    /// The volcanos.
    pub members: Vec<Member>,
    /// The slices, by their ranges; together they cover the keyspace once.
    pub slices: Vec<Slice>,
    /// The secret that NFS handles are signed with.
    pub handle_key: [u8; 32],
    /// How many copies every slice should have, the primary's included: 1 to [`MAX_COPIES`].
    pub copies: u8,
    /// Who votes on changes.
    pub voters: Vec<VolcanoId>,
}

impl Topology {
    /// A number that no slice has had: slices do not cease to be, so all that were given are here.
    pub fn unused_slice(&self) -> Option<SliceId> {
        let known = |slice: &Slice| slice.dividing.map_or(slice.id, |division| slice.id.max(division.new));
        let highest = self.slices.iter().map(known).max().map_or(0, |id| id.0);
        highest.checked_add(1).map(SliceId)
    }

    /// Who keeps this key.
    pub fn slice_of(&self, key: &Key) -> Option<&Slice> {
        self.slices.iter().find(|slice| slice.range.contains(key))
    }

    /// The member with this id.
    pub fn member(&self, id: VolcanoId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Where to send a request about this key.
    pub fn owner_of(&self, key: &Key) -> Option<&Member> {
        self.member(self.slice_of(key)?.primary.volcano)
    }

    /// The NFS write verifier: equal as long as no unsynced data may have been lost.
    pub fn write_verifier(&self) -> u64 {
        self.network.rotate_left(17) ^ self.loss_counter
    }
}
