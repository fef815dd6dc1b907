use super::*;

use std::net::UdpSocket;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::error::FlareError;
use crate::fake::{FakeVolcano, SharedWorld, header, keys, root_context};
use crate::handle::Handle;
use crate::proto::frame::{self, Frame, StreamClass};
use crate::proto::operation::Getattr;
use crate::topology::VolcanoId;
use crate::transport::link::LinkError;
use crate::transport::reader::FrameReader;
use crate::transport::system::System;

const DIAL_LIMIT: Duration = Duration::from_secs(5);

async fn connect(volcano: &FakeVolcano) -> quinn::Connection {
    System::new(keys().client()).unwrap().handshake(volcano.address, DIAL_LIMIT).await.unwrap()
}

async fn stream(connection: &quinn::Connection) -> (quinn::SendStream, FrameReader) {
    let (mut sender, receiver) = connection.open_bi().await.unwrap();
    sender.write_all(&frame::hello(StreamClass::Metadata).head).await.unwrap();
    (sender, FrameReader::new(receiver))
}

async fn serves_the_honest(volcano: &FakeVolcano) {
    let client = volcano.client().await;
    client.call(&root_context(), Getattr { handle: Handle::root() }).await.unwrap();
}

#[tokio::test]
async fn a_broken_header_costs_its_sender_the_connection_and_nobody_else_anything() {
    let volcano = FakeVolcano::start();
    let honest = volcano.client().await;
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(any::<u8>(), 40..400);
    for round in 0..30 {
        let connection = connect(&volcano).await;
        let (mut sender, _receiver) = stream(&connection).await;
        let mut hostile = bytes.new_tree(&mut runner).unwrap().current();
        match round % 3 {
            // A frame of four gibibytes, one of another version, and one whose groups do not fit.
            0 => hostile[..4].fill(0xff),
            1 => hostile[..5].copy_from_slice(&[0, 0, 0, 30, 200]),
            _ => {
                let mut request = frame::request(&header(1), 12, &[], Bytes::new()).unwrap().head.to_vec();
                request[10] = 0xff;
                hostile = request;
            }
        }
        sender.write_all(&hostile).await.unwrap();
        let reason = connection.closed().await;
        assert!(matches!(reason, quinn::ConnectionError::ApplicationClosed(_)), "{reason}");
    }
    honest.call(&root_context(), Getattr { handle: Handle::root() }).await.unwrap();
}

#[tokio::test]
async fn a_body_that_cannot_be_decoded_costs_one_request() {
    let volcano = FakeVolcano::start();
    let connection = connect(&volcano).await;
    let (mut sender, mut receiver) = stream(&connection).await;
    let getattr = Request::from(Getattr { handle: Handle::root() }).encode().unwrap();
    for (tag, opcode, body, expected) in [
        (1, 12, &b"short"[..], FlareError::BadRequest),
        (2, 999, &getattr[..], FlareError::NotSupported),
        (3, 12, &getattr[..], FlareError::SessionEnded),
    ] {
        let request = frame::request(&header(tag), opcode, body, Bytes::new()).unwrap();
        sender.write_all(&request.head).await.unwrap();
        let Some(Frame::Reply(reply)) = receiver.next().await.unwrap() else { panic!() };
        assert_eq!((reply.tag, reply.opcode), (Tag(tag), opcode));
        assert_eq!(reply.outcome().unwrap().unwrap_err().error, expected);
    }
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_hello_is_refused() {
    let volcano = FakeVolcano::start();
    let connection = connect(&volcano).await;
    let (mut sender, _receiver) = connection.open_bi().await.unwrap();
    sender.write_all(&frame::cancel(Tag(1)).head).await.unwrap();
    connection.closed().await;
    serves_the_honest(&volcano).await;
}

#[tokio::test]
async fn half_a_frame_and_silence_hold_up_nobody() {
    let volcano = FakeVolcano::start();
    let connection = connect(&volcano).await;
    let (mut sender, _receiver) = stream(&connection).await;
    let request = frame::request(&header(1), 12, &[0; 500], Bytes::new()).unwrap();
    sender.write_all(&request.head[..100]).await.unwrap();
    serves_the_honest(&volcano).await;
    sender.reset(VarInt::from_u32(0)).unwrap();
    serves_the_honest(&volcano).await;
}

#[tokio::test]
async fn a_stream_with_too_many_requests_in_work_is_not_read_and_nobody_else_waits() {
    let volcano = FakeVolcano::start();
    volcano.with(|world| world.mute = true);
    let connection = connect(&volcano).await;
    let (mut sender, _receiver) = stream(&connection).await;
    let getattr = Request::from(Getattr { handle: Handle::root() }).encode().unwrap();
    for tag in 0..1100 {
        let request = frame::request(&header(tag), 12, &getattr, Bytes::new()).unwrap();
        sender.write_all(&request.head).await.unwrap();
    }
    volcano.until(|world| world.held == 1024).await;
    volcano.with(|world| world.mute = false);
    serves_the_honest(&volcano).await;
    assert_eq!(volcano.with(|world| world.held), 1024);
}

#[tokio::test]
async fn garbage_datagrams_are_ignored() {
    let volcano = FakeVolcano::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(any::<u8>(), 1..1500);
    for round in 0..500 {
        let mut datagram = bytes.new_tree(&mut runner).unwrap().current();
        // Every other one looks like the beginning of a handshake.
        if round % 2 == 0 && datagram.len() > 5 {
            datagram[0] |= 0xc0;
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
            datagram.resize(1200, 0);
        }
        socket.send_to(&datagram, volcano.address).unwrap();
    }
    serves_the_honest(&volcano).await;
}

#[tokio::test]
async fn connections_above_the_limit_are_refused_until_there_is_room() {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let volcano = FakeVolcano::start_with(VolcanoId(1), any, SharedWorld::default(), 2);
    let one = connect(&volcano).await;
    let _two = connect(&volcano).await;
    volcano.until(|world| world.peers == 2).await;
    let dialer = System::new(keys().client()).unwrap();
    assert!(matches!(dialer.handshake(volcano.address, DIAL_LIMIT).await, Err(LinkError::Lost(_))));
    one.close(VarInt::from_u32(0), b"");
    volcano.until(|world| world.peers == 1).await;
    serves_the_honest(&volcano).await;
}

/// Without a reset key that outlives the process a client would notice only after its idle time-out of ten seconds.
#[tokio::test]
async fn a_peer_learns_at_once_that_the_volcano_has_crashed_and_restarted() {
    let volcano = FakeVolcano::start();
    let connection = connect(&volcano).await;
    let (mut sender, _receiver) = stream(&connection).await;
    let volcano = volcano.crash();
    sender.write_all(&frame::cancel(Tag(1)).head).await.unwrap();
    assert_eq!(connection.closed().await, quinn::ConnectionError::Reset);
    serves_the_honest(&volcano).await;
}

/// Otherwise a client could have a request answered by a volcano that does not own what it is about.
#[tokio::test]
async fn only_a_volcano_may_say_that_it_passes_a_request_on() {
    let volcano = FakeVolcano::start();
    let connection = connect(&volcano).await;
    let (mut sender, mut receiver) = stream(&connection).await;
    let getattr = Request::from(Getattr { handle: Handle::root() });
    let header = RequestHeader { forwarded: true, ..header(1) };
    let body = getattr.encode().unwrap();
    let encoded = frame::request(&header, getattr.opcode(), &body, Bytes::new()).unwrap();
    sender.write_all(&encoded.head).await.unwrap();
    let Ok(Some(Frame::Reply(reply))) = receiver.next().await else { panic!() };
    assert_eq!(reply.outcome().unwrap().unwrap_err().error, FlareError::BadRequest);
    assert_eq!(volcano.with(|world| world.requests), 0);
}
