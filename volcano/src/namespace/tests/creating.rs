use super::world::*;

use bytes::Bytes;
use magma_common::attr::{Kind, SetAttr, SetTime};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::*;
use magma_common::time::Timestamp;

#[test]
fn a_new_file_belongs_to_its_maker_and_counts_in_its_directory() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    world.chmod(dir, 0o777);
    let before = world.attr(dir);
    world.pass(1);
    let made =
        world.ask(&member(ALICE, STAFF), Create { umask: 0o027, ..guarded(dir, "f", 0o6666) }).unwrap();
    assert!(made.created);
    let attr = made.attr;
    assert_eq!((attr.kind, attr.mode, attr.uid, attr.gid), (Kind::File, 0o6640, ALICE, ALICE));
    assert_eq!((attr.nlink, attr.size), (1, 0));
    assert_eq!(
        (attr.atime, attr.mtime, attr.ctime, attr.btime),
        (world.now, world.now, world.now, world.now)
    );
    let wcc = made.dir;
    assert_eq!(wcc.before.unwrap(), (&before).into());
    let after = wcc.after.unwrap();
    assert_eq!((after.size, after.mtime, after.ctime), (32, world.now, world.now));
    assert!(after.change > before.change);
}

#[test]
fn each_way_of_creating_treats_an_existing_name_in_its_own_way() {
    let mut world = World::new();
    let dir = Handle::root();
    let make = |how, verified: Option<u64>| Create {
        how,
        set: SetAttr { size: verified, ..SetAttr::default() },
        ..guarded(dir, "f", 0o600)
    };
    let first = world.ask(&root(), make(CreateHow::Exclusive(7), None)).unwrap();
    let again = world.ask(&root(), make(CreateHow::Exclusive(7), None)).unwrap();
    assert_eq!((again.attr.handle, again.created), (first.attr.handle, false));
    assert_eq!(world.ask(&root(), make(CreateHow::Exclusive(8), None)), Err(FlareError::Exists));
    assert_eq!(world.ask(&root(), make(CreateHow::Guarded, None)), Err(FlareError::Exists));
    world.write(first.attr.handle, 0, b"bytes").unwrap();
    let kept = world.ask(&root(), make(CreateHow::Unchecked, None)).unwrap();
    assert_eq!((kept.attr.handle, kept.created, kept.attr.size), (first.attr.handle, false, 5));
    let cut = world.ask(&root(), make(CreateHow::Unchecked, Some(0))).unwrap();
    assert_eq!(cut.attr.size, 0);
}

#[test]
fn an_unchecked_create_of_somebody_elses_file_needs_permission_only_to_cut_it() {
    let mut world = World::new();
    let file = world.create_as(&root(), Handle::root(), "f", 0o644).unwrap();
    let unchecked = Create { how: CreateHow::Unchecked, ..guarded(Handle::root(), "f", 0) };
    assert_eq!(world.ask(&user(BOB), unchecked.clone()).unwrap().attr.handle, file);
    let cut = Create { set: SetAttr { size: Some(0), ..SetAttr::default() }, ..unchecked.clone() };
    assert_eq!(world.ask(&user(BOB), cut), Err(FlareError::AccessDenied));
    assert_eq!(world.ask(&user(BOB), Create { open: true, ..unchecked }), Err(FlareError::AccessDenied));
}

#[test]
fn what_is_no_file_is_not_taken_by_an_unchecked_create() {
    let mut world = World::new();
    world.mkdir(&root(), Handle::root(), "d");
    world.symlink(Handle::root(), "l", "d");
    let unchecked = |text| Create { how: CreateHow::Unchecked, ..guarded(Handle::root(), text, 0) };
    assert_eq!(world.ask(&root(), unchecked("d")), Err(FlareError::IsDirectory));
    assert_eq!(world.ask(&root(), unchecked("l")), Err(FlareError::Exists));
}

#[test]
fn further_attributes_are_taken_as_far_as_the_caller_may_set_them() {
    let mut world = World::new();
    world.chmod(Handle::root(), 0o777);
    let then = Timestamp::new(5, 6).unwrap();
    let set = SetAttr {
        uid: Some(BOB),
        gid: Some(STAFF),
        size: Some(70_000),
        mtime: SetTime::Client(then),
        ..SetAttr::default()
    };
    let by_root = world.ask(&root(), Create { set: set.clone(), ..guarded(Handle::root(), "r", 0o600) });
    let attr = by_root.unwrap().attr;
    assert_eq!((attr.uid, attr.gid, attr.size, attr.mtime, attr.used), (BOB, STAFF, 70_000, then, 0));
    let create = Create { set, ..guarded(Handle::root(), "a", 0o600) };
    let attr = world.ask(&member(ALICE, STAFF), create.clone()).unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (ALICE, STAFF));
    let attr = world.ask(&user(BOB), Create { name: name("b"), ..create }).unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (BOB, BOB));
}

#[test]
fn a_set_group_id_directory_gives_its_group_and_directories_the_bit() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    world.chown(dir, ALICE, STAFF);
    world.chmod(dir, 0o2777);
    let file = world.create_as(&user(BOB), dir, "f", 0o2644).unwrap();
    assert_eq!((world.attr(file).gid, world.attr(file).mode), (STAFF, 0o2644));
    let program = world.create_as(&user(BOB), dir, "p", 0o2755).unwrap();
    assert_eq!(world.attr(program).mode, 0o755, "not in the group, so no set-group-id program");
    let kept = world.create_as(&member(BOB, STAFF), dir, "q", 0o2755).unwrap();
    assert_eq!(world.attr(kept).mode, 0o2755);
    let below = world.mkdir_as(&user(BOB), dir, "s", 0o755).unwrap();
    assert_eq!((world.attr(below).gid, world.attr(below).mode), (STAFF, 0o2755));
}

#[test]
fn mkdir_takes_no_set_id_bits_from_its_caller() {
    let mut world = World::new();
    let dir = world.mkdir_as(&root(), Handle::root(), "d", 0o7751).unwrap();
    let attr = world.attr(dir);
    assert_eq!((attr.mode, attr.nlink, attr.size), (0o1751, 2, 0));
    assert_eq!(world.attr(Handle::root()).nlink, 3);
}

#[test]
fn special_flares_keep_their_device_number_and_devices_need_root() {
    let mut world = World::new();
    world.chmod(Handle::root(), 0o777);
    let device = world.mknod(Handle::root(), "c", Kind::CharDevice);
    assert_eq!((world.attr(device).kind, world.attr(device).rdev), (Kind::CharDevice, 0x103));
    let fifo = world.mknod(Handle::root(), "p", Kind::Fifo);
    assert_eq!(world.attr(fifo).rdev, 0);
    let make = |kind, text| Mknod {
        dir: Handle::root(),
        name: name(text),
        kind,
        mode: 0o600,
        umask: 0,
        rdev: 1,
        set: SetAttr::default(),
    };
    assert_eq!(world.ask(&user(BOB), make(Kind::BlockDevice, "b")), Err(FlareError::NotPermitted));
    assert!(world.ask(&user(BOB), make(Kind::Socket, "s")).is_ok());
    assert_eq!(world.ask(&root(), make(Kind::Directory, "d")), Err(FlareError::Invalid));
}

#[test]
fn a_symlink_says_what_it_was_told() {
    let mut world = World::new();
    let link = world.symlink(Handle::root(), "l", "../any/where");
    let attr = world.attr(link);
    assert_eq!((attr.kind, attr.mode, attr.size), (Kind::Symlink, 0o777, 12));
    let read = world.ask(&user(BOB), Readlink { handle: link }).unwrap();
    assert_eq!(&read.target[..], b"../any/where");
    let root_handle = Handle::root();
    assert_eq!(world.ask(&root(), Readlink { handle: root_handle }), Err(FlareError::NotSymlink));
    let make = |target: Vec<u8>| Symlink {
        dir: root_handle,
        name: name("m"),
        target: Bytes::from(target),
        set: SetAttr::default(),
    };
    assert_eq!(world.ask(&root(), make(vec![b'x'; 4096])), Err(FlareError::NameTooLong));
    assert_eq!(world.ask(&root(), make(vec![])), Err(FlareError::NotFound));
    assert_eq!(world.ask(&root(), make(b"a\0b".to_vec())), Err(FlareError::Invalid));
    assert!(world.ask(&root(), make(vec![b'x'; 4095])).is_ok());
}

#[test]
fn the_volcanos_own_name_in_the_root_is_not_to_be_had() {
    let mut world = World::new();
    let (top, admin) = (Handle::root(), root());
    assert_eq!(world.create_as(&admin, top, ".dht", 0o600), Err(FlareError::Exists));
    let file = world.create(&admin, top, "f");
    assert_eq!(world.link(&admin, file, top, ".dht").map(|_| ()), Err(FlareError::Exists));
    let renamed = world.rename(&admin, (top, "f"), (top, ".dht"), RenameHow::Replace);
    assert_eq!(renamed.map(|_| ()), Err(FlareError::Exists));
    assert_eq!(world.rmdir(&admin, top, ".dht").map(|_| ()), Err(FlareError::ReadOnly));
    let below = world.mkdir(&admin, top, "d");
    assert!(world.create_as(&admin, below, ".dht", 0o600).is_ok(), "only the root's is reserved");
}
