use super::world::*;

use magma_common::attr::{Kind, SetAttr};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::*;

use crate::namespace::release_last;
use crate::rows::{Content, Life};

#[test]
fn the_last_name_takes_the_flare_and_its_body_with_it() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.write(file, 0, &vec![1; 20_000]).unwrap();
    let attr = world.unlink(&root(), Handle::root(), "f").unwrap();
    assert_eq!(attr.nlink, 0);
    assert!(!world.exists(file));
    assert!(world.memory.bodies.is_empty());
    assert_eq!(world.attr(Handle::root()).size, 0);
}

#[test]
fn an_open_flare_outlives_its_name_until_it_is_closed() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.write(file, 0, &vec![1; 20_000]).unwrap();
    world.opens.0.insert(file);
    assert_eq!(world.unlink(&root(), Handle::root(), "f").unwrap().nlink, 0);
    assert_eq!((world.row(file).life, world.attr(file).nlink), (Life::Orphan, 0));
    world.write(file, 20_000, b"more").unwrap();
    assert_eq!(world.read(file, 19_999, 10).0, b"\x01more");
    world.set(&root(), file, SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    assert_eq!(world.link(&root(), file, Handle::root(), "g").map(|_| ()), Err(FlareError::NotFound));
    world.plan(|plan| release_last(plan, file)).unwrap();
    assert!(world.exists(file), "somebody still has it open");
    world.opens.0.clear();
    world.plan(|plan| release_last(plan, file)).unwrap();
    assert!(!world.exists(file) && world.memory.bodies.is_empty());
    world.plan(|plan| release_last(plan, file)).unwrap();
    assert_eq!(world.changed, 0, "what is gone is gone");
}

#[test]
fn closing_does_not_harm_what_has_a_name() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.plan(|plan| release_last(plan, file)).unwrap();
    assert_eq!(world.changed, 0);
}

#[test]
fn a_removed_name_of_several_changes_count_and_ctime() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.link(&root(), file, Handle::root(), "g").unwrap();
    world.pass(1);
    let attr = world.unlink(&root(), Handle::root(), "f").unwrap();
    assert_eq!((attr.nlink, attr.ctime), (1, world.now));
    assert!(attr.mtime < world.now);
    assert_eq!(world.attr(Handle::root()).mtime, world.now);
}

#[test]
fn files_and_directories_are_removed_each_in_their_own_way() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    world.create(&root(), dir, "f");
    assert_eq!(world.unlink(&root(), Handle::root(), "d").map(|_| ()), Err(FlareError::IsDirectory));
    assert_eq!(world.rmdir(&root(), dir, "f").map(|_| ()), Err(FlareError::NotDirectory));
    assert_eq!(world.rmdir(&root(), Handle::root(), "d").map(|_| ()), Err(FlareError::NotEmpty));
    world.unlink(&root(), dir, "f").unwrap();
    world.rmdir(&root(), Handle::root(), "d").unwrap();
    assert!(!world.exists(dir));
    assert_eq!(world.attr(Handle::root()).nlink, 2);
    assert_eq!(world.rmdir(&root(), Handle::root(), "d").map(|_| ()), Err(FlareError::NotFound));
}

#[test]
fn every_kind_can_be_removed() {
    let mut world = World::new();
    for kind in [Kind::File, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice] {
        world.mknod(Handle::root(), "x", kind);
        world.unlink(&root(), Handle::root(), "x").unwrap();
    }
    world.symlink(Handle::root(), "x", "y");
    world.unlink(&root(), Handle::root(), "x").unwrap();
    assert_eq!(world.memory.handles(), vec![Handle::root()]);
    assert!(world.memory.inline.is_empty());
}

#[test]
fn a_directory_removed_while_open_is_empty_and_takes_no_names() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    let file = world.create(&root(), Handle::root(), "f");
    world.opens.0.insert(dir);
    world.rmdir(&root(), Handle::root(), "d").unwrap();
    let admin = root();
    assert_eq!(world.create_as(&admin, dir, "x", 0o600), Err(FlareError::NotFound));
    assert_eq!(world.mkdir_as(&admin, dir, "x", 0o700), Err(FlareError::NotFound));
    assert_eq!(world.link(&admin, file, dir, "x").map(|_| ()), Err(FlareError::NotFound));
    let moved = world.rename(&admin, (Handle::root(), "f"), (dir, "x"), RenameHow::Replace);
    assert_eq!(moved.map(|_| ()), Err(FlareError::NotFound));
    assert_eq!(world.ask(&admin, Lookup { dir, name: name("x") }).map(|_| ()), Err(FlareError::NotFound));
    assert_eq!(world.ask(&admin, LookupParent { dir }).map(|_| ()), Err(FlareError::NotFound));
    let listed = world.ask(&admin, Readdir { dir, cookie: 0, limit: 9, attributes: false, opened: true });
    assert!(listed.unwrap().entries.is_empty());
}

#[test]
fn a_refusal_carries_the_attributes_of_what_it_touched() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    let attr = world.attr(dir);
    let op = Unlink { dir, name: name("none") };
    let failure = world.exchange(&root(), op, &bytes::Bytes::new()).unwrap_err();
    assert_eq!(failure.error, FlareError::NotFound);
    assert_eq!(failure.first.before, Some((&attr).into()));
    assert_eq!(failure.first.after, Some(attr));
    assert_eq!(failure.second.after, None);
    let file = world.create(&root(), dir, "f");
    let op = Link { handle: file, dir, name: name("f") };
    let failure = world.exchange(&root(), op, &bytes::Bytes::new()).unwrap_err();
    assert_eq!(failure.first.after.map(|attr| attr.handle), Some(file));
    assert_eq!(failure.second.after.map(|attr| attr.handle), Some(dir));
}

#[test]
fn a_body_dropped_by_truncation_is_not_dropped_again() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.write(file, 0, &vec![1; 20_000]).unwrap();
    world.truncate(file, 0).unwrap();
    assert_eq!(world.row(file).content, Content::Inline);
    world.unlink(&root(), Handle::root(), "f").unwrap();
    assert_eq!(world.changed, 3, "the entry, the directory and the flare");
}
