//! What a slice says about itself.

use magma_common::time::Timestamp;
use magma_common::topology::Topology;

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
    }
}

impl Slice {
    /// The topology that this slice serves under.
    pub fn topology(&self) -> &Topology {
        &self.topology
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
        self.figures = Figures { started: self.figures.started, ..figures(&self.store, now.wall) };
        self.figures_taken = now;
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
