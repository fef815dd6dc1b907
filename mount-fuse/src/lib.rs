//! `mount.magma`: the FUSE client.

mod caller;
mod core;
mod filesystem;
mod held;
mod inode;
mod interrupt;
mod open;
mod operation;
mod reply;
mod sync;

pub use crate::core::{Caching, MAX_TTL};
