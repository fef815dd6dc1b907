use super::world::*;

use std::collections::BTreeSet;

use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::*;

fn list(world: &mut World, dir: Handle, cookie: u64, limit: u32) -> ReaddirReply {
    world.ask(&root(), Readdir { dir, cookie, limit, attributes: true, opened: false }).unwrap()
}

#[test]
fn a_listing_in_parts_shows_every_entry_once_while_others_come_and_go() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    for i in 0..20 {
        world.create(&root(), dir, &format!("f{i}"));
    }
    let (mut seen, mut cookie, mut part) = (BTreeSet::new(), 0, 0);
    loop {
        let reply = list(&mut world, dir, cookie, 3);
        for entry in &reply.entries {
            assert!(entry.cookie > cookie && entry.cookie >= 3);
            assert_eq!(entry.attr.as_ref().unwrap().handle, entry.handle);
            cookie = entry.cookie;
            assert!(seen.insert(entry.name.to_string()), "no entry twice");
        }
        if reply.eof {
            break;
        }
        // The entry that the listing stands on goes, one that was seen is renamed, one comes.
        let last = reply.entries.last().unwrap().name.to_string();
        world.unlink(&root(), dir, &last).unwrap();
        world.create(&root(), dir, &format!("n{part}"));
        part += 1;
    }
    assert!((0..20).all(|i| seen.contains(&format!("f{i}"))), "{seen:?}");
}

#[test]
fn a_replaced_entry_keeps_its_place() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    for text in ["a", "b", "c"] {
        world.create(&root(), dir, text);
    }
    let places = |world: &mut World| -> Vec<_> {
        list(world, dir, 0, 10).entries.into_iter().map(|e| (e.name.to_string(), e.cookie)).collect()
    };
    world.rename(&root(), (dir, "c"), (dir, "a"), RenameHow::Replace).unwrap();
    assert_eq!(places(&mut world), vec![("a".into(), 3), ("b".into(), 4)]);
    world.create(&root(), dir, "c");
    assert_eq!(places(&mut world).last(), Some(&("c".into(), 6)), "a cookie is never used again");
}

#[test]
fn the_end_is_told_with_the_last_entry() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    assert!(list(&mut world, dir, 0, 1).eof);
    world.create(&root(), dir, "a");
    world.create(&root(), dir, "b");
    assert!(!list(&mut world, dir, 0, 1).eof);
    assert!(list(&mut world, dir, 0, 2).eof);
    let beyond = list(&mut world, dir, 1 << 40, 2);
    assert!(beyond.eof && beyond.entries.is_empty());
}

#[test]
fn a_reply_never_outgrows_its_limit() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    for i in 0..1000 {
        let caller = crate::namespace::Caller { credentials: &root(), session: SESSION, stable: false };
        let request = guarded(dir, &format!("{i:0255}"), 0o600).into();
        world.plan(|plan| crate::namespace::execute(plan, &caller, &request, &bytes::Bytes::new())).unwrap();
    }
    let reply = list(&mut world, dir, 0, u32::MAX);
    assert!(!reply.eof);
    let encoded = magma_common::proto::Reply::Readdir(reply).encode().unwrap();
    assert!(encoded.len() <= magma_common::proto::limits::MAX_BODY as usize);
}

#[test]
fn listing_needs_read_permission_unless_it_is_open() {
    let mut world = World::new();
    let dir = world.mkdir_as(&root(), Handle::root(), "d", 0o711).unwrap();
    let file = world.create(&root(), dir, "f");
    let op = Readdir { dir, cookie: 0, limit: 5, attributes: false, opened: false };
    assert_eq!(world.ask(&user(BOB), op.clone()).map(|_| ()), Err(FlareError::AccessDenied));
    let opened = world.ask(&user(BOB), Readdir { opened: true, ..op.clone() }).unwrap();
    assert_eq!(opened.entries.len(), 1);
    assert_eq!(
        world.ask(&root(), Readdir { dir: file, ..op.clone() }).map(|_| ()),
        Err(FlareError::NotDirectory)
    );
    assert_eq!(world.ask(&root(), Readdir { limit: 0, ..op }).map(|_| ()), Err(FlareError::Invalid));
}

#[test]
fn reading_renews_the_atime_by_relatime() {
    let mut world = World::new();
    let dir = world.mkdir(&root(), Handle::root(), "d");
    let link = world.symlink(dir, "l", "x");
    let file = world.create(&root(), dir, "f");
    world.write(file, 0, b"data").unwrap();
    let read_all = |world: &mut World| {
        list(world, dir, 0, 5);
        let changed = world.changed;
        world.read(file, 0, 4);
        let changed = changed + world.changed;
        world.ask(&root(), Readlink { handle: link }).unwrap();
        changed + world.changed
    };
    world.pass(1);
    let before = world.attr(file);
    assert_eq!(read_all(&mut world), 3);
    let after = world.attr(file);
    assert_eq!((after.atime, after.ctime, after.change), (world.now, before.ctime, before.change));
    world.pass(60);
    assert_eq!(read_all(&mut world), 0, "read since it was changed");
    world.pass(24 * 60 * 60);
    assert_eq!(read_all(&mut world), 3, "a day is too old");
    list(&mut world, dir, 3, 5);
    assert_eq!(world.changed, 0, "only the start of a listing counts");
}

#[test]
fn an_mtime_ahead_of_the_clock_does_not_make_every_read_a_record() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    let ahead = magma_common::attr::SetTime::Client(magma_common::time::Timestamp::new(1 << 40, 0).unwrap());
    let set = magma_common::attr::SetAttr { mtime: ahead, ..Default::default() };
    world.set(&root(), file, set).unwrap();
    world.pass(1);
    world.read(file, 0, 1);
    assert_eq!(world.changed, 1);
    world.now = world.now.next();
    world.read(file, 0, 1);
    assert_eq!(world.changed, 0);
}
