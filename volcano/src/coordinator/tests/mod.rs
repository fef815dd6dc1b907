//! Coordinators in one process: a network that loses, repeats and reorders, volcanos that crash and come back.

mod agreement;
mod damage;
mod network;
mod voting;

use magma_common::key::KeyRange;
use magma_common::topology::{BootId, Epoch, Member, Replica, Slice, SliceId, Topology, VolcanoId};

use super::Change;

pub(super) fn member(id: u64) -> Member {
    Member {
        id: VolcanoId(id),
        boot: BootId(1),
        nickname: format!("volcano{id}"),
        servername: format!("host{id}"),
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        port: 12_000,
        bandwidth: 0,
        witness: false,
        leaving: false,
    }
}

pub(super) fn enter(id: u64) -> Change {
    Change::Enter(Box::new(member(id)), None)
}

pub(super) fn life(id: u64, boot: u64) -> Replica {
    Replica { volcano: VolcanoId(id), boot: BootId(boot) }
}

/// One volcano with id 1 that keeps everything.
pub(super) fn alone() -> Topology {
    Topology {
        version: 1,
        network: 7,
        lineage: 7,
        loss_counter: 0,
        departed: Vec::new(),
        members: vec![member(1)],
        slices: vec![Slice {
            id: SliceId(1),
            range: KeyRange::ALL,
            epoch: Epoch(1),
            reign: Epoch(1),
            owner: life(1, 1).volcano,
            assigned: Epoch(1),
            primary: life(1, 1),
            mirrors: vec![],
            joining: vec![],
            recalling: false,
            dividing: None,
        }],
        ancestors: Vec::new(),
        handle_key: [0; 32],
        copies: 2,
        voters: vec![VolcanoId(1)],
        balancer: false,
        stripes: None,
    }
}
