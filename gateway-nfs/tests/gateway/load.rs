//! Many calls at once.

use std::collections::HashSet;

use crate::support::fake::FakeVolcano;
use crate::support::rpc::{NFS, Wire, Xdr, call, mount};
use crate::support::{address, gateway};

const GETATTR: u32 = 1;
const READ: u32 = 6;
const REMOVE: u32 = 12;

#[tokio::test]
async fn a_slow_call_holds_up_no_other() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    volcano.with(|world| world.hold = true);
    wire.send(&call(1, NFS, 3, REMOVE, &Xdr::new().opaque(&root).opaque(b"slow"))).await;
    for xid in 2..40 {
        let reply = wire.exchange(&call(xid, NFS, 3, GETATTR, &Xdr::new().opaque(&root))).await;
        assert_eq!((reply.xid(), reply.status()), (xid, 0));
    }
    volcano.with(|world| world.hold = false);
    assert_eq!(wire.receive().await.unwrap().xid(), 1);
}

#[tokio::test]
async fn every_call_of_a_long_row_is_answered() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    let getattr = Xdr::new().opaque(&root);
    let calls: Vec<u8> = (0..1000u32)
        .flat_map(|xid| {
            let record = call(xid, NFS, 3, GETATTR, &getattr);
            [&(record.len() as u32 | 1 << 31).to_be_bytes()[..], &record].concat()
        })
        .collect();
    tokio::io::AsyncWriteExt::write_all(&mut wire.0, &calls).await.unwrap();
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        seen.insert(wire.receive().await.unwrap().xid());
    }
    assert_eq!(seen.len(), 1000);
}

#[tokio::test]
async fn more_calls_than_may_run_wait_and_are_answered_too() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    volcano.with(|world| world.hold = true);
    for xid in 0..200 {
        wire.send(&call(xid, NFS, 3, REMOVE, &Xdr::new().opaque(&root).opaque(b"name"))).await;
    }
    volcano.until(|world| world.held == 64).await;
    volcano.with(|world| world.hold = false);
    let mut seen = HashSet::new();
    for _ in 0..200 {
        seen.insert(wire.receive().await.unwrap().xid());
    }
    assert_eq!((seen.len(), volcano.with(|world| world.executed.len())), (200, 200));
}

#[tokio::test]
async fn large_reads_arrive_whole_and_in_any_number() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    for (xid, length) in [(0, 1u32 << 20), (1, 0), (2, 3), (3, 1_000_001)] {
        let read = Xdr::new().opaque(&root).u64(0).u32(length);
        let reply = wire.exchange(&call(xid, NFS, 3, READ, &read)).await;
        // Status, post_op_attr, count, eof, length, data.
        assert_eq!((reply.status(), reply.word(6 + 23), reply.word(6 + 25)), (0, length, length));
        let data = &reply.result()[26 * 4..];
        assert_eq!(data.len(), length.next_multiple_of(4) as usize);
        assert!(data[..length as usize].iter().all(|&byte| byte == 7));
    }
    let read = Xdr::new().opaque(&root).u64(0).u32(1 << 20);
    for xid in 0..100 {
        wire.send(&call(xid, NFS, 3, READ, &read)).await;
    }
    for _ in 0..100 {
        assert_eq!(wire.receive().await.unwrap().status(), 0);
    }
}

#[tokio::test]
async fn calls_that_run_are_answered_before_the_gateway_stops() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    volcano.with(|world| world.hold = true);
    wire.send(&call(1, NFS, 3, REMOVE, &Xdr::new().opaque(&root).opaque(b"name"))).await;
    volcano.until(|world| world.held == 1).await;
    let stop = tokio::spawn(gateway.stop());
    tokio::task::yield_now().await;
    volcano.with(|world| world.hold = false);
    assert_eq!(wire.receive().await.unwrap().status(), 0);
    stop.await.unwrap();
    assert_eq!(wire.receive().await, None);
}
