//! A connection to a volcano over QUIC: a stream for metadata, a few for bulk data.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use quinn::{ConnectionError, VarInt};
use tokio::task::JoinHandle;

use super::link::{Link, LinkError};
use super::outbox::Outbox;
use super::reader::{FrameReader, ReadError};
use super::{acknowledged, close, lock, tls, tuning};
use crate::proto::frame::{self, Encoded, Frame, FrameError, StreamClass};
use crate::surroundings::Wire;

/// First of the numbers with which QUIC reports TLS alerts (RFC 9001 §4.8).
const CRYPTO_ERROR: u64 = 0x100;
const CRYPTO_ERRORS: std::ops::Range<u64> = CRYPTO_ERROR..CRYPTO_ERROR + 0x100;

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

struct Stream {
    outbox: Arc<Outbox>,
    /// Until somebody listens.
    ends: Mutex<Option<(quinn::SendStream, quinn::RecvStream)>>,
}

/// See the module's documentation.
pub(super) struct QuicWire {
    connection: quinn::Connection,
    metadata: Stream,
    bulk: Vec<Stream>,
    next_bulk: AtomicUsize,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl QuicWire {
    /// Opens the streams of a connection.
    pub(super) async fn open(connection: quinn::Connection) -> Result<Self, LinkError> {
        let metadata = open_stream(&connection, StreamClass::Metadata).await?;
        let mut bulk = Vec::new();
        for _ in 0..tuning::BULK_STREAMS {
            bulk.push(open_stream(&connection, StreamClass::Bulk).await?);
        }
        Ok(Self { connection, metadata, bulk, next_bulk: AtomicUsize::new(0), tasks: Mutex::default() })
    }

    fn streams(&self) -> impl Iterator<Item = &Stream> {
        std::iter::once(&self.metadata).chain(&self.bulk)
    }

    fn stream(&self, class: StreamClass) -> &Stream {
        if class == StreamClass::Metadata {
            return &self.metadata;
        }
        let turn = self.next_bulk.fetch_add(1, Ordering::Relaxed);
        self.bulk.get(turn % self.bulk.len().max(1)).unwrap_or(&self.metadata)
    }
}

async fn open_stream(connection: &quinn::Connection, class: StreamClass) -> Result<Stream, LinkError> {
    let (sender, receiver) = connection.open_bi().await.map_err(|error| LinkError::from(&error))?;
    if class == StreamClass::Metadata {
        let _ = sender.set_priority(1);
    }
    let outbox = Arc::new(Outbox::default());
    // A new outbox is open.
    let _ = outbox.push(frame::hello(class), None);
    Ok(Stream { outbox, ends: Mutex::new(Some((sender, receiver))) })
}

impl Wire for QuicWire {
    fn listen(&self, link: Weak<Link>) {
        for stream in self.streams() {
            let Some((mut sender, receiver)) = lock(&stream.ends).take() else { continue };
            let (link, outbox) = (Weak::clone(&link), Arc::clone(&stream.outbox));
            let task = tokio::spawn(async move {
                let broken = tokio::select! {
                    broken = read(&link, FrameReader::new(receiver)) => broken,
                    _ = outbox.write_to(&mut sender) => None,
                };
                outbox.close();
                if let Some(link) = link.upgrade() {
                    link.ended(broken);
                }
            });
            lock(&self.tasks).push(task);
        }
    }

    fn send(&self, class: StreamClass, frame: Encoded) -> bool {
        self.stream(class).outbox.push(frame, None).is_ok()
    }

    fn acknowledged(&self) -> u64 {
        acknowledged::packets(&self.connection)
    }

    fn close(&self, code: u32, reason: &[u8]) {
        self.connection.close(VarInt::from_u32(code), reason);
        self.streams().for_each(|stream| stream.outbox.close());
    }

    fn ending(&self) -> Option<LinkError> {
        self.connection.close_reason().map(|reason| LinkError::from(&reason))
    }

    fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }
}

impl Drop for QuicWire {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(close::DONE), b"done");
        lock(&self.tasks).iter().for_each(JoinHandle::abort);
    }
}

/// Reads replies until the stream ends; what broke the protocol, if anything did.
async fn read(link: &Weak<Link>, mut reader: FrameReader) -> Option<FrameError> {
    loop {
        match reader.next().await {
            Ok(Some(Frame::Reply(reply))) => link.upgrade()?.receive(reply),
            Ok(Some(_)) => return Some(FrameError::Type(0)),
            Ok(None) | Err(ReadError::Stream(_)) => return None,
            Err(ReadError::Frame(error)) => return Some(error),
        }
    }
}
