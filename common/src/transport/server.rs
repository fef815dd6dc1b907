//! The volcano's side: accepts authenticated connections and hands their requests to a [`Handler`].
//!
//! Everything runs on one thread, in a [`LocalSet`](tokio::task::LocalSet) of a current-thread runtime: a
//! request is handled inline by the task that read it, without a channel in between. Requests that
//! arrived together, on whatever streams and connections, are followed by one [`Handler::batch_end`], so that a
//! volcano can write its log once for all of them; answers given meanwhile leave in as few datagrams as they fit.

mod connection;
mod reply;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use reply::ReplyTo;

use super::batch::Batch;
use super::limiter::LogLimiter;
use super::listener::{Admission, listen};
use super::tls::Protocol;
use super::{SetupError, close, tuning};
use crate::auth::{ClusterKeys, Role};
use crate::proto::Request;
use crate::proto::frame::{RequestHeader, Tag};

/// At most one line in the log for so long, about peers that break the protocol.
const LOG_PERIOD: Duration = Duration::from_secs(5);
/// How long [`Server::serve`] waits at its end for peers to take note.
const GOODBYE: Duration = Duration::from_millis(500);

/// Most connections at a time, unless told otherwise.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

/// A connection, numbered from 1 in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// A request as it reaches the volcano; its limits have been checked.
#[derive(Debug)]
pub struct IncomingRequest {
    /// Tag, session, operation id, credentials, durability and deadline.
    pub header: RequestHeader,
    /// What is asked for.
    pub request: Request,
    /// The data of a write.
    pub payload: Bytes,
}

/// What a volcano does with its connections. Called on the server's thread only, never re-entered.
pub trait Handler {
    /// A peer has proved its key.
    fn connected(&self, peer: PeerId, address: SocketAddr, role: Role);

    /// A request has arrived. It is answered through `reply`, now or later, in any order.
    fn request(&self, peer: PeerId, request: IncomingRequest, reply: ReplyTo);

    /// Nobody waits for this request any more: a lock that still waits should be given up. May come after the answer.
    fn cancelled(&self, peer: PeerId, tag: Tag);

    /// The connection is gone; answers to its requests go nowhere.
    fn disconnected(&self, peer: PeerId);

    /// All requests that were readable in one go have been handed over.
    fn batch_end(&self);
}

/// Where and for whom to listen.
#[derive(Clone)]
pub struct ServerConfig {
    /// UDP address; port 0 for any.
    pub address: SocketAddr,
    /// What we prove and accept.
    pub keys: ClusterKeys,
    /// The volcano's id: makes its stateless resets its own.
    pub volcano: u64,
    /// Further connections are refused.
    pub max_connections: usize,
}

/// A bound socket, ready to serve.
pub struct Server {
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    admission: Admission,
    stop: Arc<Notify>,
}

/// Stops a [`Server`] from any thread.
#[derive(Clone)]
pub struct Closer(Arc<Notify>);

impl Closer {
    /// Takes no more requests and tells all peers, who will look for another volcano or wait for this one.
    /// The socket is free when [`Server::serve`] returns.
    pub fn close(&self) {
        self.0.notify_one();
    }
}

impl Server {
    /// Binds the socket. Must be called inside a tokio runtime.
    pub fn bind(config: ServerConfig) -> Result<Self, SetupError> {
        let ServerConfig { address, keys, volcano, max_connections } = config;
        let accepted = keys.accepted();
        let parameters = tuning::transport();
        let (endpoint, address) = listen(address, &keys, volcano, &accepted, Protocol::Flare, parameters)?;
        let admission = Admission::new(accepted.to_vec(), max_connections);
        Ok(Self { endpoint, address, admission, stop: Arc::default() })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// A way to stop it.
    pub fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.stop))
    }

    /// Serves until closed. Must run inside a [`LocalSet`](tokio::task::LocalSet).
    pub async fn serve(self, handler: Rc<dyn Handler>) {
        let shared = Rc::new(Shared {
            batch: Batch::default(),
            admission: self.admission,
            next_peer: Cell::new(1),
            broken: LogLimiter::new(LOG_PERIOD),
            handler,
        });
        let batches = tokio::task::spawn_local({
            let shared = Rc::clone(&shared);
            async move { shared.batch.run(|| shared.handler.batch_end()).await }
        });
        let mut peers = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                () = self.stop.notified() => None,
            };
            let Some(incoming) = incoming else { break };
            while peers.try_join_next().is_some() {}
            if let Some(incoming) = shared.admission.sift(incoming) {
                peers.spawn_local(Rc::clone(&shared).greet(incoming));
            }
        }
        self.endpoint.close(VarInt::from_u32(close::STOPPING), b"stopping");
        // A peer that does not answer any more need not keep us.
        let _ = tokio::time::timeout(GOODBYE, self.endpoint.wait_idle()).await;
        peers.shutdown().await;
        batches.abort();
    }
}

struct Shared {
    handler: Rc<dyn Handler>,
    batch: Batch,
    admission: Admission,
    next_peer: Cell<u64>,
    broken: LogLimiter,
}

impl Shared {
    /// Completes a handshake and serves the connection until it ends.
    async fn greet(self: Rc<Self>, incoming: quinn::Incoming) {
        let _counted = self.admission.count();
        let address = incoming.remote_address();
        let Some((connection, role)) = self.admission.shake(incoming).await else { return };
        let peer = PeerId(self.next_peer.replace(self.next_peer.get() + 1));
        tracing::debug!(target: "magma::net", peer = peer.0, %address, ?role, "connected");
        self.handler.connected(peer, address, role);
        let reason = Rc::clone(&self).serve_connection(peer, role, &connection).await;
        self.handler.disconnected(peer);
        self.batch.mark();
        tracing::debug!(target: "magma::net", peer = peer.0, %address, %reason, "disconnected");
    }
}

#[cfg(test)]
mod tests;
