//! The open connections: their number is limited, and when it is reached the one that is missed least makes room.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Silence after which the peer's host is asked whether it still knows the connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 6;
/// The same while somebody waits to hear whether the peer is still there.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_RETRIES: u32 = 2;
/// Idle second, interval and retries of a probe, and some slack for the timers' granularity.
const PROBE_PATIENCE: Duration = Duration::from_millis(4500);

/// Names a connection while this process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// Both ends of a connection or datagram. Addresses are canonical: IPv4 is never dressed as IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The client.
    pub(crate) client: SocketAddr,
    /// The address of ours that it dialled.
    pub(crate) dialled: SocketAddr,
}

impl Peer {
    pub(crate) fn new(client: SocketAddr, dialled: SocketAddr) -> Self {
        let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
        Self { client: canonical(client), dialled: canonical(dialled) }
    }
}

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: Peer,
    pub(crate) stream: TcpStream,
    /// Calls that have not been answered yet.
    pub(crate) in_flight: AtomicUsize,
    /// The register's clock when a call last arrived; 0 if none ever has.
    last_call: AtomicU64,
    /// The client has said that it sends no more; it may still wait for replies.
    leaving: AtomicBool,
    /// When the client stopped taking replies, counted from `began`; 0 if it takes them.
    blocked_since_ms: AtomicU64,
    began: Instant,
    closed: watch::Sender<bool>,
}

impl Connection {
    /// Notes that the client has no more to say.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Notes that the client takes no more bytes for the moment.
    pub(crate) fn blocked(&self) {
        let now = (self.began.elapsed().as_millis() as u64).max(1);
        // The first time counts.
        let _ = self.blocked_since_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Notes that the client takes bytes.
    pub(crate) fn flowing(&self) {
        self.blocked_since_ms.store(0, Ordering::Relaxed);
    }

    /// How long the client has taken no byte of what waits for it.
    fn blocked_for(&self) -> Duration {
        match self.blocked_since_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.began.elapsed().saturating_sub(Duration::from_millis(since)),
        }
    }

    /// Ends it: nothing is read any more, and what is not written yet stays unwritten.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether it has ended.
    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Returns when it has ended.
    pub(crate) async fn closed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Asks the peer's host whether it still knows this connection; false if it says no or nothing.
    ///
    /// A half-open connection, left behind by a pulled cable or a crashed client, looks like any other until then.
    pub(crate) async fn probe(&self) -> bool {
        if self.is_hung_up().await {
            return false;
        }
        let probing = TcpKeepalive::new()
            .with_time(PROBE_INTERVAL)
            .with_interval(PROBE_INTERVAL)
            .with_retries(PROBE_RETRIES);
        let socket = SockRef::from(&self.stream);
        if let Err(error) = socket.set_tcp_keepalive(&probing) {
            tracing::debug!(target: "magma::nfs", client = %self.peer.client, %error, "cannot probe a connection");
            return !self.is_closed();
        }
        let alive =
            tokio::time::timeout(PROBE_PATIENCE, self.closed()).await.is_err() && !self.is_hung_up().await;
        if alive {
            set_keepalive(&self.stream);
        }
        alive
    }

    /// Whether the system knows that the peer is gone, even if nobody reads from the connection for the moment.
    async fn is_hung_up(&self) -> bool {
        let known = self.stream.ready(Interest::READABLE | Interest::ERROR);
        match tokio::time::timeout(Duration::ZERO, known).await {
            Ok(Ok(ready)) => ready.is_read_closed() || ready.is_error(),
            Ok(Err(_)) => true,
            Err(_) => false,
        }
    }
}

fn set_keepalive(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(target: "magma::nfs", %error, "cannot set keepalive");
    }
}

/// All open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: usize,
    state: Mutex<Register>,
}

#[derive(Debug, Default)]
struct Register {
    open: HashMap<ConnectionId, Arc<Connection>>,
    last_id: u64,
    /// Counts calls; orders connections by when they were last used.
    clock: u64,
}

impl Connections {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, Register> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new connection in. At the limit an idle one is closed for it; `None` if every other is at work.
    pub(crate) fn register(&self, stream: TcpStream) -> Option<Arc<Connection>> {
        // A peer that has reset the connection already has no address any more.
        let (Ok(client), Ok(dialled)) = (stream.peer_addr(), stream.local_addr()) else { return None };
        let mut state = self.state();
        if state.open.len() >= self.limit {
            let victim = state.least_missed()?;
            tracing::debug!(target: "magma::nfs", client = %victim.peer.client, "an idle connection makes room for another");
            victim.close();
            state.open.remove(&victim.id);
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(target: "magma::nfs", %error, "cannot set TCP_NODELAY");
        }
        set_keepalive(&stream);
        state.last_id += 1;
        let connection = Arc::new(Connection {
            id: ConnectionId(state.last_id),
            peer: Peer::new(client, dialled),
            stream,
            in_flight: AtomicUsize::new(0),
            last_call: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            blocked_since_ms: AtomicU64::new(0),
            began: Instant::now(),
            closed: watch::Sender::new(false),
        });
        state.open.insert(connection.id, Arc::clone(&connection));
        Some(connection)
    }

    /// Forgets a connection that has ended.
    pub(crate) fn remove(&self, connection: &Connection) {
        connection.close();
        self.state().open.remove(&connection.id);
        // Calls that still run keep the socket; the client must hear now that nothing more comes.
        if let Err(error) = SockRef::from(&connection.stream).shutdown(Shutdown::Both) {
            tracing::trace!(target: "magma::nfs", client = %connection.peer.client, %error, "closed already");
        }
    }

    /// Closes the connection whose client has refused to take its replies for longest, if for as long as this.
    ///
    /// Called when memory is short: such clients hold most of it, and give nothing back.
    pub(crate) fn close_most_blocked(&self, at_least: Duration) {
        let state = self.state();
        let blocked = state.open.values().max_by_key(|connection| connection.blocked_for());
        if let Some(connection) = blocked.filter(|connection| connection.blocked_for() >= at_least) {
            tracing::info!(target: "magma::nfs", client = %connection.peer.client, "closed: it does not take its replies");
            connection.close();
        }
    }

    /// Notes that a call has arrived.
    pub(crate) fn used(&self, connection: &Connection) {
        let mut state = self.state();
        state.clock += 1;
        connection.last_call.store(state.clock, Ordering::Relaxed);
    }

    /// The connection with this id, if its client still speaks there.
    pub(crate) fn find(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        let gone =
            |connection: &Connection| connection.is_closed() || connection.leaving.load(Ordering::Relaxed);
        self.state().open.get(&id).filter(|connection| !gone(connection)).map(Arc::clone)
    }

    /// Ends all of them.
    pub(crate) fn close_all(&self) {
        self.state().open.values().for_each(|connection| connection.close());
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.state().open.len()
    }
}

impl Register {
    /// Among those without calls in flight: first one that never made a call, then one from the host that has
    /// most connections, so that a host that opens many pays for it itself; of these the one unused for longest.
    fn least_missed(&self) -> Option<Arc<Connection>> {
        let mut per_host: HashMap<IpAddr, usize> = HashMap::new();
        for connection in self.open.values() {
            *per_host.entry(connection.peer.client.ip()).or_default() += 1;
        }
        let idle = self.open.values().filter(|connection| connection.in_flight.load(Ordering::Relaxed) == 0);
        let missed_least = idle.min_by_key(|connection| {
            let last_call = connection.last_call.load(Ordering::Relaxed);
            let of_host = per_host.get(&connection.peer.client.ip()).copied().unwrap_or(0);
            (last_call != 0, std::cmp::Reverse(of_host), last_call, connection.id)
        });
        missed_least.map(Arc::clone)
    }
}
