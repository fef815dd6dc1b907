//! Tests of the store as a whole.

mod behaviour;
mod crash;
mod making;
mod model;
