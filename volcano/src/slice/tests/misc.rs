//! Times, epochs, verifiers, and what belongs to others.

use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::{Ino, KeyRange};
use magma_common::proto::Reply;
use magma_common::proto::operation::{
    Commit, FetchTopology, Getattr, LockFamily, LockKind, Lookup, Readdir, StatMany,
};
use magma_common::topology::Epoch;

use super::world::{World, append, at, create, lock, name};

#[test]
fn times_never_go_back_though_the_clock_does() {
    let mut world = World::new();
    let session = world.session();
    let before = world.create(session, "a", false);
    let before = world.attr(session, before).unwrap().ctime;
    world.now.wall = at(5);
    for restarts in 0..2 {
        let after = world.create(session, &format!("b{restarts}"), false);
        let after = world.attr(session, after).unwrap();
        assert!(after.ctime >= before && after.btime >= before);
        let root = world.attr(session, Handle::root()).unwrap();
        assert!(root.mtime >= before);
        world.restart();
    }
}

#[test]
fn the_change_number_grows_with_every_change() {
    let mut world = World::new();
    let session = world.session();
    let file = world.create(session, "a", false);
    let mut last = world.attr(session, file).unwrap().change;
    for _ in 0..3 {
        world.append(session, file, b"x").unwrap();
        world.restart();
        let change = world.attr(session, file).unwrap().change;
        assert!(change > last);
        last = change;
    }
}

#[test]
fn records_carry_the_slices_epoch() {
    let mut world = World::new();
    let session = world.session();
    world.create(session, "a", false);
    world.restart();
    let now = world.now;
    let record = world.slice().next_record(now, Vec::new(), None);
    assert_eq!(record.epoch, Epoch(2));
    assert_eq!(record.seq.0, world.look().store().last().0 + 1);
    world.create(session, "b", false);
}

#[test]
fn keys_of_others_are_not_served() {
    let root = Handle::root().key.ino();
    let mut world = World::with_range(KeyRange::new(root, Ino(root.0)).unwrap());
    let session = world.session();
    let mut other = Handle::root();
    other.key = KeyRange::new(Ino(root.0 + 1), Ino(u64::MAX)).unwrap().first_key();
    other.birth = BirthNumber(5);
    assert_eq!(world.error(session, Getattr { handle: other }), FlareError::NotOwner);
    let call = world.call(session, lock(other, LockFamily::Posix, LockKind::Shared, true));
    assert_eq!(world.ask(call.clone()).unwrap_err().error, FlareError::NotOwner);
    assert_eq!(world.ask(call).unwrap_err().error, FlareError::NotOwner, "and nothing is remembered of it");
    assert_eq!(world.held().0, 0);
    world.ok(session, Getattr { handle: Handle::root() });
}

#[test]
fn writes_and_commits_carry_the_verifier_of_the_topology() {
    let mut world = World::new();
    let session = world.session();
    let file = world.create(session, "a", false);
    let verifier = world.topology.write_verifier();
    let call = world.call_with(session, append(file), b"x");
    let Ok((Reply::Write(write), _)) = world.ask(call.clone()) else { panic!() };
    let Reply::Commit(commit) = world.ok(session, Commit { handle: file }) else { panic!() };
    assert_eq!((write.verifier, commit.verifier), (verifier, verifier));
    world.topology.loss_counter += 1;
    world.restart();
    let Reply::Commit(commit) = world.ok(session, Commit { handle: file }) else { panic!() };
    assert_ne!(commit.verifier, verifier);
    // the bytes of that write may be gone: with the new verifier its retry would say that a later commit covers them
    let Ok((Reply::Write(again), _)) = world.ask(call) else { panic!() };
    assert_eq!(again.verifier, verifier);
}

#[test]
fn the_network_describes_itself_in_its_hidden_directory() {
    let mut world = World::new();
    let session = world.session();
    let dht = Lookup { dir: Handle::root(), name: name(".dht") };
    let Reply::Lookup(found) = world.ok(session, dht) else { panic!() };
    assert_eq!(found.attr.handle.birth, BirthNumber::INTERNAL);
    let dir = found.attr.handle;
    let list = Readdir { dir, cookie: 0, limit: 100, attributes: true, opened: false };
    assert!(matches!(world.ok(session, list), Reply::Readdir(listed) if !listed.entries.is_empty()));
    let mut inside = create("x", false);
    inside.dir = dir;
    assert_eq!(world.error(session, inside), FlareError::ReadOnly);
    let both = StatMany { handles: vec![Handle::root(), dir] };
    assert!(matches!(world.ok(session, both), Reply::StatMany(attrs) if attrs.iter().all(Result::is_ok)));
}

#[test]
fn the_topology_is_told_to_everybody() {
    let mut world = World::new();
    let reply = world.ok(magma_common::proto::SessionId::NONE, FetchTopology);
    assert_eq!(reply, Reply::FetchTopology(world.topology.clone()));
}
