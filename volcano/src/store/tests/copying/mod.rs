//! Tests of copying slices.

mod filter;
