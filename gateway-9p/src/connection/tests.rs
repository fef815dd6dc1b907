use super::*;

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::Notify;

use crate::wire::codec::Data;
use crate::wire::fid::{Rclunk, Tclunk};
use crate::wire::io::{Rread, Tread};
use crate::wire::session::Tflush;

/// Answers a read at once with as many bytes as it asks for, except of fid 0: that one waits until it is let go.
#[derive(Default)]
struct Fake {
    let_go: Notify,
    resets: AtomicUsize,
    waiting: AtomicUsize,
}

impl Service for Fake {
    async fn reset(&self, _msize: u32) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    async fn serve(&self, request: Request, _flushed: Flushed) -> Reply {
        match request {
            Request::Tread(Tread { fid: 0, .. }) | Request::Tclunk(Tclunk { fid: 0 }) => {
                self.waiting.fetch_add(1, Ordering::Relaxed);
                self.let_go.notified().await;
                Rclunk {}.into()
            }
            Request::Tread(read) => Rread { data: Data(vec![7; read.count as usize].into()) }.into(),
            _ => Rclunk {}.into(),
        }
    }
}

struct Client {
    stream: DuplexStream,
    service: Arc<Fake>,
    ended: tokio::task::JoinHandle<Ended>,
}

impl Client {
    fn connect(limits: Limits) -> Self {
        let (stream, theirs) = tokio::io::duplex(4096);
        let (reader, writer) = tokio::io::split(theirs);
        let service = Arc::new(Fake::default());
        let ended = tokio::spawn(run(reader, writer, Arc::clone(&service), limits, std::future::pending()));
        Self { stream, service, ended }
    }

    /// A connection on which 8192 bytes were agreed on.
    async fn agreed(limits: Limits) -> Self {
        let mut client = Self::connect(limits);
        client.send(0xffff, version(8192, VERSION)).await;
        assert_eq!(client.receive().await.0, 0xffff);
        client
    }

    async fn send(&mut self, tag: u16, request: impl Into<Request>) {
        self.stream.write_all(&request.into().encode(tag)).await.unwrap();
    }

    async fn receive(&mut self) -> (u16, Reply) {
        let size = self.stream.read_u32_le().await.unwrap();
        let kind = self.stream.read_u8().await.unwrap();
        let tag = self.stream.read_u16_le().await.unwrap();
        let mut body = vec![0; size as usize - HEADER];
        self.stream.read_exact(&mut body).await.unwrap();
        (tag, Reply::decode(kind, body.into()).unwrap())
    }

    /// Waits until so many requests wait to be let go.
    async fn until_waiting(&self, count: usize) {
        let waiting = async {
            while self.service.waiting.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), waiting).await.unwrap();
    }
}

fn version(msize: u32, version: &'static [u8]) -> Tversion {
    Tversion { msize, version: Text::new(version) }
}

fn read(fid: u32, count: u32) -> Tread {
    Tread { fid, offset: 0, count }
}

fn limits() -> Limits {
    Limits { flush_grace: Duration::from_secs(1000), ..Limits::default() }
}

#[tokio::test]
async fn msize_is_the_smaller_of_both_and_unknown_versions_are_called_so() {
    let mut client = Client::connect(limits());
    client.send(0xffff, version(u32::MAX, b"9P2000.u")).await;
    let unknown = Rversion { msize: MAX_MSIZE, version: Text::new(UNKNOWN_VERSION) };
    assert_eq!(client.receive().await, (0xffff, unknown.into()));
    client.send(1, read(1, 1)).await;
    assert_eq!(client.receive().await, (1, refusals::NO_VERSION.into()));
    client.send(0xffff, version(4095, VERSION)).await;
    assert_eq!(client.receive().await, (0xffff, refusals::MSIZE_TOO_SMALL.into()));
    client.send(0xffff, version(4096, VERSION)).await;
    let agreed = Rversion { msize: 4096, version: Text::new(VERSION) };
    assert_eq!(client.receive().await, (0xffff, agreed.into()));
}

#[tokio::test]
async fn a_slow_request_holds_up_nobody() {
    let mut client = Client::agreed(limits()).await;
    client.send(1, read(0, 1)).await;
    client.send(2, read(1, 3)).await;
    assert_eq!(client.receive().await.0, 2);
    client.until_waiting(1).await;
    client.service.let_go.notify_waiters();
    assert_eq!(client.receive().await.0, 1);
}

#[tokio::test]
async fn a_flushed_read_is_given_up_and_only_the_flush_is_answered() {
    let mut client = Client::agreed(limits()).await;
    client.send(1, read(0, 1)).await;
    client.until_waiting(1).await;
    client.send(2, Tflush { oldtag: 1 }).await;
    assert_eq!(client.receive().await, (2, Rflush {}.into()));
    // The old tag is free again.
    client.send(1, read(1, 1)).await;
    assert_eq!(client.receive().await.0, 1);
}

#[tokio::test]
async fn a_flushed_change_is_answered_before_its_flush() {
    let mut client = Client::agreed(limits()).await;
    client.send(1, Tclunk { fid: 0 }).await;
    client.until_waiting(1).await;
    client.send(2, Tflush { oldtag: 1 }).await;
    client.send(3, Tflush { oldtag: 2 }).await;
    client.send(4, read(1, 1)).await;
    assert_eq!(client.receive().await.0, 4, "neither flush may be answered yet");
    client.service.let_go.notify_waiters();
    assert_eq!(client.receive().await, (1, Rclunk {}.into()));
    assert_eq!(client.receive().await, (2, Rflush {}.into()));
    assert_eq!(client.receive().await, (3, Rflush {}.into()));
}

#[tokio::test(start_paused = true)]
async fn a_flushed_change_that_does_not_end_is_given_up_after_its_grace() {
    let mut client = Client::agreed(limits()).await;
    client.send(1, Tclunk { fid: 0 }).await;
    client.until_waiting(1).await;
    client.send(2, Tflush { oldtag: 1 }).await;
    assert_eq!(client.receive().await, (2, Rflush {}.into()));
}

#[tokio::test]
async fn a_new_version_aborts_what_is_outstanding() {
    let mut client = Client::agreed(limits()).await;
    client.send(1, read(0, 1)).await;
    client.send(2, Tclunk { fid: 0 }).await;
    client.until_waiting(2).await;
    client.send(0xffff, version(8192, VERSION)).await;
    assert_eq!(client.receive().await.0, 0xffff);
    client.service.let_go.notify_waiters();
    client.send(1, read(1, 1)).await;
    assert_eq!(client.receive().await.0, 1);
    assert_eq!(client.service.resets.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_malformed_request_costs_an_error_and_nothing_else() {
    let mut client = Client::agreed(limits()).await;
    client.stream.write_all(&[8, 0, 0, 0, 116, 1, 0, 9]).await.unwrap();
    client.stream.write_all(&[7, 0, 0, 0, 112, 2, 0]).await.unwrap();
    client.send(3, read(1, 1)).await;
    let mut replies = [client.receive().await, client.receive().await, client.receive().await];
    replies.sort_by_key(|(tag, _)| *tag);
    assert_eq!(replies[0].1, Refusal(rustix::io::Errno::PROTO).into());
    assert_eq!(replies[1].1, Refusal(rustix::io::Errno::OPNOTSUPP).into());
    assert!(matches!(replies[2].1, Reply::Rread(_)));
}

#[tokio::test]
async fn a_frame_above_msize_ends_the_connection() {
    let mut client = Client::agreed(limits()).await;
    client.stream.write_all(&8193_u32.to_le_bytes()).await.unwrap();
    assert!(matches!(client.ended.await.unwrap(), Ended::Framing(FramingError::BadSize { size: 8193, .. })));
}

#[tokio::test]
async fn a_tag_used_twice_at_once_ends_the_connection() {
    let mut client = Client::agreed(limits()).await;
    client.send(1, read(0, 1)).await;
    client.send(1, read(1, 1)).await;
    assert!(matches!(client.ended.await.unwrap(), Ended::Tag(TagInUse(1))));
}

/// A client that sends and never reads must not make the gateway hoard replies.
#[tokio::test]
async fn reading_stops_while_a_client_does_not_take_its_replies() {
    let limits = Limits { requests_bytes: 4 * MIN_REQUEST_COST, flushes: 4, ..limits() };
    let client = Client::agreed(limits).await;
    let (mut from_server, mut to_server) = tokio::io::split(client.stream);
    let sending = tokio::spawn(async move {
        for tag in 0..2000 {
            to_server.write_all(&Request::from(read(1, 100)).encode(tag)).await.unwrap();
            to_server.write_all(&Request::from(Tflush { oldtag: 9999 }).encode(2000 + tag)).await.unwrap();
        }
    });
    let stuck = async {
        while !sending.is_finished() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(Duration::from_millis(200), stuck).await.is_err(), "all requests were read");
    let mut taken = vec![0; 2000 * (111 + 7)];
    timeout(Duration::from_secs(20), from_server.read_exact(&mut taken)).await.unwrap().unwrap();
    sending.await.unwrap();
}

#[tokio::test]
async fn a_connection_asked_to_close_answers_what_runs_first() {
    let (mut stream, theirs) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(theirs);
    let service = Arc::new(Fake::default());
    let close = Arc::new(Notify::new());
    let closed = Arc::clone(&close);
    let running = run(reader, writer, Arc::clone(&service), limits(), async move { closed.notified().await });
    let ended = tokio::spawn(running);
    stream.write_all(&Request::from(version(8192, VERSION)).encode(0xffff)).await.unwrap();
    let mut reply = vec![0; 21];
    stream.read_exact(&mut reply).await.unwrap();
    stream.write_all(&Request::from(Tclunk { fid: 0 }).encode(1)).await.unwrap();
    while service.waiting.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    close.notify_one();
    tokio::task::yield_now().await;
    service.let_go.notify_waiters();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, &Reply::from(Rclunk {}).encode(1)[..]);
    assert!(matches!(ended.await.unwrap(), Ended::Closed));
}
