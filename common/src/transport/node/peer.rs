//! The connection to one volcano, for what we send to it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::VarInt;

use super::queue::Queue;
use super::{Class, Inner};
use crate::transport::{close, tls};

/// Most bytes that wait for one volcano.
const BULK_LIMIT: usize = 64 << 20;
const URGENT_LIMIT: usize = 1 << 20;
/// A handshake that takes longer is given up and tried again.
const DIAL_LIMIT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Peer {
    address: SocketAddr,
    urgent: Queue,
    bulk: Queue,
    connected: Cell<bool>,
}

impl Peer {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            urgent: Queue::new(URGENT_LIMIT),
            bulk: Queue::new(BULK_LIMIT),
            connected: Cell::new(false),
        }
    }

    /// Adds a message; false if there is no room for it.
    pub(super) fn push(&self, class: Class, message: Bytes) -> bool {
        let queue = match class {
            Class::Urgent => &self.urgent,
            Class::Bulk => &self.bulk,
        };
        queue.push(Instant::now(), message)
    }

    /// Sends what is queued, as long as there is something to send or a connection to send it over.
    pub(super) async fn run(self: Rc<Self>, inner: Rc<Inner>) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.expire(&inner);
            if self.urgent.is_empty() && self.bulk.is_empty() {
                return;
            }
            match self.dial(&inner).await {
                Ok(connection) => {
                    pause = FIRST_PAUSE;
                    self.expire(&inner);
                    self.connected.set(true);
                    let reason = self.carry(&inner, &connection).await;
                    self.connected.set(false);
                    tracing::info!(target: "magma::node", address = %self.address, %reason, "the connection to a volcano was lost");
                }
                Err(error) => {
                    tracing::debug!(target: "magma::node", address = %self.address, %error, "a volcano cannot be reached");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Drops what has waited for too long without a connection.
    pub(super) fn expire(&self, inner: &Inner) {
        if !self.connected.get() {
            let now = Instant::now();
            inner.unreachable(self.urgent.expire(now) + self.bulk.expire(now));
        }
    }

    async fn dial(&self, inner: &Inner) -> Result<quinn::Connection, String> {
        let connecting = inner
            .endpoint
            .connect_with(inner.client.clone(), self.address, tls::SERVER_NAME)
            .map_err(|error| error.to_string())?;
        match tokio::time::timeout(DIAL_LIMIT, connecting).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    /// Writes both queues until the connection is gone.
    async fn carry(&self, inner: &Inner, connection: &quinn::Connection) -> String {
        tracing::info!(target: "magma::node", address = %self.address, "connected to a volcano");
        let written = async {
            tokio::join!(
                write(inner, connection, &self.urgent, Class::Urgent),
                write(inner, connection, &self.bulk, Class::Bulk)
            )
        };
        tokio::select! {
            reason = connection.closed() => reason.to_string(),
            _ = written => {
                // A volcano that takes messages of one class only is of no use.
                connection.close(VarInt::from_u32(close::DONE), b"");
                "it takes no more messages".to_owned()
            }
        }
    }
}

async fn write(inner: &Inner, connection: &quinn::Connection, queue: &Queue, class: Class) -> Option<()> {
    let mut stream = connection.open_uni().await.ok()?;
    // Beacons never wait for records.
    stream.set_priority(i32::from(class == Class::Urgent)).ok()?;
    loop {
        let mut batch = queue.take().await;
        let messages = batch.chunks.len() as u64 / 2;
        stream.write_all_chunks(&mut batch.chunks).await.ok()?;
        inner.sent(messages);
    }
}
