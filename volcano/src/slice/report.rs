//! What a slice says about itself.

use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Replica, SliceId, Topology, VolcanoId};
use serde::{Deserialize, Serialize};

use super::session::Sessions;
use super::{Identity, Now, Slice};
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

impl Slice {
    /// The topology that this slice serves under.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The epoch of the slice's members as this copy knows them.
    pub fn known_epoch(&self) -> Epoch {
        self.epoch()
    }

    /// The reign in which this copy serves, or has served last.
    pub fn reign(&self) -> Epoch {
        self.reign
    }

    /// Another volcano has told its figures.
    pub fn hear_figures(&mut self, who: VolcanoId, figures: Figures) {
        self.others.insert(who, figures);
    }

    /// The figures of the volcanos that were heard from, this one's among them.
    pub fn all_figures(&self) -> Vec<(VolcanoId, Figures)> {
        let members = self.topology.members.iter().map(|member| member.id);
        let figures = |id: VolcanoId| {
            let known = if id == self.identity.volcano { Some(&self.figures) } else { self.others.get(&id) };
            known.map(|figures| (id, figures.clone()))
        };
        members.filter_map(figures).collect()
    }

    /// Keeps a small value of the volcano's own on disk.
    pub fn keep_value(&mut self, name: &str, value: &[u8]) {
        if let Err(error) = self.store.set_meta(name, value) {
            self.trouble(error.into());
        }
    }

    /// Which slice this is, on which volcano, in which life of it.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The store's figures, at most about a second old.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(super) fn take_figures(&mut self, now: Now) {
        let started = self.figures.started;
        let copies = vec![self.copy_report(now)];
        self.figures = Figures { started, copies, ..figures(&self.store, now.wall) };
        self.figures_taken = now;
    }

    /// Says anew what its copies do; the other figures stay.
    pub fn renew_copies(&mut self, now: Now) {
        self.figures.copies = vec![self.copy_report(now)];
    }

    /// The store, to be looked at.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The sessions, to be looked at.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Requests served since the start.
    pub fn served(&self) -> u64 {
        self.served
    }

    /// Outcomes kept for retries, answers held, requests waiting for locks.
    pub fn held(&self) -> (usize, usize, usize) {
        (self.ledger.len(), self.gate.len(), self.waits.len())
    }
}
