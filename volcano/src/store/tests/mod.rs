//! Tests of the store as a whole.

mod behaviour;
mod copying;
mod copies;
mod crash;
mod making;
mod model;
mod standing;
