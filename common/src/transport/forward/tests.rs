use super::*;

use crate::auth::Role;
use crate::fake::{FakeVolcano, keys};
use crate::handle::Handle;
use crate::proto::operation::{Getattr, Lock, LockFamily, LockKind, LockOwner, Write, WriteAt};
use crate::proto::{Durability, SessionId};

const OWN: VolcanoId = VolcanoId(9);

fn forwarder() -> Forwarder {
    Forwarder::new(keys().cluster().unwrap(), OWN).unwrap()
}

fn header(session: SessionId) -> RequestHeader {
    RequestHeader { durability: Durability::Stable, session, ..crate::fake::header(77) }
}

fn getattr() -> Request {
    Getattr { handle: Handle::root() }.into()
}

async fn ask(forwarder: &Forwarder, to: &FakeVolcano, session: SessionId, request: Request) -> Reply {
    let answer = forwarder.forward(to.address, header(session), &request, Bytes::new()).await.unwrap();
    answer.outcome().unwrap().unwrap().0
}

async fn session(forwarder: &Forwarder, to: &FakeVolcano) -> SessionId {
    let open = OpenSession { client: "test".into() }.into();
    let Reply::OpenSession(terms) = ask(forwarder, to, SessionId::NONE, open).await else { panic!() };
    assert_eq!(terms.door, OWN, "the client stands at our door");
    terms.session
}

fn lock() -> Request {
    let owner = LockOwner { owner: 1, pid: 1 };
    let (family, kind) = (LockFamily::Posix, LockKind::Exclusive);
    Lock { handle: Handle::root(), family, owner, kind, start: 0, end: 9, wait: true }.into()
}

#[tokio::test]
async fn an_operation_is_the_same_whoever_brings_it() {
    let owner = FakeVolcano::start();
    let forwarder = forwarder();
    let session = session(&forwarder, &owner).await;
    let write = Request::from(Write { handle: Handle::root(), at: WriteAt::End, opened: true });
    let header = RequestHeader { sequence: 1, ..header(session) };
    for _ in 0..2 {
        let data = Bytes::from(vec![1; 100_000]);
        let answer = forwarder.forward(owner.address, header.clone(), &write, data).await.unwrap();
        assert!(answer.topology_version() > 0);
        assert!(matches!(answer.outcome(), Ok(Ok((Reply::Write(_), _)))));
    }
    assert_eq!(owner.with(|world| (world.executed, world.roles.clone())), (1, vec![Role::Node]));
    assert_eq!(owner.with(|world| world.forwarded), 3);
}

#[tokio::test]
async fn failures_are_answers_too() {
    let owner = FakeVolcano::start();
    let forwarder = forwarder();
    let answer = forwarder.forward(owner.address, header(SessionId(99)), &getattr(), Bytes::new()).await;
    assert_eq!(answer.unwrap().outcome().unwrap().unwrap_err().error, FlareError::SessionEnded);
}

#[tokio::test]
async fn an_owner_that_is_gone_is_not_waited_for_by_everybody_in_turn() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = silent.local_addr().unwrap();
    let (forwarder, getattr) = (forwarder(), getattr());
    let started = Instant::now();
    let forward = || forwarder.forward(to, header(SessionId(1)), &getattr, Bytes::new());
    let (one, two, three) = tokio::join!(forward(), forward(), forward());
    assert_eq!([one, two, three].map(Result::unwrap_err), [Lost::Unreachable; 3]);
    assert!(started.elapsed() < DIAL_LIMIT + Duration::from_millis(500));
}

#[tokio::test]
async fn a_lost_connection_leaves_in_doubt_what_was_sent_and_is_made_again() {
    let owner = FakeVolcano::start();
    let forwarder = forwarder();
    let session = session(&forwarder, &owner).await;
    owner.with(|world| world.mute = true);
    let request = getattr();
    let (outcome, owner) =
        tokio::join!(forwarder.forward(owner.address, header(session), &request, Bytes::new()), async {
            owner.until(|world| world.held == 1).await;
            owner.with(|world| world.mute = false);
            owner.restart()
        });
    assert_eq!(outcome.unwrap_err(), Lost::InDoubt);
    assert!(matches!(ask(&forwarder, &owner, session, getattr()).await, Reply::Getattr(_)));
}

#[tokio::test]
async fn what_waits_for_a_volcano_that_owns_nothing_any_more_is_given_up() {
    let owner = FakeVolcano::start();
    let forwarder = forwarder();
    let session = session(&forwarder, &owner).await;
    let lock = lock();
    let header = RequestHeader { call: Some(1), ..header(session) };
    let (outcome, ()) = tokio::join!(forwarder.forward(owner.address, header, &lock, Bytes::new()), async {
        owner.until(|world| world.waiting == 1).await;
        forwarder.keep_only(&[]);
    });
    assert_eq!(outcome.unwrap_err(), Lost::InDoubt);
    assert_eq!(forwarder.outstanding(), 0);
}

#[tokio::test]
async fn who_waits_for_a_connection_to_a_former_owner_is_told_at_once() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = silent.local_addr().unwrap();
    let (forwarder, getattr) = (forwarder(), getattr());
    let started = Instant::now();
    let (outcome, ()) =
        tokio::join!(forwarder.forward(to, header(SessionId(1)), &getattr, Bytes::new()), async {
            forwarder.keep_only(&[]);
        });
    assert_eq!(outcome.unwrap_err(), Lost::Unreachable);
    assert!(started.elapsed() < DIAL_LIMIT);
}

#[tokio::test]
async fn a_wait_ends_when_its_caller_goes() {
    let owner = FakeVolcano::start();
    let forwarder = forwarder();
    let session = session(&forwarder, &owner).await;
    let lock = lock();
    let header = RequestHeader { call: Some(1), ..header(session) };
    tokio::select! {
        _ = forwarder.forward(owner.address, header, &lock, Bytes::new()) => panic!(),
        () = owner.until(|world| world.waiting == 1) => {}
    }
    owner.until(|world| world.cancelled == 1).await;
}

#[tokio::test]
async fn more_than_may_be_under_way_is_refused_at_once() {
    let owner = FakeVolcano::start();
    let forwarder = forwarder();
    let session = session(&forwarder, &owner).await;
    let lock = lock();
    let mut waiting = Vec::new();
    for call in 0..MAX_OUTSTANDING as u128 {
        let header = RequestHeader { call: Some(call), ..header(session) };
        let mut wait = Box::pin(forwarder.forward(owner.address, header, &lock, Bytes::new()));
        std::future::poll_fn(|context| {
            assert!(wait.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        waiting.push(wait);
    }
    let more = forwarder.forward(owner.address, header(session), &getattr(), Bytes::new()).await;
    assert_eq!(more.unwrap_err(), Lost::Full);
    waiting.pop();
    assert!(matches!(ask(&forwarder, &owner, session, getattr()).await, Reply::Getattr(_)));
}
