//! What every flare operation means: POSIX semantics as planning over a [`View`](crate::view::View).
//!
//! An operation reads through a [`Plan`], decides, and leaves its changes there; the slice makes one
//! record of them, or throws them away if the operation was refused. Nothing here knows the log, the
//! disk or the network, and nothing here has a clock: time, place in the log and random numbers come
//! with the plan.
//!
//! * one file per operation, each *check, then steps*;
//! * [`steps`] are what one participant of an operation does to its own flare: reserve a child, set or remove an
//!   entry, add or drop a reference. They come in the order in which an operation over several slices takes them:
//!   the child is reserved, then the entry committed, then references dropped. Within one slice all land in one record;
//! * [`stripes`] is what is different about files whose bytes are in several flares;
//! * [`permission`] and [`acl`] decide who may; [`times`] which times change;
//! * [`locks`] is the algebra of advisory locks, without any state.
//!
//! Opens, sessions, waiting for locks and durability are the slice's business.

mod access;
mod acl;
mod attributes;
mod create;
mod data;
mod dispatch;
mod link;
mod lock;
pub mod locks;
mod lookup;
mod mkdir;
mod naming;
mod open;
mod permission;
mod plan;
mod privileges;
mod readdir;
mod readlink;
mod rename;
mod rmdir;
mod setattr;
mod special;
mod statfs;
mod steps;
mod stripes;
mod times;
mod unlink;
mod xattr;

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

pub use dispatch::execute;
pub use lock::{conflict, release_before_waiting, release_locks};
pub use plan::{Append, BodyRange, Caller, Moment, Opens, Plan, Planned, Steps, Stop};
pub(crate) use statfs::BYTES_PER_FLARE;
pub use steps::carry_out::{Unfit, born, carry_out, check, describe_flare, opened_by};
pub use steps::reference::release_last;
pub use stripes::to_shed;
