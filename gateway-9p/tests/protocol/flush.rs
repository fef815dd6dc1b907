use magma_gateway_9p::wire::attr::{Tgetattr, getattr};
use magma_gateway_9p::wire::session::{Rflush, Tflush};

use crate::client::{Setup, ask, write};

#[tokio::test]
async fn a_flush_of_an_answered_request_is_answered() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    assert_eq!(client.ask(Tflush { oldtag: 7 }).await, Rflush {}.into());
}

/// While the volcano is away requests wait. A flush of a read is answered at once, one of a write after a while;
/// when the volcano is back everything else goes on.
#[tokio::test]
async fn requests_that_wait_for_the_volcano_can_be_flushed() {
    let grace = std::time::Duration::from_millis(50);
    let mut setup = Setup::with(|config| config.limits.flush_grace = grace).await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    client.write(1, 0, b"before").await;
    setup.volcano.kill();
    let read = magma_gateway_9p::wire::io::Tread { fid: 1, offset: 0, count: 100 };
    client.send(100, read.clone()).await;
    client.send(101, Tflush { oldtag: 100 }).await;
    assert_eq!(client.receive().await, (101, Rflush {}.into()));
    client.send(102, write(1, 0, b"flushed")).await;
    client.send(103, Tflush { oldtag: 102 }).await;
    assert_eq!(client.receive().await, (103, Rflush {}.into()));
    client.send(104, read).await;
    setup.volcano.start_again();
    let (tag, reply) = client.receive().await;
    assert_eq!((tag, reply.name()), (104, "Rread"));
    ask!(client, Rgetattr, Tgetattr { fid: 1, request_mask: getattr::BASIC });
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    for tag in 1000..2000 {
        client.send(tag, write(1, u64::from(tag) * 10, b"0123456789")).await;
    }
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let (tag, reply) = client.receive().await;
        assert_eq!(reply.name(), "Rwrite");
        assert!(answered.insert(tag));
    }
    assert_eq!(client.read(1, 10_000, 10_000).await, b"0123456789".repeat(1000));
}
