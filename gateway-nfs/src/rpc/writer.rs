//! Sends replies: those that are ready together go out together, bulk data from where it lies.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::connection::Connection;
use super::record::marker;
use crate::xdr::{Body, padding};

/// A client that takes no byte of its replies for this long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// Most replies gathered for one write.
const MAX_BATCH: usize = 32;
/// Bytes gathered after which no further reply is waited for.
const BATCH_BYTES: usize = 256 << 10;
/// Most pieces handed to one system call.
const MAX_PIECES: usize = 64;

/// A reply on its way, with what it holds until it is sent.
pub(crate) struct Outgoing<P> {
    pub(crate) body: Body,
    /// Given back when the reply is out.
    pub(crate) permit: P,
}

/// Writes replies until there are no more senders, the connection ends, or the client stops reading.
pub(crate) async fn write_replies<P>(connection: Arc<Connection>, mut replies: mpsc::Receiver<Outgoing<P>>) {
    let mut batch = Batch::default();
    while let Some(first) = replies.recv().await {
        let mut permits = vec![first.permit];
        batch.push(&first.body);
        while permits.len() < MAX_BATCH && batch.bytes < BATCH_BYTES {
            let Ok(next) = replies.try_recv() else { break };
            batch.push(&next.body);
            permits.push(next.permit);
        }
        let sent = tokio::select! {
            sent = batch.send(&connection) => sent,
            () = connection.closed() => return,
        };
        if let Err(error) = sent {
            tracing::debug!(target: "magma::nfs", client = %connection.peer.client, %error, "cannot send a reply");
            connection.close();
            return;
        }
    }
}

/// Replies as a list of pieces: small ones run together, payloads stay where they are.
#[derive(Default)]
struct Batch {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, body: &Body) {
        self.bytes += body.len() + 4;
        self.tail.put_slice(&marker(body.len()));
        self.tail.put_slice(&body.head);
        if !body.payload.is_empty() {
            self.close_tail();
            self.pieces.push_back(body.payload.clone());
            self.tail.put_bytes(0, padding(body.payload.len()));
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    async fn send(&mut self, connection: &Connection) -> io::Result<()> {
        self.close_tail();
        self.bytes = 0;
        while !self.pieces.is_empty() {
            match tokio::time::timeout(STALLED, connection.stream.writable()).await {
                Ok(ready) => ready?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
            let slices: Vec<IoSlice<'_>> =
                self.pieces.iter().take(MAX_PIECES).map(|piece| IoSlice::new(piece)).collect();
            match connection.stream.try_write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    connection.flowing();
                    self.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.blocked(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::record::RecordReader;
    use crate::xdr::Encoder;

    #[test]
    fn a_batch_is_the_replies_one_after_the_other() {
        let mut batch = Batch::default();
        for payload in [&b""[..], b"payload", b"", b"12345678"] {
            let mut out = Encoder::new();
            out.u32(7);
            out.last_opaque(Bytes::copy_from_slice(payload));
            batch.push(&out.finish());
        }
        batch.close_tail();
        let mut reader = RecordReader::default();
        for piece in &batch.pieces {
            reader.buffer().extend_from_slice(piece);
        }
        assert_eq!(&reader.next().unwrap().unwrap()[..], b"\0\0\0\x07\0\0\0\0");
        assert_eq!(&reader.next().unwrap().unwrap()[..], b"\0\0\0\x07\0\0\0\x07payload\0");
        assert_eq!(&reader.next().unwrap().unwrap()[..], b"\0\0\0\x07\0\0\0\0");
        assert_eq!(&reader.next().unwrap().unwrap()[..], b"\0\0\0\x07\0\0\0\x0812345678");
        assert!(!reader.is_partial());
    }
}
