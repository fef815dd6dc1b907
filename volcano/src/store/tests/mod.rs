//! Tests of the store as a whole.

mod behaviour;
mod copying;
mod crash;
mod making;
mod model;
