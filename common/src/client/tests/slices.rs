//! Several slices with different primaries.

use super::ring::{client_of, ring, spawn};
use super::*;

use crate::fake::{Reclaim, World};
use crate::handle::BirthNumber;
use crate::key::Key;
use crate::proto::operation::{Create, CreateHow};
use crate::topology::{SliceId, VolcanoId};

/// The slice that keeps the sessions: the root is in it.
const LOWER: SliceId = SliceId(1);
const UPPER: SliceId = SliceId(2);

fn low() -> Handle {
    Handle { key: Key::from_bytes([0x11; 20]), birth: BirthNumber(1) }
}

fn high() -> Handle {
    Handle { key: Key::from_bytes([0xee; 20]), birth: BirthNumber(1) }
}

fn attributes(handle: Handle) -> Getattr {
    Getattr { handle }
}

fn open_of(handle: Handle) -> Open {
    Open { handle, ..open() }
}

/// The second volcano serves the upper half of the keyspace.
fn two_slices() -> (FakeVolcano, FakeVolcano) {
    let (one, two) = ring();
    one.with(split);
    (one, two)
}

fn split(world: &mut World) {
    world.split(LOWER, Key::from_bytes([0x7f; 20]), UPPER, VolcanoId(2));
}

/// What a slice was told, as far as it was told all.
fn told(world: &World, slice: SliceId) -> Option<Vec<(Handle, u32)>> {
    let said = world.reclaims.iter().filter(|said| said.slice == slice);
    let is_whole = said.clone().any(|said| said.last);
    is_whole.then(|| said.flat_map(|said| said.opens.clone()).collect())
}

fn direct(world: &World, slice: SliceId) -> usize {
    world.direct.get(&slice).copied().unwrap_or(0)
}

/// A client that has told both slices that it has nothing open, and has a connection to each.
async fn settled(volcanos: &[&FakeVolcano]) -> Client {
    let client = client_of(volcanos).await;
    let one = volcanos.first().unwrap();
    one.until(|world| told(world, LOWER).is_some() && told(world, UPPER).is_some()).await;
    while one.with(|world| direct(world, UPPER)) == 0 {
        client.call(&root_context(), attributes(high())).await.unwrap();
    }
    client
}

#[tokio::test]
async fn requests_go_straight_to_the_primary_of_their_slice() {
    let (one, two) = two_slices();
    let client = settled(&[&one, &two]).await;
    let count = |world: &mut World| (direct(world, LOWER), direct(world, UPPER), world.forwarded);
    let (lower, upper, forwarded) = one.with(count);
    for _ in 0..10 {
        client.call(&root_context(), attributes(low())).await.unwrap();
        client.call(&root_context(), attributes(high())).await.unwrap();
    }
    assert_eq!(one.with(count), (lower + 10, upper + 10, forwarded));
    let handles = [high(), low(), high()];
    let found = client.stat_many(&root_context(), &handles).await.unwrap();
    assert!(found.iter().zip(handles).all(|(found, handle)| found.as_ref().unwrap().handle == handle));
    assert_eq!(one.with(count), (lower + 11, upper + 11, forwarded));
}

#[tokio::test]
async fn a_slice_in_which_nothing_is_open_is_told_so() {
    let (one, two) = two_slices();
    let client = settled(&[&one, &two]).await;
    one.with(|world| {
        assert_eq!((told(world, LOWER), told(world, UPPER)), (Some(vec![]), Some(vec![])));
        world.reclaims.clear();
        world.promote_in(UPPER, VolcanoId(1));
    });
    client.call(&root_context(), attributes(low())).await.unwrap();
    one.until(|world| told(world, UPPER) == Some(vec![])).await;
}

#[tokio::test]
async fn only_the_slice_with_a_new_primary_is_told_again_and_only_what_is_its() {
    let (one, two) = two_slices();
    let client = settled(&[&one, &two]).await;
    for handle in [low(), high(), high()] {
        client.call(&root_context(), open_of(handle)).await.unwrap();
    }
    one.with(|world| {
        world.reclaims.clear();
        world.promote_in(UPPER, VolcanoId(1));
    });
    client.call(&root_context(), attributes(low())).await.unwrap();
    one.until(|world| told(world, UPPER).is_some()).await;
    client.call(&root_context(), attributes(high())).await.unwrap();
    one.with(|world| {
        let said = Reclaim { slice: UPPER, opens: vec![(high(), 2)], last: true };
        assert_eq!(world.reclaims, [said]);
        assert_eq!(world.opens.get(&high()), Some(&2));
    });
}

#[tokio::test]
async fn a_slice_that_was_split_off_is_told_what_is_its() {
    let (one, _two) = ring();
    let client = one.client().await;
    one.until(|world| told(world, LOWER).is_some()).await;
    for handle in [low(), high()] {
        client.call(&root_context(), open_of(handle)).await.unwrap();
    }
    one.with(|world| {
        world.reclaims.clear();
        split(world);
    });
    client.call(&root_context(), attributes(low())).await.unwrap();
    one.until(|world| told(world, UPPER).is_some()).await;
    one.with(|world| {
        let said = Reclaim { slice: UPPER, opens: vec![(high(), 1)], last: true };
        assert_eq!(world.reclaims, [said]);
    });
}

#[tokio::test]
async fn an_open_that_races_a_change_of_the_primary_counts_once() {
    let (one, two) = two_slices();
    let client = settled(&[&one, &two]).await;
    client.call(&root_context(), open_of(high())).await.unwrap();
    one.with(|world| world.mute = true);
    let opening = spawn(&client, open_of(high()));
    one.until(|world| world.held == 1).await;
    one.with(|world| {
        world.mute = false;
        world.reclaims.clear();
        world.promote_in(UPPER, VolcanoId(1));
    });
    client.call(&root_context(), attributes(low())).await.unwrap();
    opening.await.unwrap().unwrap();
    one.until(|world| told(world, UPPER).is_some()).await;
    assert_eq!(one.with(|world| world.opens.get(&high()).copied()), Some(2));
    client.release(high());
    client.release(high());
    one.until(|world| world.opens.get(&high()) == Some(&0)).await;
}

/// The creation may have opened a flare in any slice, and nobody knows which before it is answered.
#[tokio::test]
async fn a_slice_hears_the_end_only_when_creations_under_way_have_ended() {
    let (one, two) = two_slices();
    let three = one.start_beside(3);
    let client = settled(&[&one, &two, &three]).await;
    client.call(&root_context(), open_of(low())).await.unwrap();
    one.with(|world| world.mute = true);
    let name = Name::new(&b"n"[..]).unwrap();
    let (how, set) = (CreateHow::Unchecked, crate::attr::SetAttr::default());
    let creating = spawn(&client, Create { dir: high(), name, mode: 0o644, umask: 0, how, set, open: true });
    one.until(|world| world.held == 1).await;
    one.with(|world| {
        world.mute = false;
        world.reclaims.clear();
        world.promote_in(LOWER, VolcanoId(3));
    });
    client.call(&root_context(), attributes(low())).await.unwrap();
    one.until(|world| world.reclaims.iter().any(|said| said.slice == LOWER)).await;
    client.call(&root_context(), attributes(low())).await.unwrap();
    let said = Reclaim { slice: LOWER, opens: vec![(low(), 1)], last: false };
    assert_eq!(one.with(|world| world.reclaims.clone()), [said]);
    let two = two.restart();
    creating.await.unwrap().unwrap();
    two.until(|world| told(world, LOWER).is_some() && told(world, UPPER).is_some()).await;
    assert_eq!(two.with(|world| world.opens.get(&high()).copied()), Some(1));
}

#[tokio::test]
async fn releases_do_not_wait_for_another_slice() {
    let (one, two) = two_slices();
    let client = settled(&[&one, &two]).await;
    let many: Vec<_> = (0..100).map(|birth| Handle { birth: BirthNumber(birth), ..high() }).collect();
    for handle in many.iter().chain([&low()]) {
        client.call(&root_context(), open_of(*handle)).await.unwrap();
    }
    one.with(|world| world.unserved.extend([UPPER]));
    for handle in &many {
        client.release(*handle);
    }
    client.release(low());
    one.until(|world| world.opens.get(&low()) == Some(&0)).await;
    one.with(|world| {
        assert!(many.iter().all(|handle| world.opens.get(handle) == Some(&1)));
        world.unserved.clear();
    });
    one.until(|world| many.iter().all(|handle| world.opens.get(handle) == Some(&0))).await;
}

#[tokio::test]
async fn releases_that_a_new_primary_cannot_know_are_settled_by_what_it_is_told() {
    let (one, two) = two_slices();
    let client = settled(&[&one, &two]).await;
    for handle in [high(), high(), low(), low()] {
        client.call(&root_context(), open_of(handle)).await.unwrap();
    }
    one.with(|world| {
        world.reclaims.clear();
        world.unserved.insert(UPPER);
    });
    client.release(high());
    client.release(low());
    one.until(|world| world.opens.get(&low()) == Some(&1)).await;
    one.with(|world| world.promote_in(UPPER, VolcanoId(1)));
    client.call(&root_context(), attributes(low())).await.unwrap();
    one.until(|world| told(world, UPPER).is_some()).await;
    one.with(|world| {
        assert_eq!(told(world, UPPER), Some(vec![(high(), 1)]));
        assert_eq!(world.opens.get(&high()), Some(&1));
        assert_eq!(world.opens.get(&low()), Some(&1));
    });
}

#[tokio::test]
async fn a_slice_that_is_not_served_keeps_nobody_from_the_others() {
    let (one, two) = two_slices();
    one.with(|world| world.unserved.extend([UPPER]));
    let started = Instant::now();
    let client = client_of(&[&one, &two]).await;
    client.call(&root_context(), open_of(low())).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    client.release(low());
    one.until(|world| world.opens.get(&low()) == Some(&0)).await;
    assert_eq!(one.with(|world| told(world, UPPER)), None);
    one.with(|world| world.unserved.clear());
    one.until(|world| told(world, UPPER).is_some()).await;
}

#[tokio::test]
async fn a_slice_is_reached_while_the_one_that_keeps_the_sessions_is_not_served() {
    let (one, _two) = ring();
    let client = one.client().await;
    one.until(|world| told(world, LOWER).is_some()).await;
    one.with(|world| {
        split(world);
        world.unserved.insert(LOWER);
    });
    let limit = Instant::now() + Duration::from_secs(10);
    while one.with(|world| direct(world, UPPER)) < 5 {
        assert!(Instant::now() < limit, "the owner is not asked itself");
        client.call(&within(Duration::from_secs(1)), attributes(high())).await.unwrap();
    }
    one.until(|world| told(world, UPPER).is_some()).await;
}

#[tokio::test]
async fn a_client_learns_soon_that_a_slice_is_served_again() {
    let (one, two) = two_slices();
    let client = settled(&[&one, &two]).await;
    one.with(|world| world.unserved.extend([UPPER]));
    let asked = one.with(|world| world.requests);
    let waiting = spawn(&client, attributes(high()));
    // By then the pauses between the request's own tries are half a second long.
    one.until(|world| world.requests > asked + 30).await;
    one.with(|world| world.unserved.clear());
    tokio::time::timeout(Duration::from_millis(400), waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_slice_that_is_not_served_keeps_nobody_from_closing() {
    let (one, two) = two_slices();
    let client = settled(&[&one, &two]).await;
    client.call(&root_context(), open_of(high())).await.unwrap();
    one.with(|world| world.unserved.extend([UPPER]));
    client.release(high());
    client.close().await;
    assert_eq!(one.with(|world| world.sessions.len()), 0);
}

#[tokio::test]
async fn all_slices_are_told_again_in_a_new_session() {
    let (one, two) = two_slices();
    let client = settled(&[&one, &two]).await;
    for handle in [low(), high(), high()] {
        client.call(&root_context(), open_of(handle)).await.unwrap();
    }
    one.with(|world| {
        world.reclaims.clear();
        world.opens.clear();
        world.sessions.clear();
    });
    client.write(&root_context(), Write { handle: high(), ..write() }, Bytes::new()).await.unwrap();
    one.until(|world| told(world, LOWER).is_some() && told(world, UPPER).is_some()).await;
    one.with(|world| {
        assert_eq!(told(world, LOWER), Some(vec![(low(), 1)]));
        assert_eq!(told(world, UPPER), Some(vec![(high(), 2)]));
    });
}
