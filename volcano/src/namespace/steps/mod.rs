//! What one participant of an operation does to its own flare.
//!
//! Each step adds the changes of one flare's slice to the plan, and relies on nothing but that flare.

pub(super) mod carry_out;
pub(super) mod child;
pub(super) mod entry;
pub(super) mod reference;
mod stripe;
