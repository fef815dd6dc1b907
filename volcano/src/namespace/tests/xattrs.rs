use super::world::*;

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::Credentials;
use magma_common::proto::operation::*;

fn set(handle: Handle, which: &str, value: &'static [u8]) -> SetXattr {
    let value = Bytes::from_static(value);
    SetXattr { handle, name: name(which), value, how: XattrHow::Any, clear_setgid: false }
}

fn get(world: &mut World, who: &Credentials, handle: Handle, which: &str) -> Result<Bytes, FlareError> {
    world.ask(who, GetXattr { handle, name: name(which) }).map(|value| value.value)
}

fn list(world: &mut World, who: &Credentials, handle: Handle) -> Vec<String> {
    world.ask(who, ListXattr { handle }).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn attributes_come_change_and_go() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    let admin = root();
    world.pass(1);
    let wcc = world.ask(&admin, set(file, "user.a", b"1")).unwrap();
    assert_eq!(wcc.after.unwrap().ctime, world.now);
    world.ask(&admin, set(file, "user.b", b"")).unwrap();
    assert_eq!(get(&mut world, &admin, file, "user.a"), Ok(Bytes::from_static(b"1")));
    assert_eq!(get(&mut world, &admin, file, "user.b"), Ok(Bytes::new()));
    let create = SetXattr { how: XattrHow::Create, ..set(file, "user.a", b"2") };
    assert_eq!(world.ask(&admin, create), Err(FlareError::Exists));
    let replace = SetXattr { how: XattrHow::Replace, ..set(file, "user.c", b"2") };
    assert_eq!(world.ask(&admin, replace), Err(FlareError::NoAttribute));
    assert_eq!(list(&mut world, &admin, file), vec!["user.a", "user.b"]);
    world.ask(&admin, RemoveXattr { handle: file, name: name("user.a") }).unwrap();
    assert_eq!(get(&mut world, &admin, file, "user.a"), Err(FlareError::NoAttribute));
    let again = world.ask(&admin, RemoveXattr { handle: file, name: name("user.a") });
    assert_eq!(again, Err(FlareError::NoAttribute));
}

#[test]
fn users_attributes_follow_the_modes_of_files_and_directories() {
    let mut world = World::new();
    let file = world.create_as(&root(), Handle::root(), "f", 0o604).unwrap();
    world.ask(&root(), set(file, "user.a", b"1")).unwrap();
    let bob = user(BOB);
    assert!(get(&mut world, &bob, file, "user.a").is_ok());
    assert_eq!(world.ask(&bob, set(file, "user.a", b"2")), Err(FlareError::AccessDenied));
    world.chmod(file, 0o602);
    assert_eq!(get(&mut world, &bob, file, "user.a"), Err(FlareError::AccessDenied));
    assert!(world.ask(&bob, set(file, "user.a", b"2")).is_ok());
    let fifo = world.mknod(Handle::root(), "p", Kind::Fifo);
    let link = world.symlink(Handle::root(), "l", "x");
    for special in [fifo, link] {
        assert_eq!(world.ask(&root(), set(special, "user.a", b"1")), Err(FlareError::NotPermitted));
        assert_eq!(get(&mut world, &root(), special, "user.a"), Err(FlareError::NoAttribute));
        assert!(world.ask(&root(), set(special, "trusted.a", b"1")).is_ok());
    }
    let dir = world.mkdir(&root(), Handle::root(), "tmp");
    world.chmod(dir, 0o1777);
    assert_eq!(world.ask(&bob, set(dir, "user.a", b"1")), Err(FlareError::NotPermitted));
    world.chown(dir, BOB, BOB);
    assert!(world.ask(&bob, set(dir, "user.a", b"1")).is_ok());
}

#[test]
fn trusted_is_roots_and_security_is_for_all_to_read() {
    let mut world = World::new();
    let file = world.create_as(&user(0), Handle::root(), "f", 0o666).unwrap();
    let bob = user(BOB);
    for which in ["trusted.a", "security.a"] {
        assert_eq!(world.ask(&bob, set(file, which, b"1")), Err(FlareError::NotPermitted));
        world.ask(&root(), set(file, which, b"1")).unwrap();
        let removed = world.ask(&bob, RemoveXattr { handle: file, name: name(which) });
        assert_eq!(removed, Err(FlareError::NotPermitted));
    }
    assert_eq!(get(&mut world, &bob, file, "trusted.a"), Err(FlareError::NoAttribute));
    assert!(get(&mut world, &bob, file, "security.a").is_ok());
    assert_eq!(list(&mut world, &bob, file), vec!["security.a"]);
    assert_eq!(list(&mut world, &root(), file), vec!["security.a", "trusted.a"]);
}

#[test]
fn other_names_are_not_supported() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    for (which, error) in [
        ("system.other", FlareError::NotSupported),
        ("nonsense", FlareError::NotSupported),
        ("user.", FlareError::Invalid),
    ] {
        assert_eq!(world.ask(&root(), set(file, which, b"1")), Err(error));
        assert_eq!(get(&mut world, &root(), file, which), Err(error));
    }
}

#[test]
fn values_and_lists_have_limits() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    let sized =
        |which: &str, length| SetXattr { value: Bytes::from(vec![0; length]), ..set(file, which, b"") };
    assert!(world.ask(&root(), sized("user.a", 65_536)).is_ok());
    assert_eq!(world.ask(&root(), sized("user.a", 65_537)), Err(FlareError::TooBig));
    let mut refused = None;
    for i in 0..300 {
        if let Err(error) = world.ask(&root(), sized(&format!("user.{i:0250}"), 1)) {
            refused = Some((i, error));
            break;
        }
    }
    assert_eq!(refused, Some((255, FlareError::NoSpace)));
    assert!(world.ask(&root(), sized("user.a", 1)).is_ok(), "what exists may change");
}

#[test]
fn capabilities_do_not_survive_a_write_or_a_new_owner() {
    let mut world = World::new();
    let which = "security.capability";
    let change: [fn(&mut World, Handle); 3] = [
        |world, file| assert!(world.write(file, 0, b"x").is_ok()),
        |world, file| assert!(world.truncate(file, 0).is_ok()),
        |world, file| world.chown(file, ALICE, ALICE),
    ];
    for (i, change) in change.into_iter().enumerate() {
        let file = world.create_as(&root(), Handle::root(), &format!("f{i}"), 0o755).unwrap();
        world.ask(&root(), set(file, which, b"1")).unwrap();
        change(&mut world, file);
        assert_eq!(get(&mut world, &root(), file, which), Err(FlareError::NoAttribute));
    }
    let file = world.create_as(&root(), Handle::root(), "late", 0o666).unwrap();
    world.ask(&root(), set(file, which, b"1")).unwrap();
    world.chmod(file, 0o777);
    assert_eq!(get(&mut world, &root(), file, which), Err(FlareError::NoAttribute));
}
