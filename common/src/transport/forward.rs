//! Passes requests on to the volcano that owns what they are about, and its answers back.
//!
//! To the owner a volcano that passes something on is a client with the node key, whose requests are marked
//! as [forwarded](RequestHeader::forwarded), so that no request goes round in circles. Everything else that a request says
//! about itself stays: it is the same operation, whoever brings it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex, Notify};

use super::SetupError;
use super::link::{Exchanged, Link, Manner};
use super::system::System;
use crate::auth::ClusterKeys;
use crate::error::FlareError;
use crate::proto::frame::{ReplyFrame, RequestHeader};
use crate::proto::operation::{KeepAlive, OpenSession};
use crate::proto::{Failure, Operation as _, Reply, Request};
use crate::surroundings::Surroundings;
use crate::topology::VolcanoId;

/// Requests that may be under way to one owner.
pub const MAX_OUTSTANDING: usize = 4096;
/// An owner that does not complete a handshake within this time is not reachable.
const DIAL_LIMIT: Duration = Duration::from_secs(1);
/// It is not tried again for this long; the clients try again meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no answer. The client should ask again under the same operation id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// [`MAX_OUTSTANDING`] requests are under way already; this one was not sent.
    #[error("too many requests are under way to the owner")]
    Full,
    /// The owner does not answer; the request was not sent.
    #[error("the owner cannot be reached")]
    Unreachable,
    /// The connection was lost after the request went out: whether it was done is in doubt.
    #[error("the connection to the owner was lost")]
    InDoubt,
}

/// An owner's answer, its body not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(pub(super) ReplyFrame);

impl Answer {
    /// The newest topology that the owner knows.
    pub fn topology_version(&self) -> u64 {
        self.0.topology_version
    }

    /// Decodes it. `Err` of the outer result means that it could not be decoded.
    pub fn outcome(self) -> Result<Result<(Reply, Bytes), Failure>, FlareError> {
        self.0.outcome()
    }
}

/// Keeps one connection per owner. Lives on one thread.
pub struct Forwarder {
    surroundings: Arc<dyn Surroundings>,
    own: VolcanoId,
    owners: RefCell<BTreeMap<SocketAddr, Rc<Owner>>>,
}

impl Forwarder {
    /// For the volcano `own`.
    pub fn new(keys: &ClusterKeys, own: VolcanoId) -> Result<Self, SetupError> {
        Ok(Self { surroundings: Arc::new(System::of_node(keys)?), own, owners: RefCell::default() })
    }

    /// Passes a request on to the volcano at this address of the flare protocol, and waits for its answer. Dropping the
    /// future forgets the request, and ends its wait if it waits for a lock.
    ///
    /// In answers about sessions this volcano becomes the [door](crate::proto::operation::KeepAliveReply::door).
    ///
    /// Must run inside a tokio runtime.
    pub async fn forward(
        &self,
        to: SocketAddr,
        header: RequestHeader,
        request: &Request,
        payload: Bytes,
    ) -> Result<Answer, Lost> {
        let owner = Rc::clone(self.owners.borrow_mut().entry(to).or_default());
        let _counted = owner.count().ok_or(Lost::Full)?;
        let started = Instant::now();
        let link = if let Some(link) = owner.ready() {
            link
        } else {
            tokio::select! {
                link = owner.reach(&self.surroundings, to) => link.ok_or(Lost::Unreachable)?,
                () = owner.until_retired() => return Err(Lost::Unreachable),
            }
        };
        let waited = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        let deadline_ms = header.deadline_ms.map(|left| left.saturating_sub(waited).max(1));
        let header = RequestHeader { forwarded: true, deadline_ms, ..header };
        // It has been decoded from a request within the limits, and is encoded as it was.
        let body = request.encode().map_err(|_| Lost::Unreachable)?;
        let class = request.stream_class(payload.len());
        let manner = Manner { class, cancel: request.waits(), orphan: false };
        match link.exchange(header, request.opcode(), &body, payload, manner).await {
            Ok(Exchanged::Reply(reply)) => Ok(Answer(self.at_this_door(reply))),
            Ok(Exchanged::InDoubt) => Err(Lost::InDoubt),
            Ok(Exchanged::Unsent) | Err(_) => Err(Lost::Unreachable),
        }
    }

    /// Gives up what is under way to all other addresses than these: to be called when the topology has changed, so that nobody
    /// waits for a volcano that owns nothing any more.
    pub fn keep_only(&self, addresses: &[SocketAddr]) {
        self.owners.borrow_mut().retain(|address, owner| {
            let kept = addresses.contains(address);
            if !kept {
                owner.retire();
            }
            kept
        });
    }

    /// Requests under way.
    pub fn outstanding(&self) -> usize {
        self.owners.borrow().values().map(|owner| owner.outstanding.get()).sum()
    }

    /// The client must learn at whose door it stands, not who answers behind it.
    fn at_this_door(&self, mut frame: ReplyFrame) -> ReplyFrame {
        if frame.failed || !matches!(frame.opcode, OpenSession::OPCODE | KeepAlive::OPCODE) {
            return frame;
        }
        let at_ours = match Reply::decode(frame.opcode, &frame.body) {
            Ok(Reply::KeepAlive(mut alive)) => {
                alive.door = self.own;
                Reply::KeepAlive(alive)
            }
            Ok(Reply::OpenSession(mut terms)) => {
                terms.door = self.own;
                Reply::OpenSession(terms)
            }
            Ok(_) | Err(_) => return frame,
        };
        if let Ok(body) = at_ours.encode() {
            frame.body = body.into();
        }
        frame
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.keep_only(&[]);
    }
}

/// A volcano that requests are passed on to.
#[derive(Default)]
struct Owner {
    link: RefCell<Option<Arc<Link>>>,
    /// Held by the one who dials; the others queue up in their order.
    dialling: Mutex<Option<Instant>>,
    outstanding: Cell<usize>,
    retired: Cell<bool>,
    retirement: Notify,
}

/// Counts a request that is under way.
struct Counted<'a>(&'a Cell<usize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Owner {
    fn count(&self) -> Option<Counted<'_>> {
        if self.outstanding.get() >= MAX_OUTSTANDING {
            return None;
        }
        self.outstanding.set(self.outstanding.get() + 1);
        Some(Counted(&self.outstanding))
    }

    fn ready(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone().filter(|link| link.is_open())
    }

    async fn reach(&self, surroundings: &Arc<dyn Surroundings>, to: SocketAddr) -> Option<Arc<Link>> {
        let mut failed = self.dialling.lock().await;
        if let Some(link) = self.ready() {
            return Some(link);
        }
        if self.retired.get() || failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return None;
        }
        match Link::connect(surroundings, to, DIAL_LIMIT).await {
            Ok(_) if self.retired.get() => None,
            Ok(link) => {
                tracing::debug!(target: "magma::net", address = %to, "connected to an owner");
                *failed = None;
                *self.link.borrow_mut() = Some(Arc::clone(&link));
                Some(link)
            }
            Err(error) => {
                tracing::debug!(target: "magma::net", address = %to, %error, "an owner cannot be reached");
                *failed = Some(Instant::now());
                None
            }
        }
    }

    async fn until_retired(&self) {
        let retirement = self.retirement.notified();
        if !self.retired.get() {
            retirement.await;
        }
    }

    fn retire(&self) {
        self.retired.set(true);
        self.retirement.notify_waiters();
        if let Some(link) = self.link.borrow_mut().take() {
            link.close();
        }
    }
}

#[cfg(test)]
mod tests;
