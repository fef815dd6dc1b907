//! Sends releases in the background, many at a time.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::network::Network;
use super::retry::Backoff;
use crate::error::FlareError;
use crate::handle::Handle;
use crate::proto::frame::{RequestHeader, StreamClass, Tag};
use crate::proto::operation::Release;
use crate::proto::{Credentials, Durability, Request};
use crate::transport::link::{Exchanged, Manner};

/// Releases on their way at a time.
const WIDTH: usize = 64;

/// Sends releases until the client is gone.
pub(super) async fn run(network: Arc<Network>) {
    loop {
        network.opens.wanted.notified().await;
        flush(&network).await;
    }
}

/// Sends the releases that wait now.
pub(super) async fn flush(network: &Arc<Network>) {
    let (generation, unsent) = network.opens.take_unsent();
    let mut sending = JoinSet::new();
    for (handle, count) in unsent {
        if sending.len() >= WIDTH {
            sending.join_next().await;
        }
        sending.spawn(send(Arc::clone(network), generation, handle, count));
    }
    while sending.join_next().await.is_some() {}
}

/// Sends one release, again if need be, unless a reclaim has settled it meanwhile.
async fn send(network: Arc<Network>, generation: u64, handle: Handle, count: u32) {
    let request = Request::from(Release { handle, count });
    let Ok(body) = request.encode() else { return };
    let manner = Manner { class: StreamClass::Metadata, cancel: false, orphan: false };
    let mut backoff = Backoff::new();
    let Some(session) = network.session() else { return };
    let ticket = session.number().await;
    loop {
        let seen = network.moves();
        let link = network.route(Some(&handle.key)).await;
        let under_way = network.opens.settling.read().await;
        if network.opens.generation() != generation {
            return;
        }
        let header = RequestHeader {
            tag: Tag(0),
            durability: Durability::Replicated,
            topology_version: network.topology().version,
            session: session.id,
            sequence: ticket.sequence,
            acknowledged: session.acknowledged(),
            call: None,
            deadline_ms: None,
            forwarded: false,
            credentials: Credentials::ROOT,
        };
        let sent = link.exchange(header, request.opcode(), &body, Bytes::new(), manner).await;
        drop(under_way);
        match sent {
            Ok(Exchanged::Unsent | Exchanged::InDoubt) => {}
            Ok(Exchanged::Reply(reply)) => match reply.outcome() {
                Ok(Err(failure))
                    if matches!(
                        failure.error,
                        FlareError::Unavailable | FlareError::NotOwner | FlareError::TooManyOutstanding
                    ) => {}
                // Done, or settled by the end of the session or of the flare.
                Ok(_) | Err(_) => return,
            },
            Err(error) => {
                return tracing::error!(target: "magma::net", %error, "a release cannot be sent");
            }
        }
        network.pause(backoff.next(), seen).await;
    }
}
