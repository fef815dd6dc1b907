//! Requests that concern the session and not a file: they are made on one connection, by the client itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::network::Unready;
use super::opens::Opens;
use super::session::Session;
use crate::error::FlareError;
use crate::proto::frame::{ReplyFrame, RequestHeader, StreamClass, Tag};
use crate::proto::{Credentials, Durability, Reply, Request, SessionId};
use crate::surroundings::{Surroundings, within};
use crate::transport::link::{Exchanged, Link, LinkError, Manner};

/// A volcano that does not answer such a request within this time does not work, even if its transport does.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks once.
pub(super) async fn ask(
    surroundings: &dyn Surroundings,
    link: &Link,
    session: Option<&Arc<Session>>,
    request: Request,
) -> Result<Reply, Unready> {
    let header = RequestHeader {
        tag: Tag(0),
        durability: Durability::Replicated,
        topology_version: 0,
        session: session.map_or(SessionId::NONE, |session| session.id),
        sequence: 0,
        acknowledged: session.map_or(0, |session| session.acknowledged()),
        call: None,
        deadline_ms: None,
        forwarded: false,
        credentials: Credentials::ROOT,
    };
    let body = request.encode().map_err(|_| Unready::Refused(FlareError::TooBig))?;
    let manner = Manner { class: StreamClass::Metadata, cancel: false, orphan: false };
    let exchange = link.exchange(header, request.opcode(), &body, Bytes::new(), manner);
    let reply = match within(surroundings, LIMIT, exchange).await {
        Some(Ok(Exchanged::Reply(reply))) => reply,
        Some(Ok(Exchanged::Unsent | Exchanged::InDoubt)) => return Err(Unready::Link(link.lost().await)),
        Some(Err(error)) => return Err(Unready::Refused(error)),
        None => {
            return Err(Unready::Link(LinkError::Lost("no answer to a request about the session".into())));
        }
    };
    match reply.outcome() {
        Ok(Ok((reply, _))) => Ok(reply),
        Ok(Err(failure)) => Err(Unready::Refused(failure.error)),
        Err(error) => Err(Unready::Refused(error)),
    }
}

/// Takes note of what a request has opened whose caller had gone when it was answered.
pub(super) fn orphan_sink(opens: &Arc<Opens>) -> Box<dyn Fn(ReplyFrame) + Send + Sync> {
    let opens = Arc::clone(opens);
    Box::new(move |reply| match reply.outcome() {
        Ok(Ok((Reply::Open(attr), _))) => opens.orphaned(attr.handle),
        Ok(Ok((Reply::Create(made), _))) => opens.orphaned(made.attr.handle),
        Ok(Ok(_) | Err(_)) | Err(_) => {}
    })
}
