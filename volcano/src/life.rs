//! The beginning of a life of a volcano: from what its folder holds to a [`Node`] that has no role yet.
//!
//! A volcano is the same one as long as its folder exists; each start is a new life of it, with a greater boot id, that is
//! on disk before anybody hears of it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use magma_common::key::{Ino, KeyRange};
use magma_common::stripes::StripeUnit;
use magma_common::topology::{
    BootId, DEFAULT_COPIES, Epoch, Member, Replica, Slice as SliceOfRing, SliceId, Topology, VolcanoId,
};

use crate::coordinator::{self, Coordinator, FileVault};
use crate::node::{Node, TOPOLOGY};
use crate::slice::{Now, Slices};
use crate::store::{Disk, OpenError, OpenOptions, Opened, Store, StoreError};

/// Under this name the store keeps who the volcano is, and in which life it was last.
const IDENTITY: &str = "identity";
/// The slice with the lowest keys of a network that was just founded; the only one unless it is told otherwise.
pub const FIRST_SLICE: SliceId = SliceId(1);

/// What the volcano does with its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The folder is empty: it founds a network.
    Found {
        /// Into so many slices the keyspace is cut, into one at least.
        slices: u32,
        /// The unit of its files, if they are striped.
        stripes: Option<StripeUnit>,
    },
    /// It asks at these node ports to be taken in. The folder is empty, or is that of an attempt that was not finished: then it
    /// goes on as the same volcano, which may have been taken in without knowing it.
    Join(Vec<SocketAddr>),
    /// It goes on as what the folder says.
    Resume,
}

/// How a volcano wants to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its short name.
    pub nickname: String,
    /// Its host name.
    pub servername: String,
    /// Where it listens.
    pub address: IpAddr,
    /// The flare protocol's port.
    pub port: u16,
    /// What its link carries, in KiB/s; 0 if nobody said.
    pub bandwidth: u64,
    /// It votes and stores nothing.
    pub witness: bool,
}

/// Why a life cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator's state.
    #[error(transparent)]
    Coordinator(#[from] coordinator::OpenError),
    /// What the store keeps of the volcano does not decode.
    #[error(
        "what the store says about {0} is damaged; restore the folder from a copy, or let the volcano join anew with an empty one"
    )]
    Damaged(&'static str),
}

/// Begins a life. `random` makes sources of random numbers: for the coordinator's time-outs, and for births, bodies and sessions.
pub fn begin(
    folder: &Path,
    disk: Arc<dyn Disk>,
    options: OpenOptions,
    origin: Origin,
    profile: Profile,
    mut random: impl FnMut() -> Box<dyn FnMut() -> u64>,
    now: Now,
) -> Result<Node, LifeError> {
    let create = match origin {
        Origin::Found { .. } => true,
        Origin::Join(_) => !Store::is_in(folder, &disk)?,
        Origin::Resume => false,
    };
    let options = OpenOptions { create, ..options };
    let (mut store, opened) = Store::open(folder, Arc::clone(&disk), options)?;
    let own = profile.member(begin_life(&mut store, &mut random())?);
    let vault = Box::new(FileVault::new(disk, folder.to_path_buf()));
    vault.reserve_early();
    let (topology, coordinator, contacts) = match origin {
        Origin::Found { slices, stripes } => {
            let topology = Topology { stripes, ..new_network(&own, slices, &mut random()) };
            let coordinator = Coordinator::found(own.id, topology.clone(), vault, random(), now.monotonic)?;
            (topology, coordinator, Vec::new())
        }
        Origin::Join(contacts) => {
            let coordinator = Coordinator::open(own.id, vault, random(), now.monotonic)?;
            (known_topology(&store, &coordinator)?, coordinator, contacts)
        }
        Origin::Resume => {
            let coordinator = Coordinator::open(own.id, vault, random(), now.monotonic)?;
            (known_topology(&store, &coordinator)?, coordinator, Vec::new())
        }
    };
    announce(&opened, folder, &topology);
    let slices = Slices::new(own.replica(), store, opened, random(), now);
    Ok(Node::new(own, topology, coordinator, slices, contacts, now))
}

impl Profile {
    fn member(self, life: Replica) -> Member {
        let Self { nickname, servername, address, port, bandwidth, witness } = self;
        let Replica { volcano: id, boot } = life;
        Member { id, boot, nickname, servername, address, port, bandwidth, witness, leaving: false }
    }
}

/// Who this volcano is, for as long as its folder exists, and in which life.
fn begin_life(store: &mut Store, random: &mut dyn FnMut() -> u64) -> Result<Replica, LifeError> {
    let (volcano, lives) = match store.meta(IDENTITY) {
        Some(bytes) => {
            let last: Replica =
                postcard::from_bytes(&bytes).map_err(|_| LifeError::Damaged("this volcano"))?;
            (last.volcano, last.boot.0 >> 32)
        }
        None => (VolcanoId(random().max(1)), 0),
    };
    let life = Replica { volcano, boot: BootId((lives + 1) << 32 | random() >> 32) };
    let encoded = postcard::to_stdvec(&life).map_err(|_| LifeError::Damaged("this volcano"))?;
    store.set_meta(IDENTITY, &encoded)?;
    Ok(life)
}

/// The newest topology that this volcano knew in its former life.
fn known_topology(store: &Store, coordinator: &Coordinator) -> Result<Topology, LifeError> {
    let stored = match store.meta(TOPOLOGY) {
        Some(bytes) => postcard::from_bytes(&bytes).map_err(|_| LifeError::Damaged("the topology"))?,
        None => Topology::default(),
    };
    Ok(match coordinator.topology() {
        Some(agreed) if agreed.version > stored.version => agreed.clone(),
        _ => stored,
    })
}

/// A ring in which this volcano is alone and serves everything.
fn new_network(own: &Member, slices: u32, random: &mut dyn FnMut() -> u64) -> Topology {
    let mut handle_key = [0; 32];
    for bytes in handle_key.as_chunks_mut::<8>().0 {
        *bytes = random().to_le_bytes();
    }
    let slice = |(id, range)| SliceOfRing {
        id,
        range,
        epoch: Epoch(1),
        reign: Epoch(1),
        owner: own.id,
        assigned: Epoch(1),
        primary: own.replica(),
        mirrors: Vec::new(),
        joining: Vec::new(),
        recalling: false,
        dividing: None,
    };
    Topology {
        version: 1,
        network: random().max(1),
        lineage: random(),
        loss_counter: 0,
        departed: Vec::new(),
        members: vec![own.clone()],
        slices: (FIRST_SLICE.0..).map(SliceId).zip(cut_evenly(slices)).map(slice).collect(),
        ancestors: Vec::new(),
        handle_key,
        copies: DEFAULT_COPIES,
        voters: vec![own.id],
        balancer: false,
        stripes: None,
    }
}

/// The keyspace in so many parts of about the same size, one at least.
fn cut_evenly(parts: u32) -> impl Iterator<Item = KeyRange> {
    let parts = u128::from(parts.max(1));
    // Below 2^64 for all parts but the last, which ends with the keyspace.
    let start = move |part: u128| u64::try_from((part << 64) / parts).ok();
    (0..parts).filter_map(move |part| {
        let stop = start(part + 1).map_or(u64::MAX, |next| next - 1);
        KeyRange::new(Ino(start(part)?), Ino(stop))
    })
}

fn announce(opened: &Opened, folder: &Path, topology: &Topology) {
    tracing::info!(
        target: "magma::boot",
        folder = %folder.display(), flares = opened.flares, replayed = opened.replayed, clean = opened.clean,
        topology = topology.version, "the store is open"
    );
    if opened.may_have_lost_unsynced() {
        tracing::warn!(
            target: "magma::boot",
            "the machine stopped without warning: what was written here but not synced may be gone, unless another copy has it"
        );
    }
}
