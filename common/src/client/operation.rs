//! One operation, from its call to its answer: numbering, routing, sending, and sending again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::network::Network;
use super::retry::Backoff;
use super::session::{Session, Ticket};
use super::{Context, cache};
use crate::error::FlareError;
use crate::handle::Handle;
use crate::proto::frame::{RequestHeader, Tag};
use crate::proto::{Failure, Reply, Request};
use crate::transport::link::{Exchanged, Manner};

/// Requests of one client that may be outstanding.
const MAX_OUTSTANDING: usize = 1024;
/// Bytes of payload, coming or going, that may be on their way.
const MAX_BYTES: usize = 64 << 20;
/// The volcano itself ends a wait at the deadline; its answer gets this much more time to arrive.
const GRACE: Duration = Duration::from_secs(1);

/// What keeps a client from asking for more than it may.
pub(super) struct Limits {
    requests: Semaphore,
    bytes: Semaphore,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self { requests: Semaphore::new(MAX_OUTSTANDING), bytes: Semaphore::new(MAX_BYTES) }
    }

    /// Waits for room. A request that may wait for others is not counted: the one that ends its wait must get through.
    async fn admit(&self, request: &Request, payload: usize) -> [Option<SemaphorePermit<'_>>; 2] {
        let read = match request {
            Request::Read(read) => read.length as usize,
            Request::ReadStripe(read) => read.length as usize,
            _ => 0,
        };
        let bytes = (payload + read).min(MAX_BYTES) as u32;
        // The semaphores are never closed.
        let requests = if request.waits() { None } else { self.requests.acquire().await.ok() };
        let bytes = if bytes == 0 { None } else { self.bytes.acquire_many(bytes).await.ok() };
        [requests, bytes]
    }
}

/// Does one operation and retries it under its operation id until it is answered or its deadline has passed.
pub(super) async fn perform(
    network: &Arc<Network>,
    limits: &Limits,
    cache: &cache::Cache,
    context: &Context,
    patience: Option<Duration>,
    request: Request,
    payload: Bytes,
) -> Result<(Reply, Bytes), Failure> {
    let now = || network.surroundings.now();
    let deadline = context.deadline.or_else(|| patience.and_then(|patience| now().checked_add(patience)));
    let waits = request.waits();
    // Names the operation of a wait, which must not hold up the session's low-water mark.
    let call = match context.call {
        None if waits => Some(network.surroundings.random().ok_or(FlareError::Io)?),
        call => call,
    };
    let attempt = async {
        let _room = limits.admit(&request, payload.len()).await;
        let _mutation = cache.mutation(&request);
        let operation = Operation { network, context, request: &request, call, deadline };
        operation.run(payload).await
    };
    let Some(deadline) = deadline else { return attempt.await };
    let left = deadline.saturating_duration_since(now());
    let timer = network.surroundings.sleep(if waits { left.saturating_add(GRACE) } else { left });
    tokio::select! {
        biased;
        outcome = attempt => outcome,
        () = timer => Err(FlareError::TimedOut.into()),
    }
}

struct Operation<'a> {
    network: &'a Arc<Network>,
    context: &'a Context,
    request: &'a Request,
    call: Option<u128>,
    deadline: Option<Instant>,
}

/// What one try came to.
enum Tried {
    Done(Result<(Reply, Bytes), Failure>),
    /// Not done, or not done as far as we know.
    Again {
        in_doubt: bool,
    },
    SessionEnded,
}

impl Operation<'_> {
    async fn run(&self, payload: Bytes) -> Result<(Reply, Bytes), Failure> {
        let body = self.request.encode().map_err(|_| FlareError::TooBig)?;
        let key = self.request.key();
        let numbered = self.request.mutates() && self.call.is_none();
        let flare = if let Request::Open(open) = self.request { Some(open.handle) } else { None };
        let mut opening = self.request.opens().then(|| self.network.opens.begin(flare));
        let mut ticket: Option<Ticket> = None;
        let mut in_doubt = false;
        let mut backoff = Backoff::new();
        loop {
            let seen = self.network.moves();
            let link = self.network.route(key.as_ref()).await;
            let Some(session) = self.network.session() else { return Err(FlareError::SessionEnded.into()) };
            if numbered && ticket.as_ref().is_none_or(|ticket| ticket.session.id != session.id) {
                if in_doubt {
                    // It may or may not have been done under the number it had in the session that has ended.
                    return Err(FlareError::SessionEnded.into());
                }
                ticket = Some(session.number().await);
            }
            let header = self.header(&session, ticket.as_ref());
            let sent = link.exchange(
                header,
                self.request.opcode(),
                &body,
                payload.clone(),
                self.manner(payload.len()),
            );
            match self.judge(sent.await?) {
                Tried::Done(Ok((reply, payload))) => {
                    if let (Some(mut opening), Some(handle)) = (opening.take(), opened(&reply)) {
                        if opening.opened(handle) {
                            self.network.state(handle).await;
                        }
                        opening.delivered();
                    }
                    return Ok((reply, payload));
                }
                Tried::Done(failure) => return failure,
                Tried::Again { in_doubt: doubt } => {
                    in_doubt |= doubt;
                    self.network.pause(backoff.next(), seen).await;
                }
                Tried::SessionEnded if in_doubt && numbered => return Err(FlareError::SessionEnded.into()),
                Tried::SessionEnded => self.network.renew(&session).await,
            }
        }
    }

    fn header(&self, session: &Session, ticket: Option<&Ticket>) -> RequestHeader {
        let left =
            self.deadline.map(|deadline| deadline.saturating_duration_since(self.network.surroundings.now()));
        RequestHeader {
            tag: Tag(0),
            durability: self.context.durability,
            topology_version: self.network.topology().version,
            session: session.id,
            sequence: ticket.map_or(0, |ticket| ticket.sequence),
            acknowledged: session.acknowledged(),
            call: self.call,
            deadline_ms: left.map(|left| u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)),
            forwarded: false,
            credentials: (*self.context.credentials).clone(),
        }
    }

    fn manner(&self, payload: usize) -> Manner {
        Manner {
            class: self.request.stream_class(payload),
            cancel: self.request.waits(),
            orphan: self.request.opens(),
        }
    }

    fn judge(&self, exchanged: Exchanged) -> Tried {
        let frame = match exchanged {
            Exchanged::Reply(frame) => frame,
            Exchanged::Unsent => return Tried::Again { in_doubt: false },
            Exchanged::InDoubt => return Tried::Again { in_doubt: true },
        };
        self.network.heard(frame.topology_version);
        match frame.outcome() {
            Ok(Ok(done)) => Tried::Done(Ok(done)),
            Ok(Err(failure)) => match failure.error {
                FlareError::Unavailable => {
                    self.network.unserved(self.request.key().as_ref());
                    Tried::Again { in_doubt: true }
                }
                FlareError::NotOwner => {
                    self.network.unserved(self.request.key().as_ref());
                    Tried::Again { in_doubt: false }
                }
                FlareError::TooManyOutstanding => Tried::Again { in_doubt: false },
                FlareError::SessionEnded => Tried::SessionEnded,
                _ => Tried::Done(Err(failure)),
            },
            Err(error) => {
                tracing::error!(target: "magma::net", %error, operation = self.request.name(), "a reply cannot be decoded");
                Tried::Done(Err(FlareError::Io.into()))
            }
        }
    }
}

fn opened(reply: &Reply) -> Option<Handle> {
    match reply {
        Reply::Open(attr) => Some(attr.handle),
        Reply::Create(made) => Some(made.attr.handle),
        _ => None,
    }
}
