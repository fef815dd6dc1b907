//! The flare protocol's messages: what a client may ask of a volcano and what it hears back.
//!
//! `docs/PROTOCOL.md` describes them byte by byte. A message is a fixed header
//! ([`header`]), a body (the operation's fields in postcard's encoding) and,
//! for bulk data, a payload that is never copied into the codec.

mod check;
pub mod frame;
pub mod header;
pub mod limits;
pub mod operation;
mod routing;

pub use header::{Credentials, Durability, OpId, SessionId};
pub use operation::{Failure, Operation, Reply, Request};
