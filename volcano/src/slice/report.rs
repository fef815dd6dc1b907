//! What a slice says about itself.

use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Replica, SliceId, VolcanoId};
use serde::{Deserialize, Serialize};

use crate::coordinator::Load;
use crate::dht::{Figures, load_of_this_machine};
use crate::store::Store;
use crate::view::View;

/// Figures of the moment.
pub fn figures(store: &Store, started: Timestamp) -> Figures {
    let space = store.space();
    Figures {
        load: load_of_this_machine(),
        keys: space.flares,
        bytes: space.bytes,
        total: space.total,
        free: space.available,
        started,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        copies: Vec::new(),
        coordinates: false,
    }
}

/// What a volcano says of its copy of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReport {
    /// Which slice.
    pub slice: SliceId,
    /// Under which epoch this was true.
    pub epoch: Epoch,
    /// What it holds, as far as that was counted.
    pub load: Option<Load>,
    /// What the copy does.
    pub doing: Doing,
}

/// What a copy of a slice does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doing {
    /// It has no role.
    Nothing,
    /// Everybody has started anew, and these are waited for.
    Waiting(Vec<VolcanoId>),
    /// It is the primary and brings the others to its position before it serves.
    Preparing,
    /// It is a mirror.
    Mirroring,
    /// It is catching up.
    Joining,
    /// It serves the slice.
    Serving {
        /// Since when there are fewer in-sync copies than there should be.
        degraded: Option<Timestamp>,
        /// The other copies.
        others: Vec<OtherCopy>,
    },
}

/// Another copy, as the primary sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherCopy {
    /// Whose.
    pub copy: Replica,
    /// It has everything that was acknowledged.
    pub in_sync: bool,
    /// Records that it lacks.
    pub behind: u64,
    /// Keys that it lacks, in millionths of the slice's keyspace.
    pub missing_millionths: u32,
    /// When it will have everything, in seconds, as far as can be told.
    pub eta_seconds: Option<u64>,
    /// How long it has not been heard from, in milliseconds.
    pub silent_ms: u64,
}
