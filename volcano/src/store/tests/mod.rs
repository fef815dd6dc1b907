//! Tests of the store as a whole.

mod behaviour;
mod copies;
mod copying;
mod crash;
mod dividing;
mod making;
mod model;
mod standing;
mod whole;
