//! One connection: reads requests, runs them in parallel, writes replies.
//!
//! Requests are handed to a [`Service`] as they come, each in a task of its own, so that a slow one
//! holds up nobody. What a client may have outstanding is bounded in bytes, twice: requests read, and
//! replies in the making. The first bound stops the reading; behind the second, requests wait where a
//! Tflush still reaches them. A reply counts until the client has taken it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, trace};

use crate::errno::{Refusal, refusals};
use crate::framing::{FrameReader, FramingError};
use crate::limits::{Limits, MAX_MSIZE, MIN_MSIZE};
use crate::tags::{Flushed, TagInUse, Tags};
use crate::wire::codec::Text;
use crate::wire::session::{Rflush, Rversion, Tversion, UNKNOWN_VERSION, VERSION};
use crate::wire::{Encoded, Frame, HEADER, Reply, Request};

/// What a request read counts at least, in bytes.
const MIN_REQUEST_COST: u32 = 4 << 10;
/// What a reply in the making counts at least, in bytes.
const MIN_REPLY_COST: u32 = 64 << 10;
/// Replies up to this size are copied together into one write.
const COALESCE: usize = 16 << 10;
/// The writer gathers small replies up to so many bytes.
const WRITE_BATCH: usize = 64 << 10;

/// How long a connection that ends waits for the client to take what was answered.
const LAST_REPLIES: Duration = Duration::from_secs(1);

/// What answers the requests of one connection.
pub(crate) trait Service: Send + Sync + 'static {
    /// A version was agreed on: everything before is forgotten, messages have up to `msize` bytes.
    fn reset(&self, msize: u32) -> impl Future<Output = ()> + Send;

    /// Answers a request. The future may be dropped at any point.
    fn serve(&self, request: Request, flushed: Flushed) -> impl Future<Output = Reply> + Send;
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// No more frames.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The client broke the rules for tags.
    #[error(transparent)]
    Tag(#[from] TagInUse),
    /// The client does not take replies any more.
    #[error("the client does not take replies any more")]
    Unwritable,
    /// A request's task died.
    #[error("a request failed inside the gateway")]
    Internal,
    /// The gateway made room for another connection, or stops.
    #[error("closed by the gateway")]
    Closed,
}

/// Shares of the client's limits that a reply gives back when it has been written.
type Permits = [Option<OwnedSemaphorePermit>; 2];

struct Outgoing {
    encoded: Encoded,
    permits: Permits,
}

#[derive(Clone)]
struct Outbox(mpsc::UnboundedSender<Outgoing>);

impl Outbox {
    /// Queues a reply. What bounds the queue are the permits that replies hold.
    fn send(&self, tag: u16, reply: Reply, permits: Permits) {
        trace!(target: "magma::9p", tag, reply = reply.name(), "reply");
        // A closed queue means that the connection is ending.
        let _ = self.0.send(Outgoing { encoded: reply.encode_apart(tag), permits });
    }
}

/// Serves one connection until it ends or `close` is ready.
pub(crate) async fn run<S: Service>(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    service: Arc<S>,
    limits: Limits,
    close: impl Future<Output = ()>,
) -> Ended {
    let (outbox, replies) = mpsc::unbounded_channel();
    let mut connection = Connection {
        service,
        limits,
        outbox: Outbox(outbox),
        tags: Arc::new(Tags::default()),
        requests: Arc::new(Semaphore::new(limits.requests_bytes as usize)),
        replies: Arc::new(Semaphore::new(limits.replies_bytes as usize)),
        flushes: Arc::new(Semaphore::new(limits.flushes)),
        running: JoinSet::new(),
    };
    let mut writing = tokio::spawn(write_replies(writer, replies));
    let mut frames = FrameReader::new(reader, limits.handshake, limits.unfinished_frame);
    let ended = tokio::select! {
        ended = connection.serve(&mut frames) => ended,
        _ = &mut writing => Ended::Unwritable,
        () = close => Ended::Closed,
    };
    if matches!(ended, Ended::Closed) {
        connection.drain().await;
    }
    connection.running.shutdown().await;
    drop(connection);
    if !writing.is_finished() && tokio::time::timeout(LAST_REPLIES, &mut writing).await.is_err() {
        writing.abort();
    }
    ended
}

struct Connection<S> {
    service: Arc<S>,
    limits: Limits,
    outbox: Outbox,
    tags: Arc<Tags>,
    requests: Arc<Semaphore>,
    replies: Arc<Semaphore>,
    flushes: Arc<Semaphore>,
    running: JoinSet<()>,
}

impl<S: Service> Connection<S> {
    async fn serve<R: AsyncRead + Unpin>(&mut self, frames: &mut FrameReader<R>) -> Ended {
        let mut agreed = false;
        loop {
            let frame = tokio::select! {
                biased;
                Some(done) = self.running.join_next() => match done {
                    Err(error) if error.is_panic() => return Ended::Internal,
                    _ => continue,
                },
                frame = frames.next() => match frame {
                    Ok(frame) => frame,
                    Err(error) => return error.into(),
                },
            };
            let (tag, cost) = (frame.tag, (frame.body.len() + HEADER) as u32);
            let step = match decode(frame) {
                Ok(Request::Tversion(version)) => self.agree(tag, &version).await.map(|msize| {
                    if let Some(msize) = msize {
                        frames.agreed(msize);
                        agreed = true;
                    }
                }),
                Ok(Request::Tflush(flush)) => self.flush(tag, flush.oldtag).await,
                Ok(request) if agreed => self.start(tag, cost, Ok(request)).await,
                Ok(_) => self.start(tag, cost, Err(refusals::NO_VERSION)).await,
                Err(refusal) => self.start(tag, cost, Err(refusal)).await,
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    /// Answers a Tversion; `None` if no version was agreed on.
    async fn agree(&mut self, tag: u16, asked: &Tversion) -> Result<Option<u32>, Ended> {
        self.running.shutdown().await;
        self.tags.clear();
        let msize = asked.msize.min(MAX_MSIZE);
        self.service.reset(msize).await;
        let permits = [Some(acquire(&self.requests, MIN_REQUEST_COST).await?), None];
        if msize < MIN_MSIZE {
            self.outbox.send(tag, refusals::MSIZE_TOO_SMALL.into(), permits);
            return Ok(None);
        }
        // A client may append to the version's name what the server need not know: `9P2000.L.x`.
        let rest = asked.version.as_bytes().strip_prefix(VERSION);
        let ours = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."));
        let version = Text::new(if ours { VERSION } else { UNKNOWN_VERSION });
        self.outbox.send(tag, Rversion { msize, version }.into(), permits);
        Ok(ours.then_some(msize))
    }

    async fn flush(&self, tag: u16, old: u16) -> Result<(), Ended> {
        let permit = acquire(&self.flushes, 1).await?;
        if let Some(permit) = self.tags.flush(tag, old, permit)? {
            self.outbox.send(tag, Rflush {}.into(), [Some(permit), None]);
        }
        Ok(())
    }

    async fn start(&mut self, tag: u16, cost: u32, request: Result<Request, Refusal>) -> Result<(), Ended> {
        let flushed = self.tags.begin(tag)?;
        let cost = cost.clamp(MIN_REQUEST_COST, self.limits.requests_bytes);
        let admitted = acquire(&self.requests, cost).await?;
        let (service, replies) = (Arc::clone(&self.service), Arc::clone(&self.replies));
        let (tags, outbox, limits) = (Arc::clone(&self.tags), self.outbox.clone(), self.limits);
        self.running.spawn(async move {
            let answer = match request {
                Ok(request) => answer(&*service, request, flushed, replies, limits).await,
                Err(refusal) => Some((refusal.into(), None)),
            };
            tags.end(tag, |flushes| {
                if let Some((reply, permit)) = answer {
                    outbox.send(tag, reply, [permit, Some(admitted)]);
                }
                for flush in flushes {
                    outbox.send(flush.tag, Rflush {}.into(), [Some(flush.permit), None]);
                }
            });
        });
        Ok(())
    }

    /// Lets the requests that run come to an end.
    async fn drain(&mut self) {
        let ended = async { while self.running.join_next().await.is_some() {} };
        if timeout(self.limits.drain, ended).await.is_err() {
            debug!(target: "magma::9p", "requests were still running when the connection was closed");
        }
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, Ended> {
    Arc::clone(semaphore).acquire_many_owned(count).await.map_err(|_| Ended::Internal)
}

fn decode(frame: Frame) -> Result<Request, Refusal> {
    let (kind, tag) = (frame.kind, frame.tag);
    Request::decode(kind, frame.body)
        .inspect(|request| trace!(target: "magma::9p", tag, request = request.name(), "request"))
        .map_err(|error| {
            debug!(target: "magma::9p", tag, kind, %error, "a request that cannot be taken");
            error.into()
        })
}

/// The reply to a request, or `None` if it was flushed before there was one.
async fn answer<S: Service>(
    service: &S,
    request: Request,
    mut flushed: Flushed,
    replies: Arc<Semaphore>,
    limits: Limits,
) -> Option<(Reply, Option<OwnedSemaphorePermit>)> {
    let cost = reply_cost(&request).clamp(MIN_REPLY_COST, limits.replies_bytes);
    let permit = tokio::select! {
        biased;
        permit = replies.acquire_many_owned(cost) => permit.ok()?,
        () = flushed.wait() => return None,
    };
    let grace = if ends_by_itself(&request) { limits.flush_grace } else { Duration::ZERO };
    let serving = service.serve(request, flushed.clone());
    let given_up = async {
        flushed.wait().await;
        sleep(grace).await;
    };
    tokio::select! {
        biased;
        reply = serving => Some((reply, Some(permit))),
        () = given_up => None,
    }
}

/// The size that the reply may have in bytes, where that is more than a little.
fn reply_cost(request: &Request) -> u32 {
    match request {
        Request::Tread(read) => read.count,
        Request::Treaddir(readdir) => readdir.count,
        _ => 0,
    }
}

/// Whether the request changes something and is therefore, when it is flushed, first given time to end: what is
/// on its way to the volcano must not take effect after the flush has been answered.
fn ends_by_itself(request: &Request) -> bool {
    !matches!(
        request,
        Request::Tread(_)
            | Request::Treaddir(_)
            | Request::Tgetattr(_)
            | Request::Tstatfs(_)
            | Request::Treadlink(_)
            | Request::Twalk(_)
            | Request::Txattrwalk(_)
            | Request::Tattach(_)
            | Request::Tfsync(_)
            | Request::Tgetlock(_)
    )
}

/// Writes replies in their order, small ones together, payloads without copying them.
async fn write_replies(
    mut writer: impl AsyncWrite + Unpin,
    mut replies: mpsc::UnboundedReceiver<Outgoing>,
) -> io::Result<()> {
    let mut batch = BytesMut::with_capacity(WRITE_BATCH);
    while let Some(first) = replies.recv().await {
        let mut next = Some(first);
        let mut written = Vec::new();
        let mut payload = Bytes::new();
        while let Some(Outgoing { encoded, permits }) = next {
            batch.extend_from_slice(&encoded.head);
            written.push(permits);
            if encoded.payload.len() > COALESCE {
                payload = encoded.payload;
                break;
            }
            batch.extend_from_slice(&encoded.payload);
            next = if batch.len() < WRITE_BATCH { replies.try_recv().ok() } else { None };
        }
        write_both(&mut writer, &batch, &payload).await?;
        batch.clear();
    }
    writer.shutdown().await
}

async fn write_both(
    writer: &mut (impl AsyncWrite + Unpin),
    mut head: &[u8],
    mut tail: &[u8],
) -> io::Result<()> {
    while !head.is_empty() && !tail.is_empty() {
        let written = writer.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_head = written.min(head.len());
        head = head.get(of_head..).unwrap_or_default();
        tail = tail.get(written - of_head..).unwrap_or_default();
    }
    writer.write_all(head).await?;
    writer.write_all(tail).await
}

#[cfg(test)]
mod tests;
