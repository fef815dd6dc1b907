//! Advisory locks, and waiting for them.

use std::time::Duration;

use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::SessionId;
use magma_common::proto::operation::{LockFamily, LockKind, TestLock};

use super::world::{World, lock, unlink};
use crate::slice::Ticket;

use LockFamily::{Flock, Posix};
use LockKind::{Exclusive, Shared, Unlock};

/// Two sessions and a file.
fn world() -> (World, SessionId, SessionId, Handle) {
    let mut world = World::new();
    let (one, other) = (world.session(), world.session());
    let file = world.create(one, "a", false);
    (world, one, other, file)
}

/// Asks for a lock and waits for it.
fn wait(world: &mut World, session: SessionId, file: Handle, family: LockFamily, kind: LockKind) -> Ticket {
    let call = world.call(session, lock(file, family, kind, true));
    let ticket = world.send(call);
    world.batch_end();
    ticket
}

fn granted(world: &mut World, ticket: Ticket) -> bool {
    world.answer(ticket).is_some_and(|answer| answer.is_ok())
}

#[test]
fn who_waits_gets_the_lock_when_it_is_released() {
    let (mut world, one, other, file) = world();
    world.ok(one, lock(file, Posix, Exclusive, false));
    let waiting = wait(&mut world, other, file, Posix, Exclusive);
    assert!(world.answer(waiting).is_none());
    world.ok(one, lock(file, Posix, Unlock, false));
    assert!(granted(&mut world, waiting));
    assert_eq!(world.error(one, lock(file, Posix, Shared, false)), FlareError::WouldBlock);
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let (mut world, one, other, file) = world();
    world.ok(one, lock(file, Posix, Exclusive, false));
    let mut call = world.call(other, lock(file, Posix, Shared, true));
    call.deadline = Some(world.now.monotonic + Duration::from_secs(5));
    let waiting = world.send(call);
    world.pass(4);
    assert!(world.answer(waiting).is_none());
    world.pass(1);
    assert_eq!(world.answer(waiting).unwrap().unwrap_err().error, FlareError::WouldBlock);
    assert_eq!(world.held().2, 0);
}

/// A client that had heard nothing for a while asked again. Its first try was refused at its deadline, and it gave up; then the second
/// one got the lock, which nobody knew of and nobody would release.
#[test]
fn a_second_try_does_not_get_the_lock_after_the_first_was_refused() {
    let (mut world, one, other, file) = world();
    world.ok(one, lock(file, Posix, Exclusive, false));
    let mut call = world.call(other, lock(file, Posix, Shared, true));
    call.deadline = Some(world.now.monotonic + Duration::from_secs(2));
    let mut again = call.clone();
    again.deadline = Some(world.now.monotonic + Duration::from_secs(60));
    let (first, second) = (world.send(call), world.send(again));
    world.pass(2);
    assert_eq!(world.answer(first).unwrap().unwrap_err().error, FlareError::WouldBlock);
    world.ok(one, lock(file, Posix, Unlock, false));
    assert_eq!(world.answer(second).unwrap().unwrap_err().error, FlareError::WouldBlock);
    world.ok(one, lock(file, Posix, Exclusive, false));
}

#[test]
fn a_wait_ends_with_its_caller() {
    let (mut world, one, other, file) = world();
    world.ok(one, lock(file, Posix, Exclusive, false));
    let waiting = wait(&mut world, other, file, Posix, Exclusive);
    world.cancel(waiting);
    assert_eq!(world.answer(waiting).unwrap().unwrap_err().error, FlareError::Interrupted);
    world.ok(one, lock(file, Posix, Unlock, false));
    world.ok(one, lock(file, Posix, Exclusive, false));
}

#[test]
fn a_circle_of_waiters_is_broken() {
    let (mut world, one, other, file) = world();
    let second = world.create(one, "b", false);
    world.ok(one, lock(file, Posix, Exclusive, false));
    world.ok(other, lock(second, Posix, Exclusive, false));
    let waiting = wait(&mut world, one, second, Posix, Exclusive);
    assert_eq!(world.error(other, lock(file, Posix, Exclusive, true)), FlareError::Deadlock);
    world.ok(other, lock(second, Posix, Unlock, false));
    assert!(granted(&mut world, waiting));
}

#[test]
fn two_who_convert_do_not_wait_for_each_other() {
    let (mut world, one, other, file) = world();
    world.ok(one, lock(file, Flock, Shared, false));
    world.ok(other, lock(file, Flock, Shared, false));
    let first = wait(&mut world, one, file, Flock, Exclusive);
    let second = wait(&mut world, other, file, Flock, Exclusive);
    let answers = [first, second].map(|ticket| granted(&mut world, ticket));
    assert_eq!(answers.iter().filter(|granted| **granted).count(), 1);
    let (holder, waiting) = if answers[0] { (one, second) } else { (other, first) };
    world.ok(holder, lock(file, Flock, Unlock, false));
    assert!(granted(&mut world, waiting));
}

#[test]
fn waiters_are_served_in_the_order_in_which_they_came() {
    let (mut world, one, _, file) = world();
    world.ok(one, lock(file, Flock, Exclusive, false));
    let others: Vec<_> = (0..4).map(|_| world.session()).collect();
    let tickets: Vec<_> =
        others.iter().map(|other| wait(&mut world, *other, file, Flock, Exclusive)).collect();
    let mut holder = one;
    for (other, ticket) in others.into_iter().zip(tickets) {
        world.ok(holder, lock(file, Flock, Unlock, false));
        assert!(granted(&mut world, ticket));
        holder = other;
    }
    assert!(world.asked.is_empty());
}

#[test]
fn all_who_share_are_let_in_at_once() {
    let (mut world, one, _, file) = world();
    world.ok(one, lock(file, Posix, Exclusive, false));
    let tickets: Vec<_> = (0..5)
        .map(|_| {
            let other = world.session();
            wait(&mut world, other, file, Posix, Shared)
        })
        .collect();
    world.ok(one, lock(file, Posix, Unlock, false));
    assert!(tickets.into_iter().all(|ticket| granted(&mut world, ticket)));
}

#[test]
fn a_retry_of_a_wait_gets_the_same_lock() {
    let (mut world, one, other, file) = world();
    world.ok(one, lock(file, Posix, Exclusive, false));
    let call = world.call(other, lock(file, Posix, Exclusive, true));
    let (first, again) = (world.send(call.clone()), world.send(call));
    world.ok(one, lock(file, Posix, Unlock, false));
    assert!(granted(&mut world, first) && granted(&mut world, again));
    world.ok(other, lock(file, Posix, Unlock, false));
    world.ok(one, lock(file, Posix, Exclusive, false));
}

#[test]
fn locks_survive_a_restart() {
    let (mut world, one, other, file) = world();
    world.ok(one, lock(file, Posix, Exclusive, false));
    world.restart();
    assert_eq!(world.error(other, lock(file, Posix, Shared, false)), FlareError::WouldBlock);
    let waiting = wait(&mut world, other, file, Posix, Shared);
    world.ok(one, lock(file, Posix, Unlock, false));
    assert!(granted(&mut world, waiting));
}

#[test]
fn who_waits_for_a_lock_of_a_file_that_dies_hears_of_it() {
    let (mut world, one, other, file) = world();
    world.ok(one, lock(file, Posix, Exclusive, false));
    let waiting = wait(&mut world, other, file, Posix, Exclusive);
    world.ok(one, unlink("a"));
    assert_eq!(world.answer(waiting).unwrap().unwrap_err().error, FlareError::Stale);
}

#[test]
fn too_many_waiters_for_one_file_are_refused() {
    let (mut world, one, other, file) = world();
    world.ok(one, lock(file, Flock, Exclusive, false));
    let mut waiting = Vec::new();
    for owner in 0..4096 {
        let mut wanted = lock(file, Flock, Exclusive, true);
        wanted.owner.owner = owner;
        let mut call = world.call(other, wanted);
        call.header.call = Some(owner.into());
        waiting.push(world.send(call));
    }
    let mut wanted = lock(file, Flock, Exclusive, true);
    wanted.owner.owner = 9999;
    let mut call = world.call(other, wanted);
    call.header.call = Some(9999);
    assert_eq!(world.ask(call).unwrap_err().error, FlareError::NoLocks);
    world.ok(one, lock(file, Flock, Unlock, false));
    assert!(granted(&mut world, waiting[0]));
    assert_eq!(world.held().2, 4095);
}

#[test]
fn testing_a_lock_takes_none() {
    let (mut world, one, other, file) = world();
    let owner = lock(file, Posix, Shared, false).owner;
    let test = TestLock { handle: file, family: Posix, owner, kind: Exclusive, start: 0, end: 9 };
    world.ok(other, test);
    world.ok(one, lock(file, Posix, Exclusive, false));
}
