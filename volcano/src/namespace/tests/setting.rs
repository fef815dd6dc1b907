use super::world::*;

use magma_common::attr::{Kind, SetAttr, SetTime};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::limits::MAX_FILE_SIZE;
use magma_common::proto::operation::*;
use magma_common::time::Timestamp;

fn owned_by_alice(world: &mut World, mode: u32) -> Handle {
    let file = world.create(&root(), Handle::root(), "f");
    world.chown(file, ALICE, ALICE);
    world.chmod(file, mode);
    file
}

fn mode(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

fn owner(uid: Option<u32>, gid: Option<u32>) -> SetAttr {
    SetAttr { uid, gid, ..SetAttr::default() }
}

#[test]
fn only_the_owner_changes_the_mode() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o666);
    let before = world.attr(file);
    world.pass(1);
    assert_eq!(world.set(&user(BOB), file, mode(0o600)), Err(FlareError::NotPermitted));
    assert_eq!(world.attr(file), before);
    let attr = world.set(&user(ALICE), file, mode(0o4751)).unwrap();
    assert_eq!((attr.mode, attr.ctime, attr.mtime), (0o4751, world.now, before.mtime));
    assert!(attr.change > before.change);
}

#[test]
fn a_symlinks_mode_is_not_changed() {
    let mut world = World::new();
    let link = world.symlink(Handle::root(), "l", "x");
    assert_eq!(world.set(&root(), link, mode(0o600)), Err(FlareError::NotSupported));
    assert!(world.set(&root(), link, owner(Some(BOB), None)).is_ok());
}

#[test]
fn set_group_id_needs_membership() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o644);
    world.chown(file, ALICE, STAFF);
    assert_eq!(world.set(&user(ALICE), file, mode(0o2755)).unwrap().mode, 0o755);
    assert_eq!(world.set(&member(ALICE, STAFF), file, mode(0o2755)).unwrap().mode, 0o2755);
    let dir = world.mkdir(&root(), Handle::root(), "d");
    world.chown(dir, ALICE, STAFF);
    assert_eq!(world.set(&user(ALICE), dir, mode(0o2777)).unwrap().mode, 0o777);
}

#[test]
fn owners_give_files_to_their_own_groups_only() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o644);
    let alice = member(ALICE, STAFF);
    assert_eq!(world.set(&alice, file, owner(Some(BOB), None)), Err(FlareError::NotPermitted));
    assert_eq!(world.set(&alice, file, owner(None, Some(BOB))), Err(FlareError::NotPermitted));
    assert_eq!(world.set(&alice, file, owner(Some(ALICE), Some(STAFF))).unwrap().gid, STAFF);
    assert!(world.set(&user(ALICE), file, owner(None, Some(STAFF))).is_ok(), "it has that group already");
    assert_eq!(world.set(&member(BOB, STAFF), file, owner(None, Some(STAFF))), Err(FlareError::NotPermitted));
    assert_eq!(world.set(&root(), file, owner(Some(BOB), Some(BOB))).unwrap().uid, BOB);
}

#[test]
fn a_change_of_owner_takes_set_id_bits_from_all_but_directories() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    for (before, after) in [(0o6755, 0o755), (0o4644, 0o644), (0o2755, 0o755), (0o1644, 0o1644)] {
        world.chmod(file, before);
        world.chown(file, ALICE, ALICE);
        assert_eq!(world.attr(file).mode, after);
    }
    world.chmod(file, 0o2644);
    world.chown(file, ALICE, ALICE);
    assert_eq!(world.attr(file).mode, 0o2644, "without group execute it is no set-group-id program");
    let dir = world.mkdir(&root(), Handle::root(), "d");
    world.chmod(dir, 0o6755);
    world.chown(dir, ALICE, ALICE);
    assert_eq!(world.attr(dir).mode, 0o6755);
    let both = SetAttr { mode: Some(0o6755), ..owner(Some(BOB), None) };
    assert_eq!(world.set(&root(), file, both).unwrap().mode, 0o755);
}

#[test]
fn writing_takes_set_id_bits_unless_root_writes() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o6777);
    world.write(file, 0, b"root").unwrap();
    world.truncate(file, 2).unwrap();
    assert_eq!(world.attr(file).mode, 0o6777);
    world.write_by(&user(BOB), file, WriteAt::End, b"").unwrap();
    assert_eq!(world.attr(file).mode, 0o6777, "nothing was written");
    world.write_by(&user(BOB), file, WriteAt::End, b"bob").unwrap();
    assert_eq!(world.attr(file).mode, 0o777);
    world.chmod(file, 0o6766);
    let size = SetAttr { size: Some(1), ..SetAttr::default() };
    assert_eq!(world.set(&member(BOB, ALICE), file, size.clone()).unwrap().mode, 0o2766);
    assert_eq!(world.set(&user(BOB), file, size).unwrap().mode, 0o766);
}

#[test]
fn a_truncation_changes_both_times_even_to_the_same_size() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o644);
    for size in [10, 10, 3, 0, 70_000] {
        world.pass(1);
        let attr = world.truncate(file, size).unwrap();
        assert_eq!((attr.size, attr.mtime, attr.ctime), (size, world.now, world.now));
    }
    assert_eq!(world.truncate(file, MAX_FILE_SIZE + 1), Err(FlareError::FileTooBig));
    assert!(world.truncate(file, MAX_FILE_SIZE).is_ok());
    let cut = SetAttr { size: Some(1), ..SetAttr::default() };
    assert_eq!(world.set(&user(BOB), file, cut), Err(FlareError::AccessDenied));
    assert_eq!(world.truncate(Handle::root(), 0), Err(FlareError::IsDirectory));
    let fifo = world.mknod(Handle::root(), "p", Kind::Fifo);
    assert_eq!(world.truncate(fifo, 0), Err(FlareError::Invalid));
}

#[test]
fn times_are_set_by_owners_and_touched_by_writers() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o642);
    let (past, future) = (Timestamp::new(-5, 7).unwrap(), Timestamp::new(4_294_967_296, 1).unwrap());
    let given =
        SetAttr { atime: SetTime::Client(future), mtime: SetTime::Client(past), ..SetAttr::default() };
    world.pass(1);
    let attr = world.set(&user(ALICE), file, given.clone()).unwrap();
    assert_eq!((attr.atime, attr.mtime, attr.ctime), (future, past, world.now));
    let one = SetAttr { mtime: SetTime::Client(past), ..SetAttr::default() };
    for refused in [given, one] {
        assert_eq!(world.set(&user(BOB), file, refused), Err(FlareError::NotPermitted));
    }
    let touch = SetAttr { atime: SetTime::Server, mtime: SetTime::Server, ..SetAttr::default() };
    world.pass(1);
    let attr = world.set(&user(BOB), file, touch.clone()).unwrap();
    assert_eq!((attr.atime, attr.mtime, attr.ctime), (world.now, world.now, world.now));
    world.chmod(file, 0o444);
    assert_eq!(world.set(&user(BOB), file, touch.clone()), Err(FlareError::AccessDenied));
    assert!(world.set(&user(ALICE), file, touch).is_ok(), "owners touch what they may not write");
    world.set(&user(BOB), file, SetAttr::default()).unwrap();
    assert_eq!(world.changed, 0, "nothing asked, nothing changed");
}

#[test]
fn times_never_go_back_though_the_clock_does() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o644);
    let before = world.attr(file).ctime;
    world.pass(-100);
    let attr = world.truncate(file, 1).unwrap();
    assert_eq!((attr.ctime, attr.mtime), (before.next(), before.next()));
    let dir = world.attr(Handle::root()).ctime;
    world.create(&root(), Handle::root(), "g");
    assert_eq!(world.attr(Handle::root()).mtime, dir.next());
}

#[test]
fn a_guard_is_the_ctime_that_the_caller_knows() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o644);
    let known = world.attr(file).ctime;
    let op = |guard| Setattr { handle: file, set: mode(0o600), guard: Some(guard), opened: false };
    assert!(world.ask(&root(), op(known)).is_ok());
    assert_eq!(world.ask(&root(), op(known)), Err(FlareError::GuardMismatch));
}

#[test]
fn one_setattr_changes_a_flare_once() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o644);
    world.write(file, 0, &[9; 100]).unwrap();
    let past = Timestamp::new(1, 0).unwrap();
    let all = SetAttr {
        mode: Some(0o600),
        uid: Some(BOB),
        gid: Some(BOB),
        size: Some(50),
        atime: SetTime::Server,
        mtime: SetTime::Client(past),
    };
    world.pass(1);
    let attr = world.set(&root(), file, all).unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.size), (0o600, BOB, BOB, 50));
    assert_eq!((attr.atime, attr.mtime, attr.ctime), (world.now, past, world.now));
}

#[test]
fn many_flares_are_asked_for_at_once() {
    let mut world = World::new();
    let file = owned_by_alice(&mut world, 0o644);
    let gone = Handle { birth: magma_common::handle::BirthNumber(99), ..file };
    let attrs = world.ask(&user(BOB), StatMany { handles: vec![file, gone, Handle::root()] }).unwrap();
    let attrs: Vec<_> = attrs.into_iter().map(|attr| attr.map(|attr| attr.handle)).collect();
    assert_eq!(attrs, vec![Ok(file), Err(FlareError::Stale), Ok(Handle::root())]);
    let many = StatMany { handles: vec![file; 1025] };
    assert_eq!(world.ask(&user(BOB), many).map(|_| ()), Err(FlareError::BadRequest));
}
