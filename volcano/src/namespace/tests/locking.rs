use super::world::*;

use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::SessionId;
use magma_common::proto::limits::MAX_LOCKS_PER_FLARE;
use magma_common::proto::operation::*;

use crate::namespace::{release_before_waiting, release_locks};

fn lock(handle: Handle, owner: u64, kind: LockKind, start: u64, end: u64) -> Lock {
    let owner = LockOwner { owner, pid: 1 };
    Lock { handle, family: LockFamily::Posix, owner, kind, start, end, wait: false }
}

#[test]
fn a_held_range_keeps_others_out_until_it_is_given_back() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    let admin = root();
    world.ask(&admin, lock(file, 1, LockKind::Exclusive, 0, 9)).unwrap();
    let other = lock(file, 2, LockKind::Shared, 9, 20);
    assert_eq!(world.ask(&admin, other.clone()), Err(FlareError::WouldBlock));
    let Lock { handle, family, owner, kind, start, end, .. } = other.clone();
    let held = world.ask(&admin, TestLock { handle, family, owner, kind, start, end }).unwrap().unwrap();
    assert_eq!((held.session, held.owner.owner, held.start, held.end), (SESSION, 1, 0, 9));
    world.ask(&admin, lock(file, 1, LockKind::Unlock, 9, 9)).unwrap();
    world.ask(&admin, other).unwrap();
    world.ask(&admin, lock(file, 2, LockKind::Shared, 9, 20)).unwrap();
    assert_eq!(world.changed, 0, "what is held already changes nothing");
}

#[test]
fn a_whole_file_lock_covers_everything_and_changes_its_kind_in_one_step() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    let flock = |owner, kind| Lock { family: LockFamily::Flock, ..lock(file, owner, kind, 5, 6) };
    let admin = root();
    world.ask(&admin, flock(1, LockKind::Shared)).unwrap();
    world.ask(&admin, flock(2, LockKind::Shared)).unwrap();
    assert_eq!(world.ask(&admin, flock(1, LockKind::Exclusive)), Err(FlareError::WouldBlock));
    assert_eq!(world.memory.locks[&file.key].len(), 2, "who cannot upgrade keeps what he had");
    world.ask(&admin, flock(2, LockKind::Unlock)).unwrap();
    world.ask(&admin, flock(1, LockKind::Exclusive)).unwrap();
    let held = &world.memory.locks[&file.key];
    assert_eq!((held.len(), held[0].start, held[0].end), (1, 0, u64::MAX));
    world.ask(&admin, lock(file, 2, LockKind::Exclusive, 0, 0)).unwrap();
}

#[test]
fn who_waits_for_a_whole_file_lock_gives_up_what_he_has() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    let flock = |owner, kind| Lock { family: LockFamily::Flock, ..lock(file, owner, kind, 0, 0) };
    for owner in [1, 2] {
        world.ask(&root(), flock(owner, LockKind::Shared)).unwrap();
    }
    let upgrade = flock(1, LockKind::Exclusive);
    world.plan(|plan| release_before_waiting(plan, SESSION, &upgrade)).unwrap();
    world.ask(&root(), flock(2, LockKind::Exclusive)).unwrap();
    world.ask(&root(), flock(2, LockKind::Unlock)).unwrap();
    world.ask(&root(), upgrade).unwrap();
    let range = lock(file, 1, LockKind::Shared, 0, 9);
    world.ask(&root(), range.clone()).unwrap();
    world.plan(|plan| release_before_waiting(plan, SESSION, &range)).unwrap();
    assert_eq!(world.changed, 0, "ranges are kept: there, deadlocks are looked for");
}

#[test]
fn the_end_of_a_session_gives_back_its_locks_only() {
    let mut world = World::new();
    let (f, g) = (world.create(&root(), Handle::root(), "f"), world.create(&root(), Handle::root(), "g"));
    for file in [f, g] {
        world.ask(&root(), lock(file, 1, LockKind::Shared, 0, 9)).unwrap();
    }
    let mut foreign = world.memory.locks[&f.key][0].clone();
    foreign.session = SessionId(8);
    world.memory.locks.get_mut(&f.key).unwrap().push(foreign.clone());
    world.plan(|plan| release_locks(plan, SESSION)).unwrap();
    assert_eq!(world.memory.locks.len(), 1);
    assert_eq!(world.memory.locks[&f.key], vec![foreign]);
}

#[test]
fn locks_have_a_limit_and_an_order() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    let odd = lock(file, 1, LockKind::Shared, 5, 4);
    assert_eq!(world.ask(&root(), odd), Err(FlareError::Invalid));
    world.ask(&root(), lock(file, 1, LockKind::Shared, 0, 0)).unwrap();
    let one = world.memory.locks[&file.key][0].clone();
    let apart = |i: u64| crate::rows::LockRow { start: 2 * i, end: 2 * i, ..one.clone() };
    world.memory.locks.insert(file.key, (0..MAX_LOCKS_PER_FLARE as u64).map(apart).collect());
    let more = lock(file, 1, LockKind::Shared, 1 << 40, 1 << 40);
    assert_eq!(world.ask(&root(), more), Err(FlareError::NoLocks));
    world.ask(&root(), lock(file, 1, LockKind::Unlock, 0, 100)).unwrap();
}

#[test]
fn locks_go_with_their_flare() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    world.ask(&root(), lock(file, 1, LockKind::Exclusive, 0, u64::MAX)).unwrap();
    world.unlink(&root(), Handle::root(), "f").unwrap();
    assert!(world.memory.locks.is_empty());
    let refused = world.ask(&root(), lock(file, 1, LockKind::Exclusive, 0, 1));
    assert_eq!(refused, Err(FlareError::Stale));
}
