mod ring;
mod slices;

use super::*;

use std::future::Future;
use std::pin::pin;
use std::task::{Poll, Wake, Waker};

use crate::auth::{Role, Secret};
use crate::fake::{FakeVolcano, KEY, keys, root_context};
use crate::proto::operation::{Lock, LockFamily, LockKind, LockOwner, Open, WriteAt};

fn getattr() -> Getattr {
    Getattr { handle: Handle::root() }
}

fn write() -> Write {
    Write { handle: Handle::root(), at: WriteAt::End, opened: true }
}

fn open() -> Open {
    Open { handle: Handle::root(), read: true, write: false, execute: false, truncate: false }
}

fn waiting_lock() -> Lock {
    Lock {
        handle: Handle::root(),
        family: LockFamily::Posix,
        owner: LockOwner { owner: 1, pid: 1 },
        kind: LockKind::Exclusive,
        start: 0,
        end: u64::MAX,
        wait: true,
    }
}

fn within(limit: Duration) -> Context {
    Context { deadline: Some(Instant::now() + limit), ..root_context() }
}

#[tokio::test]
async fn an_operation_gets_its_reply() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let attr = client.call(&root_context(), getattr()).await.unwrap();
    assert_eq!(attr.handle, Handle::root());
    let data = Bytes::from(vec![7; 100_000]);
    let written = client.write(&root_context(), write(), data).await.unwrap();
    assert_eq!(written.verifier, 100_000);
    let read = Read { handle: Handle::root(), offset: 0, length: 1 << 20, opened: true };
    let (_, bytes) = client.read(&root_context(), read).await.unwrap();
    assert_eq!(bytes.len(), 1 << 20);
    assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8));
    assert!(client.local_address().is_some());
    volcano.until(|world| world.batches > 0).await;
    assert_eq!(volcano.with(|world| world.roles.clone()), vec![Role::Client]);
}

#[tokio::test]
async fn failures_come_back_as_they_are() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let failure = client.call(&root_context(), crate::proto::operation::Statfs).await.unwrap_err();
    assert_eq!(failure.error, FlareError::NotSupported);
}

#[tokio::test]
async fn many_requests_run_side_by_side_and_share_batches() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..5000 {
        let client = client.clone();
        calls.spawn(async move { client.call(&root_context(), getattr()).await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    volcano.with(|world| assert!(world.largest_batch > 1, "batches {}", world.batches));
}

#[tokio::test]
async fn a_stat_overtakes_bulk_data() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let read = Read { handle: Handle::root(), offset: 0, length: 1 << 20, opened: true };
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..48 {
        let (client, order, read) = (client.clone(), Arc::clone(&order), read.clone());
        calls.spawn(async move {
            client.read(&root_context(), read).await.unwrap();
            order.lock().unwrap().push("read");
        });
    }
    // Once the first of them has come back, more than the streams' windows hold is still to come.
    while order.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    client.call(&root_context(), getattr()).await.unwrap();
    order.lock().unwrap().push("stat");
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    let order = order.lock().unwrap();
    let stat = order.iter().position(|what| *what == "stat").unwrap();
    assert!(stat < 40, "the stat came after {stat} reads");
}

#[tokio::test]
async fn another_key_is_named_as_the_reason() {
    let volcano = FakeVolcano::start();
    let config = ClientConfig { key: Secret::new("not that key"), ..volcano.config() };
    assert!(matches!(Client::connect(config).await, Err(ConnectError::WrongKey { .. })));
    volcano.client().await.call(&root_context(), getattr()).await.unwrap();
}

#[tokio::test]
async fn a_probe_tells_whether_a_volcano_answers_and_has_the_same_key() {
    let volcano = FakeVolcano::start();
    let host = &volcano.config().hosts[0];
    let keys = |key| Secret::new(key).stretch().unwrap();
    probe(host, keys(KEY).client()).await.unwrap();
    assert!(matches!(probe(host, keys("not that key").client()).await, Err(ConnectError::WrongKey { .. })));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = HostPort { host: "127.0.0.1".into(), port: silent.local_addr().unwrap().port() };
    assert!(matches!(probe(&silent, keys(KEY).client()).await, Err(ConnectError::Unreachable { .. })));
}

#[tokio::test]
async fn a_client_that_the_volcano_does_not_know_is_told_so() {
    let volcano = FakeVolcano::start();
    let text = keys().client_key().expose().to_owned();
    // Knows the volcano, but has a private half of its own making.
    let forged = format!("{}{}{}", crate::auth::CLIENT_KEY_PREFIX, "00".repeat(32), &text[text.len() - 64..]);
    let config = ClientConfig { key: Secret::new(&forged), ..volcano.config() };
    assert!(matches!(Client::connect(config).await, Err(ConnectError::WrongKey { .. })));
    assert!(volcano.with(|world| world.roles.is_empty()));
}

#[tokio::test]
async fn the_client_key_is_enough_for_a_client() {
    let volcano = FakeVolcano::start();
    let config = ClientConfig { key: keys().client_key(), ..volcano.config() };
    Client::connect(config).await.unwrap().call(&root_context(), getattr()).await.unwrap();
    let config = ClientConfig { key: Secret::new(KEY), ..volcano.config() };
    Client::connect(config).await.unwrap();
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_named() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let hosts = vec![HostPort { host: "127.0.0.1".into(), port: silent.local_addr().unwrap().port() }];
    let config = ClientConfig { hosts, key: Secret::new(KEY), name: "test".into(), patience: None };
    match Client::connect(config).await {
        Err(ConnectError::Unreachable { hosts, .. }) => assert!(hosts.starts_with("127.0.0.1:")),
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test]
async fn the_next_host_is_tried_when_the_first_is_silent() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let volcano = FakeVolcano::start();
    let mut config = volcano.config();
    config.hosts.insert(0, HostPort { host: "127.0.0.1".into(), port: silent.local_addr().unwrap().port() });
    let started = Instant::now();
    Client::connect(config).await.unwrap().call(&root_context(), getattr()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_retry_after_a_restart_returns_the_first_answer() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    volcano.with(|world| world.mute = true);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.write(&root_context(), write(), Bytes::from_static(b"once")).await }
    });
    volcano.until(|world| world.held == 1).await;
    volcano.with(|world| world.mute = false);
    let volcano = volcano.restart();
    let written = call.await.unwrap().unwrap();
    assert_eq!((written.offset, written.verifier), (0, 4));
    assert_eq!(volcano.with(|world| world.executed), 1);
    client.call(&root_context(), getattr()).await.unwrap();
    assert_eq!(volcano.with(|world| world.next_session), 1, "the session goes on");
}

#[tokio::test]
async fn a_retry_after_a_crash_returns_the_first_answer() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    client.call(&root_context(), open()).await.unwrap();
    volcano.with(|world| world.mute = true);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.write(&root_context(), write(), Bytes::from_static(b"once")).await }
    });
    volcano.until(|world| world.held == 1).await;
    volcano.with(|world| world.mute = false);
    let volcano = volcano.crash();
    let written = call.await.unwrap().unwrap();
    assert_eq!((written.offset, written.verifier), (1, 4));
    assert_eq!(volcano.with(|world| world.executed), 2);
    volcano.until(|world| world.opens.get(&Handle::root()) == Some(&1)).await;
}

#[tokio::test]
async fn a_request_that_is_dropped_by_the_volcano_is_asked_again() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    volcano.with(|world| world.drop_next = 3);
    client.call(&root_context(), getattr()).await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_the_waiting() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    volcano.with(|world| world.mute = true);
    let failure = client.call(&within(Duration::from_millis(50)), getattr()).await.unwrap_err();
    assert_eq!(failure.error, FlareError::TimedOut);
}

#[tokio::test]
async fn a_deadline_passes_while_nobody_is_reachable() {
    let mut volcano = FakeVolcano::start();
    let client = volcano.client().await;
    volcano.stop();
    let failure = client.call(&within(Duration::from_millis(50)), getattr()).await.unwrap_err();
    assert_eq!(failure.error, FlareError::TimedOut);
}

#[tokio::test]
async fn what_was_in_doubt_when_the_session_ended_fails_and_the_rest_goes_on() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    volcano.with(|world| world.mute = true);
    let in_doubt = tokio::spawn({
        let client = client.clone();
        async move { client.write(&root_context(), write(), Bytes::new()).await }
    });
    volcano.until(|world| world.held == 1).await;
    volcano.with(|world| {
        world.mute = false;
        world.sessions.clear();
    });
    let before = client.session();
    let volcano = volcano.restart();
    assert_eq!(in_doubt.await.unwrap().unwrap_err().error, FlareError::SessionEnded);
    client.write(&root_context(), write(), Bytes::new()).await.unwrap();
    assert_ne!(client.session(), before);
    assert_eq!(volcano.with(|world| world.executed), 2);
}

#[tokio::test]
async fn a_new_session_is_opened_when_the_old_one_has_ended_meanwhile() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    client.call(&root_context(), open()).await.unwrap();
    volcano.with(|world| {
        world.sessions.clear();
        world.opens.clear();
    });
    client.write(&root_context(), write(), Bytes::new()).await.unwrap();
    // Opens are said again.
    volcano.until(|world| world.opens.get(&Handle::root()) == Some(&1)).await;
}

#[tokio::test]
async fn opens_are_reclaimed_after_a_restart_and_released_in_the_end() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    for _ in 0..3 {
        client.call(&root_context(), open()).await.unwrap();
    }
    client.release(Handle::root());
    volcano.until(|world| world.opens.get(&Handle::root()) == Some(&2)).await;
    let volcano = volcano.restart();
    client.call(&root_context(), getattr()).await.unwrap();
    volcano.until(|world| world.opens.get(&Handle::root()) == Some(&2)).await;
    client.release(Handle::root());
    client.release(Handle::root());
    client.release(Handle::root());
    volcano.until(|world| world.opens.get(&Handle::root()) == Some(&0)).await;
}

#[tokio::test]
async fn an_open_whose_caller_went_away_is_given_back() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    // Dropped before its reply can have come.
    let call = {
        let client = client.clone();
        async move { client.call(&root_context(), open()).await }
    };
    let mut call = Box::pin(call);
    std::future::poll_fn(|context| {
        let _ = call.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
    drop(call);
    volcano.until(|world| world.opens.get(&Handle::root()) == Some(&0)).await;
}

#[tokio::test]
async fn a_waiting_lock_is_cancelled_when_its_caller_goes_away() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call(&root_context(), waiting_lock()).await }
    });
    volcano.until(|world| world.waiting == 1).await;
    waiting.abort();
    volcano.until(|world| world.cancelled == 1).await;
    client.write(&root_context(), write(), Bytes::new()).await.unwrap();
}

#[tokio::test]
async fn a_waiting_lock_does_not_hold_up_the_low_water_mark() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call(&root_context(), waiting_lock()).await }
    });
    volcano.until(|world| world.waiting == 1).await;
    for _ in 0..3 {
        client.write(&root_context(), write(), Bytes::new()).await.unwrap();
    }
    volcano.with(|world| assert_eq!(world.acknowledged, 2));
    waiting.abort();
}

#[tokio::test]
async fn closing_ends_the_session() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    assert_eq!(volcano.with(|world| world.sessions.len()), 1);
    client.close().await;
    assert_eq!(volcano.with(|world| world.sessions.len()), 0);
    volcano.until(|world| world.peers == 0).await;
}

#[tokio::test]
async fn the_last_clone_takes_the_connections_with_it() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    drop(client.clone());
    client.call(&root_context(), getattr()).await.unwrap();
    drop(client);
    volcano.until(|world| world.peers == 0).await;
}

#[tokio::test]
async fn stat_many_answers_in_order_beyond_the_limit_of_one_message() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let handles: Vec<_> =
        (0..3000_u64).map(|n| Handle { birth: crate::handle::BirthNumber(n), ..Handle::root() }).collect();
    let found = client.stat_many(&root_context(), &handles).await.unwrap();
    assert_eq!(found.len(), handles.len());
    assert!(found.iter().zip(&handles).all(|(found, handle)| found.as_ref().unwrap().handle == *handle));
}

#[tokio::test]
async fn a_path_is_walked_name_by_name() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let found = client.walk(&root_context(), b"/a/./b//c").await.unwrap();
    assert_eq!(found.handle.key, crate::key::Key::from_bytes([b'c'; 20]));
    let found = client.walk(&root_context(), b"a/..").await.unwrap();
    assert_eq!(found.handle, Handle::root());
    let failure = client.walk(&root_context(), &[b'x'; 300]).await.unwrap_err();
    assert_eq!(failure.error, FlareError::NameTooLong);
}

#[tokio::test]
async fn cached_answers_end_with_the_clients_own_changes() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let context = root_context();
    let requests = || volcano.with(|world| world.requests);
    let name = Name::new(&b"n"[..]).unwrap();
    client.cached_getattr(&context, Handle::root()).await.unwrap();
    client.cached_lookup(&context, Handle::root(), name.clone()).await.unwrap();
    let asked = requests();
    client.cached_getattr(&context, Handle::root()).await.unwrap();
    client.cached_lookup(&context, Handle::root(), name.clone()).await.unwrap();
    assert_eq!(requests(), asked, "answered from the cache");
    client.write(&context, write(), Bytes::new()).await.unwrap();
    client.cached_getattr(&context, Handle::root()).await.unwrap();
    client.cached_lookup(&context, Handle::root(), name.clone()).await.unwrap();
    assert_eq!(requests(), asked + 3, "asked again");
    let other = Credentials { uid: 1, gid: 1, groups: vec![] };
    let other = Context { credentials: Arc::new(other), ..context };
    client.cached_lookup(&other, Handle::root(), name).await.unwrap();
    assert_eq!(requests(), asked + 4, "somebody else may not be allowed what we are");
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, without any runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[tokio::test]
async fn a_client_works_from_threads_without_a_runtime() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || {
                for _ in 0..50 {
                    block_on(client.call(&within(Duration::from_secs(20)), getattr())).unwrap();
                    block_on(client.call(&root_context(), open())).unwrap();
                    client.release(Handle::root());
                }
                block_on(client.stat_many(&root_context(), &[Handle::root()])).unwrap();
            })
        })
        .collect();
    tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| thread.join().unwrap()))
        .await
        .unwrap();
    volcano.until(|world| world.opens.get(&Handle::root()) == Some(&0)).await;
}
