//! MOUNT and portmap, over TCP and UDP.

use tokio::net::UdpSocket;

use crate::support::fake::FakeVolcano;
use crate::support::rpc::{MOUNT, NFS, PORTMAP, Reply, Wire, Xdr, call, mount};
use crate::support::{LIMIT, address, gateway, gateway_with};

const MNT: u32 = 1;
const DUMP: u32 = 2;
const UMNT: u32 = 3;
const UMNTALL: u32 = 4;
const EXPORT: u32 = 5;

#[tokio::test]
async fn mounts_are_listed_until_they_are_given_back() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let none = Xdr::new();
    mount(&mut wire, b"/").await;
    let dump = wire.exchange(&call(2, MOUNT, 3, DUMP, &none)).await;
    let expected = Xdr::new().u32(1).opaque(b"127.0.0.1").opaque(b"/").u32(0);
    assert_eq!(dump.result(), expected.0);
    assert_eq!(wire.exchange(&call(3, MOUNT, 3, UMNT, &Xdr::new().opaque(b"/"))).await.result(), b"");
    assert_eq!(wire.exchange(&call(4, MOUNT, 3, DUMP, &none)).await.status(), 0);
    mount(&mut wire, b"/").await;
    // Version 1 is what some clients use to unmount.
    assert_eq!(wire.exchange(&call(5, MOUNT, 1, UMNTALL, &none)).await.result(), b"");
    assert_eq!(wire.exchange(&call(6, MOUNT, 3, DUMP, &none)).await.status(), 0);
}

#[tokio::test]
async fn only_what_is_exported_to_the_host_is_shown_and_mounted() {
    let volcano = FakeVolcano::start();
    let exports = ["/open:insecure", "/elsewhere:insecure,client=10.0.0.0/8", "/root-only"];
    let gateway = gateway(volcano.config(), &exports).await;
    let mut wire = Wire::connect(address(&gateway)).await;
    let shown = wire.exchange(&call(1, MOUNT, 3, EXPORT, &Xdr::new())).await;
    let networks = |xdr: Xdr| xdr.u32(1).opaque(b"127.0.0.0/8").u32(1).opaque(b"::1").u32(0);
    let expected = networks(Xdr::new().u32(1).opaque(b"/open"));
    let expected = networks(expected.u32(1).opaque(b"/root-only")).u32(0);
    assert_eq!(shown.result(), expected.0);

    let mut status =
        async |path: &[u8]| wire.exchange(&call(2, MOUNT, 3, MNT, &Xdr::new().opaque(path))).await.status();
    assert_eq!(status(b"/elsewhere").await, 13, "not for this host");
    assert_eq!(status(b"/").await, 13, "not exported");
    assert_eq!(status(b"/root-only").await, 13, "not from this port");
    assert_eq!(status(b"open").await, 22, "no absolute path");
    assert_eq!(status(b"/open/../secret").await, 22, "climbs");
    assert_eq!(status(&[b'/'; 2000]).await, 63, "too long");
    assert_eq!(status(b"/open/file").await, 20, "the fake's names are files");
}

#[tokio::test]
async fn portmap_knows_nfs_and_mount_and_no_lock_manager() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let port = u32::from(address(&gateway).port());
    let mut wire = Wire::connect(address(&gateway)).await;
    let mut ask = async |program, version, protocol| {
        let mapping = Xdr::new().u32(program).u32(version).u32(protocol).u32(0);
        wire.exchange(&call(1, PORTMAP, 2, 3, &mapping)).await.status()
    };
    assert_eq!(ask(NFS, 3, 6).await, port);
    assert_eq!(ask(NFS, 3, 17).await, 0);
    assert_eq!(ask(MOUNT, 3, 17).await, port);
    assert_eq!(ask(100_021, 4, 6).await, 0);
    let dump = wire.exchange(&call(1, PORTMAP, 2, 4, &Xdr::new())).await;
    assert_eq!(dump.result().len(), 7 * 20 + 4);
}

#[tokio::test]
async fn a_second_port_for_portmap_names_the_first_for_nfs() {
    let volcano = FakeVolcano::start();
    let any = "127.0.0.1:0".parse().unwrap();
    let gateway = gateway_with(volcano.config(), &["/"], |config| config.portmap = vec![any]).await;
    let announcement = gateway.announcement();
    let expected = format!("magma-nfs ready: nfs on {}; portmap on ", address(&gateway));
    let rest = announcement.strip_prefix(&expected).expect("another announcement");
    let portmap = rest.strip_suffix("; exports /").unwrap().parse().unwrap();
    let mapping = Xdr::new().u32(NFS).u32(3).u32(6).u32(0);
    let reply = Wire::connect(portmap).await.exchange(&call(1, PORTMAP, 2, 3, &mapping)).await;
    assert_eq!(reply.status(), u32::from(address(&gateway).port()));
}

#[tokio::test]
async fn mount_and_portmap_answer_over_udp_and_nfs_does_not() {
    let volcano = FakeVolcano::start();
    let gateway = gateway(volcano.config(), &["/:insecure"]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address(&gateway)).await.unwrap();
    let ask = async |record: Vec<u8>| {
        socket.send(&record).await.unwrap();
        let mut buffer = vec![0; 65_536];
        let length = tokio::time::timeout(LIMIT, socket.recv(&mut buffer)).await.expect("no answer").unwrap();
        Reply(buffer[..length].to_vec())
    };
    let mounted = ask(call(1, MOUNT, 3, MNT, &Xdr::new().opaque(b"/"))).await;
    assert_eq!((mounted.xid(), mounted.status(), mounted.word(7)), (1, 0, 52));
    assert_eq!(ask(call(2, PORTMAP, 2, 0, &Xdr::new())).await.accepted(), 0);
    assert_eq!(ask(call(3, NFS, 3, 0, &Xdr::new())).await.accepted(), 1, "PROG_UNAVAIL");
}

#[tokio::test]
async fn addresses_that_nothing_is_exported_to_hear_nothing_over_udp() {
    let volcano = FakeVolcano::start();
    let exports = ["/:insecure,client=127.0.0.2"];
    let gateway = gateway(volcano.config(), &exports).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let friend = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let null = call(1, MOUNT, 3, 0, &Xdr::new());
    stranger.send_to(&null, address(&gateway)).await.unwrap();
    friend.send_to(&null, address(&gateway)).await.unwrap();
    let mut buffer = [0; 64];
    tokio::time::timeout(LIMIT, friend.recv_from(&mut buffer)).await.expect("no answer").unwrap();
    // Datagrams are answered in their order, so the stranger's would be here by now.
    assert_eq!(stranger.try_recv(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}
