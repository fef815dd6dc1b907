//! The coordinator: agrees with the other voters on the topology.
//!
//! | file | concern |
//! |---|---|
//! | `change` | what may be asked for, and what becomes of it |
//! | `consensus` | [`Coordinator`]: inputs, outputs, and what is done between them |
//! | `force` | [`Force`]: the first topology of another line of history |
//! | `voters` | who should vote, and the leader's way there |
//! | `log` | the state of the consensus: snapshot, entries, vote; its form in the [`Vault`] |
//! | `vault` | [`FileVault`]: the state in two files of the volcano's folder |
//! | `wire` | the voters' messages as bytes |
//! | `balance` | which slices should have other owners |
//! | `admit` | which messages may reach the consensus library |

mod admit;
pub mod balance;
mod change;
mod consensus;
mod force;
mod log;
#[cfg(test)]
mod tests;
mod vault;
mod voters;
mod wire;

pub use balance::Load;
pub use change::{Change, MAX_STORING, MAX_VOTERS, MAX_WITNESSES, Refusal, SliceChange};
pub use consensus::{Coordinator, OpenError, Output, Proposing, Unsaved, Vault};
pub use force::Force;
pub use vault::FileVault;
