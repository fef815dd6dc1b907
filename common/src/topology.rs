//! The topology: who is in the lava network and who serves which part of the keyspace.
//!
//! It is small, changes rarely and is versioned. The version serves routing
//! only; what fences a slice is its own [`Epoch`].

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::key::{Ino, Key, KeyRange};
use crate::stripes::StripeUnit;

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
/// Most former lines of history that are remembered.
pub const MAX_ANCESTORS: usize = 16;
/// Most volcanos that are remembered as having left.
pub const MAX_DEPARTED: usize = 64;
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

    /// It stores, and is not about to leave.
    pub fn stays(&self) -> bool {
        !self.witness && !self.leaving
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
    /// Who should serve it. Changed by a decision, not by a failure: a mirror that took over gives the slice back.
    pub owner: VolcanoId,
    /// The epoch in which that was decided.
    pub assigned: Epoch,
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
    /// The lines that this one goes on from, the last one first; at most [`MAX_ANCESTORS`], the last ones.
    pub ancestors: Vec<u64>,
    /// Raised before a slice that may have lost unsynced data serves again.
    pub loss_counter: u64,
    /// The volcanos, in the order of the ring; the first one follows the last. Witnesses are among them, and do not count.
    pub members: Vec<Member>,
    /// Who has left or was evicted, the last one first; at most [`MAX_DEPARTED`], the last ones. They do not come in again: a
    /// message that once asked for it may be on its way for long.
    pub departed: Vec<VolcanoId>,
    /// The slices, by their ranges; together they cover the keyspace once.
    pub slices: Vec<Slice>,
    /// The secret that NFS handles are signed with.
    pub handle_key: [u8; 32],
    /// How many copies every slice should have, the primary's included: 1 to [`MAX_COPIES`].
    pub copies: u8,
    /// Who votes on changes.
    pub voters: Vec<VolcanoId>,
    /// The coordinator moves slices by itself, so that all volcanos hold about the same.
    pub balancer: bool,
    /// The unit of files that are made from now on; none if they are not striped.
    pub stripes: Option<StripeUnit>,
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

    /// Takes a volcano off the list of members. Returns whether it was there.
    pub fn dismiss(&mut self, volcano: VolcanoId) -> bool {
        let before = self.members.len();
        self.members.retain(|member| member.id != volcano);
        let was_there = self.members.len() != before;
        if was_there {
            self.departed.insert(0, volcano);
            self.departed.truncate(MAX_DEPARTED);
        }
        was_there
    }

    /// The member with this id.
    pub fn member(&self, id: VolcanoId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Where to send a request about this key.
    pub fn owner_of(&self, key: &Key) -> Option<&Member> {
        self.member(self.slice_of(key)?.primary.volcano)
    }

    /// The ring: the volcanos that store and stay, in their order, beginning with this one or, if it is not among them, with the next.
    pub fn ring_from(&self, first: VolcanoId) -> impl Iterator<Item = &Member> {
        let at = self.members.iter().position(|member| member.id == first).unwrap_or(0);
        let (before, from) = self.members.split_at_checked(at).unwrap_or_default();
        from.iter().chain(before).filter(|member| member.stays())
    }

    /// Who should serve a slice: its owner or, if that one leaves, the next volcano of the ring.
    pub fn assignee(&self, slice: &Slice) -> Option<VolcanoId> {
        self.ring_from(slice.owner).next().map(|member| member.id)
    }

    /// Who should have copies of a slice, in their order: who should serve it first.
    pub fn group(&self, slice: &Slice) -> Vec<VolcanoId> {
        let copies = usize::from(self.copies.max(1));
        self.ring_from(slice.owner).take(copies).map(|member| member.id).collect()
    }

    /// The NFS write verifier: equal as long as no unsynced data may have been lost.
    pub fn write_verifier(&self) -> u64 {
        self.network.rotate_left(17) ^ self.loss_counter
    }

    /// The loss counter that a write verifier of this network was made of.
    pub fn losses_in(&self, verifier: u64) -> u64 {
        self.network.rotate_left(17) ^ verifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn member(id: u64) -> Member {
        Member {
            id: VolcanoId(id),
            boot: BootId(1 << 32),
            nickname: format!("v{id}"),
            servername: String::new(),
            address: Ipv4Addr::LOCALHOST.into(),
            port: DEFAULT_PORT,
            bandwidth: 0,
            witness: false,
            leaving: false,
        }
    }

    fn slice(owner: u64) -> Slice {
        let primary = Replica { volcano: VolcanoId(owner), boot: BootId(1 << 32) };
        Slice {
            id: SliceId(1),
            range: KeyRange::ALL,
            epoch: Epoch(1),
            reign: Epoch(1),
            owner: VolcanoId(owner),
            assigned: Epoch(1),
            primary,
            mirrors: Vec::new(),
            joining: Vec::new(),
            recalling: false,
            dividing: None,
        }
    }

    #[test]
    fn copies_belong_to_the_owner_and_those_that_follow_it_on_the_ring() {
        let members = [7, 3, 9, 5].map(member).to_vec();
        let mut topology = Topology { members, copies: 2, ..Topology::default() };
        let group = |topology: &Topology, owner| {
            topology.group(&slice(owner)).into_iter().map(|id| id.0).collect::<Vec<_>>()
        };
        assert_eq!(group(&topology, 7), [7, 3]);
        assert_eq!(group(&topology, 5), [5, 7], "the first follows the last");
        topology.members[1].witness = true;
        assert_eq!(group(&topology, 7), [7, 9], "witnesses store nothing");
        topology.members[2].leaving = true;
        assert_eq!(group(&topology, 9), [5, 7], "who leaves is followed by the next");
        assert_eq!(topology.assignee(&slice(9)), Some(VolcanoId(5)));
        topology.copies = 5;
        assert_eq!(group(&topology, 5), [5, 7], "there are no more");
        assert_eq!(Topology::default().assignee(&slice(1)), None);
    }
}
