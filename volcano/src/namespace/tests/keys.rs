use super::world::*;

use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::BirthString;
use magma_common::proto::operation::*;

#[test]
fn a_flare_lives_where_its_path_hashes_to_and_stays_there() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "docs");
    let file = world.create(&root(), dir, "a.txt");
    assert_eq!(file.key.to_string(), "17436322e8761b0c98727026f9cf45d35f69669f");
    world.rename(&root(), (dir, "a.txt"), (Handle::root(), "b"), RenameHow::Replace).unwrap();
    assert_eq!(world.lookup(Handle::root(), "b"), Ok(file));
}

#[test]
fn a_taken_key_costs_one_second_try_with_a_number_never_used() {
    let mut world = World::new();
    let first = world.create(&root(), Handle::root(), "tmp");
    world.rename(&root(), (Handle::root(), "tmp"), (Handle::root(), "kept"), RenameHow::Replace).unwrap();
    let second = world.create(&root(), Handle::root(), "tmp");
    assert_ne!(first.key, second.key);
    let birth = &world.row(second).birth;
    assert_eq!(*birth, BirthString::root().child(b"tmp").with_generation((3 << 40) + 3));
    assert_eq!(birth.key(), second.key);
    world.unlink(&root(), Handle::root(), "kept").unwrap();
    world.unlink(&root(), Handle::root(), "tmp").unwrap();
    let third = world.create(&root(), Handle::root(), "tmp");
    assert_eq!(third.key, first.key, "a free key is used again");
    assert_ne!(third.birth, first.birth);
}

#[test]
fn an_orphan_keeps_its_key_taken() {
    let mut world = World::new();
    let first = world.create(&root(), Handle::root(), "f");
    world.opens.0.insert(first);
    world.unlink(&root(), Handle::root(), "f").unwrap();
    let second = world.create(&root(), Handle::root(), "f");
    assert_ne!(first.key, second.key);
    assert!(world.exists(first) && world.exists(second));
}

#[test]
fn children_of_a_second_try_are_born_below_it() {
    let mut world = World::new();
    let old = world.mkdir(&root(), Handle::root(), "d");
    world.rename(&root(), (Handle::root(), "d"), (Handle::root(), "e"), RenameHow::Replace).unwrap();
    let new = world.mkdir(&root(), Handle::root(), "d");
    let (a, b) = (world.create(&root(), old, "x"), world.create(&root(), new, "x"));
    assert_eq!(a.key, BirthString::root().child(b"d").child(b"x").key());
    assert_eq!(b.key, world.row(new).birth.child(b"x").key());
}

#[test]
fn another_life_of_a_key_is_stale() {
    let mut world = World::new();
    let old = world.create(&root(), Handle::root(), "f");
    world.unlink(&root(), Handle::root(), "f").unwrap();
    assert_eq!(world.ask(&root(), Getattr { handle: old }), Err(FlareError::Stale));
    let new = world.create(&root(), Handle::root(), "f");
    assert_eq!(old.key, new.key);
    assert_eq!(world.ask(&root(), Getattr { handle: old }), Err(FlareError::Stale));
    assert_eq!(world.write(old, 0, b"x"), Err(FlareError::Stale));
    assert_eq!(world.link(&root(), old, Handle::root(), "g").map(|_| ()), Err(FlareError::Stale));
}

#[test]
fn nothing_is_born_with_a_reserved_birth_number() {
    let mut world = World::new();
    let made = world.plan(|plan| {
        let mut zero = || 0;
        let mut plan = crate::namespace::Plan::new(plan.view, plan.opens, plan.moment, &mut zero);
        let caller = crate::namespace::Caller { credentials: &root(), session: SESSION, stable: false };
        let request = guarded(Handle::root(), "f", 0o600).into();
        crate::namespace::execute(&mut plan, &caller, &request, &bytes::Bytes::new())
    });
    let Ok((magma_common::proto::Reply::Create(made), _)) = made else { panic!("created") };
    assert!(made.attr.handle.birth > BirthNumber::ROOT);
}

#[test]
fn the_volcanos_own_handles_are_read_only() {
    let mut world = World::new();
    let internal = Handle { birth: BirthNumber::INTERNAL, ..Handle::root() };
    assert_eq!(world.create_as(&root(), internal, "f", 0o600), Err(FlareError::ReadOnly));
    assert_eq!(world.link(&root(), internal, Handle::root(), "f").map(|_| ()), Err(FlareError::ReadOnly));
}
