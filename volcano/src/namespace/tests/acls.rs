use super::world::*;

use bytes::{BufMut, Bytes, BytesMut};
use magma_common::attr::SetAttr;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::*;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const NO_ID: u32 = u32::MAX;

/// Alice's name with read and write, STAFF's with read, cut by the mask.
fn named(user_permission: u16, mask: u16) -> Bytes {
    encode(&[
        (0x01, 7, NO_ID),
        (0x02, user_permission, ALICE),
        (0x04, 5, NO_ID),
        (0x08, 4, STAFF),
        (0x10, mask, NO_ID),
        (0x20, 0, NO_ID),
    ])
}

fn minimal(owner: u16, group: u16, other: u16) -> Bytes {
    encode(&[(0x01, owner, NO_ID), (0x04, group, NO_ID), (0x20, other, NO_ID)])
}

fn encode(entries: &[(u16, u16, u32)]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u32_le(2);
    for (tag, permission, id) in entries {
        bytes.put_u16_le(*tag);
        bytes.put_u16_le(*permission);
        bytes.put_u32_le(*id);
    }
    bytes.freeze()
}

fn set(handle: Handle, which: &str, value: Bytes) -> SetXattr {
    SetXattr { handle, name: name(which), value, how: XattrHow::Any, clear_setgid: true }
}

fn get(world: &mut World, handle: Handle, which: &str) -> Result<Bytes, FlareError> {
    world.ask(&user(BOB), GetXattr { handle, name: name(which) }).map(|value| value.value)
}

fn granted(world: &mut World, who: &magma_common::proto::Credentials, handle: Handle) -> u8 {
    world.ask(who, Access { handle, mask: 7 }).unwrap().granted
}

#[test]
fn named_users_and_groups_get_what_the_mask_leaves() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.ask(&root(), set(file, ACCESS, named(7, 6))).unwrap();
    assert_eq!(world.attr(file).mode, 0o760, "the group digit is the mask");
    assert_eq!(granted(&mut world, &user(ALICE), file), 6);
    assert_eq!(granted(&mut world, &member(BOB, STAFF), file), 4);
    assert_eq!(granted(&mut world, &member(BOB, 0), file), 4);
    assert_eq!(granted(&mut world, &user(BOB), file), 0);
    world.chmod(file, 0o740);
    assert_eq!(granted(&mut world, &user(ALICE), file), 4, "chmod moves the mask");
    assert_eq!(get(&mut world, file, ACCESS), Ok(named(7, 4)));
}

#[test]
fn an_acl_that_says_no_more_than_the_mode_becomes_the_mode() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.ask(&root(), set(file, ACCESS, named(7, 7))).unwrap();
    world.ask(&root(), set(file, ACCESS, minimal(6, 4, 4))).unwrap();
    assert_eq!(world.attr(file).mode, 0o644);
    assert_eq!(get(&mut world, file, ACCESS), Err(FlareError::NoAttribute));
    assert!(!world.row(file).has_acl);
}

#[test]
fn children_are_born_with_the_default_acl_whatever_the_umask() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    world.ask(&root(), set(dir, DEFAULT, named(7, 7))).unwrap();
    let create = Create { umask: 0o077, ..guarded(dir, "f", 0o664) };
    let file = world.ask(&root(), create).unwrap().attr;
    assert_eq!(file.mode, 0o660);
    assert_eq!(granted(&mut world, &user(ALICE), file.handle), 6);
    let below = Mkdir { dir, name: name("s"), mode: 0o777, umask: 0o077, set: SetAttr::default() };
    let below = world.ask(&root(), below).unwrap().attr;
    assert_eq!(below.mode, 0o770);
    assert_eq!(get(&mut world, below.handle, DEFAULT), Ok(named(7, 7)));
    assert_eq!(get(&mut world, below.handle, ACCESS), Ok(named(7, 7)));
    let link = world.symlink(dir, "l", "x");
    assert_eq!(get(&mut world, link, ACCESS), Err(FlareError::NotSupported));
    assert!(!world.row(link).has_acl);
}

#[test]
fn a_minimal_default_acl_gives_a_mode_and_nothing_more() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    world.ask(&root(), set(dir, DEFAULT, minimal(7, 5, 0))).unwrap();
    let file = world.ask(&root(), Create { umask: 0o777, ..guarded(dir, "f", 0o666) }).unwrap().attr;
    assert_eq!(file.mode, 0o640);
    assert!(!world.row(file.handle).has_acl);
}

#[test]
fn only_owners_set_acls_and_only_directories_have_defaults() {
    let mut world = World::new();
    let file = world.create_as(&root(), Handle::root(), "f", 0o666).unwrap();
    let alice = user(ALICE);
    assert_eq!(world.ask(&alice, set(file, ACCESS, named(7, 7))), Err(FlareError::NotPermitted));
    assert_eq!(world.ask(&root(), set(file, DEFAULT, named(7, 7))), Err(FlareError::AccessDenied));
    assert!(world.ask(&root(), set(file, DEFAULT, Bytes::new())).is_ok());
    let broken = Bytes::from_static(&[2, 0, 0, 0, 1]);
    assert_eq!(world.ask(&root(), set(file, ACCESS, broken)), Err(FlareError::Invalid));
    let link = world.symlink(Handle::root(), "l", "f");
    assert_eq!(world.ask(&root(), set(link, ACCESS, named(7, 7))), Err(FlareError::NotSupported));
}

#[test]
fn removing_acls_leaves_the_mode() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    world.ask(&root(), set(dir, ACCESS, named(7, 5))).unwrap();
    world.ask(&root(), set(dir, DEFAULT, named(7, 5))).unwrap();
    world.ask(&root(), RemoveXattr { handle: dir, name: name(ACCESS) }).unwrap();
    assert!(world.row(dir).has_acl, "the default ACL is still there");
    assert_eq!(world.attr(dir).mode, 0o750);
    world.ask(&root(), RemoveXattr { handle: dir, name: name(DEFAULT) }).unwrap();
    assert!(!world.row(dir).has_acl);
    world.ask(&root(), RemoveXattr { handle: dir, name: name(DEFAULT) }).unwrap();
    assert_eq!(world.changed, 0, "removing what is not there is no error");
}

#[test]
fn an_empty_list_removes() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    world.ask(&root(), set(dir, DEFAULT, named(7, 5))).unwrap();
    world.ask(&root(), set(dir, DEFAULT, encode(&[]))).unwrap();
    assert_eq!(get(&mut world, dir, DEFAULT), Err(FlareError::NoAttribute));
}

#[test]
fn setting_an_acl_clears_set_group_id_for_strangers_to_the_group() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.chown(file, ALICE, STAFF);
    for (who, clear, mode) in
        [(user(ALICE), true, 0o750), (user(ALICE), false, 0o2750), (member(ALICE, STAFF), true, 0o2750)]
    {
        world.chmod(file, 0o2755);
        let op = SetXattr { clear_setgid: clear, ..set(file, ACCESS, named(7, 5)) };
        assert_eq!(world.ask(&who, op).unwrap().after.unwrap().mode, mode);
    }
}

#[test]
fn a_mask_of_nothing_falls_back_to_the_digits_as_linux_does() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.ask(&root(), set(file, ACCESS, named(7, 0))).unwrap();
    world.chmod(file, 0o704);
    assert_eq!(granted(&mut world, &user(ALICE), file), 4, "her entry is not looked at");
}
