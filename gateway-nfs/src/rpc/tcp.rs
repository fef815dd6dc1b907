//! Connections: records in, replies out as they are ready, and an end to reading when too much is in flight.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::Connection;
use super::message::Incoming;
use super::record::{RecordReader, RecordTooLong};
use super::writer::{Outgoing, write_replies};
use crate::dispatch::{Answer, Arrival, answer};
use crate::gateway::Gateway;
use crate::nfs3::reply_bound;

/// Calls of one connection that run at the same time; more wait in the socket.
const CALLS_PER_CONNECTION: usize = 64;
/// Bytes of calls and replies that one connection may occupy, in KiB.
const KIB_PER_CONNECTION: u32 = 24 << 10;
/// Bytes of calls and replies that all connections together may occupy, in KiB.
pub(crate) const KIB_IN_ALL: u32 = 512 << 10;
/// A record must be complete this long after its first byte.
const RECORD_TIMEOUT: Duration = Duration::from_secs(30);
/// Memory that is short for so long is taken back from clients that have not taken their replies for as long.
const SHORTAGE: Duration = Duration::from_secs(1);
/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long calls that run may take to finish when the gateway stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Accepts connections until the gateway stops.
pub(crate) async fn accept(listener: TcpListener, gateway: Arc<Gateway>) {
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(connection) = gateway.connections.register(stream) {
                        serving.spawn(serve(Arc::clone(&gateway), connection));
                    } else {
                        tracing::debug!(target: "magma::nfs", "a connection is refused: all others are at work");
                    }
                }
                Err(error) => {
                    tracing::debug!(target: "magma::nfs", %error, "cannot accept a connection");
                    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            },
            Some(_) = serving.join_next() => {}
            () = gateway.stopping() => break,
        }
    }
    drop(listener);
    let drained = timeout(DRAIN, async { while serving.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(target: "magma::nfs", "stopping although some calls still run");
        gateway.connections.close_all();
    }
}

/// What a call occupies until its reply is out.
struct Occupied {
    connection: Arc<Connection>,
    _slot: OwnedSemaphorePermit,
    _share: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.connection.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one connection until its client leaves or it is closed.
async fn serve(gateway: Arc<Gateway>, connection: Arc<Connection>) {
    let (replies, outgoing) = mpsc::channel(CALLS_PER_CONNECTION);
    let mut writer = tokio::spawn(write_replies(Arc::clone(&connection), outgoing));
    tokio::select! {
        ended = read_calls(&gateway, &connection, replies) => {
            if let Err(error) = ended {
                tracing::debug!(target: "magma::nfs", client = %connection.peer.client, %error, "a connection is given up");
                connection.close();
            }
            connection.leave();
        }
        () = connection.closed() => {}
        _ = &mut writer => connection.close(),
    }
    // What runs may finish and be answered: it holds the senders that the writer waits for.
    if !connection.is_closed() && timeout(DRAIN, &mut writer).await.is_err() {
        connection.close();
    }
    gateway.connections.remove(&connection);
}

/// Why reading from a connection ends.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    TooLong(#[from] RecordTooLong),
    #[error("a record stayed unfinished for {} s", RECORD_TIMEOUT.as_secs())]
    Stalled,
}

async fn read_calls(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    replies: mpsc::Sender<Outgoing<Occupied>>,
) -> Result<(), ReadError> {
    let slots = Arc::new(Semaphore::new(CALLS_PER_CONNECTION));
    let share = Arc::new(Semaphore::new(KIB_PER_CONNECTION as usize));
    let mut reader = RecordReader::default();
    loop {
        let next = tokio::select! {
            next = next_record(connection, &mut reader) => next?,
            () = gateway.stopping() => return Ok(()),
        };
        let Some(record) = next else { return Ok(()) };
        connection.in_flight.fetch_add(1, Ordering::Relaxed);
        gateway.connections.used(connection);
        let incoming = Incoming::parse(&record);
        let size = record.len() + reply_bound(&incoming);
        let kib = (size as u32 / 1024 + 1).min(KIB_PER_CONNECTION);
        // The semaphores are never closed, so acquiring cannot fail.
        let (Ok(slot), Ok(share), Some(total)) = (
            Arc::clone(&slots).acquire_owned().await,
            Arc::clone(&share).acquire_many_owned(kib).await,
            acquire_memory(gateway, kib).await,
        ) else {
            return Ok(());
        };
        let occupied =
            Occupied { connection: Arc::clone(connection), _slot: slot, _share: share, _total: total };
        tokio::spawn(run_call(Arc::clone(gateway), incoming, occupied, replies.clone()));
    }
}

/// Waits for memory that all connections share, and takes it from clients that do not take their replies.
async fn acquire_memory(gateway: &Gateway, kib: u32) -> Option<OwnedSemaphorePermit> {
    let mut acquire = std::pin::pin!(Arc::clone(&gateway.memory).acquire_many_owned(kib));
    loop {
        match timeout(SHORTAGE, &mut acquire).await {
            Ok(acquired) => return acquired.ok(),
            Err(_) => gateway.connections.close_most_blocked(SHORTAGE),
        }
    }
}

/// Answers one call. It runs to its end even if the connection does not: its reply may be asked for again.
async fn run_call(
    gateway: Arc<Gateway>,
    incoming: Incoming,
    occupied: Occupied,
    replies: mpsc::Sender<Outgoing<Occupied>>,
) {
    let arrival = Arrival { peer: occupied.connection.peer, connection: Some(occupied.connection.id) };
    match answer(&gateway, &arrival, incoming).await {
        Answer::Reply(body) => {
            // Nobody is left to hear it if the writer is gone.
            let _ = replies.send(Outgoing { body, permit: occupied }).await;
        }
        Answer::HangUp => occupied.connection.close(),
    }
}

/// The next record; `None` when the client has no more to say.
async fn next_record(connection: &Connection, reader: &mut RecordReader) -> Result<Option<Bytes>, ReadError> {
    let mut deadline = None;
    loop {
        if let Some(record) = reader.next()? {
            return Ok(Some(record));
        }
        let readable = connection.stream.readable();
        if reader.is_partial() {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + RECORD_TIMEOUT);
            timeout_at(deadline, readable).await.map_err(|_| ReadError::Stalled)??;
        } else {
            readable.await?;
        }
        reader.reserve();
        match connection.stream.try_read_buf(reader.buffer()) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}
