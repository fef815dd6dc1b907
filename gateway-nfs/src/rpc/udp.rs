//! Datagrams: MOUNT and portmap are asked over UDP by older clients. NFS is not served there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use super::connection::Peer;
use super::message::Incoming;
use crate::dispatch::{Answer, Arrival, answer};
use crate::gateway::Gateway;

/// Largest datagram that is taken or sent, in bytes. No call over UDP that has an answer here is larger.
const MAX_DATAGRAM: usize = 8192;
/// Datagrams worked on at the same time; more are dropped, and their clients ask again.
const MAX_RUNNING: usize = 64;

/// Pause after an error, so that one that lasts does not keep the processor busy.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Answers datagrams until the gateway stops.
///
/// An address that no export is for hears nothing: answers to forged senders would make the gateway an amplifier.
pub(crate) async fn answer_datagrams(socket: UdpSocket, local: SocketAddr, gateway: Arc<Gateway>) {
    let socket = Arc::new(socket);
    let running = Arc::new(Semaphore::new(MAX_RUNNING));
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = gateway.stopping() => return,
        };
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                // An ICMP answer to an earlier reply of ours, usually.
                tracing::debug!(target: "magma::nfs", %error, "cannot receive a datagram");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let peer = Peer::new(client, local);
        if !gateway.exports.know(peer.client.ip()) {
            continue;
        }
        let (Ok(permit), Some(record)) = (Arc::clone(&running).try_acquire_owned(), buffer.get(..length))
        else {
            continue;
        };
        let record = Bytes::copy_from_slice(record);
        let (socket, gateway) = (Arc::clone(&socket), Arc::clone(&gateway));
        tokio::spawn(async move {
            let _permit = permit;
            let arrival = Arrival { peer, connection: None };
            let Answer::Reply(body) = answer(&gateway, &arrival, Incoming::parse(&record)).await else {
                return;
            };
            let reply = body.to_bytes();
            if reply.len() > MAX_DATAGRAM {
                tracing::debug!(target: "magma::nfs", %client, "an answer is too long for a datagram");
                return;
            }
            if let Err(error) = socket.send_to(&reply, client).await {
                tracing::debug!(target: "magma::nfs", %client, %error, "cannot send a datagram");
            }
        });
    }
}
