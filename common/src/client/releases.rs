//! Sends releases in the background, many at a time.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::network::Network;
use super::opens::Releasing;
use super::retry::Backoff;
use crate::error::FlareError;
use crate::proto::frame::{RequestHeader, StreamClass, Tag};
use crate::proto::operation::Release;
use crate::proto::{Credentials, Durability, Request};
use crate::transport::link::{Exchanged, Manner};

/// Sends releases until the client is gone.
pub(super) async fn run(network: Arc<Network>) {
    let mut sending = FuturesUnordered::new();
    loop {
        sending.extend(network.opens.take_releases().into_iter().map(|release| send(&network, release)));
        tokio::select! {
            biased;
            () = network.opens.wanted.notified() => {}
            Some(()) = sending.next() => {}
        }
    }
}

/// Sends one release, again if need be, until it is answered.
async fn send(network: &Arc<Network>, release: Releasing) {
    let (handle, count) = (release.handle, release.count);
    let request = Request::from(Release { handle, count });
    let Ok(body) = request.encode() else { return };
    let manner = Manner { class: StreamClass::Metadata, cancel: false, orphan: false };
    let mut backoff = Backoff::new();
    // A new session has nothing open, until it is told.
    let Some(session) = network.session().filter(|session| session.id == release.session) else { return };
    let ticket = session.number().await;
    loop {
        let seen = network.moves();
        let link = network.route(Some(&handle.key)).await;
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
        match link.exchange(header, request.opcode(), &body, Bytes::new(), manner).await {
            Ok(Exchanged::Unsent | Exchanged::InDoubt) => {}
            Ok(Exchanged::Reply(reply)) => {
                network.heard(reply.topology_version);
                match reply.outcome() {
                    Ok(Err(failure))
                        if matches!(
                            failure.error,
                            FlareError::Unavailable | FlareError::NotOwner | FlareError::TooManyOutstanding
                        ) => {}
                    // Done, or settled by the end of the session or of the flare.
                    Ok(_) | Err(_) => return,
                }
            }
            Err(error) => {
                return tracing::error!(target: "magma::net", %error, "a release cannot be sent");
            }
        }
        network.pause(backoff.next(), seen).await;
    }
}
