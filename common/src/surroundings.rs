//! What a client lives in: its clock, its tasks and its connections. In use they are the [system's](System); a simulation brings
//! others, with which the same seed gives the same run.
//!
//! What lives in surroundings waits for nothing else than what they give and what its own tasks tell each other, and asks for the time
//! nowhere else.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::client::HostPort;
use crate::proto::frame::{Encoded, StreamClass};
pub use crate::transport::link::{Link, LinkError};
pub use crate::transport::system::System;

/// Something that comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// See the module's documentation.
pub trait Surroundings: Send + Sync {
    /// The time.
    fn now(&self) -> Instant;

    /// Resolves after this time. May be called, and waited for, anywhere.
    fn sleep(&self, time: Duration) -> Later<'static, ()>;

    /// A number that nobody else has, or none if the system gives no randomness.
    fn random(&self) -> Option<u128>;

    /// Runs a task until it ends, or what is given out is dropped.
    fn spawn(&self, task: Later<'static, ()>) -> Running;

    /// The addresses of a host.
    fn resolve(&self, host: &HostPort) -> Later<'_, std::io::Result<Vec<SocketAddr>>>;

    /// Connects to a volcano; one that has not answered within `limit` does not answer.
    fn connect(&self, address: SocketAddr, limit: Duration) -> Later<'_, Result<Arc<dyn Wire>, LinkError>>;

    /// Waits until the volcanos have been told of connections that were closed, but not for long.
    fn finish(&self) -> Later<'_, ()>;
}

/// Ends a task when it is dropped.
#[must_use = "the task ends when this is dropped"]
pub struct Running(Option<Box<dyn FnOnce() + Send>>);

impl Running {
    /// A task that is ended in this way.
    pub fn new(end: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(end)))
    }

    /// Lets the task run to its end.
    pub fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

/// What carries frames between a client and a volcano.
pub trait Wire: Send + Sync {
    /// Hands what arrives to this link from now on, and tells it of the end. Called once.
    fn listen(&self, link: Weak<Link>);

    /// Sends a frame on a stream of this class; false if the wire has ended.
    fn send(&self, class: StreamClass, frame: Encoded) -> bool;

    /// How much of what was sent the volcano has shown to have received; what was sent is acknowledged sooner or later, whatever it is.
    fn acknowledged(&self) -> u64;

    /// Ends the wire. The volcano is told why, with one of the codes of the protocol.
    fn close(&self, code: u32, reason: &[u8]);

    /// Why the wire has ended; none if it has not.
    fn ending(&self) -> Option<LinkError>;

    /// Who is at the other end.
    fn remote_address(&self) -> SocketAddr;
}

/// Waits for something, but not longer than this; none if it has not come.
pub(crate) async fn within<T>(
    surroundings: &dyn Surroundings,
    time: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = surroundings.sleep(time) => None,
    }
}
