//! Tests of copying slices.

mod crash;
mod filter;
mod random;
mod source;
mod world;
