//! Operations are done once, however often they are asked for.

use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::Reply;
use magma_common::proto::limits::MAX_UNACKNOWLEDGED;
use magma_common::proto::operation::{KeepAlive, Rmdir};

use super::world::{World, append, create, name, unlink};

#[test]
fn a_retry_gets_the_first_answer_and_changes_nothing() {
    let mut world = World::new();
    let session = world.session();
    let call = world.call(session, create("a", false));
    let first = world.ask(call.clone()).unwrap();
    let change = world.attr(session, Handle::root()).unwrap().change;
    assert_eq!(world.ask(call).unwrap(), first);
    assert_eq!(world.attr(session, Handle::root()).unwrap().change, change);
}

#[test]
fn a_retry_after_a_restart_gets_the_first_answer() {
    let mut world = World::new();
    let session = world.session();
    let call = world.call(session, create("a", false));
    let first = world.ask(call.clone()).unwrap();
    world.restart();
    assert_eq!(world.ask(call).unwrap(), first);
}

#[test]
fn an_answer_that_was_lost_with_the_process_is_found_by_the_retry() {
    let mut world = World::new();
    let session = world.session();
    let call = world.call(session, create("a", false));
    world.send(call.clone());
    world.batch_end();
    world.restart();
    assert!(matches!(world.ask(call).unwrap().0, Reply::Create(made) if made.created));
}

#[test]
fn a_call_is_recognised_whoever_brings_it() {
    let mut world = World::new();
    let (one, other) = (world.session(), world.session());
    let mut call = world.call(one, unlink("a"));
    call.header.call = Some(99);
    world.create(one, "a", false);
    let first = world.ask(call.clone()).unwrap();
    world.create(one, "a", false);
    call.header.session = other;
    call.header.sequence = 0;
    assert_eq!(world.ask(call.clone()).unwrap(), first);
    world.restart();
    assert_eq!(world.ask(call).unwrap(), first);
    assert!(world.exists(other, "a"), "the second file of that name was not meant");
}

/// A gateway was stopped with a REMOVE on its way; the client sent it again through another one and was told that
/// there is no such file, made the file, and lost it to the first copy.
#[test]
fn a_call_that_was_refused_is_refused_again_though_it_could_succeed_now() {
    let mut world = World::new();
    let session = world.session();
    let mut call = world.call(session, unlink("a"));
    call.header.call = Some(5);
    assert_eq!(world.ask(call.clone()).unwrap_err().error, FlareError::NotFound);
    world.create(session, "a", false);
    assert_eq!(world.ask(call).unwrap_err().error, FlareError::NotFound);
    assert!(world.exists(session, "a"));
}

#[test]
fn an_append_that_is_retried_is_there_once() {
    let mut world = World::new();
    let session = world.session();
    let file = world.create(session, "a", false);
    let call = world.call_with(session, append(file), b"once");
    let Ok((Reply::Write(first), _)) = world.ask(call.clone()) else { panic!() };
    assert!(matches!(world.ask(call.clone()), Ok((Reply::Write(again), _)) if again.offset == first.offset));
    world.restart();
    assert!(matches!(world.ask(call), Ok((Reply::Write(again), _)) if again.offset == first.offset));
    assert_eq!(world.read(session, file).unwrap(), "once");
}

#[test]
fn what_was_acknowledged_is_not_done_again() {
    let mut world = World::new();
    let session = world.session();
    let call = world.call(session, create("a", false));
    world.ask(call.clone()).unwrap();
    world.ok(session, KeepAlive { acknowledged: call.header.sequence });
    world.ok(session, unlink("a"));
    assert_eq!(world.ask(call).unwrap_err().error, FlareError::BadRequest);
    assert!(!world.exists(session, "a"));
}

#[test]
fn an_id_names_one_operation_only() {
    let mut world = World::new();
    let session = world.session();
    let mut call = world.call(session, create("a", false));
    world.ask(call.clone()).unwrap();
    call.request = unlink("a").into();
    assert_eq!(world.ask(call).unwrap_err().error, FlareError::BadRequest);
    assert!(world.exists(session, "a"));
}

#[test]
fn a_change_without_an_id_is_refused() {
    let mut world = World::new();
    let session = world.session();
    let mut call = world.call(session, create("a", false));
    call.header.sequence = 0;
    assert_eq!(world.ask(call).unwrap_err().error, FlareError::BadRequest);
    assert!(!world.exists(session, "a"));
}

#[test]
fn who_acknowledges_nothing_is_stopped_but_for_retries() {
    let mut world = World::new();
    let session = world.session();
    let first = world.call(session, create("a", false));
    let answer = world.ask(first.clone()).unwrap();
    for _ in 1..MAX_UNACKNOWLEDGED {
        let call = world.call(session, Rmdir { dir: Handle::root(), name: name("none") });
        world.send(call);
    }
    world.batch_end();
    let mut call = world.call(session, create("b", false));
    assert_eq!(world.ask(call.clone()).unwrap_err().error, FlareError::TooManyOutstanding);
    assert_eq!(world.ask(first.clone()).unwrap(), answer);
    call.header.acknowledged = first.header.sequence;
    world.ask(call).unwrap();
}

/// The ledger took up the outcomes of sessions that had ended; nobody acknowledged them, and the log was kept from there on for ever.
#[test]
fn after_a_restart_nothing_is_kept_for_ended_sessions() {
    let mut world = World::new();
    let session = world.session();
    world.create(session, "a", false);
    world.ok(session, magma_common::proto::operation::EndSession);
    world.restart();
    assert_eq!(world.held().0, 0);
}

/// Calls are kept for two minutes of the clock; after a night's sleep those that had just been done were forgotten at once.
#[test]
fn a_call_is_recognised_after_the_volcano_was_away() {
    let mut world = World::new();
    let session = world.session();
    let mut call = world.call(session, create("a", false));
    call.header.call = Some(1);
    let first = world.ask(call.clone()).unwrap();
    world.step(std::time::Duration::from_secs(8 * 3600));
    world.tick();
    assert_eq!(world.ask(call.clone()).unwrap(), first);
    world.pass(30);
    world.ok(session, KeepAlive { acknowledged: 0 });
    world.pass(50);
    world.ok(session, KeepAlive { acknowledged: 0 });
    world.pass(50);
    assert_eq!(world.ask(call).unwrap_err().error, FlareError::Exists);
}
