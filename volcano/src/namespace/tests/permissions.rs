use super::world::*;

use magma_common::attr::{Kind, SetAttr};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::Credentials;
use magma_common::proto::operation::*;

const ALL: u8 = ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE;

fn access(world: &mut World, who: &Credentials, handle: Handle, mask: u8) -> u8 {
    world.ask(who, Access { handle, mask }).unwrap().granted
}

#[test]
fn owner_group_and_others_have_a_digit_each() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.chown(file, ALICE, STAFF);
    for (mode, owner, group, other) in [(0o421, 4, 2, 1), (0o047, 0, 4, 7), (0o700, 7, 0, 0)] {
        world.chmod(file, mode);
        assert_eq!(access(&mut world, &member(ALICE, STAFF), file, ALL), owner, "{mode:o}");
        assert_eq!(access(&mut world, &member(BOB, STAFF), file, ALL), group, "{mode:o}");
        assert_eq!(access(&mut world, &user(BOB), file, ALL), other, "{mode:o}");
    }
}

#[test]
fn root_runs_only_what_somebody_may_run() {
    let mut world = World::new();
    let file = world.create_as(&user(0), Handle::root(), "f", 0o000).unwrap();
    assert_eq!(access(&mut world, &root(), file, ALL), ACCESS_READ | ACCESS_WRITE);
    world.chmod(file, 0o010);
    assert_eq!(access(&mut world, &root(), file, ALL), ALL);
    let dir = world.mkdir_as(&root(), Handle::root(), "d", 0o000).unwrap();
    assert_eq!(access(&mut world, &root(), dir, ALL | ACCESS_DELETE), ALL | ACCESS_DELETE);
}

#[test]
fn deleting_is_a_right_on_directories() {
    let mut world = World::new();
    let dir = world.mkdir_as(&root(), Handle::root(), "d", 0o703).unwrap();
    let file = world.create_as(&root(), Handle::root(), "f", 0o777).unwrap();
    assert_eq!(access(&mut world, &user(BOB), dir, 15), ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_DELETE);
    assert_eq!(access(&mut world, &user(BOB), file, 15), ALL);
    world.chmod(dir, 0o702);
    assert_eq!(access(&mut world, &user(BOB), dir, ACCESS_DELETE), 0, "to delete one must search");
}

#[test]
fn every_operation_on_a_name_needs_search_permission() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    let file = world.create(&root(), dir, "f");
    world.chown(dir, ALICE, ALICE);
    world.chmod(dir, 0o666);
    let (alice, denied) = (user(ALICE), Err(FlareError::AccessDenied));
    assert_eq!(world.ask(&alice, Lookup { dir, name: name("f") }).map(|_| ()), denied);
    assert_eq!(world.ask(&alice, Lookup { dir, name: name("none") }).map(|_| ()), denied);
    assert_eq!(world.ask(&alice, LookupParent { dir }).map(|_| ()), denied);
    assert_eq!(world.create_as(&alice, dir, "g", 0o600).map(|_| ()), denied);
    assert_eq!(world.unlink(&alice, dir, "f").map(|_| ()), denied);
    assert_eq!(world.link(&alice, file, dir, "g").map(|_| ()), denied);
    assert_eq!(world.rename(&alice, (dir, "f"), (dir, "g"), RenameHow::Replace).map(|_| ()), denied);
    let op = Readdir { dir, cookie: 0, limit: 10, attributes: true, opened: false };
    let listed = world.ask(&alice, op).unwrap();
    assert_eq!(listed.entries.len(), 1, "reading the names needs read permission only");
    assert_eq!(listed.entries[0].attr, None, "attributes would need to search");
}

#[test]
fn changing_a_directory_needs_write_permission_and_existing_names_are_told_first() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    let file = world.create(&root(), dir, "f");
    let bob = user(BOB);
    assert_eq!(world.create_as(&bob, dir, "g", 0o600).map(|_| ()), Err(FlareError::AccessDenied));
    assert_eq!(world.create_as(&bob, dir, "f", 0o600).map(|_| ()), Err(FlareError::Exists));
    assert_eq!(world.unlink(&bob, dir, "f").map(|_| ()), Err(FlareError::AccessDenied));
    assert_eq!(world.unlink(&bob, dir, "none").map(|_| ()), Err(FlareError::NotFound));
    assert_eq!(world.link(&bob, file, dir, "g").map(|_| ()), Err(FlareError::AccessDenied));
}

#[test]
fn in_a_sticky_directory_only_owners_remove() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "tmp");
    world.chmod(dir, 0o1777);
    world.create(&user(ALICE), dir, "a");
    world.mkdir(&user(ALICE), dir, "d");
    let bob = user(BOB);
    assert_eq!(world.unlink(&bob, dir, "a").map(|_| ()), Err(FlareError::NotPermitted));
    assert_eq!(world.rmdir(&bob, dir, "d").map(|_| ()), Err(FlareError::NotPermitted));
    let away = world.rename(&bob, (dir, "a"), (dir, "mine"), RenameHow::Replace);
    assert_eq!(away.map(|_| ()), Err(FlareError::NotPermitted));
    world.create(&bob, dir, "b");
    let over = world.rename(&bob, (dir, "b"), (dir, "a"), RenameHow::Replace);
    assert_eq!(over.map(|_| ()), Err(FlareError::NotPermitted));
    let swapped = world.rename(&bob, (dir, "b"), (dir, "a"), RenameHow::Exchange);
    assert_eq!(swapped.map(|_| ()), Err(FlareError::NotPermitted));
    world.chown(dir, BOB, BOB);
    assert!(world.unlink(&bob, dir, "a").is_ok(), "the directory's owner may");
    assert!(world.rmdir(&user(ALICE), dir, "d").is_ok(), "the flare's owner may");
}

#[test]
fn opening_checks_what_it_is_opened_for() {
    let mut world = World::new();
    let file = world.create_as(&root(), Handle::root(), "f", 0o604).unwrap();
    world.write(file, 0, b"data").unwrap();
    let open = |read, write, execute, truncate| Open { handle: file, read, write, execute, truncate };
    let bob = user(BOB);
    assert!(world.ask(&bob, open(true, false, false, false)).is_ok());
    for refused in
        [open(true, true, false, false), open(false, false, true, false), open(true, false, false, true)]
    {
        assert_eq!(world.ask(&bob, refused).map(|_| ()), Err(FlareError::AccessDenied));
    }
    world.chmod(file, 0o202);
    assert_eq!(world.ask(&bob, open(false, true, false, true)).unwrap().size, 0);
    let owned = world.create_as(&root(), Handle::root(), "g", 0o400).unwrap();
    world.chown(owned, BOB, BOB);
    let own = Open { handle: owned, ..open(false, true, false, false) };
    assert_eq!(world.ask(&bob, own).map(|_| ()), Err(FlareError::AccessDenied), "owners too");
}

#[test]
fn what_cannot_be_opened_says_why() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    let link = world.symlink(Handle::root(), "l", "d");
    let fifo = world.mknod(Handle::root(), "p", Kind::Fifo);
    let open = |handle| Open { handle, read: true, write: false, execute: false, truncate: false };
    assert!(world.ask(&root(), open(dir)).is_ok());
    let writing = Open { write: true, ..open(dir) };
    assert_eq!(world.ask(&root(), writing).map(|_| ()), Err(FlareError::IsDirectory));
    assert_eq!(world.ask(&root(), open(link)).map(|_| ()), Err(FlareError::SymlinkLoop));
    assert_eq!(world.ask(&root(), open(fifo)).map(|_| ()), Err(FlareError::NotSupported));
}

#[test]
fn owners_and_who_has_a_file_open_read_and_write_whatever_the_mode() {
    let mut world = World::new();
    let file = world.create_as(&root(), Handle::root(), "f", 0o000).unwrap();
    world.chown(file, ALICE, ALICE);
    let at = WriteAt::Offset(0);
    assert!(world.write_by(&user(ALICE), file, at, b"x").is_ok());
    assert_eq!(world.write_by(&user(BOB), file, at, b"x"), Err(FlareError::AccessDenied));
    let opened = Write { handle: file, at, opened: true };
    assert!(world.exchange(&user(BOB), opened, &bytes::Bytes::from_static(b"x")).is_ok());
    let read = Read { handle: file, offset: 0, length: 1, opened: false };
    assert!(world.ask(&user(ALICE), read.clone()).is_ok());
    assert_eq!(world.ask(&user(BOB), read.clone()).map(|_| ()), Err(FlareError::AccessDenied));
    assert!(world.ask(&user(BOB), Read { opened: true, ..read.clone() }).is_ok());
    world.chmod(file, 0o001);
    assert!(world.ask(&user(BOB), read).is_ok(), "what may be run must be read by who runs it");
    world.chmod(file, 0o000);
    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(world.set(&user(ALICE), file, cut.clone()).map(|_| ()), Err(FlareError::AccessDenied));
    let opened = Setattr { handle: file, set: cut, guard: None, opened: true };
    assert!(world.ask(&user(ALICE), opened).is_ok());
}
