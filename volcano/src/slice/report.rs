//! What a slice says about itself.

use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Topology, VolcanoId};

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

    /// The epoch of the slice's members as this copy knows them.
    pub fn known_epoch(&self) -> Epoch {
        self.epoch()
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
