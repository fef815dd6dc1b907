use magma_gateway_9p::wire::lock::{BLOCKED, FLAG_BLOCK, RDLCK, SUCCESS, Tgetlock, Tlock, UNLCK, WRLCK};
use magma_gateway_9p::wire::session::{Rflush, Tflush};
use magma_gateway_9p::wire::{Reply, lock::Rlock};
use tokio::time::timeout;

use crate::client::{Client, EBADF, LONG, O_RDWR, Setup, ask, text};

fn tlock(kind: u8, start: u64, length: u64) -> Tlock {
    Tlock { fid: 1, kind, flags: 0, start, length, proc_id: 42, client_id: text("guest") }
}

async fn lock(client: &mut Client, request: Tlock) -> u8 {
    ask!(client, Rlock, request).status
}

/// Two clients whose fid 1 is the same file, open.
async fn two_clients() -> (Setup, Client, Client) {
    let setup = Setup::new().await;
    let (mut one, mut two) = (setup.attached(0).await, setup.attached(0).await);
    one.create(0, 1, "file").await;
    two.walk(0, 1, "file").await;
    two.open(1, O_RDWR).await;
    (setup, one, two)
}

/// Waits until the other client gets the lock.
async fn until_granted(client: &mut Client, request: Tlock) {
    let granted = async { while lock(client, request.clone()).await != SUCCESS {} };
    timeout(LONG, granted).await.unwrap();
}

#[tokio::test]
async fn ranges_conflict_between_clients_whose_processes_have_the_same_number() {
    let (_setup, mut one, mut two) = two_clients().await;
    assert_eq!(lock(&mut one, tlock(WRLCK, 0, 10)).await, SUCCESS);
    assert_eq!(lock(&mut one, tlock(WRLCK, 5, 1)).await, SUCCESS, "its own lock is in nobody's way");
    assert_eq!(lock(&mut two, tlock(RDLCK, 9, 1)).await, BLOCKED);
    assert_eq!(lock(&mut two, tlock(WRLCK, 10, 0)).await, SUCCESS);
    assert_eq!(lock(&mut one, tlock(UNLCK, 0, 0)).await, SUCCESS);
    assert_eq!(lock(&mut two, tlock(RDLCK, 9, 1)).await, SUCCESS);
}

#[tokio::test]
async fn processes_of_one_client_are_told_apart() {
    let (_setup, mut one, _two) = two_clients().await;
    assert_eq!(lock(&mut one, tlock(WRLCK, 0, 0)).await, SUCCESS);
    assert_eq!(lock(&mut one, Tlock { proc_id: 43, ..tlock(WRLCK, 0, 0) }).await, BLOCKED);
    assert_eq!(lock(&mut one, Tlock { client_id: text("other"), ..tlock(RDLCK, 0, 1) }).await, BLOCKED);
}

#[tokio::test]
async fn the_lock_in_the_way_is_told() {
    let (_setup, mut one, mut two) = two_clients().await;
    let getlock = Tgetlock { fid: 1, kind: WRLCK, start: 0, length: 0, proc_id: 7, client_id: text("guest") };
    let free = ask!(two, Rgetlock, getlock.clone());
    assert_eq!((free.kind, free.proc_id), (UNLCK, 7));
    assert_eq!(lock(&mut one, tlock(RDLCK, 3, 4)).await, SUCCESS);
    let held = ask!(two, Rgetlock, getlock);
    assert_eq!((held.kind, held.start, held.length, held.proc_id), (RDLCK, 3, 4, 42));
}

#[tokio::test]
async fn a_lock_that_is_waited_for_is_granted_when_it_becomes_free() {
    let (_setup, mut one, mut two) = two_clients().await;
    assert_eq!(lock(&mut one, tlock(WRLCK, 0, 0)).await, SUCCESS);
    two.send(100, Tlock { flags: FLAG_BLOCK, ..tlock(WRLCK, 0, 0) }).await;
    // The wait holds up nothing else on its connection.
    two.walk(0, 2, "").await;
    assert_eq!(lock(&mut one, tlock(UNLCK, 0, 0)).await, SUCCESS);
    assert_eq!(two.receive().await, (100, Rlock { status: SUCCESS }.into()));
}

#[tokio::test]
async fn a_wait_that_is_flushed_ends_without_the_lock() {
    let (_setup, mut one, mut two) = two_clients().await;
    assert_eq!(lock(&mut one, tlock(WRLCK, 0, 0)).await, SUCCESS);
    two.send(100, Tlock { flags: FLAG_BLOCK, ..tlock(WRLCK, 0, 0) }).await;
    two.walk(0, 2, "").await;
    two.send(101, Tflush { oldtag: 100 }).await;
    let (mut tag, mut reply) = two.receive().await;
    if tag == 100 {
        assert_eq!(reply, Rlock { status: BLOCKED }.into());
        (tag, reply) = two.receive().await;
    }
    assert_eq!((tag, reply), (101, Reply::from(Rflush {})));
    assert_eq!(lock(&mut one, tlock(UNLCK, 0, 0)).await, SUCCESS);
    assert_eq!(lock(&mut one, Tlock { proc_id: 1, ..tlock(WRLCK, 0, 0) }).await, SUCCESS, "nobody holds it");
}

#[tokio::test]
async fn a_wait_that_takes_too_long_is_to_be_asked_for_again() {
    let setup =
        Setup::with(|config| config.limits.lock_patience = std::time::Duration::from_millis(20)).await;
    let (mut one, mut two) = (setup.attached(0).await, setup.attached(0).await);
    one.create(0, 1, "file").await;
    two.walk(0, 1, "file").await;
    two.open(1, O_RDWR).await;
    assert_eq!(lock(&mut one, tlock(WRLCK, 0, 0)).await, SUCCESS);
    assert_eq!(lock(&mut two, Tlock { flags: FLAG_BLOCK, ..tlock(WRLCK, 0, 0) }).await, BLOCKED);
}

#[tokio::test]
async fn locks_go_with_their_fid_and_with_their_connection() {
    let (_setup, mut one, mut two) = two_clients().await;
    assert_eq!(lock(&mut one, tlock(WRLCK, 0, 0)).await, SUCCESS);
    one.clunk(1).await;
    assert_eq!(lock(&mut two, tlock(WRLCK, 0, 0)).await, SUCCESS);
    one.walk(0, 1, "file").await;
    one.open(1, O_RDWR).await;
    assert_eq!(lock(&mut one, tlock(WRLCK, 0, 0)).await, BLOCKED);
    drop(two);
    until_granted(&mut one, tlock(WRLCK, 0, 0)).await;
}

#[tokio::test]
async fn a_lock_needs_an_open_file_and_a_range_that_can_be() {
    let (_setup, mut one, _two) = two_clients().await;
    assert_eq!(one.refused(Tlock { fid: 0, ..tlock(WRLCK, 0, 0) }).await, EBADF);
    assert_eq!(one.refused(tlock(WRLCK, u64::MAX, 2)).await, 22, "EINVAL");
    assert_eq!(one.refused(tlock(9, 0, 0)).await, 22, "EINVAL");
}
