//! The client's side of one connection: exchanges requests for replies.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::silence::{LOOK, Sign, Silence};
use super::{close, lock};
use crate::error::FlareError;
use crate::proto::frame::{self, FrameError, ReplyFrame, RequestHeader, StreamClass, Tag};
use crate::surroundings::{Running, Surroundings, Wire};
use crate::watched::Watched;

/// No request's tag. Cancelling it means nothing and is acknowledged like everything that is sent.
const PROBE: Tag = Tag(0);

/// Why no connection came about, or why one ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The two ends have different keys.
    #[error("the two ends have different keys")]
    WrongKey,
    /// The two ends speak different versions of the flare protocol.
    #[error("the two ends speak different versions of the flare protocol")]
    Version,
    /// Anything that may pass.
    #[error("{0}")]
    Lost(String),
}

/// What to do with a reply.
enum Slot {
    Waiting {
        caller: oneshot::Sender<ReplyFrame>,
        orphan: bool,
    },
    /// The caller has gone, but a success must be made undone: see [`Link::set_orphan_sink`].
    Orphan,
}

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum Exchanged {
    /// With an answer.
    Reply(ReplyFrame),
    /// The connection was gone before anything was sent.
    Unsent,
    /// The connection was lost after the request went out: whether it was done is in doubt.
    InDoubt,
}

#[derive(Default)]
struct Pending {
    slots: BTreeMap<Tag, Slot>,
    next_tag: u32,
    closed: bool,
    /// Somebody listens for signs of life.
    watched: bool,
}

type OrphanSink = Box<dyn Fn(ReplyFrame) + Send + Sync>;

/// One connection to a volcano. Usable from any thread.
pub struct Link {
    wire: Arc<dyn Wire>,
    pending: Mutex<Pending>,
    orphans: Mutex<Option<OrphanSink>>,
    lost: Watched<Option<LinkError>>,
    /// An answer is expected and nobody listens for signs of life yet.
    expecting: Arc<Notify>,
    watching: Mutex<Option<Running>>,
}

/// How a request is sent and what becomes of it when its caller goes away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Which kind of stream.
    pub(crate) class: StreamClass,
    /// Tell the volcano when the caller goes away.
    pub(crate) cancel: bool,
    /// Hand a late reply to the orphan sink.
    pub(crate) orphan: bool,
}

impl Link {
    /// Connects to a volcano; one that has not answered within `limit` does not answer.
    pub(crate) async fn connect(
        surroundings: &Arc<dyn Surroundings>,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<Arc<Self>, LinkError> {
        let wire = surroundings.connect(address, limit).await?;
        let link = Arc::new(Self {
            wire,
            pending: Mutex::default(),
            orphans: Mutex::default(),
            lost: Watched::new(None),
            expecting: Arc::default(),
            watching: Mutex::default(),
        });
        link.wire.listen(Arc::downgrade(&link));
        let watching =
            watch_over(Arc::clone(surroundings), Arc::downgrade(&link), Arc::clone(&link.expecting));
        *lock(&link.watching) = Some(surroundings.spawn(Box::pin(watching)));
        Ok(link)
    }

    /// Receives the replies to abandoned requests that were sent with [`Manner::orphan`].
    pub(crate) fn set_orphan_sink(&self, sink: OrphanSink) {
        *lock(&self.orphans) = Some(sink);
    }

    /// Resolves when the connection is gone.
    pub(crate) async fn lost(&self) -> LinkError {
        self.lost.until(Option::is_some).await.unwrap_or_else(closed)
    }

    /// Whether requests can still be sent.
    pub(crate) fn is_open(&self) -> bool {
        !lock(&self.pending).closed
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.wire.remote_address()
    }

    /// The address from which the system sends to the volcano.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        let any = if self.remote_address().is_ipv4() {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::from(Ipv6Addr::UNSPECIFIED)
        };
        // Connecting a datagram socket sends nothing.
        let probe = std::net::UdpSocket::bind((any, 0)).ok()?;
        probe.connect(self.remote_address()).ok()?;
        probe.local_addr().ok().map(|address| address.ip())
    }

    /// Ends the connection in order.
    pub(crate) fn close(&self) {
        self.wire.close(close::DONE, b"done");
        self.ended(None);
    }

    /// Sends a request and waits for its reply. Dropping the future forgets the request.
    ///
    /// Fails if the request cannot be encoded within the protocol's limits.
    pub(crate) async fn exchange(
        &self,
        mut header: RequestHeader,
        opcode: u16,
        body: &[u8],
        payload: Bytes,
        manner: Manner,
    ) -> Result<Exchanged, FlareError> {
        let (caller, receiver) = oneshot::channel();
        let Some(tag) = self.reserve(Slot::Waiting { caller, orphan: manner.orphan }) else {
            return Ok(Exchanged::Unsent);
        };
        let mut guard =
            Guard { link: self, tag, manner: Manner { cancel: false, orphan: false, ..manner }, receiver };
        header.tag = tag;
        let encoded = frame::request(&header, opcode, body, payload)?;
        if !self.wire.send(manner.class, encoded) {
            return Ok(Exchanged::Unsent);
        }
        guard.manner = manner;
        Ok((&mut guard.receiver).await.map_or(Exchanged::InDoubt, Exchanged::Reply))
    }

    fn reserve(&self, waiting: Slot) -> Option<Tag> {
        let mut pending = lock(&self.pending);
        if pending.closed {
            return None;
        }
        if !std::mem::replace(&mut pending.watched, true) {
            self.expecting.notify_one();
        }
        // Far fewer requests are outstanding than there are tags.
        loop {
            pending.next_tag = pending.next_tag.checked_add(1).unwrap_or(PROBE.0 + 1);
            let tag = Tag(pending.next_tag);
            if let std::collections::btree_map::Entry::Vacant(slot) = pending.slots.entry(tag) {
                slot.insert(waiting);
                return Some(tag);
            }
        }
    }

    /// A reply has arrived.
    pub fn receive(&self, reply: ReplyFrame) {
        let slot = lock(&self.pending).slots.remove(&reply.tag);
        match slot {
            Some(Slot::Waiting { caller, orphan }) => match caller.send(reply) {
                // The caller has gone in this moment.
                Err(reply) if orphan => self.orphaned(reply),
                Ok(()) | Err(_) => {}
            },
            Some(Slot::Orphan) => self.orphaned(reply),
            // Cancelled.
            None => {}
        }
    }

    fn orphaned(&self, reply: ReplyFrame) {
        if let Some(sink) = &*lock(&self.orphans) {
            sink(reply);
        }
    }

    /// What the volcano is known to have heard so far. Of one that speaks and does not hear we will have no answer.
    fn heard(&self) -> u64 {
        self.wire.acknowledged()
    }

    /// Takes one look; false if there is no more need to.
    fn look(&self, silence: &mut Silence) -> bool {
        {
            let mut pending = lock(&self.pending);
            if pending.slots.is_empty() || pending.closed {
                pending.watched = false;
                return false;
            }
        }
        match silence.look(self.heard()) {
            Sign::Alive => {}
            // Of a wire that has ended we hear in another way.
            Sign::Probe => {
                self.wire.send(StreamClass::Metadata, frame::cancel(PROBE));
            }
            Sign::Gone => {
                self.gone(LinkError::Lost("the volcano acknowledges nothing".into()));
                self.close();
            }
        }
        true
    }

    fn gone(&self, reason: LinkError) {
        self.lost.replace_if(Option::is_none, Some(reason));
    }

    /// The wire has ended, or what came from it broke the protocol.
    pub fn ended(&self, broken: Option<FrameError>) {
        let reason = match (broken, self.wire.ending()) {
            (Some(error), _) => {
                self.wire.close(close::PROTOCOL, error.to_string().as_bytes());
                LinkError::Lost(format!("the volcano broke the protocol: {error}"))
            }
            (None, Some(error)) => error,
            (None, None) => {
                self.wire.close(close::DONE, b"");
                closed()
            }
        };
        self.gone(reason);
        // Whoever waits is woken after the reason stands.
        let slots = {
            let mut pending = lock(&self.pending);
            pending.closed = true;
            std::mem::take(&mut pending.slots)
        };
        drop(slots);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.wire.close(close::DONE, b"done");
    }
}

fn closed() -> LinkError {
    LinkError::Lost("the connection was closed".into())
}

/// Listens for signs of life while answers are expected: a machine that has vanished sends no farewell, and the connection's
/// idle time-out is long, for the sake of those that only wait for something to do.
async fn watch_over(surroundings: Arc<dyn Surroundings>, link: Weak<Link>, expecting: Arc<Notify>) {
    loop {
        expecting.notified().await;
        let Some(mut silence) = link.upgrade().map(|link| Silence::new(link.heard())) else { return };
        loop {
            surroundings.sleep(LOOK).await;
            let Some(link) = link.upgrade() else { return };
            if !link.look(&mut silence) {
                break;
            }
        }
    }
}

/// Forgets a request whose caller goes away. After the answer it has nothing left to do.
struct Guard<'a> {
    link: &'a Link,
    tag: Tag,
    manner: Manner,
    receiver: oneshot::Receiver<ReplyFrame>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let waited = match lock(&self.link.pending).slots.get_mut(&self.tag) {
            Some(slot) if self.manner.orphan => {
                *slot = Slot::Orphan;
                true
            }
            Some(_) => true,
            None => false,
        };
        if !waited {
            // The answer may have come without having been looked at.
            if self.manner.orphan
                && let Ok(reply) = self.receiver.try_recv()
            {
                self.link.orphaned(reply);
            }
            return;
        }
        if !self.manner.orphan {
            lock(&self.link.pending).slots.remove(&self.tag);
        }
        if self.manner.cancel {
            // A wire that has ended has nobody to tell.
            self.link.wire.send(StreamClass::Metadata, frame::cancel(self.tag));
        }
    }
}

#[cfg(test)]
mod tests;
