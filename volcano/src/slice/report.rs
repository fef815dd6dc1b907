//! What a slice says about itself.

use magma_common::time::Timestamp;

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
