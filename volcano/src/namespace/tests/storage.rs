use super::world::*;

use bytes::Bytes;
use magma_common::attr::SetAttr;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::*;

use crate::namespace::{Caller, Stop, execute};
use crate::rows::Content;
use crate::view::ReadError;

#[test]
fn a_full_volcano_takes_no_data_but_still_lets_go_of_it() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    let doomed = world.create(&root(), Handle::root(), "g");
    world.write(file, 0, &vec![1; 20_000]).unwrap();
    world.memory.available = 100;
    assert_eq!(world.write(file, 0, &[1; 101]), Err(FlareError::NoSpace));
    assert_eq!(world.write(file, 0, &[1; 100]), Ok(0));
    let op = Allocate { handle: file, offset: 0, length: 1 << 20, how: AllocateHow::Reserve };
    assert_eq!(world.ask(&root(), op).map(|_| ()), Err(FlareError::NoSpace));
    assert_eq!(world.create_as(&root(), Handle::root(), "h", 0o600), Err(FlareError::NoSpace));
    world.memory.available = 0;
    world.link(&root(), file, Handle::root(), "h").unwrap();
    world.chmod(file, 0o600);
    world.rename(&root(), (Handle::root(), "g"), (Handle::root(), "i"), RenameHow::Replace).unwrap();
    world.truncate(file, 5).unwrap();
    world.truncate(file, 1 << 30).unwrap();
    world.unlink(&root(), Handle::root(), "i").unwrap();
    assert!(!world.exists(doomed));
}

#[test]
fn moving_a_small_body_needs_space_as_well() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.write(file, 0, &[1; 10_000]).unwrap();
    world.memory.available = 15_000;
    assert_eq!(world.write(file, 10_000, &[2; 10_000]), Err(FlareError::NoSpace));
    assert_eq!(world.read(file, 9_999, 10).0, [1]);
}

#[test]
fn a_damaged_block_fails_its_reader_and_nobody_else() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.write(file, 0, &vec![1; 20_000]).unwrap();
    let Content::Body { body, .. } = world.row(file).content else { panic!("a body") };
    world.memory.damaged = Some(body);
    let read = Read { handle: file, offset: 0, length: 10, opened: false };
    let failure = world.exchange(&root(), read, &Bytes::new()).unwrap_err();
    assert_eq!(failure.error, FlareError::Io);
    assert_eq!(failure.first.after.map(|attr| attr.size), Some(20_000));
    assert!(world.write(file, 20_000, b"x").is_ok());
}

#[test]
fn a_failing_database_is_no_answer() {
    let mut world = World::new();
    world.memory.broken = true;
    let caller = Caller { credentials: &root(), session: SESSION, stable: false };
    let request = Getattr { handle: Handle::root() }.into();
    let done = world.plan(|plan| execute(plan, &caller, &request, &Bytes::new()));
    assert!(matches!(done, Err(Stop::Store(ReadError::Damaged { .. }))));
    let released = world.plan(|plan| crate::namespace::release_last(plan, Handle::root()));
    assert!(matches!(released, Err(Stop::Store(_))));
}

#[test]
fn space_is_told_as_the_view_sees_it() {
    let mut world = World::new();
    world.memory.available = 1 << 20;
    let told = world.ask(&user(BOB), Statfs).unwrap();
    assert_eq!((told.total, told.free, told.available), (1 << 41, 1 << 20, 1 << 20));
    assert_eq!((told.flares, told.flares_free), (1, 1024));
}

#[test]
fn requests_about_sessions_are_not_for_the_namespace() {
    let mut world = World::new();
    assert_eq!(world.ask(&root(), EndSession), Err(FlareError::NotSupported));
    assert_eq!(world.ask(&root(), Release { handle: Handle::root(), count: 1 }), Ok(()));
}

#[test]
fn a_create_too_large_is_refused_before_anything_is_made() {
    let mut world = World::new();
    let set = SetAttr { size: Some(u64::MAX), ..SetAttr::default() };
    let op = Create { set, ..guarded(Handle::root(), "f", 0o600) };
    assert_eq!(world.ask(&root(), op).map(|_| ()), Err(FlareError::FileTooBig));
    assert_eq!(world.memory.handles().len(), 1);
}
