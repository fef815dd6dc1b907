//! Moves frames between clients and volcanos: QUIC (RFC 9000) with both ends authenticated.
//!
//! What the rest of the project sees of it is small, so that a simulation or a leaner transport can take its place:
//! a volcano implements [`server::Handler`] and answers through [`server::ReplyTo`]; the client library asks for a
//! `link` to an address and exchanges frames over it.
//!
//! A connection has one stream for metadata and a few for bulk data, all of them long-lived, each
//! carrying framed, multiplexed requests. A stream per request was measured to cost 3 to 6 times the CPU.

mod acknowledged;
mod batch;
mod credit;
pub mod forward;
mod limiter;
pub(crate) mod link;
mod listener;
pub mod node;
mod outbox;
mod quic;
mod reader;
pub mod server;
mod silence;
pub(crate) mod system;
mod tls;
mod tuning;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose holders leave nothing half-done, so that a panic of one of them need not stop the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Application error codes with which connections are closed.
mod close {
    /// Nothing more to say.
    pub(super) const DONE: u32 = 0;
    /// The volcano stops.
    pub(super) const STOPPING: u32 = 1;
    /// The peer broke the protocol.
    pub(super) const PROTOCOL: u32 = 2;
}

/// Why an endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address cannot be bound.
    #[error("cannot listen on UDP {address}: {source}")]
    Bind {
        /// Which address.
        address: std::net::SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The TLS library refuses our keys or parameters.
    #[error("cannot set up the handshake: {0}")]
    Handshake(String),
}
