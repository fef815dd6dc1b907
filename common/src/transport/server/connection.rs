//! One connection of a client: its streams, their frames, and their limits.

use std::rc::Rc;
use std::sync::Arc;

use quinn::VarInt;
use tokio::task::JoinSet;

use super::{IncomingRequest, PeerId, ReplyTo, Shared, close};
use crate::auth::Role;
use crate::error::FlareError;
use crate::proto::Request;
use crate::proto::frame::{Frame, FrameError, RequestFrame, StreamClass, Tag};
use crate::proto::limits::MAX_IO;
use crate::transport::credit::Credit;
use crate::transport::outbox::Outbox;
use crate::transport::reader::{FrameReader, ReadError};

/// Requests of one stream that may be in work at a time.
const REQUESTS_PER_STREAM: usize = 1024;
/// Bytes of payload, coming or going, that the requests in work of one stream may move.
const BYTES_PER_STREAM: usize = 16 * MAX_IO as usize;
/// Requests of one connection that may wait for other clients. They are not counted as in work, because
/// what ends their wait may come on the same stream.
const MAX_WAITING: usize = 1024;
/// For a volcano that passes on the requests of many clients.
const MAX_WAITING_FORWARDED: usize = 16 * MAX_WAITING;
/// Frames that are handed over before other tasks get a turn.
const TURN: usize = 128;

impl Shared {
    /// Serves a connection until it ends; the reason why it did.
    pub(super) async fn serve_connection(
        self: Rc<Self>,
        peer: PeerId,
        role: Role,
        connection: &quinn::Connection,
    ) -> quinn::ConnectionError {
        let waiting = match role {
            Role::Client => MAX_WAITING,
            Role::Node => MAX_WAITING_FORWARDED,
        };
        let waiting = Credit::new(waiting, 0);
        let mut streams = JoinSet::new();
        let reason = loop {
            match connection.accept_bi().await {
                Ok((sender, receiver)) => {
                    while streams.try_join_next().is_some() {}
                    let stream = Stream {
                        shared: Rc::clone(&self),
                        peer,
                        role,
                        waiting: Arc::clone(&waiting),
                        credit: Credit::new(REQUESTS_PER_STREAM, BYTES_PER_STREAM),
                        outbox: Arc::new(Outbox::default()),
                    };
                    streams.spawn_local(stream.serve(connection.clone(), sender, receiver));
                }
                Err(reason) => break reason,
            }
        };
        streams.shutdown().await;
        reason
    }
}

struct Stream {
    shared: Rc<Shared>,
    peer: PeerId,
    role: Role,
    waiting: Arc<Credit>,
    credit: Arc<Credit>,
    outbox: Arc<Outbox>,
}

/// What keeps a stream from going on.
enum Stop {
    /// The peer broke the protocol: the connection ends.
    Broken(FrameError),
    /// The stream or the connection is gone.
    Gone,
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Frame(error) => Self::Broken(error),
            ReadError::Stream(_) => Self::Gone,
        }
    }
}

/// Closes the outbox when the stream's task ends, however it does, so that late answers are dropped.
struct CloseOnDrop(Arc<Outbox>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Stream {
    async fn serve(
        self,
        connection: quinn::Connection,
        mut sender: quinn::SendStream,
        receiver: quinn::RecvStream,
    ) {
        let _close = CloseOnDrop(Arc::clone(&self.outbox));
        let mut reader = FrameReader::new(receiver);
        let class = match reader.next().await.map_err(Stop::from) {
            Ok(Some(Frame::Hello(class))) => class,
            Ok(_) => return self.broken(&connection, FrameError::Type(0)),
            Err(Stop::Broken(error)) => return self.broken(&connection, error),
            Err(Stop::Gone) => return,
        };
        if class == StreamClass::Metadata && sender.set_priority(1).is_err() {
            return;
        }
        let outbox = Arc::clone(&self.outbox);
        tokio::select! {
            stop = self.read(&mut reader) => match stop {
                Ok(()) | Err(Stop::Gone) => {}
                Err(Stop::Broken(error)) => self.broken(&connection, error),
            },
            // The stream is gone; so will be its reader.
            _ = outbox.write_to(&mut sender) => {}
        }
    }

    fn broken(&self, connection: &quinn::Connection, error: FrameError) {
        if let Some(suppressed) = self.shared.broken.allow() {
            let address = connection.remote_address();
            tracing::warn!(target: "magma::net", %address, %error, suppressed, "a peer broke the protocol");
        }
        connection.close(VarInt::from_u32(close::PROTOCOL), error.to_string().as_bytes());
    }

    async fn read(&self, reader: &mut FrameReader) -> Result<(), Stop> {
        let mut turn = 0;
        while let Some(frame) = reader.next().await? {
            match frame {
                Frame::Request(frame) => self.request(frame).await,
                // A client that wants to know whether we live.
                Frame::Cancel(Tag(0)) => {}
                Frame::Cancel(tag) => {
                    self.shared.handler.cancelled(self.peer, tag);
                    self.shared.batch.mark();
                }
                Frame::Hello(_) => return Err(Stop::Broken(FrameError::Type(1))),
                Frame::Reply(_) => return Err(Stop::Broken(FrameError::Type(3))),
            }
            turn += 1;
            if turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn request(&self, frame: RequestFrame) {
        let (tag, opcode) = (frame.header.tag, frame.opcode);
        let reply_to = |permit| ReplyTo::new(Arc::clone(&self.outbox), tag, opcode, permit);
        // Who is no volcano has nothing to pass on, and must not get around what volcanos do not pass on twice.
        let may_be_said = !frame.header.forwarded || self.role == Role::Node;
        let request = match frame.request() {
            Ok(request) if may_be_said => request,
            Ok(_) => return reply_to(self.credit.acquire(0).await).refuse(FlareError::BadRequest),
            Err(error) => return reply_to(self.credit.acquire(0).await).refuse(error),
        };
        let reply = if request.waits() {
            match self.waiting.try_acquire() {
                Some(permit) => reply_to(permit),
                None => return reply_to(self.credit.acquire(0).await).refuse(FlareError::NoLocks),
            }
        } else {
            reply_to(self.credit.acquire(bytes_moved(&request, &frame)).await)
        };
        let request = IncomingRequest { header: frame.header, request, payload: frame.payload };
        self.shared.handler.request(self.peer, request, reply);
        self.shared.batch.mark();
    }
}

fn bytes_moved(request: &Request, frame: &RequestFrame) -> usize {
    let back = match request {
        Request::Read(read) => read.length as usize,
        Request::ReadStripe(read) => read.length as usize,
        _ => 0,
    };
    frame.payload.len() + back
}
