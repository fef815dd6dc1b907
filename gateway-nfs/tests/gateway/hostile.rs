//! What a client can do to the gateway: nothing that the next client notices.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::fake::FakeVolcano;
use crate::support::rpc::{MOUNT, NFS, PORTMAP, Wire, Xdr, auth_sys, call, call_as, mount};
use crate::support::{LIMIT, address, gateway, gateway_with, until};

const PROG_UNAVAIL: u32 = 1;
const PROG_MISMATCH: u32 = 2;
const PROC_UNAVAIL: u32 = 3;
const GARBAGE_ARGS: u32 = 4;

/// Waits for the gateway to close the connection; panics if it sends something.
async fn closed(stream: &mut TcpStream) {
    let mut byte = [0];
    match tokio::time::timeout(LIMIT, stream.read(&mut byte)).await.expect("still open") {
        Ok(0) | Err(_) => {}
        Ok(_) => panic!("an answer to nonsense"),
    }
}

#[tokio::test]
async fn connections_that_are_reset_at_once_hurt_nobody() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    for _ in 0..50 {
        let stream = std::net::TcpStream::connect(address(&gateway)).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
    }
    mount(&mut Wire::connect(address(&gateway)).await, b"/").await;
    until(|| gateway.connections() == 0).await;
}

#[tokio::test]
async fn a_header_that_claims_two_gigabytes_ends_the_connection() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut stream = TcpStream::connect(address(&gateway)).await.unwrap();
    stream.write_all(&[0xff; 4]).await.unwrap();
    closed(&mut stream).await;
    mount(&mut Wire::connect(address(&gateway)).await, b"/").await;
}

#[tokio::test]
async fn bytes_that_are_no_call_end_the_connection() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    for nonsense in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 16], &[0xff; 64]] {
        let mut wire = Wire::connect(address(&gateway)).await;
        wire.send(nonsense).await;
        if !nonsense.is_empty() && nonsense != [0; 16] {
            closed(&mut wire.0).await;
        }
    }
    mount(&mut Wire::connect(address(&gateway)).await, b"/").await;
}

#[tokio::test]
async fn a_group_list_of_four_billion_is_bad_credentials() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let body = Xdr::new().u32(0).opaque(b"test").u32(0).u32(0).u32(u32::MAX);
    let auth = Xdr::new().u32(1).opaque(&body.0).u32(0).u32(0);
    let reply = wire.exchange(&call_as(&auth, 1, NFS, 3, 0, &Xdr::new())).await;
    assert_eq!(reply.denied(), (1, 1), "AUTH_ERROR, AUTH_BADCRED");
    // The connection is as good as before.
    mount(&mut wire, b"/").await;
}

#[tokio::test]
async fn calls_for_what_is_not_there_are_told_so() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let nothing = Xdr::new();
    let reply = wire.exchange(&call(1, 100_021, 4, 0, &nothing)).await;
    assert_eq!(reply.accepted(), PROG_UNAVAIL, "NLM");
    let reply = wire.exchange(&call(2, NFS, 4, 0, &nothing)).await;
    assert_eq!((reply.accepted(), reply.word(6), reply.word(7)), (PROG_MISMATCH, 3, 3));
    let reply = wire.exchange(&call(3, MOUNT, 4, 0, &nothing)).await;
    assert_eq!((reply.accepted(), reply.word(6), reply.word(7)), (PROG_MISMATCH, 1, 3));
    let reply = wire.exchange(&call(4, PORTMAP, 4, 0, &nothing)).await;
    assert_eq!((reply.accepted(), reply.word(6), reply.word(7)), (PROG_MISMATCH, 2, 2));
    for (program, version, procedure) in [(NFS, 3, 22), (NFS, 3, u32::MAX), (MOUNT, 3, 6), (PORTMAP, 2, 5)] {
        let reply = wire.exchange(&call(5, program, version, procedure, &nothing)).await;
        assert_eq!(reply.accepted(), PROC_UNAVAIL, "{program} {procedure}");
    }
    let mut other_rpc = call(6, NFS, 3, 0, &nothing);
    other_rpc[11] = 3;
    let reply = wire.exchange(&other_rpc).await;
    assert_eq!((reply.denied(), reply.word(5)), ((0, 2), 2), "RPC_MISMATCH, 2 to 2");
}

#[tokio::test]
async fn arguments_that_do_not_decode_are_garbage_for_every_procedure() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    for procedure in 1..=21 {
        let long_handle = Xdr::new().u32(65).raw(&[0; 68]);
        let left_over = Xdr::new().opaque(&root).raw(&[9; 400]);
        for arguments in [Xdr::new(), long_handle, left_over, Xdr::new().u32(u32::MAX)] {
            let reply = wire.exchange(&call(procedure, NFS, 3, procedure, &arguments)).await;
            assert_eq!(reply.accepted(), GARBAGE_ARGS, "procedure {procedure}");
        }
    }
}

#[tokio::test]
async fn forged_handles_are_bad_handles() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let mut root = mount(&mut wire, b"/").await;
    root[20] ^= 1;
    for handle in [&root[..], b"", &[0; 64]] {
        let reply = wire.exchange(&call(2, NFS, 3, 1, &Xdr::new().opaque(handle))).await;
        assert_eq!(reply.status(), 10_001);
    }
}

#[tokio::test]
async fn half_a_message_and_silence_holds_up_nobody_else() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address(&gateway)).await.unwrap();
        stream.write_all(&[0x80, 0x0f, 0xff, 0xff, 1, 2, 3]).await.unwrap();
        silent.push(stream);
    }
    mount(&mut Wire::connect(address(&gateway)).await, b"/").await;
}

#[tokio::test]
async fn idle_connections_make_room_for_a_client_that_works() {
    let volcano = FakeVolcano::start();
    let gateway = gateway_with(volcano.config(), &["/:insecure"], |config| config.max_connections = 8).await;
    let mut honest = Wire::connect(address(&gateway)).await;
    let root = mount(&mut honest, b"/").await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address(&gateway)).await.unwrap());
    }
    let mut late = Wire::connect(address(&gateway)).await;
    mount(&mut late, b"/").await;
    assert!(gateway.connections() <= 8);
    // Who has made calls is missed more than who has not.
    let reply = honest.exchange(&call(9, NFS, 3, 1, &Xdr::new().opaque(&root))).await;
    assert_eq!(reply.status(), 0);
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_not_served_without_end() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut greedy = Wire::connect(address(&gateway)).await;
    let root = mount(&mut greedy, b"/").await;
    let read = Xdr::new().opaque(&root).u64(0).u32(1 << 20);
    let before = volcano.with(|world| world.requests);
    for xid in 0..1000 {
        greedy.send(&call(xid, NFS, 3, 6, &read)).await;
    }
    // 24 MiB may be in flight, and some MiB in the sockets: the rest is not even read.
    mount(&mut Wire::connect(address(&gateway)).await, b"/").await;
    let asked = volcano.with(|world| world.requests) - before;
    assert!(asked < 100, "{asked} reads were executed for nobody");
}

#[tokio::test]
async fn callers_without_identity_are_nobody_and_root_is_squashed() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure,anonuid=77,anongid=78"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    let nobody = Xdr::new().u32(0).u32(0).u32(0).u32(0);
    let arguments = Xdr::new().opaque(&root);
    for (auth, expected) in
        [(nobody, (77, 78)), (auth_sys(0, 0), (77, 78)), (auth_sys(1000, 100), (1000, 100))]
    {
        wire.exchange(&call_as(&auth, 2, NFS, 3, 1, &arguments)).await;
        let caller = volcano.with(|world| world.callers.last().cloned()).unwrap();
        assert_eq!((caller.uid, caller.gid), expected);
    }
}
