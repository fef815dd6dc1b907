//! The coordinator: agrees with the other voters on the topology.

mod change;

pub use change::{Change, Refusal, SliceChange};
