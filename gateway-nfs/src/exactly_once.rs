//! Calls that change something are executed once, however often and by whichever way they arrive.

use std::time::Instant;

use bytes::Bytes;

use crate::dispatch::Fault;
use crate::gateway::Gateway;
use crate::rpc::connection::{ConnectionId, Peer};
use crate::rpc::message::Call;
use crate::rpc::reply_cache::{Admission, CallId, Ticket};
use crate::xdr::Body;

/// Calls that look exactly alike and are known to be different ones, at most.
const MAX_TWINS: u8 = 8;

/// What to do with a call that changes something.
pub(crate) enum Once<'a> {
    /// Execute it under this name, and tell the ticket the reply.
    Execute(CallId, Ticket<'a>),
    /// It was executed; this is the reply it got.
    Replay(Body),
}

/// Finds out whether the call is a retransmission, and if so waits for the reply of the first.
///
/// A client may have several connections that count their transactions on their own, so that two different calls can look
/// exactly alike. A call that was seen on another connection is therefore taken for a retransmission only if that
/// connection is gone, or turns out to be when it is asked.
pub(crate) async fn admit<'a>(
    gateway: &'a Gateway,
    peer: &Peer,
    connection: ConnectionId,
    call: &Call,
) -> Result<Once<'a>, Fault> {
    for twin in 0..MAX_TWINS {
        let id = gateway.namer.name(peer, &call.message, twin);
        loop {
            let seen = match gateway.replies.admit(id, connection, Instant::now()) {
                Admission::First(ticket) => return Ok(Once::Execute(id, ticket)),
                Admission::Seen(seen) => seen,
            };
            if seen.origin != connection && is_alive(gateway, seen.origin).await {
                break;
            }
            tracing::debug!(target: "magma::nfs", client = %peer.client, xid = call.xid, "a retransmission");
            // Without a reply the first execution ended without knowing its outcome; under the same name it is safe to ask again.
            if let Some(head) = seen.reply().await {
                return Ok(Once::Replay(Body { head, payload: Bytes::new() }));
            }
        }
    }
    Err(Fault::HangUp)
}

/// Whether the client still has that connection.
async fn is_alive(gateway: &Gateway, connection: ConnectionId) -> bool {
    match gateway.connections.find(connection) {
        Some(connection) => connection.probe().await,
        None => false,
    }
}
