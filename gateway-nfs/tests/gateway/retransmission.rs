//! A change is executed once, however often its call arrives.

use crate::support;
use crate::support::fake::FakeVolcano;
use crate::support::rpc::{NFS, Wire, Xdr, call, mount};
use crate::support::{address, gateway};

const REMOVE: u32 = 12;
const GETATTR: u32 = 1;
const WRITE: u32 = 7;

fn remove(xid: u32, root: &[u8]) -> Vec<u8> {
    call(xid, NFS, 3, REMOVE, &Xdr::new().opaque(root).opaque(b"name"))
}

#[tokio::test]
async fn a_retransmission_gets_the_recorded_reply() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    let first = wire.exchange(&remove(7, &root)).await;
    let again = wire.exchange(&remove(7, &root)).await;
    assert_eq!(first.status(), 0);
    assert_eq!(first, again);
    assert_eq!(volcano.with(|world| world.executed.clone()), ["Unlink"]);
}

#[tokio::test]
async fn another_transaction_id_or_another_user_is_another_call() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    wire.exchange(&remove(7, &root)).await;
    wire.exchange(&remove(8, &root)).await;
    let arguments = Xdr::new().opaque(&root).opaque(b"name");
    wire.exchange(&support::rpc::call_as(&support::rpc::auth_sys(5, 5), 8, NFS, 3, REMOVE, &arguments)).await;
    assert_eq!(volcano.with(|world| world.executed.len()), 3);
}

#[tokio::test]
async fn a_retransmission_of_a_running_call_waits_for_its_reply() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    volcano.with(|world| world.hold = true);
    wire.send(&remove(7, &root)).await;
    volcano.until(|world| world.held == 1).await;
    wire.send(&remove(7, &root)).await;
    // The answer to a later call shows that the retransmission has been read.
    let other = wire.exchange(&call(8, NFS, 3, GETATTR, &Xdr::new().opaque(&root))).await;
    assert_eq!(other.xid(), 8);
    volcano.with(|world| world.hold = false);
    let (first, again) = (wire.receive().await.unwrap(), wire.receive().await.unwrap());
    assert_eq!((first.xid(), first.status()), (7, 0));
    assert_eq!(first, again);
    assert_eq!(volcano.with(|world| world.executed.len()), 1);
}

#[tokio::test]
async fn a_call_is_known_again_over_another_connection_once_the_first_is_closed() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    volcano.with(|world| world.hold = true);
    wire.send(&remove(7, &root)).await;
    volcano.until(|world| world.held == 1).await;
    drop(wire);
    let mut wire = Wire::connect(address(&gateway)).await;
    wire.send(&remove(7, &root)).await;
    volcano.with(|world| world.hold = false);
    let reply = wire.receive().await.unwrap();
    assert_eq!((reply.xid(), reply.status()), (7, 0));
    assert_eq!(volcano.with(|world| world.executed.len()), 1);
}

/// With `nconnect` a client counts on each of its connections by itself.
#[tokio::test]
async fn an_equal_call_over_a_connection_of_a_client_that_keeps_the_first_open_is_another_call() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut first = Wire::connect(address(&gateway)).await;
    let root = mount(&mut first, b"/").await;
    let mut second = Wire::connect(address(&gateway)).await;
    assert_eq!(first.exchange(&remove(7, &root)).await.status(), 0);
    assert_eq!(second.exchange(&remove(7, &root)).await.status(), 0);
    assert_eq!(volcano.with(|world| world.executed.len()), 2);
    // And each is known again on its own connection.
    first.exchange(&remove(7, &root)).await;
    second.exchange(&remove(7, &root)).await;
    assert_eq!(volcano.with(|world| world.executed.len()), 2);
}

#[tokio::test]
async fn a_retransmission_to_a_restarted_gateway_is_executed_once() {
    let volcano = FakeVolcano::start();
    let first = gateway(volcano.config(), &["/:insecure"]).await;
    let at = address(&first);
    let mut wire = Wire::connect(at).await;
    let root = mount(&mut wire, b"/").await;
    let before = wire.exchange(&remove(7, &root)).await;
    first.stop().await;
    let _second =
        support::gateway_with(volcano.config(), &["/:insecure"], |config| config.listen = vec![at]).await;
    let after = Wire::connect(at).await.exchange(&remove(7, &root)).await;
    assert_eq!(before, after);
    assert_eq!(volcano.with(|world| world.executed.len()), 1);
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_asked_for_again_under_the_same_name() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    volcano.with(|world| world.lose_answers = 1);
    assert_eq!(wire.exchange(&remove(7, &root)).await.status(), 0);
    assert_eq!(volcano.with(|world| world.executed.len()), 1);
}

#[tokio::test]
async fn a_write_is_executed_once_too() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let root = mount(&mut wire, b"/").await;
    let data = vec![1; 100_000];
    let arguments = Xdr::new().opaque(&root).u64(0).u32(data.len() as u32).u32(0).opaque(&data);
    let first = wire.exchange(&call(7, NFS, 3, WRITE, &arguments)).await;
    assert_eq!((first.status(), &first), (0, &wire.exchange(&call(7, NFS, 3, WRITE, &arguments)).await));
    assert_eq!(volcano.with(|world| world.executed.clone()), ["Write"]);
}
