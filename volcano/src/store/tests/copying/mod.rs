//! Tests of copying slices.

mod behaviour;
mod crash;
mod filter;
mod random;
mod source;
mod world;
