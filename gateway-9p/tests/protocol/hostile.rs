use magma_gateway_9p::wire::codec::Text;
use magma_gateway_9p::wire::session::{NOTAG, Tversion, VERSION};
use magma_gateway_9p::wire::{Reply, Request};
use tokio::io::AsyncWriteExt;

use crate::client::{Client, Setup};

/// The next honest client is served as before.
async fn serves(setup: &Setup) {
    let mut client = setup.attached(0).await;
    client.walk(0, 1, "").await;
}

async fn shouting(setup: &Setup, bytes: &[u8]) -> Client {
    let mut client = setup.client().await;
    client.stream.write_all(bytes).await.unwrap();
    client
}

#[tokio::test]
async fn a_size_that_cannot_be_ends_its_connection_only() {
    let setup = Setup::new().await;
    let mut honest = setup.attached(0).await;
    for size in [0_u32, 6, (1 << 20) + 1, 1 << 31, u32::MAX] {
        shouting(&setup, &size.to_le_bytes()).await.closed().await;
    }
    honest.walk(0, 1, "").await;
    serves(&setup).await;
}

#[tokio::test]
async fn unknown_and_malformed_messages_cost_an_error_each() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    for kind in 0..=255_u8 {
        if kind == 100 || kind == 108 {
            continue;
        }
        client.stream.write_all(&[8, 0, 0, 0, kind, 5, 0, 0xff]).await.unwrap();
        let (tag, reply) = client.receive().await;
        assert!(tag == 5 && matches!(reply, Reply::Rlerror(_)), "{kind}: {reply:?}");
    }
    client.walk(0, 1, "").await;
}

#[tokio::test]
async fn connections_that_say_nothing_make_room_for_one_that_does() {
    let setup = Setup::with(|config| config.limits.connections = 20).await;
    let mut mounted = setup.attached(0).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(setup.stream().await);
    }
    for _ in 0..30 {
        serves(&setup).await;
    }
    mounted.walk(0, 1, "").await;
}

#[tokio::test]
async fn resets_and_halves_of_messages_harm_nobody() {
    let setup = Setup::new().await;
    let version = Request::from(Tversion { msize: 8192, version: Text::new(VERSION) }).encode(NOTAG);
    for cut in 0..version.len() {
        let mut stream = setup.stream().await;
        stream.write_all(&version[..cut]).await.unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
        drop(stream);
    }
    let mut half = setup.stream().await;
    half.write_all(&version[..10]).await.unwrap();
    serves(&setup).await;
}

#[tokio::test]
async fn a_client_that_never_agrees_on_a_version_is_closed() {
    let setup = Setup::with(|config| config.limits.handshake = std::time::Duration::from_millis(50)).await;
    let mut stream = setup.stream().await;
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
    tokio::time::timeout(crate::client::LONG, read).await.unwrap().unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn fids_are_limited() {
    let setup = Setup::with(|config| config.limits.fids = 10).await;
    let mut client = setup.attached(0).await;
    for fid in 1..10 {
        client.walk(0, fid, "").await;
    }
    assert_eq!(client.refused(crate::client::walk(0, 10, "")).await, 24, "EMFILE");
    client.clunk(1).await;
    client.walk(0, 10, "").await;
}

/// Bytes from nowhere, in frames that are sound: each gets an answer, and the server goes on.
#[tokio::test]
async fn noise_in_frames_is_answered() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    for _ in 0..2000 {
        let kind = match random() {
            // A version would end the fids, a flush of nothing is a success: neither is noise.
            100 | 108 => 110,
            other => other,
        };
        let body: Vec<u8> = (0..random() % 40).map(|_| random() % 4).collect();
        let mut frame = ((7 + body.len()) as u32).to_le_bytes().to_vec();
        frame.extend([kind, 9, 0]);
        frame.extend(body);
        client.stream.write_all(&frame).await.unwrap();
        assert_eq!(client.receive().await.0, 9);
    }
    serves(&setup).await;
}
