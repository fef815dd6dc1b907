//! What is open stays, with or without a name.

use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::SessionId;
use magma_common::proto::operation::{EndSession, Open, ReclaimOpens};
use magma_common::topology::Epoch;

use super::world::{World, create, release, unlink};

fn open(handle: Handle) -> Open {
    Open { handle, read: true, write: true, execute: false, truncate: false }
}

/// A file without a name that this session has open.
fn nameless(world: &mut World, session: SessionId, file: &str) -> Handle {
    let handle = world.create(session, file, true);
    world.append(session, handle, file.as_bytes()).unwrap();
    world.ok(session, unlink(file));
    handle
}

fn gone(world: &mut World, session: SessionId, handle: Handle) -> bool {
    world.attr(session, handle) == Err(FlareError::Stale)
}

#[test]
fn an_open_file_without_a_name_lives_until_its_last_release() {
    let mut world = World::new();
    let (one, other) = (world.session(), world.session());
    let file = nameless(&mut world, one, "a");
    world.ok(other, open(file));
    world.append(other, file, b"bc").unwrap();
    world.ok(one, release(file));
    assert_eq!(world.read(other, file).unwrap(), "abc");
    world.ok(other, release(file));
    assert!(gone(&mut world, one, file));
    assert_eq!(world.create(one, "a", false).key, file.key, "its key is free again");
}

#[test]
fn a_retried_open_counts_once() {
    let mut world = World::new();
    let session = world.session();
    let file = nameless(&mut world, session, "a");
    let call = world.call(session, open(file));
    world.ask(call.clone()).unwrap();
    world.ask(call).unwrap();
    let call = world.call(session, release(file));
    world.ask(call.clone()).unwrap();
    world.ask(call).unwrap();
    assert!(!gone(&mut world, session, file), "a retried release counts once, too");
    world.ok(session, release(file));
    assert!(gone(&mut world, session, file));
}

#[test]
fn the_end_of_a_session_gives_its_opens_back() {
    let mut world = World::new();
    let (one, other) = (world.session(), world.session());
    let file = nameless(&mut world, one, "a");
    world.ok(one, EndSession);
    assert!(gone(&mut world, other, file));
}

#[test]
fn the_silence_of_a_session_gives_its_opens_back() {
    let mut world = World::new();
    let session = world.session();
    let file = nameless(&mut world, session, "a");
    world.pass(61);
    let other = world.session();
    assert!(gone(&mut world, other, file));
}

#[test]
fn releasing_what_is_not_open_harms_nobody() {
    let mut world = World::new();
    let (one, other) = (world.session(), world.session());
    let file = nameless(&mut world, one, "a");
    world.ok(other, release(file));
    world.ok(other, release(Handle::root()));
    assert!(!gone(&mut world, one, file));
}

#[test]
fn after_a_restart_only_what_nobody_holds_dies_and_only_when_all_have_spoken() {
    let mut world = World::new();
    let (one, other) = (world.session(), world.session());
    let held = nameless(&mut world, one, "held");
    let dropped = nameless(&mut world, one, "dropped");
    world.restart();
    let new = world.session();
    world.ok(one, world.last(vec![(held, 1)]));
    world.pass(1);
    assert!(!gone(&mut world, new, held) && !gone(&mut world, new, dropped));
    world.ok(other, world.last(Vec::new()));
    assert!(gone(&mut world, new, dropped));
    assert_eq!(world.read(one, held).unwrap(), "held");
    world.ok(one, release(held));
    assert!(gone(&mut world, new, held));
}

#[test]
fn after_a_restart_a_silent_session_is_waited_for_no_longer_than_its_lease() {
    let mut world = World::new();
    let (one, _silent) = (world.session(), world.session());
    let held = nameless(&mut world, one, "held");
    let dropped = nameless(&mut world, one, "dropped");
    world.restart();
    world.ok(one, world.last(vec![(held, 1)]));
    world.pass(50);
    world.ok(one, world.last(vec![(held, 1)]));
    assert!(!gone(&mut world, one, dropped));
    world.pass(11);
    assert!(gone(&mut world, one, dropped) && !gone(&mut world, one, held));
}

/// A volcano that stood still passed it on when it had long been said again by another way: the file went while it was open.
#[test]
fn a_statement_that_was_held_up_does_not_undo_a_later_open() {
    let mut world = World::new();
    let session = world.session();
    let file = nameless(&mut world, session, "a");
    world.restart();
    let statement = world.last(vec![(file, 1)]);
    world.ok(session, statement.clone());
    world.ok(session, open(file));
    world.ok(session, statement);
    world.ok(session, release(file));
    assert!(!gone(&mut world, session, file), "it is open once more");
    world.ok(session, release(file));
    assert!(gone(&mut world, session, file));
}

/// The process died after the end of the only session was recorded and before the burial of what it had open: no session was
/// left whose report could have started the search.
#[test]
fn orphans_that_no_session_can_hold_die_after_a_restart() {
    let mut world = World::new();
    let session = world.session();
    let file = nameless(&mut world, session, "a");
    world.restart();
    // not heard of again; the volcano dies before it has searched
    let before = world.look().sessions().len();
    assert_eq!(before, 1);
    let record = crate::record::Change::EndSession(session);
    let now = world.now;
    assert!(world.slice().record(now, vec![record], None).is_ok());
    world.batch_end();
    let call = world.call(session, release(file));
    world.send(call);
    world.batch_end();
    world.restart();
    assert_eq!(world.look().sessions().len(), 0);
    world.tick();
    let other = world.session();
    assert!(gone(&mut world, other, file));
}

/// Its answer was lost in the restart; the client could not reclaim what it did not know, and the file died under its retry.
#[test]
fn a_create_that_opened_and_is_retried_after_a_restart_holds_its_file() {
    let mut world = World::new();
    let session = world.session();
    let call = world.call(session, create("a", true));
    world.ask(call.clone()).unwrap();
    world.restart();
    world.ok(session, world.last(Vec::new()));
    world.ask(call.clone()).unwrap();
    let Ok((magma_common::proto::Reply::Create(made), _)) = world.ask(call) else { panic!() };
    world.ok(session, unlink("a"));
    assert!(!gone(&mut world, session, made.attr.handle));
    world.ok(session, release(made.attr.handle));
    assert!(gone(&mut world, session, made.attr.handle), "two retries make one open");
}

/// An orphan stayed for ever when its last open was taken back by a reclaim.
#[test]
fn reclaiming_nothing_of_a_flare_gives_it_back() {
    let mut world = World::new();
    let session = world.session();
    let file = nameless(&mut world, session, "a");
    world.ok(session, world.last(vec![(file, 0)]));
    assert!(gone(&mut world, session, file));
}

/// The disk was full when the last open was given back: the record of the burial was refused, and nobody tried again.
#[test]
fn what_a_full_disk_kept_from_being_buried_is_buried_later() {
    let mut world = World::new();
    let session = world.session();
    let file = nameless(&mut world, session, "a");
    world.fill();
    assert_eq!(world.error(session, release(file)), FlareError::NoSpace);
    world.disk.set_full(false);
    assert!(!gone(&mut world, session, file));
    world.pass(1);
    assert!(gone(&mut world, session, file));
}

/// Half of what is open, said to one primary, and the other half, said to the next one, would pass for all.
#[test]
fn what_is_said_to_the_primary_of_another_reign_is_refused() {
    let mut world = World::new();
    let session = world.session();
    let file = nameless(&mut world, session, "a");
    world.restart();
    let of_before = ReclaimOpens { reign: Epoch(1), ..world.last(Vec::new()) };
    assert_eq!(world.error(session, of_before), FlareError::NotOwner);
    assert!(!gone(&mut world, session, file), "the session has not reported");
    world.ok(session, world.last(vec![(file, 1)]));
    assert!(!gone(&mut world, session, file));
    world.ok(session, release(file));
    assert!(gone(&mut world, session, file));
}
