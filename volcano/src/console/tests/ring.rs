//! Networks as their consoles see them.

use std::sync::Arc;
use std::time::Duration;

use magma_common::key::KeyRange;
use magma_common::time::Timestamp;
use magma_common::topology::{BootId, Epoch, Member, Replica, Slice, SliceId, Topology, VolcanoId};

use crate::console::admin::{Lava, SliceFigures};
use crate::coordinator::Load;
use crate::dht::Figures;
use crate::slice::report::{CopyReport, Doing, OtherCopy};

const NICKNAMES: [&str; 5] = ["wallace", "gromit", "shaun", "feathers", "preston"];
const NOW: i64 = 1_795_409_333;

pub(in crate::console) fn life(id: u64) -> Replica {
    Replica { volcano: VolcanoId(id), boot: BootId(2 << 32) }
}

/// So many volcanos with these copies; the first is asked, serves, coordinates and has the only vote.
pub(in crate::console) fn ring(volcanos: u64, copies: &[u64]) -> Lava {
    let members: Vec<Member> = (1..=volcanos).map(member).collect();
    let [primary, mirrors @ ..] = copies else { panic!("no copies") };
    let slice = Slice {
        id: SliceId(1),
        range: KeyRange::ALL,
        epoch: Epoch(1),
        reign: Epoch(1),
        owner: VolcanoId(*primary),
        assigned: Epoch(1),
        primary: life(*primary),
        mirrors: mirrors.iter().copied().map(life).collect(),
        joining: Vec::new(),
        recalling: false,
        dividing: None,
    };
    let topology = Topology {
        version: 1,
        network: 0xabc,
        lineage: 1,
        members,
        slices: vec![slice],
        copies: u8::try_from(copies.len()).unwrap(),
        voters: vec![VolcanoId(1)],
        ..Topology::default()
    };
    let doing = |id| {
        if id == *primary {
            Doing::Serving { degraded: None, others: Vec::new() }
        } else if mirrors.contains(&id) {
            Doing::Mirroring
        } else {
            Doing::Nothing
        }
    };
    Lava {
        topology: Arc::new(topology),
        volcanos: (1..=volcanos).map(|id| (VolcanoId(id), figures(doing(id)))).collect(),
        slices: vec![SliceFigures { slice: SliceId(1), keys: 4, bytes: 100 }],
        own: VolcanoId(1),
        silences: (2..=volcanos).map(|id| (VolcanoId(id), Duration::from_millis(300))).collect(),
        leader: Some(VolcanoId(1)),
        now: Timestamp::new(NOW, 0).unwrap(),
    }
}

fn member(id: u64) -> Member {
    let nickname = NICKNAMES[id as usize - 1];
    Member {
        id: VolcanoId(id),
        boot: life(id).boot,
        nickname: nickname.to_owned(),
        servername: format!("{nickname}.intranet"),
        address: format!("127.0.0.{id}").parse().unwrap(),
        port: 12000,
        bandwidth: 0,
        witness: false,
        leaving: false,
    }
}

fn figures(doing: Doing) -> Figures {
    Figures {
        load: 0.25,
        keys: 4,
        bytes: 100,
        total: 1000,
        free: 900,
        version: "0.1.0".to_owned(),
        copies: vec![CopyReport {
            slice: SliceId(1),
            epoch: Epoch(1),
            load: Some(Load { keys: 4, bytes: 100 }),
            doing,
        }],
        ..Figures::default()
    }
}

impl Lava {
    pub(in crate::console) fn change(mut self, change: impl FnOnce(&mut Topology)) -> Self {
        change(Arc::make_mut(&mut self.topology));
        self
    }

    pub(in crate::console) fn change_member(self, id: u64, change: impl FnOnce(&mut Member)) -> Self {
        self.change(|topology| change(topology.members.iter_mut().find(|member| member.id.0 == id).unwrap()))
    }

    pub(in crate::console) fn voters(self, voters: &[u64]) -> Self {
        self.change(|topology| topology.voters = voters.iter().copied().map(VolcanoId).collect())
    }

    pub(in crate::console) fn says(mut self, id: u64, doing: Doing) -> Self {
        let (_, figures) = self.volcanos.iter_mut().find(|(volcano, _)| volcano.0 == id).unwrap();
        figures.copies[0].doing = doing;
        self
    }

    pub(in crate::console) fn silent(mut self, id: u64, seconds: u64) -> Self {
        let (_, silence) = self.silences.iter_mut().find(|(volcano, _)| volcano.0 == id).unwrap();
        *silence = Duration::from_secs(seconds);
        self
    }

    pub(in crate::console) fn asked(mut self, id: u64) -> Self {
        let own = std::mem::replace(&mut self.own, VolcanoId(id));
        self.silences.retain(|(other, _)| other.0 != id);
        self.silences.push((own, Duration::ZERO));
        self
    }

    /// Volcano `id` catches up.
    pub(in crate::console) fn joining(
        self,
        id: u64,
        behind: u64,
        missing_millionths: u32,
        eta: Option<u64>,
    ) -> Self {
        let other = OtherCopy {
            copy: life(id),
            in_sync: false,
            behind,
            missing_millionths,
            eta_seconds: eta,
            silent_ms: 100,
        };
        let degraded = Some(Timestamp::new(NOW - 75, 0).unwrap());
        self.change(|topology| topology.slices[0].joining.push(life(id)))
            .says(1, Doing::Serving { degraded, others: vec![other] })
    }
}
