//! Nothing leaves before what it depends on is safe.

use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::{
    Commit, EndSession, Getattr, LockFamily, LockKind, Read, Write, WriteAt,
};
use magma_common::proto::{Durability, Reply};

use super::world::{World, append, create, lock, unlink};

#[test]
fn nothing_leaves_before_the_end_of_the_batch() {
    let mut world = World::new();
    let session = world.session();
    let made = world.call(session, create("a", false));
    let made = world.send(made);
    let refused = world.call(session, create("a", false));
    let refused = world.send(refused);
    let seen = world.call(session, Getattr { handle: Handle::root() });
    let seen = world.send(seen);
    assert_eq!(world.asked.len(), 3);
    assert!(world.answer(made).is_none());
    world.batch_end();
    assert!(world.answer(made).unwrap().is_ok());
    assert_eq!(world.answer(refused).unwrap().unwrap_err().error, FlareError::Exists);
    assert!(world.answer(seen).unwrap().is_ok());
    assert!(world.order.ends_with(&[made, refused, seen]), "in the order in which they were evaluated");
}

#[test]
fn a_stable_answer_waits_for_its_sync_and_others_do_not() {
    let mut world = World::new();
    let session = world.session();
    let mut stable = world.call(session, create("a", false));
    stable.header.durability = Durability::Stable;
    let stable = world.send(stable);
    let other = world.call(session, create("b", false));
    let other = world.send(other);
    world.batch_end();
    assert!(world.answer(other).is_some());
    assert!(world.answer(stable).is_none());
    assert!(world.run_sync());
    assert!(world.answer(stable).unwrap().is_ok());
    assert_eq!(world.look().store().stable(), world.look().store().last());
}

#[test]
fn who_comes_during_a_sync_waits_for_the_next() {
    let mut world = World::new();
    let session = world.session();
    let file = world.create(session, "a", false);
    let first = world.call(session, Commit { handle: file });
    let first = world.send(first);
    world.batch_end();
    let written = world.call_with(session, append(file), b"late");
    world.send(written);
    let second = world.call(session, Commit { handle: file });
    let second = world.send(second);
    world.batch_end();
    assert_eq!(world.jobs.len(), 1, "one at a time");
    world.run_sync();
    assert!(world.answer(first).is_some());
    assert!(world.answer(second).is_none());
    world.run_sync();
    assert!(world.answer(second).unwrap().is_ok());
}

#[test]
fn a_retry_of_a_stable_operation_waits_for_the_disk_too() {
    let mut world = World::new();
    let session = world.session();
    let mut call = world.call(session, create("a", false));
    call.header.durability = Durability::Stable;
    let first = world.send(call.clone());
    world.batch_end();
    let again = world.send(call);
    world.batch_end();
    assert!(world.answer(again).is_none());
    world.run_syncs();
    assert_eq!(world.answer(again), world.answer(first));
}

#[test]
fn after_a_failed_sync_nobody_hears_of_a_success() {
    let mut world = World::new();
    let (session, other) = (world.session(), world.session());
    let file = world.create(session, "a", false);
    world.ok(session, lock(file, LockFamily::Posix, LockKind::Exclusive, false));
    let call = world.call(session, Commit { handle: file });
    let synced = world.send(call);
    world.batch_end();
    let call = world.call(session, Commit { handle: file });
    let next = world.send(call);
    let call = world.call(session, create("b", false));
    let made = world.send(call);
    let call = world.call(other, lock(file, LockFamily::Posix, LockKind::Shared, true));
    let waiting = world.send(call);
    world.disk.fail_next_sync();
    world.run_sync();
    let stopped = world.stopped.clone();
    assert!(stopped.is_some());
    let mut error = |ticket| world.answer(ticket).unwrap().unwrap_err().error;
    assert_eq!([error(synced), error(next)], [FlareError::Io; 2]);
    assert_eq!([error(made), error(waiting)], [FlareError::Unavailable; 2]);
    assert_eq!(world.error(session, create("c", false)), FlareError::Unavailable);
    world.pass(1);
    assert!(world.asked.is_empty());
}

/// A file of a mebibyte in a body: to overwrite it takes more space in the log than a segment has.
fn big_file(world: &mut World, session: magma_common::proto::SessionId) -> Handle {
    let file = world.create(session, "big", false);
    world.append(session, file, &vec![1; 1 << 20]).unwrap();
    let call = world.call(session, Commit { handle: file });
    world.ask(call).unwrap();
    file
}

#[test]
fn a_full_disk_holds_answers_back_until_there_is_space_again() {
    let mut world = World::new();
    let session = world.session();
    let file = big_file(&mut world, session);
    let write = Write { handle: file, at: WriteAt::Offset(0), opened: true };
    let call = world.call_with(session, write, &vec![2; 1 << 20]);
    let ticket = world.send(call);
    world.disk.set_full(true);
    world.batch_end();
    world.pass(1);
    assert!(world.answer(ticket).is_none());
    world.disk.set_full(false);
    world.pass(1);
    assert!(world.answer(ticket).unwrap().is_ok());
    assert_eq!(world.stopped, None);
}

/// The sync that follows another one found the disk full, and the volcano stopped serving.
#[test]
fn a_disk_that_is_full_when_the_next_sync_should_start_stops_nothing() {
    let mut world = World::new();
    let session = world.session();
    let file = big_file(&mut world, session);
    let call = world.call(session, Commit { handle: file });
    let first = world.send(call);
    world.batch_end();
    let write = Write { handle: file, at: WriteAt::Offset(0), opened: true };
    let mut call = world.call_with(session, write, &vec![2; 1 << 20]);
    call.header.durability = Durability::Stable;
    let second = world.send(call);
    world.disk.set_full(true);
    world.run_syncs();
    assert!(world.answer(first).unwrap().is_ok());
    assert!(world.answer(second).is_none());
    world.disk.set_full(false);
    world.pass(1);
    assert!(world.answer(second).unwrap().is_ok());
    assert_eq!(world.stopped, None);
}

/// Those who waited for a lock in an ended session heard of its end before the log had it.
#[test]
fn the_end_of_a_session_is_told_to_its_waiters_when_it_is_safe() {
    let mut world = World::new();
    let (holder, waiter) = (world.session(), world.session());
    let file = world.create(holder, "a", false);
    world.ok(holder, lock(file, LockFamily::Flock, LockKind::Exclusive, false));
    let call = world.call(waiter, lock(file, LockFamily::Flock, LockKind::Exclusive, true));
    let waiting = world.send(call);
    world.batch_end();
    let call = world.call(waiter, EndSession);
    let ended = world.send(call);
    assert!(world.answer(waiting).is_none());
    world.batch_end();
    assert_eq!(world.answer(waiting).unwrap().unwrap_err().error, FlareError::SessionEnded);
    assert_eq!(world.answer(ended).unwrap().unwrap().0, Reply::EndSession(()));
    assert_eq!(world.held().2, 0);
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let mut world = World::new();
    let session = world.session();
    world.create(session, "a", false);
    let lost = world.call(session, unlink("a"));
    world.send(lost);
    world.restart();
    assert!(world.exists(session, "a"), "an answer that did not leave is nobody's business");
}

/// The process was started again after a failed sync, and the kernel, which had told its failure already, called the next
/// sync a success: the verifier had not changed, so clients took unwritten data for safe.
#[test]
fn a_start_after_a_failed_sync_says_that_data_may_be_gone() {
    let mut world = World::new();
    let session = world.session();
    let file = world.create(session, "a", false);
    world.restart();
    assert!(!world.may_have_lost, "a process that just died loses nothing");
    let call = world.call(session, Commit { handle: file });
    world.send(call);
    world.batch_end();
    world.disk.fail_next_sync();
    world.run_sync();
    world.restart();
    assert!(world.may_have_lost);
}

/// Every time its bytes were there they had changed again: whoever read a file that was written all the time got no answer.
#[test]
fn a_read_whose_bytes_change_is_answered_at_the_second_try() {
    let mut world = World::new();
    let session = world.session();
    let file = big_file(&mut world, session);
    world.hold_reads = true;
    let call = world.call(session, Read { handle: file, offset: 0, length: 1 << 20, opened: true });
    let reading = world.send(call);
    assert_eq!(world.reads.len(), 1, "a long read leaves the thread");
    let write = Write { handle: file, at: WriteAt::Offset(0), opened: true };
    let mut call = world.call_with(session, write, &vec![2; 1 << 20]);
    call.header.durability = Durability::Stable;
    world.ask(call).unwrap();
    world.run_read();
    let (_, data) = world.answer(reading).unwrap().unwrap();
    assert_eq!(data, vec![2; 1 << 20]);
    assert!(world.reads.is_empty());
}

#[test]
fn a_read_under_way_when_the_store_fails_is_answered() {
    let mut world = World::new();
    let session = world.session();
    let file = big_file(&mut world, session);
    world.hold_reads = true;
    let call = world.call(session, Read { handle: file, offset: 0, length: 1 << 20, opened: true });
    let reading = world.send(call);
    let call = world.call(session, Commit { handle: file });
    world.send(call);
    world.batch_end();
    world.disk.fail_next_sync();
    world.run_sync();
    world.run_read();
    assert_eq!(world.answer(reading).unwrap().unwrap_err().error, FlareError::Unavailable);
    assert!(world.asked.is_empty());
}
