//! The volcano's side: accepts authenticated connections and hands their requests to a [`Handler`].
//!
//! Everything runs on one thread, in a [`LocalSet`](tokio::task::LocalSet) of a current-thread runtime: a
//! request is handled inline by the task that read it, without a channel in between. Requests that
//! arrived together, on whatever streams and connections, are followed by one [`Handler::batch_end`], so that a
//! volcano can write its log once for all of them; answers given meanwhile leave in as few datagrams as they fit.

mod batch;
mod connection;
mod limiter;
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

use self::batch::Batch;
use self::limiter::LogLimiter;
use super::{SetupError, tls, tuning};
use crate::auth::{ClusterKeys, PublicKey, Role};
use crate::proto::Request;
use crate::proto::frame::{RequestHeader, Tag};

/// A handshake that takes longer is given up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// With more handshakes under way than this, newcomers must show that their address is theirs (Retry, RFC 9000 §8.1.2).
const RETRY_ABOVE: usize = 64;
/// With more handshakes under way than this, newcomers are left without an answer and will try again.
const MAX_HANDSHAKES: usize = 1024;
/// At most one line in the log for so long, about peers that fail to connect.
const LOG_PERIOD: Duration = Duration::from_secs(5);
/// How long [`Server::serve`] waits at its end for peers to take note.
const GOODBYE: Duration = Duration::from_millis(500);

/// Application error codes with which connections are closed.
pub(crate) mod close {
    /// The volcano stops.
    pub(crate) const STOPPING: u32 = 1;
    /// The peer broke the protocol.
    pub(crate) const PROTOCOL: u32 = 2;
}

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
    accepted: Vec<(PublicKey, Role)>,
    max_connections: usize,
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
        let failed = |source| SetupError::Bind { address, source };
        let reset = keys.reset_key(volcano);
        let reset = reset.map_err(|error| SetupError::Handshake(error.to_string()))?;
        let mut crypto = quinn::ServerConfig::with_crypto(tls::server(&keys)?);
        crypto.transport_config(tuning::transport()).max_incoming(2 * MAX_HANDSHAKES).migration(false);
        let socket = tuning::socket(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let parameters = tuning::endpoint(Some(*reset))?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(parameters, Some(crypto), socket, runtime).map_err(failed)?;
        Ok(Self {
            endpoint,
            address,
            accepted: keys.accepted().to_vec(),
            max_connections,
            stop: Arc::default(),
        })
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
            accepted: self.accepted,
            connections: Cell::new(0),
            handshakes: Cell::new(0),
            next_peer: Cell::new(1),
            rejected: LogLimiter::new(LOG_PERIOD),
            broken: LogLimiter::new(LOG_PERIOD),
            handler,
        });
        let batches = tokio::task::spawn_local({
            let shared = Rc::clone(&shared);
            async move { shared.batch.run(&*shared.handler).await }
        });
        let mut peers = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                () = self.stop.notified() => None,
            };
            let Some(incoming) = incoming else { break };
            while peers.try_join_next().is_some() {}
            if shared.connections.get() >= self.max_connections {
                incoming.refuse();
            } else if shared.handshakes.get() >= MAX_HANDSHAKES {
                incoming.ignore();
            } else if shared.handshakes.get() >= RETRY_ABOVE && !incoming.remote_address_validated() {
                if let Err(cannot) = incoming.retry() {
                    cannot.into_incoming().ignore();
                }
            } else {
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
    accepted: Vec<(PublicKey, Role)>,
    connections: Cell<usize>,
    handshakes: Cell<usize>,
    next_peer: Cell<u64>,
    rejected: LogLimiter,
    broken: LogLimiter,
}

/// Counts something as long as it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(cell: &'a Cell<usize>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Shared {
    /// Completes a handshake and serves the connection until it ends.
    async fn greet(self: Rc<Self>, incoming: quinn::Incoming) {
        let _connection = Counted::new(&self.connections);
        let address = incoming.remote_address();
        let shaking = Counted::new(&self.handshakes);
        let done = tokio::time::timeout(HANDSHAKE_LIMIT, async { incoming.accept()?.await }).await;
        drop(shaking);
        let connection = match done {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return self.rejected(address, &error.to_string()),
            Err(_) => return self.rejected(address, "the handshake took too long"),
        };
        // The handshake has checked the key against the same list.
        let Some(role) = tls::role(&connection, &self.accepted) else {
            return connection.close(VarInt::from_u32(close::PROTOCOL), b"unknown key");
        };
        let peer = PeerId(self.next_peer.replace(self.next_peer.get() + 1));
        tracing::debug!(target: "magma::net", peer = peer.0, %address, ?role, "connected");
        self.handler.connected(peer, address, role);
        let reason = Rc::clone(&self).serve_connection(peer, &connection).await;
        self.handler.disconnected(peer);
        self.batch.mark();
        tracing::debug!(target: "magma::net", peer = peer.0, %address, %reason, "disconnected");
    }

    fn rejected(&self, address: SocketAddr, reason: &str) {
        if let Some(suppressed) = self.rejected.allow() {
            tracing::warn!(
                target: "magma::net",
                %address, reason, suppressed,
                "a peer could not connect; if it is one of ours, its key is not the key of this network"
            );
        }
    }
}

#[cfg(test)]
mod tests;
