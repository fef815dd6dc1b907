//! Slices that move from volcano to volcano: by decision, by balance, after a failure, when somebody leaves.

use magma_common::proto::operation::{Lookup, Statfs};

use super::across::{Caller, create, name, served_by, settled};
use super::*;
use crate::coordinator::SliceChange;

fn slice_of(ring: &Ring, id: SliceId) -> Slice {
    ring.topology().slices.iter().find(|slice| slice.id == id).unwrap().clone()
}

fn assign(ring: &mut Ring, id: SliceId, to: VolcanoId) {
    let epoch = slice_of(ring, id).epoch;
    ring.propose(1, &Change::Slice(id, epoch, SliceChange::Assign(to)));
    ring.until(|ring| slice_of(ring, id).owner == to);
}

/// How long a message takes.
const WAY: Duration = Duration::from_millis(5);

/// Makes a file in the root and tells how long that took.
fn make(ring: &mut Ring, caller: &mut Caller, number: u32) -> Duration {
    let begun = ring.now.monotonic;
    caller.ask(ring, create(Handle::root(), &format!("file{number}"))).unwrap();
    ring.now.monotonic.saturating_sub(begun)
}

fn all_are_there(ring: &mut Ring, caller: &mut Caller, files: u32) {
    for number in 0..files {
        let lookup = Lookup { dir: Handle::root(), name: name(&format!("file{number}")) };
        caller.ask(ring, lookup).unwrap();
    }
}

fn has_two_copies(ring: &Ring) {
    assert!(ring.in_sync() >= 2, "there never are fewer copies: {:#?}", ring.topology().slices);
}

#[test]
fn a_newcomer_follows_the_volcano_that_it_contacted() {
    let ring = three_with(1);
    let order: Vec<VolcanoId> = ring.topology().members.iter().map(|member| member.id).collect();
    assert_eq!(order, [1, 3, 2].map(|number| ring.id(number)));
}

#[test]
fn a_slice_moves_under_load_and_nobody_waits_for_long() {
    let mut ring = three_with(4);
    let mut caller = Caller::new(&mut ring);
    let home = ring.topology().slice_of(&Handle::root().key).unwrap().id;
    let (mut files, mut longest) = (0, Duration::ZERO);
    ring.pace = Some(WAY);
    ring.watched = Some((home, Duration::ZERO, Duration::ZERO));
    // To a mirror, to one that has no copy yet, and back.
    for number in [3, 2, 1] {
        let to = ring.id(number);
        assign(&mut ring, home, to);
        for _ in 0..PATIENCE {
            longest = longest.max(make(&mut ring, &mut caller, files));
            files += 1;
            has_two_copies(&ring);
            if settled(&ring) {
                break;
            }
        }
        assert!(settled(&ring) && slice_of(&ring, home).primary.volcano == to);
        assert!(serves(&ring.running[&number], home));
    }
    assert!(files > 10, "{files}");
    let (_, _, pause) = ring.watched.unwrap();
    println!("{files} files, the longest took {longest:?}; nobody answered for {pause:?}");
    assert!(pause <= Duration::from_millis(500), "nobody answered for {pause:?}");
    // One that concerns two slices may have to begin again.
    assert!(longest <= Duration::from_secs(1), "somebody waited for {longest:?}");
    all_are_there(&mut ring, &mut caller, files);
}

#[test]
fn a_new_owner_that_is_lost_before_it_has_the_slice_costs_nothing() {
    let mut ring = three_with(4);
    let mut caller = Caller::new(&mut ring);
    let home = ring.topology().slice_of(&Handle::root().key).unwrap().id;
    let to = ring.id(2);
    assert!(slice_of(&ring, home).copies().all(|copy| copy.volcano != to));
    ring.is_lost = |message| matches!(message, Message::Slice(.., SliceMessage::Stand(_)));
    assign(&mut ring, home, to);
    ring.until(|ring| slice_of(ring, home).joining.iter().any(|copy| copy.volcano == to));
    drop(ring.running.remove(&2));
    ring.is_lost = |_| false;
    for number in 0..20 {
        make(&mut ring, &mut caller, number);
        assert!(slice_of(&ring, home).in_sync().count() >= 2);
    }
    assert_eq!(slice_of(&ring, home).primary.volcano, ring.id(1));
    ring.start(2, Origin::Resume);
    let returned = ring.now.monotonic;
    ring.until(settled);
    assert!(
        ring.now.monotonic.saturating_sub(returned) < Duration::from_secs(25),
        "it was decided, so there is nothing to wait for"
    );
    assert!(serves(&ring.running[&2], home));
    all_are_there(&mut ring, &mut caller, 20);
}

#[test]
fn a_new_owner_that_is_lost_when_it_has_the_slice_is_replaced_and_gets_it_back() {
    let mut ring = three_with(4);
    let mut caller = Caller::new(&mut ring);
    let home = ring.topology().slice_of(&Handle::root().key).unwrap().id;
    for number in 0..5 {
        make(&mut ring, &mut caller, number);
    }
    let to = ring.id(3);
    ring.pace = Some(WAY);
    assign(&mut ring, home, to);
    ring.until(|ring| slice_of(ring, home).primary.volcano == to);
    assert!(!serves(&ring.running[&3], home), "it has hardly heard of it");
    drop(ring.running.remove(&3));
    ring.pace = None;
    let lost = ring.now.monotonic;
    ring.until(Ring::all_served);
    for number in 5..10 {
        make(&mut ring, &mut caller, number);
    }
    assert!(ring.now.monotonic.saturating_sub(lost) < Duration::from_secs(6));
    assert_ne!(slice_of(&ring, home).primary.volcano, to);
    ring.start(3, Origin::Resume);
    let returned = ring.now.monotonic;
    ring.until(settled);
    let took = ring.now.monotonic.saturating_sub(returned);
    assert!((30..60).contains(&took.as_secs()), "{took:?}");
    assert!(serves(&ring.running[&3], home));
    all_are_there(&mut ring, &mut caller, 10);
}

#[test]
fn an_owner_that_comes_and_goes_does_not_get_its_slices_back() {
    let mut ring = three_with(2);
    for _ in 0..4 {
        drop(ring.running.remove(&1));
        ring.until(Ring::all_served);
        ring.start(1, Origin::Resume);
        let back = ring.now.monotonic;
        ring.until(|ring| ring.now.monotonic.saturating_sub(back) > Duration::from_secs(20));
        let first = ring.id(1);
        assert!(ring.topology().slices.iter().all(|slice| slice.primary.volcano != first));
    }
    ring.until(settled);
    assert!(ring.topology().slices.iter().all(|slice| serves(&ring.running[&1], slice.id)));
}

#[test]
fn what_a_volcano_owns_is_the_next_ones_when_it_leaves() {
    let mut ring = three_with(8);
    let leaving = ring.id(1);
    let heir = ring.topology().ring_from(leaving).nth(1).unwrap().id;
    ring.propose(3, &Change::Leave(leaving, true));
    ring.until(|ring| {
        has_two_copies(ring);
        ring.ended.get(&1) == Some(&"forgotten")
    });
    ring.until(settled);
    let slices = &ring.topology().slices;
    assert!(slices.iter().all(|slice| slice.owner == heir && slice.primary.volcano == heir));
}

#[test]
fn who_stays_after_all_gets_its_slices_back() {
    let mut ring = three_with(4);
    let who = ring.id(1);
    ring.pace = Some(WAY);
    ring.propose(3, &Change::Leave(who, true));
    ring.until(|ring| ring.topology().slices.iter().any(|slice| slice.primary.volcano != who));
    assert!(ring.topology().slices.iter().any(|slice| slice.copies().any(|copy| copy.volcano == who)));
    ring.propose(3, &Change::Leave(who, false));
    ring.until(|ring| ring.topology().member(who).is_some_and(|member| !member.leaving));
    ring.pace = None;
    ring.until(|ring| {
        has_two_copies(ring);
        settled(ring)
    });
    assert!(ring.topology().slices.iter().all(|slice| slice.primary.volcano == who));
}

/// How many slices each volcano of the ring owns, in the ring's order.
fn owned(ring: &Ring) -> Vec<usize> {
    let topology = ring.topology();
    let owned = |id| topology.slices.iter().filter(|slice| slice.owner == id).count();
    topology.members.iter().map(|member| owned(member.id)).collect()
}

#[test]
fn the_balancer_evens_out_what_the_volcanos_own_and_then_rests() {
    let mut ring = three_with(6);
    let mut caller = Caller::new(&mut ring);
    ring.until(|ring| ring.now.monotonic > Duration::from_secs(1020));
    assert_eq!(owned(&ring), [6, 0, 0], "it is off at first");
    ring.propose(2, &Change::Balance(true));
    let mut files = 0;
    for _ in 0..PATIENCE {
        make(&mut ring, &mut caller, files);
        files += 1;
        has_two_copies(&ring);
        if owned(&ring) == [2, 2, 2] && settled(&ring) {
            break;
        }
    }
    assert_eq!(owned(&ring), [2, 2, 2]);
    let owners: Vec<VolcanoId> = ring.topology().slices.iter().map(|slice| slice.owner).collect();
    assert_eq!(owners, [1, 1, 3, 3, 2, 2].map(|number| ring.id(number)), "runs of neighbours");
    let version = ring.topology().version;
    let end = ring.now.monotonic + Duration::from_secs(40);
    ring.until(|ring| ring.now.monotonic > end);
    assert_eq!(ring.topology().version, version, "nothing moves any more");
    all_are_there(&mut ring, &mut caller, files);
}

#[test]
fn a_volcano_moves_to_another_place_of_the_ring_without_its_slices() {
    let mut ring = three_with(6);
    ring.propose(1, &Change::Balance(true));
    ring.until(|ring| owned(ring) == [2, 2, 2] && settled(ring));
    ring.propose(1, &Change::Balance(false));
    let (who, after) = (ring.id(3), ring.id(2));
    ring.propose(1, &Change::Place(who, after));
    ring.until(|ring| ring.topology().ring_from(after).nth(1).unwrap().id == who);
    ring.until(|ring| {
        has_two_copies(ring);
        settled(ring)
    });
    assert_eq!(owned(&ring), [2, 4, 0]);
}

#[test]
fn a_volcano_takes_the_place_of_another_one_and_no_copy_is_missing_meanwhile() {
    let mut ring = three_with(6);
    ring.propose(1, &Change::Balance(true));
    ring.until(|ring| owned(ring) == [2, 2, 2] && settled(ring));
    ring.propose(1, &Change::Balance(false));
    ring.start(4, Origin::Join(vec![address(1)]));
    ring.until(|ring| ring.topology().members.len() == 4 && settled(ring));
    let (old, new) = (ring.id(2), ring.id(4));
    let had: Vec<SliceId> = slices_of(&ring, old);
    ring.propose(1, &Change::Place(new, old));
    ring.propose(1, &Change::Leave(old, true));
    ring.until(|ring| {
        has_two_copies(ring);
        ring.topology().member(old).is_none() && settled(ring)
    });
    assert_eq!(slices_of(&ring, new), had);
    ring.until(|ring| ring.ended.get(&2) == Some(&"forgotten"));
}

fn slices_of(ring: &Ring, owner: VolcanoId) -> Vec<SliceId> {
    let owned = ring.topology().slices.iter().filter(|slice| slice.owner == owner);
    owned.map(|slice| slice.id).collect()
}

#[test]
fn space_is_that_of_the_network_and_flares_are_counted_by_slice() {
    let mut ring = three_with(4);
    let mut caller = Caller::new(&mut ring);
    for number in 0..30 {
        make(&mut ring, &mut caller, number);
    }
    let later = ring.now.monotonic + Duration::from_secs(3);
    ring.until(|ring| ring.now.monotonic > later);
    let own = ring.running[&1].store().space().total;
    let told = caller.ask(&mut ring, Statfs).unwrap();
    assert_eq!(told.total, own / 2 * 3, "three disks, two copies of everything");
    assert!(told.free <= told.total && told.free > 0);
    let mut flares = 0;
    for slice in ring.topology().slices.clone() {
        let nodes = ring.running.values().filter(|node| slice.copies().any(|copy| copy == node.replica()));
        let counts: Vec<_> = nodes.map(|node| node.store().counted(slice.id).unwrap()).collect();
        assert_eq!(counts[0], counts[1], "{slice:?}");
        flares += counts[0].0;
    }
    assert_eq!((flares, told.flares), (31, 31), "the root and the files");
    let root = ring.topology().slice_of(&Handle::root().key).unwrap().id;
    let served = served_by(&ring, &Handle::root().key);
    let reports = &ring.running[&served].slices().figures().copies;
    let report = reports.iter().find(|report| report.slice == root).unwrap();
    assert!(report.load.unwrap().keys >= 1);
}
