//! The client's side of one connection: exchanges requests for replies.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, VarInt};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

use super::outbox::Outbox;
use super::reader::FrameReader;
use super::silence::{LOOK, Sign, Silence};
use super::{SetupError, acknowledged, close, lock, tls, tuning};
use crate::auth::{ClientKeys, ClusterKeys};
use crate::error::FlareError;
use crate::proto::frame::{self, Frame, FrameError, ReplyFrame, RequestHeader, StreamClass, Tag};

/// First of the numbers with which QUIC reports TLS alerts (RFC 9001 §4.8).
const CRYPTO_ERROR: u64 = 0x100;
const CRYPTO_ERRORS: std::ops::Range<u64> = CRYPTO_ERROR..CRYPTO_ERROR + 0x100;

/// No request's tag. Cancelling it means nothing and is acknowledged like everything that is sent.
const PROBE: Tag = Tag(0);

/// Why no connection came about, or why one ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
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

impl From<&ConnectionError> for LinkError {
    fn from(error: &ConnectionError) -> Self {
        let code = match error {
            ConnectionError::TransportError(error) => u64::from(error.code),
            ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
            ConnectionError::VersionMismatch => return Self::Version,
            ConnectionError::TimedOut => return Self::Lost("no answer".into()),
            _ => return Self::Lost(error.to_string()),
        };
        match code.checked_sub(CRYPTO_ERROR) {
            Some(tls::ALERT_NO_PROTOCOL) => Self::Version,
            Some(_) if CRYPTO_ERRORS.contains(&code) => Self::WrongKey,
            _ => Self::Lost(error.to_string()),
        }
    }
}

/// Makes connections from one socket per address family.
pub(crate) struct Dialer {
    keys: Arc<quinn::crypto::rustls::QuicClientConfig>,
    endpoints: Mutex<[Option<quinn::Endpoint>; 2]>,
}

impl Dialer {
    /// For a client.
    pub(crate) fn new(keys: &ClientKeys) -> Result<Self, SetupError> {
        let keys = tls::client(&keys.identity(), keys.volcano(), tls::Protocol::Flare)?;
        Ok(Self { keys, endpoints: Mutex::default() })
    }

    /// For a volcano that asks another one as a client does.
    pub(crate) fn of_node(keys: &ClusterKeys) -> Result<Self, SetupError> {
        let keys = tls::client(&keys.node(), keys.volcano_public(), tls::Protocol::Flare)?;
        Ok(Self { keys, endpoints: Mutex::default() })
    }

    fn endpoint(&self, to: SocketAddr) -> Result<quinn::Endpoint, SetupError> {
        let any = match to {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let mut endpoints = lock(&self.endpoints);
        let [four, six] = &mut *endpoints;
        let slot = if to.is_ipv4() { four } else { six };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let address = SocketAddr::new(any, 0);
        let failed = |source| SetupError::Bind { address, source };
        let socket = tuning::socket(address).map_err(failed)?;
        let parameters = tuning::endpoint(None)?;
        let endpoint = quinn::Endpoint::new(parameters, None, socket, Arc::new(quinn::TokioRuntime));
        Ok(slot.insert(endpoint.map_err(failed)?).clone())
    }

    /// Connects; a volcano that does not complete a handshake within `limit` does not answer. The tasks of the connection
    /// run on the current runtime.
    pub(crate) async fn dial(&self, address: SocketAddr, limit: Duration) -> Result<Arc<Link>, LinkError> {
        Link::start(self.connect(address, limit).await?).await
    }

    /// An authenticated connection without streams.
    pub(super) async fn connect(
        &self,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<quinn::Connection, LinkError> {
        let lost = |error: &dyn std::fmt::Display| LinkError::Lost(error.to_string());
        let endpoint = self.endpoint(address).map_err(|error| lost(&error))?;
        let keys: Arc<dyn quinn::crypto::ClientConfig> = Arc::clone(&self.keys) as _;
        let mut config = quinn::ClientConfig::new(keys);
        config.transport_config(tuning::transport());
        let connecting =
            endpoint.connect_with(config, address, tls::SERVER_NAME).map_err(|error| lost(&error))?;
        match tokio::time::timeout(limit, connecting).await {
            Ok(done) => done.map_err(|error| LinkError::from(&error)),
            Err(_) => Err(LinkError::Lost(format!("no answer within {} s", limit.as_secs()))),
        }
    }

    /// Waits until the peers have been told of connections that were closed, but not for long.
    pub(crate) async fn finish(&self) {
        let endpoints = lock(&self.endpoints).clone();
        for endpoint in endpoints.into_iter().flatten() {
            // A peer that is gone need not keep us.
            let _ = tokio::time::timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
        }
    }
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
    slots: HashMap<Tag, Slot>,
    next_tag: u32,
    closed: bool,
    /// Somebody listens for signs of life.
    watched: bool,
}

type OrphanSink = Box<dyn Fn(ReplyFrame) + Send + Sync>;

/// One connection to a volcano. Usable from any thread.
pub(crate) struct Link {
    connection: quinn::Connection,
    metadata: Arc<Outbox>,
    bulk: Vec<Arc<Outbox>>,
    next_bulk: AtomicUsize,
    pending: Mutex<Pending>,
    orphans: Mutex<Option<OrphanSink>>,
    lost: watch::Sender<Option<LinkError>>,
    /// An answer is expected and nobody listens for signs of life yet.
    expecting: Arc<Notify>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
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
    async fn start(connection: quinn::Connection) -> Result<Arc<Self>, LinkError> {
        let lost = |error: ConnectionError| LinkError::from(&error);
        let mut streams = vec![(StreamClass::Metadata, connection.open_bi().await.map_err(lost)?)];
        for _ in 0..tuning::BULK_STREAMS {
            streams.push((StreamClass::Bulk, connection.open_bi().await.map_err(lost)?));
        }
        let outboxes: Vec<_> = streams.iter().map(|_| Arc::new(Outbox::default())).collect();
        let mut boxes = outboxes.iter().cloned();
        let link = Arc::new(Self {
            connection,
            metadata: boxes.next().unwrap_or_default(),
            bulk: boxes.collect(),
            next_bulk: AtomicUsize::new(0),
            pending: Mutex::default(),
            orphans: Mutex::default(),
            lost: watch::Sender::new(None),
            expecting: Arc::default(),
            tasks: Mutex::default(),
        });
        for ((class, (mut sender, receiver)), outbox) in streams.into_iter().zip(outboxes) {
            if class == StreamClass::Metadata {
                let _ = sender.set_priority(1);
            }
            // A new outbox is open.
            let _ = outbox.push(frame::hello(class), None);
            let weak = Arc::downgrade(&link);
            let task = tokio::spawn(async move {
                let broken = tokio::select! {
                    broken = read(&weak, FrameReader::new(receiver)) => broken,
                    _ = outbox.write_to(&mut sender) => None,
                };
                outbox.close();
                if let Some(link) = weak.upgrade() {
                    link.fail(broken);
                }
            });
            lock(&link.tasks).push(task);
        }
        let watching = tokio::spawn(watch_over(Arc::downgrade(&link), Arc::clone(&link.expecting)));
        lock(&link.tasks).push(watching);
        Ok(link)
    }

    /// Receives the replies to abandoned requests that were sent with [`Manner::orphan`].
    pub(crate) fn set_orphan_sink(&self, sink: OrphanSink) {
        *lock(&self.orphans) = Some(sink);
    }

    /// Resolves when the connection is gone.
    pub(crate) async fn lost(&self) -> LinkError {
        let mut watcher = self.lost.subscribe();
        match watcher.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(closed),
            Err(_) => closed(),
        }
    }

    /// Whether requests can still be sent.
    pub(crate) fn is_open(&self) -> bool {
        !lock(&self.pending).closed
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
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
        self.connection.close(VarInt::from_u32(close::DONE), b"done");
        self.fail(None);
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
        if self.outbox(manner.class).push(encoded, None).is_err() {
            return Ok(Exchanged::Unsent);
        }
        guard.manner = manner;
        Ok((&mut guard.receiver).await.map_or(Exchanged::InDoubt, Exchanged::Reply))
    }

    fn outbox(&self, class: StreamClass) -> &Outbox {
        if class == StreamClass::Metadata {
            return &self.metadata;
        }
        let turn = self.next_bulk.fetch_add(1, Ordering::Relaxed);
        self.bulk.get(turn % self.bulk.len().max(1)).unwrap_or(&self.metadata)
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
            if let std::collections::hash_map::Entry::Vacant(slot) = pending.slots.entry(tag) {
                slot.insert(waiting);
                return Some(tag);
            }
        }
    }

    fn deliver(&self, reply: ReplyFrame) {
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
        acknowledged::packets(&self.connection)
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
            // A closed outbox has no reader left.
            Sign::Probe => {
                let _ = self.metadata.push(frame::cancel(PROBE), None);
            }
            Sign::Gone => {
                self.gone(LinkError::Lost("the volcano acknowledges nothing".into()));
                self.close();
            }
        }
        true
    }

    fn gone(&self, reason: LinkError) {
        self.lost.send_if_modified(|lost| lost.is_none() && lost.replace(reason).is_none());
    }

    fn fail(&self, broken: Option<FrameError>) {
        let reason = match (broken, self.connection.close_reason()) {
            (Some(error), _) => {
                self.connection.close(VarInt::from_u32(close::PROTOCOL), error.to_string().as_bytes());
                LinkError::Lost(format!("the volcano broke the protocol: {error}"))
            }
            (None, Some(error)) => LinkError::from(&error),
            (None, None) => {
                self.connection.close(VarInt::from_u32(close::DONE), b"");
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
        self.metadata.close();
        self.bulk.iter().for_each(|outbox| outbox.close());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(close::DONE), b"done");
        lock(&self.tasks).iter().for_each(JoinHandle::abort);
    }
}

fn closed() -> LinkError {
    LinkError::Lost("the connection was closed".into())
}

/// Listens for signs of life while answers are expected: a machine that has vanished sends no farewell, and the connection's
/// idle time-out is long, for the sake of those that only wait for something to do.
async fn watch_over(link: Weak<Link>, expecting: Arc<Notify>) {
    loop {
        expecting.notified().await;
        let Some(mut silence) = link.upgrade().map(|link| Silence::new(link.heard())) else { return };
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(link) = link.upgrade() else { return };
            if !link.look(&mut silence) {
                break;
            }
        }
    }
}

/// Reads replies until the stream ends; what broke the protocol, if anything did.
fn read(link: &Weak<Link>, mut reader: FrameReader) -> impl Future<Output = Option<FrameError>> + Send {
    let link = Weak::clone(link);
    async move {
        loop {
            match reader.next().await {
                Ok(Some(Frame::Reply(reply))) => link.upgrade()?.deliver(reply),
                Ok(Some(_)) => return Some(FrameError::Type(0)),
                Ok(None) | Err(super::reader::ReadError::Stream(_)) => return None,
                Err(super::reader::ReadError::Frame(error)) => return Some(error),
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
            // A closed outbox has nobody to tell.
            let _ = self.link.metadata.push(frame::cancel(self.tag), None);
        }
    }
}

#[cfg(test)]
mod tests;
