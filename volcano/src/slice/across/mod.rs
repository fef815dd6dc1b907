//! Operations across slices: how their parts come together. `docs/ACROSS.md` tells it as a whole.

pub mod facts;
pub(crate) mod view;
