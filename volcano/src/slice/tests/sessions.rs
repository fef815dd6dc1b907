//! Sessions begin, live and end.

use std::time::Duration;

use magma_common::error::FlareError;
use magma_common::proto::operation::{EndSession, KeepAlive, LockFamily, LockKind, OpenSession};
use magma_common::proto::{Reply, SessionId};

use super::world::{World, create, lock, unlink};

#[test]
fn who_has_no_session_is_refused() {
    let mut world = World::new();
    for session in [SessionId::NONE, SessionId(4711)] {
        assert_eq!(world.error(session, create("a", false)), FlareError::SessionEnded);
        assert_eq!(world.error(session, KeepAlive { acknowledged: 0 }), FlareError::SessionEnded);
    }
}

#[test]
fn an_ended_session_is_refused_for_ever() {
    let mut world = World::new();
    let (session, other) = (world.session(), world.session());
    let call = world.call(session, create("a", false));
    world.ask(call.clone()).unwrap();
    world.ok(session, EndSession);
    world.ok(other, unlink("a"));
    for _ in 0..2 {
        assert_eq!(world.ask(call.clone()).unwrap_err().error, FlareError::SessionEnded);
        world.restart();
    }
    assert!(!world.exists(other, "a"));
}

#[test]
fn silence_ends_a_session_after_its_lease() {
    let mut world = World::new();
    let reply = world.open_session();
    let lease = Duration::from_millis(reply.lease_ms.into()).as_secs();
    world.pass(lease);
    world.ok(reply.session, KeepAlive { acknowledged: 0 });
    world.pass(lease);
    world.ok(reply.session, KeepAlive { acknowledged: 0 });
    world.pass(lease + 1);
    assert_eq!(world.error(reply.session, KeepAlive { acknowledged: 0 }), FlareError::SessionEnded);
}

/// Nobody woke those who waited until some client sent another request.
#[test]
fn the_locks_of_a_silent_session_go_to_those_who_wait() {
    let mut world = World::new();
    let (silent, waiter) = (world.session(), world.session());
    let file = world.create(silent, "a", true);
    world.ok(silent, unlink("a"));
    world.ok(silent, lock(file, LockFamily::Posix, LockKind::Exclusive, false));
    world.pass(40);
    let call = world.call(waiter, lock(file, LockFamily::Posix, LockKind::Exclusive, true));
    let waiting = world.send(call);
    world.pass(21);
    // its file went with it
    assert_eq!(world.answer(waiting).unwrap().unwrap_err().error, FlareError::Stale);
    let file = world.create(waiter, "b", false);
    let silent = world.session();
    world.ok(silent, lock(file, LockFamily::Posix, LockKind::Exclusive, false));
    world.pass(30);
    let call = world.call(waiter, lock(file, LockFamily::Posix, LockKind::Exclusive, true));
    let waiting = world.send(call);
    world.pass(31);
    assert!(world.answer(waiting).unwrap().is_ok());
    assert!(world.asked.is_empty());
}

/// A waiting request that is tried again is no sign of life of the one who asked.
#[test]
fn waiting_for_a_lock_keeps_no_session_alive() {
    let mut world = World::new();
    let (holder, waiter) = (world.session(), world.session());
    let file = world.create(holder, "a", false);
    world.ok(holder, lock(file, LockFamily::Posix, LockKind::Exclusive, false));
    let call = world.call(waiter, lock(file, LockFamily::Posix, LockKind::Exclusive, true));
    let waiting = world.send(call);
    for _ in 0..7 {
        world.pass(10);
        let mut part = lock(file, LockFamily::Posix, LockKind::Exclusive, false);
        part.start = 10;
        world.ok(holder, part);
        part_unlock(&mut world, holder, file);
    }
    assert_eq!(world.answer(waiting).unwrap().unwrap_err().error, FlareError::SessionEnded);
}

fn part_unlock(world: &mut World, holder: SessionId, file: magma_common::handle::Handle) {
    let mut part = lock(file, LockFamily::Posix, LockKind::Unlock, false);
    part.start = 10;
    world.ok(holder, part);
}

#[test]
fn a_restart_gives_every_session_its_whole_lease_again() {
    let mut world = World::new();
    let session = world.session();
    world.pass(59);
    world.restart();
    world.pass(59);
    world.ok(session, KeepAlive { acknowledged: 0 });
}

/// A volcano that was suspended for a night woke up, found everybody silent, and took their locks and open files away.
#[test]
fn a_volcano_that_was_away_itself_blames_nobody_for_silence() {
    let mut world = World::new();
    let session = world.session();
    world.step(Duration::from_secs(8 * 3600));
    world.tick();
    world.ok(session, KeepAlive { acknowledged: 0 });
    world.pass(61);
    assert_eq!(world.error(session, KeepAlive { acknowledged: 0 }), FlareError::SessionEnded);
}

#[test]
fn a_client_may_not_give_itself_a_long_name() {
    let mut world = World::new();
    let long = OpenSession { client: "n".repeat(256) };
    assert_eq!(world.error(SessionId::NONE, long), FlareError::BadRequest);
    world.ok(SessionId::NONE, OpenSession { client: "n".repeat(255) });
}

#[test]
fn there_is_a_most_to_sessions() {
    let mut world = World::new();
    let first = world.session();
    for _ in 1..crate::slice::session::MAX_SESSIONS {
        let call = world.call(SessionId::NONE, OpenSession { client: String::new() });
        world.send(call);
    }
    world.batch_end();
    let another = OpenSession { client: String::new() };
    assert_eq!(world.error(SessionId::NONE, another.clone()), FlareError::Unavailable);
    world.ok(first, EndSession);
    world.ok(SessionId::NONE, another);
}

#[test]
fn a_message_may_not_reclaim_more_than_its_limit() {
    let mut world = World::new();
    let session = world.session();
    let file = world.create(session, "a", false);
    let opens = vec![(file, 1); magma_common::proto::limits::MAX_OPENS_PER_MESSAGE + 1];
    assert_eq!(world.error(session, world.last(opens)), FlareError::BadRequest);
}

/// A full disk refused the record, but the session was forgotten: its locks stayed for ever.
#[test]
fn a_session_whose_end_cannot_be_recorded_yet_is_ended_later() {
    let mut world = World::new();
    let (session, other) = (world.session(), world.session());
    let file = world.create(other, "a", false);
    world.ok(session, lock(file, LockFamily::Flock, LockKind::Exclusive, false));
    world.fill();
    let ended = world.call(session, EndSession);
    assert_eq!(world.ask(ended.clone()).unwrap_err().error, FlareError::NoSpace);
    world.disk.set_full(false);
    assert_eq!(world.ask(ended).unwrap().0, Reply::EndSession(()));
    world.ok(other, lock(file, LockFamily::Flock, LockKind::Exclusive, false));
}
