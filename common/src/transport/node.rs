//! The node protocol's transport: messages between volcanos, on the UDP port above the flare protocol's.
//!
//! A message is bytes, and it may be lost: what it says, and that it is said again, is for those who speak. A volcano dials
//! each volcano that it has something to tell and proves the node key; a connection carries messages one way. There are two
//! streams on it, for urgent messages and for bulk, so that a beacon never waits for records.
//!
//! Everything runs on one thread, in a [`LocalSet`](tokio::task::LocalSet), like the [server](super::server).

mod peer;
mod queue;
mod reader;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use tokio::task::{AbortHandle, JoinSet};

use self::peer::Peer;
use self::reader::{MessageReader, ReadError};
use super::batch::Batch;
use super::limiter::LogLimiter;
use super::listener::{Admission, listen};
use super::tls::Protocol;
use super::{SetupError, close, tls, tuning};
use crate::auth::ClusterKeys;
use crate::topology::VolcanoId;

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 32 << 20;
const LENGTH_LEN: usize = 4;
/// Most connections from other volcanos.
const MAX_CONNECTIONS: usize = 256;
/// Messages that are handed over before other tasks get a turn.
const TURN: usize = 128;
/// At most one line in the log for so long, about messages that are dropped and peers that break the protocol.
const LOG_PERIOD: Duration = Duration::from_secs(5);
/// How long [`NodeEndpoint::close`] waits for peers to take note.
const GOODBYE: Duration = Duration::from_millis(500);

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Small, and others wait for it: leases, consensus.
    Urgent,
    /// Records and parts of slices.
    Bulk,
}

/// What a volcano does with messages. Called on the endpoint's thread only, never re-entered.
pub trait NodeHandler {
    /// A volcano has sent this. `from` is its address in the node protocol, unless something between changes addresses.
    fn received(&self, from: SocketAddr, message: Bytes);

    /// All messages that were readable in one go have been handed over.
    fn batch_end(&self);
}

/// What has passed through an endpoint, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Handed to connections.
    pub sent: u64,
    /// Handed to the handler.
    pub received: u64,
    /// Dropped because too much was waiting, or too long to be sent at all.
    pub dropped: u64,
    /// Dropped because the volcano could not be reached in time.
    pub unreachable: u64,
}

/// A bound socket of the node protocol.
pub struct NodeEndpoint {
    inner: Rc<Inner>,
    address: SocketAddr,
    /// Accepts, reads, and ends batches.
    serving: JoinSet<()>,
}

struct Inner {
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
    peers: RefCell<BTreeMap<SocketAddr, (Rc<Peer>, AbortHandle)>>,
    traffic: Cell<Traffic>,
    log: LogLimiter,
    closed: Cell<bool>,
}

impl NodeEndpoint {
    /// Binds the socket and serves it until the endpoint is dropped. Must be called inside a
    /// [`LocalSet`](tokio::task::LocalSet).
    pub fn bind(
        address: SocketAddr,
        keys: &ClusterKeys,
        volcano: VolcanoId,
        handler: Rc<dyn NodeHandler>,
    ) -> Result<Self, SetupError> {
        let accepted = [keys.accepted_node()];
        let parameters = tuning::node_transport();
        let (endpoint, address) = listen(address, keys, volcano.0, &accepted, Protocol::Node, parameters)?;
        let mut client =
            quinn::ClientConfig::new(tls::client(&keys.node(), keys.volcano_public(), Protocol::Node)?);
        client.transport_config(tuning::node_transport());
        let inner = Rc::new(Inner {
            endpoint,
            client,
            peers: RefCell::default(),
            traffic: Cell::default(),
            log: LogLimiter::new(LOG_PERIOD),
            closed: Cell::new(false),
        });
        let mut serving = JoinSet::new();
        let admission = Admission::new(accepted.to_vec(), MAX_CONNECTIONS);
        let receiver =
            Rc::new(Receiver { inner: Rc::clone(&inner), admission, batch: Batch::default(), handler });
        let batches = Rc::clone(&receiver);
        serving.spawn_local(async move { batches.batch.run(|| batches.handler.batch_end()).await });
        serving.spawn_local(receiver.accept());
        Ok(Self { inner, address, serving })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a message, or drops it: never waits. Messages of one class to one volcano keep their order as long as the
    /// connection lasts.
    pub fn send(&self, to: SocketAddr, class: Class, message: Bytes) {
        if self.inner.closed.get() {
            return;
        }
        if message.len() > MAX_MESSAGE {
            tracing::error!(target: "magma::node", %to, bytes = message.len(), "a message is too long to be sent");
            return self.inner.dropped(to);
        }
        let peer = self.peer(to);
        // What waits in vain makes room.
        peer.expire(&self.inner);
        if !peer.push(class, message) {
            self.inner.dropped(to);
        }
    }

    /// What has passed through it.
    pub fn traffic(&self) -> Traffic {
        self.inner.traffic.get()
    }

    /// Sends nothing more and tells all peers. The socket is free soon after.
    pub async fn close(mut self) {
        self.inner.stop();
        self.serving.shutdown().await;
        self.inner.endpoint.close(VarInt::from_u32(close::STOPPING), b"stopping");
        // A peer that does not answer any more need not keep us.
        let _ = tokio::time::timeout(GOODBYE, self.inner.endpoint.wait_idle()).await;
    }

    fn peer(&self, to: SocketAddr) -> Rc<Peer> {
        let mut peers = self.inner.peers.borrow_mut();
        if let Some((peer, task)) = peers.get(&to)
            && !task.is_finished()
        {
            return Rc::clone(peer);
        }
        let peer = Rc::new(Peer::new(to));
        let task = tokio::task::spawn_local(Rc::clone(&peer).run(Rc::clone(&self.inner)));
        peers.insert(to, (Rc::clone(&peer), task.abort_handle()));
        peer
    }
}

impl Drop for NodeEndpoint {
    fn drop(&mut self) {
        self.inner.stop();
        self.inner.endpoint.close(VarInt::from_u32(close::STOPPING), b"stopping");
    }
}

impl Inner {
    fn count(&self, count: impl FnOnce(&mut Traffic)) {
        let mut traffic = self.traffic.get();
        count(&mut traffic);
        self.traffic.set(traffic);
    }

    fn sent(&self, messages: u64) {
        self.count(|traffic| traffic.sent += messages);
    }

    fn unreachable(&self, messages: u64) {
        self.count(|traffic| traffic.unreachable += messages);
    }

    fn dropped(&self, to: SocketAddr) {
        self.count(|traffic| traffic.dropped += 1);
        if let Some(suppressed) = self.log.allow() {
            tracing::warn!(target: "magma::node", %to, suppressed, "a volcano takes messages too slowly; one was dropped");
        }
    }

    fn stop(&self) {
        self.closed.set(true);
        for (_, task) in std::mem::take(&mut *self.peers.borrow_mut()).into_values() {
            task.abort();
        }
    }
}

/// The side that takes connections.
struct Receiver {
    inner: Rc<Inner>,
    admission: Admission,
    batch: Batch,
    handler: Rc<dyn NodeHandler>,
}

impl Receiver {
    async fn accept(self: Rc<Self>) {
        let mut connections = JoinSet::new();
        while let Some(incoming) = self.inner.endpoint.accept().await {
            while connections.try_join_next().is_some() {}
            if let Some(incoming) = self.admission.sift(incoming) {
                connections.spawn_local(Rc::clone(&self).greet(incoming));
            }
        }
    }

    async fn greet(self: Rc<Self>, incoming: quinn::Incoming) {
        let _counted = self.admission.count();
        let address = incoming.remote_address();
        let Some((connection, _)) = self.admission.shake(incoming).await else { return };
        tracing::debug!(target: "magma::node", %address, "a volcano has connected");
        let mut streams = JoinSet::new();
        let reason = loop {
            match connection.accept_uni().await {
                Ok(stream) => {
                    while streams.try_join_next().is_some() {}
                    streams.spawn_local(Rc::clone(&self).read(connection.clone(), stream));
                }
                Err(reason) => break reason,
            }
        };
        streams.shutdown().await;
        tracing::debug!(target: "magma::node", %address, %reason, "a volcano has disconnected");
    }

    async fn read(self: Rc<Self>, connection: quinn::Connection, stream: quinn::RecvStream) {
        let address = connection.remote_address();
        let mut reader = MessageReader::new(stream);
        let mut turn = 0;
        loop {
            match reader.next().await {
                Ok(Some(message)) => {
                    self.inner.count(|traffic| traffic.received += 1);
                    self.handler.received(address, message);
                    self.batch.mark();
                }
                Ok(None) | Err(ReadError::Stream(_)) => return,
                Err(error) => {
                    if let Some(suppressed) = self.inner.log.allow() {
                        tracing::warn!(target: "magma::node", %address, %error, suppressed, "a volcano broke the protocol");
                    }
                    return connection.close(VarInt::from_u32(close::PROTOCOL), error.to_string().as_bytes());
                }
            }
            turn += 1;
            if turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
