//! What all connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use magma_common::client::Client;
use tokio::sync::{Semaphore, watch};

use crate::call_id::CallNamer;
use crate::export::Exports;
use crate::handle::Signer;
use crate::mount::MountTable;
use crate::rpc::connection::Connections;
use crate::rpc::reply_cache::ReplyCache;

/// How long an operation is tried before a call that only reads is answered "try again later".
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// The gateway: thin, and without state that a restart would miss.
pub(crate) struct Gateway {
    pub(crate) client: Client,
    pub(crate) exports: Exports,
    pub(crate) signer: Signer,
    pub(crate) namer: CallNamer,
    /// The network's number: what clients see as the file system's id.
    pub(crate) network: u64,
    /// Changes of names and attributes are answered before they are on disk.
    pub(crate) asynchronous: bool,
    pub(crate) replies: ReplyCache,
    pub(crate) connections: Connections,
    pub(crate) mounts: MountTable,
    /// What calls in flight may occupy together, in KiB.
    pub(crate) memory: Arc<Semaphore>,
    /// Where NFS is served.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) stop: watch::Sender<bool>,
}

impl Gateway {
    /// Returns when the gateway is to stop.
    pub(crate) async fn stopping(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// The port of NFS for a client that reached us at `dialled`.
    pub(crate) fn nfs_port(&self, dialled: SocketAddr) -> u16 {
        let ports = || self.addresses.iter().map(SocketAddr::port);
        ports().find(|&port| port == dialled.port()).or_else(|| ports().next()).unwrap_or(0)
    }
}
