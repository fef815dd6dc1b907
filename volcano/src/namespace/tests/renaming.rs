use super::world::*;

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::RenameHow::{Exchange, NoReplace, Replace};
use magma_common::proto::operation::*;

fn parent(world: &mut World, dir: Handle) -> Handle {
    world.ask(&root(), LookupParent { dir }).unwrap().attr.handle
}

/// The root with two directories in it.
fn two() -> (World, Handle, Handle) {
    let mut world = World::new();
    let a = world.mkdir(&root(), Handle::root(), "a");
    let b = world.mkdir(&root(), Handle::root(), "b");
    (world, a, b)
}

#[test]
fn a_moved_flare_keeps_everything_but_its_ctime() {
    let (mut world, a, b) = two();
    let file = world.create_as(&user(ALICE), a, "x", 0o640).err();
    assert_eq!(file, Some(FlareError::AccessDenied));
    let file = world.create(&root(), a, "x");
    let before = world.attr(file);
    world.pass(1);
    let reply = world.rename(&root(), (a, "x"), (b, "y"), Replace).unwrap();
    let after = world.attr(file);
    assert_eq!(reply.moved, after);
    assert_eq!(reply.replaced, None);
    assert_eq!((after.ctime, after.mtime, after.nlink), (world.now, before.mtime, 1));
    assert_eq!(world.lookup(b, "y"), Ok(file));
    assert_eq!(world.lookup(a, "x"), Err(FlareError::NotFound));
    for wcc in [reply.from_dir, reply.to_dir] {
        let after = wcc.after.unwrap();
        assert!(wcc.before.unwrap().mtime < after.mtime);
        assert_eq!((after.mtime, after.ctime), (world.now, world.now));
    }
}

#[test]
fn moving_a_directory_moves_its_parent_link() {
    let (mut world, a, b) = two();
    let dir = world.mkdir(&root(), a, "s");
    assert_eq!((world.attr(a).nlink, world.attr(b).nlink), (3, 2));
    world.rename(&root(), (a, "s"), (b, "t"), Replace).unwrap();
    assert_eq!((world.attr(a).nlink, world.attr(b).nlink), (2, 3));
    assert_eq!(parent(&mut world, dir), b);
    world.rename(&root(), (b, "t"), (b, "u"), Replace).unwrap();
    assert_eq!((world.attr(b).nlink, parent(&mut world, dir)), (3, b));
    assert_eq!(parent(&mut world, Handle::root()), Handle::root());
}

#[test]
fn what_stood_at_the_target_goes() {
    let (mut world, a, b) = two();
    let (file, old) = (world.create(&root(), a, "x"), world.create(&root(), b, "x"));
    world.link(&root(), old, Handle::root(), "other").unwrap();
    let reply = world.rename(&root(), (a, "x"), (b, "x"), Replace).unwrap();
    let replaced = reply.replaced.unwrap();
    assert_eq!((replaced.handle, replaced.nlink), (old, 1));
    assert_eq!(world.lookup(b, "x"), Ok(file));
    let reply = world.rename(&root(), (b, "x"), (Handle::root(), "other"), Replace).unwrap();
    assert_eq!(reply.replaced.unwrap().nlink, 0);
    assert!(!world.exists(old));
}

#[test]
fn an_open_flare_survives_being_replaced() {
    let (mut world, a, b) = two();
    world.create(&root(), a, "x");
    let old = world.create(&root(), b, "x");
    world.opens.0.insert(old);
    world.rename(&root(), (a, "x"), (b, "x"), Replace).unwrap();
    assert_eq!(world.attr(old).nlink, 0);
}

#[test]
fn kinds_must_agree_and_a_replaced_directory_must_be_empty() {
    let (mut world, a, b) = two();
    world.create(&root(), Handle::root(), "f");
    let (top, admin) = (Handle::root(), root());
    let mut rename = |from, to| world.rename(&admin, (top, from), (top, to), Replace).map(|_| ());
    assert_eq!(rename("a", "f"), Err(FlareError::NotDirectory));
    assert_eq!(rename("f", "a"), Err(FlareError::IsDirectory));
    world.create(&admin, b, "x");
    let refused = world.rename(&admin, (top, "a"), (top, "b"), Replace);
    assert_eq!(refused.map(|_| ()), Err(FlareError::NotEmpty));
    let reply = world.rename(&admin, (top, "b"), (top, "a"), Replace).unwrap();
    assert_eq!(reply.replaced.unwrap().handle, a);
    assert_eq!((world.lookup(top, "a"), world.attr(top).nlink), (Ok(b), 3));
}

#[test]
fn a_directory_does_not_come_to_lie_below_itself() {
    let (mut world, a, b) = two();
    let below = world.mkdir(&root(), a, "s");
    let deeper = world.mkdir(&root(), below, "t");
    let (top, admin) = (Handle::root(), root());
    for target in [a, below, deeper] {
        let refused = world.rename(&admin, (top, "a"), (target, "x"), Replace);
        assert_eq!(refused.map(|_| ()), Err(FlareError::Invalid));
    }
    let refused = world.rename(&admin, (top, "a"), (below, "t"), Exchange);
    assert_eq!(refused.map(|_| ()), Err(FlareError::Invalid));
    let refused = world.rename(&admin, (below, "t"), (top, "a"), Exchange);
    assert_eq!(refused.map(|_| ()), Err(FlareError::Invalid));
    let refused = world.rename(&admin, (below, "t"), (top, "a"), Replace);
    assert_eq!(refused.map(|_| ()), Err(FlareError::NotEmpty), "its own ancestor is never empty");
    world.create(&admin, below, "f");
    let refused = world.rename(&admin, (below, "f"), (top, "a"), Replace);
    assert_eq!(refused.map(|_| ()), Err(FlareError::NotEmpty), "whatever is moved there");
    assert!(world.rename(&admin, (below, "t"), (top, "b"), Replace).is_ok());
    assert!(!world.exists(b));
}

#[test]
fn two_names_of_one_flare_stay_as_they_are() {
    let (mut world, a, _) = two();
    let file = world.create(&root(), a, "x");
    world.link(&root(), file, a, "y").unwrap();
    for how in [Replace, Exchange] {
        world.rename(&root(), (a, "x"), (a, "y"), how).unwrap();
        assert_eq!(world.changed, 0);
        world.rename(&root(), (a, "x"), (a, "x"), how).unwrap();
        assert_eq!(world.changed, 0);
    }
    assert_eq!(world.attr(file).nlink, 2);
}

#[test]
fn flags_say_what_the_target_must_be() {
    let (mut world, a, b) = two();
    world.create(&root(), a, "x");
    world.create(&root(), b, "x");
    let admin = root();
    let mut rename = |from, to, how| world.rename(&admin, from, to, how).map(|_| ());
    assert_eq!(rename((a, "x"), (b, "x"), NoReplace), Err(FlareError::Exists));
    assert_eq!(rename((a, "x"), (a, "x"), NoReplace), Err(FlareError::Exists));
    assert_eq!(rename((a, "x"), (b, "none"), Exchange), Err(FlareError::NotFound));
    assert_eq!(rename((a, "none"), (b, "x"), Replace), Err(FlareError::NotFound));
    assert_eq!(rename((a, "x"), (b, "y"), NoReplace), Ok(()));
}

#[test]
fn an_exchange_swaps_whatever_kinds_they_are() {
    let (mut world, a, b) = two();
    let file = world.create(&root(), a, "f");
    let dir = world.mkdir(&root(), b, "d");
    world.create(&root(), dir, "inside");
    let reply = world.rename(&root(), (a, "f"), (b, "d"), Exchange).unwrap();
    assert_eq!((reply.moved.handle, reply.replaced.unwrap().handle), (file, dir));
    assert_eq!((world.lookup(a, "f"), world.lookup(b, "d")), (Ok(dir), Ok(file)));
    assert_eq!((world.attr(a).nlink, world.attr(b).nlink), (3, 2));
    assert_eq!(parent(&mut world, dir), a);
    let other = world.mkdir(&root(), b, "e");
    world.rename(&root(), (a, "f"), (b, "e"), Exchange).unwrap();
    assert_eq!((parent(&mut world, dir), parent(&mut world, other)), (b, a));
    world.rename(&root(), (b, "d"), (b, "e"), Exchange).unwrap();
    assert_eq!((world.lookup(b, "d"), world.lookup(b, "e")), (Ok(dir), Ok(file)));
}

#[test]
fn moving_a_directory_elsewhere_needs_write_permission_on_it() {
    let (mut world, a, b) = two();
    world.chmod(a, 0o777);
    world.chmod(b, 0o777);
    let dir = world.mkdir(&root(), a, "s");
    let alice = user(ALICE);
    assert!(world.rename(&alice, (a, "s"), (a, "t"), Replace).is_ok(), "its `..` stays");
    let refused = world.rename(&alice, (a, "t"), (b, "t"), Replace);
    assert_eq!(refused.map(|_| ()), Err(FlareError::AccessDenied));
    world.create(&alice, b, "f");
    let refused = world.rename(&alice, (b, "f"), (a, "t"), Exchange);
    assert_eq!(refused.map(|_| ()), Err(FlareError::AccessDenied));
    world.chmod(dir, 0o777);
    assert!(world.rename(&alice, (a, "t"), (b, "t"), Replace).is_ok());
}

#[test]
fn both_directories_must_be_writable() {
    let (mut world, a, b) = two();
    world.chmod(a, 0o777);
    let alice = user(ALICE);
    world.create(&alice, a, "x");
    let refused = world.rename(&alice, (a, "x"), (b, "x"), Replace);
    assert_eq!(refused.map(|_| ()), Err(FlareError::AccessDenied));
    world.create(&root(), b, "y");
    let refused = world.rename(&alice, (b, "y"), (a, "y"), Replace);
    assert_eq!(refused.map(|_| ()), Err(FlareError::AccessDenied));
}

#[test]
fn every_kind_moves() {
    let (mut world, a, b) = two();
    for kind in [Kind::File, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice] {
        let flare = world.mknod(a, "x", kind);
        world.rename(&root(), (a, "x"), (b, "x"), Replace).unwrap();
        assert_eq!((world.lookup(b, "x"), world.attr(flare).kind), (Ok(flare), kind));
    }
}
