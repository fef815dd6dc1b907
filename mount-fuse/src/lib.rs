//! `mount.magma`: the FUSE client.
//!
//! Requests of the kernel become operations of the flare protocol: `filesystem` takes them in, `operation` does
//! them, `reply` sends the outcome back. What the kernel holds is kept in `inode` (numbers it may name), `open`
//! (files and directories it has open) and `held` (locks). `caller` finds out who asks, `interrupt` lets go of callers
//! that are being killed. [`run_mount`] puts it together; `cli`, `options`, `source` and `background` are the program
//! around it.
//!
//! Permissions are checked twice: by the kernel, whose cached names and attributes would otherwise let anybody
//! through, and by the volcano, which decides. Nothing is written behind: a write is answered when the volcano has
//! it, so each mount sees another's writes as soon as it opens the file.

pub mod background;
mod caller;
pub mod cli;
mod core;
mod filesystem;
mod held;
mod inode;
mod interrupt;
mod kernel_mount;
mod mount;
mod open;
mod operation;
pub mod options;
mod recent;
mod reply;
pub mod source;
mod sync;

pub use crate::core::{Caching, MAX_TTL};
pub use crate::kernel_mount::AttachError;
pub use crate::mount::{MountConfig, MountError, MountHandle, run_mount};
