//! The topology: who is in the lava network and who serves which part of the keyspace.
//!
//! It is small, changes rarely and is versioned. The version serves routing
//! only; what fences a slice is its own [`Epoch`].

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyRange};

/// A volcano's ports hang together: this is the node protocol's distance from the flare protocol's.
pub const NODE_PORT_OFFSET: u16 = 1;
/// Distance of the console's port.
pub const CONSOLE_PORT_OFFSET: u16 = 2;
/// Distance of the status page's port.
pub const STATUS_PORT_OFFSET: u16 = 3;
/// The flare protocol's port unless told otherwise.
pub const DEFAULT_PORT: u16 = 12_000;

/// One life of a volcano's process: random, new with every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u64);

/// A volcano, for as long as its folder exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolcanoId(pub u64);

/// A slice: a replica group and the range of keys that it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SliceId(pub u32);

/// The topology version in which a slice's bounds or members last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A record's place in its slice's log, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

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
}

impl Member {
    /// Where clients reach it.
    pub fn flare_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
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
    /// Who serves it.
    pub primary: VolcanoId,
    /// Who has every record of it.
    pub mirrors: Vec<VolcanoId>,
    /// Who is catching up.
    pub joining: Vec<VolcanoId>,
}

/// The whole network at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Topology {
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
        self.member(self.slice_of(key)?.primary)
    }

    /// The NFS write verifier: equal as long as no unsynced data may have been lost.
    pub fn write_verifier(&self) -> u64 {
        self.network.rotate_left(17) ^ self.loss_counter
    }
}
