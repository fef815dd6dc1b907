//! The client library: one cloneable handle through which every front end talks to the lava network.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::attr::Attr;
use crate::handle::Handle;
use crate::proto::operation::{Read, ReadReply, Write, WriteReply};
use crate::proto::{Credentials, Durability, Failure, Operation};
use crate::topology::Topology;

/// A host that a client was told to contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// The flare protocol's port.
    pub port: u16,
}

/// What a client needs to know to start.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Volcanos to contact first, any of the network; tried in turn.
    pub hosts: Vec<HostPort>,
    /// Proves that we may.
    pub key: crate::auth::Secret,
    /// Who we are, for people: door, host, process.
    pub name: String,
    /// How long an operation is retried when its context sets no deadline; `None` for ever, like an NFS hard mount.
    pub patience: Option<Duration>,
}

/// On whose behalf and under which conditions an operation is done.
#[derive(Clone, Debug)]
pub struct Context {
    /// The end user.
    pub credentials: Arc<Credentials>,
    /// How safe it must be when it is answered.
    pub durability: Durability,
    /// Give up then, with [`TimedOut`](crate::error::FlareError::TimedOut).
    pub deadline: Option<Instant>,
    /// The operation id of a call that any gateway recognises; without it the session numbers the operation.
    pub call: Option<u128>,
}

/// Why a client could not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No host answered.
    #[error("no volcano answers at {hosts}: {reason}")]
    Unreachable {
        /// The hosts tried.
        hosts: String,
        /// What the last one failed with.
        reason: String,
    },
    /// The volcano does not know our key, or we do not accept its.
    #[error("the volcano at {host} and we do not have the same key; check --key-file, MAGMA_KEY or /etc/magma/key")]
    WrongKey {
        /// Which host.
        host: String,
    },
    /// The volcano speaks another version of the protocol.
    #[error("the volcano at {host} speaks another version of the flare protocol")]
    Version {
        /// Which host.
        host: String,
    },
}

/// A connected client. Clones share its connections, session and caches.
#[derive(Clone)]
pub struct Client {
    inner: Arc<()>,
}

impl Client {
    /// Connects to the first host that answers and opens a session. Must be called inside a tokio runtime.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let _ = config;
        unimplemented!()
    }

    /// Does an operation without payload: goes to the owner of the flare it names and retries under the same operation id until the deadline.
    pub async fn call<O: Operation>(&self, context: &Context, operation: O) -> Result<O::Reply, Failure> {
        let _ = (context, operation, &self.inner);
        unimplemented!()
    }

    /// Reads; the bytes come beside the reply.
    pub async fn read(&self, context: &Context, read: Read) -> Result<(ReadReply, Bytes), Failure> {
        let _ = (context, read);
        unimplemented!()
    }

    /// Writes all of `data`, at most [`MAX_IO`](crate::proto::limits::MAX_IO) bytes.
    pub async fn write(&self, context: &Context, write: Write, data: Bytes) -> Result<WriteReply, Failure> {
        let _ = (context, write, data);
        unimplemented!()
    }

    /// Walks an absolute or relative path of slash-separated names from the root, without following symbolic links.
    pub async fn walk(&self, context: &Context, path: &[u8]) -> Result<Attr, Failure> {
        let _ = (context, path);
        unimplemented!()
    }

    /// Gives one open back, without waiting: releases travel in batches.
    pub fn release(&self, handle: Handle) {
        let _ = handle;
        unimplemented!()
    }

    /// The topology as we know it.
    pub fn topology(&self) -> Arc<Topology> {
        unimplemented!()
    }

    /// Ends the session in order.
    pub async fn close(self) {
        unimplemented!()
    }

    /// The address of ours that the volcano sees, for the log.
    pub fn local_address(&self) -> Option<IpAddr> {
        unimplemented!()
    }
}
