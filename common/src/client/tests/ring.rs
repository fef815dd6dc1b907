//! More volcanos than one: doors that pass requests on, owners that change, machines that vanish.

use super::*;

use crate::topology::VolcanoId;

/// What a user may have to wait when a volcano dies, the ring's own part included.
const SURVIVAL: Duration = Duration::from_secs(5);

/// The first of them serves.
pub(super) fn ring() -> (FakeVolcano, FakeVolcano) {
    let one = FakeVolcano::start();
    let two = one.start_beside(2);
    (one, two)
}

pub(super) async fn client_of(volcanos: &[&FakeVolcano]) -> Client {
    let hosts = volcanos.iter().flat_map(|volcano| volcano.config().hosts).collect();
    let first = volcanos.first().unwrap();
    Client::connect(ClientConfig { hosts, ..first.config() }).await.unwrap()
}

pub(super) fn spawn<O: Operation>(
    client: &Client,
    operation: O,
) -> tokio::task::JoinHandle<Result<O::Reply, Failure>> {
    let client = client.clone();
    tokio::spawn(async move { client.call(&root_context(), operation).await })
}

fn spawn_write(client: &Client) -> tokio::task::JoinHandle<Result<WriteReply, Failure>> {
    let client = client.clone();
    tokio::spawn(async move { client.write(&root_context(), write(), Bytes::from_static(b"once")).await })
}

#[tokio::test]
async fn an_operation_survives_the_death_of_its_owner() {
    let (mut one, two) = ring();
    let client = client_of(&[&one, &two]).await;
    client.call(&root_context(), open()).await.unwrap();
    one.with(|world| world.mute = true);
    let writing = spawn_write(&client);
    one.until(|world| world.held == 1).await;
    let died = Instant::now();
    one.die();
    two.with(|world| {
        world.mute = false;
        world.promote(VolcanoId(2));
    });
    let written = writing.await.unwrap().unwrap();
    assert!(died.elapsed() < SURVIVAL, "{:?}", died.elapsed());
    assert_eq!((written.offset, written.verifier), (1, 4), "the first answer");
    two.until(|world| world.opens.get(&Handle::root()) == Some(&1)).await;
    assert_eq!(two.with(|world| world.executed), 2);
}

#[tokio::test]
async fn requests_go_straight_to_an_owner_that_is_not_home() {
    let (one, two) = ring();
    let client = client_of(&[&two]).await;
    client.call(&root_context(), getattr()).await.unwrap();
    one.until(|world| world.roles.contains(&Role::Node) && world.peers >= 3).await;
    client.call(&root_context(), getattr()).await.unwrap();
    let forwarded = one.with(|world| world.forwarded);
    for _ in 0..10 {
        client.call(&root_context(), getattr()).await.unwrap();
    }
    assert_eq!(one.with(|world| world.forwarded), forwarded);
}

#[tokio::test]
async fn an_owner_that_cannot_be_reached_is_asked_through_home() {
    let (one, two) = ring();
    one.with(|world| world.hidden.extend([VolcanoId(1)]));
    let client = client_of(&[&two]).await;
    client.call(&root_context(), open()).await.unwrap();
    assert_eq!(client.write(&root_context(), write(), Bytes::from_static(b"ab")).await.unwrap().verifier, 2);
    client.release(Handle::root());
    one.until(|world| world.opens.get(&Handle::root()) == Some(&0)).await;
    assert!(one.with(|world| world.forwarded) >= 4);
}

#[tokio::test]
async fn opens_are_said_again_when_another_primary_serves_behind_an_open_connection() {
    let (one, two) = ring();
    let three = one.start_beside(3);
    one.with(|world| world.hidden.extend([VolcanoId(1), VolcanoId(3)]));
    let client = client_of(&[&two]).await;
    client.call(&root_context(), open()).await.unwrap();
    three.with(|world| world.promote(VolcanoId(3)));
    client.call(&root_context(), getattr()).await.unwrap();
    three.until(|world| world.opens.get(&Handle::root()) == Some(&1)).await;
    assert_eq!(three.with(|world| world.next_session), 1, "the session goes on");
}

#[tokio::test]
async fn what_waits_at_a_former_owner_goes_to_the_new_one() {
    let (one, two) = ring();
    let client = client_of(&[&two]).await;
    client.call(&root_context(), getattr()).await.unwrap();
    one.with(|world| world.mute = true);
    let waiting = spawn(&client, getattr());
    one.until(|world| world.held == 1).await;
    one.with(|world| {
        world.mute = false;
        world.promote(VolcanoId(2));
    });
    client.call(&within(Duration::from_secs(1)), getattr()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_loss_of_home_does_not_stop_requests_to_a_living_owner() {
    let (one, mut two) = ring();
    let client = client_of(&[&two]).await;
    client.call(&root_context(), getattr()).await.unwrap();
    one.until(|world| world.peers >= 3).await;
    client.call(&root_context(), getattr()).await.unwrap();
    two.stop();
    for _ in 0..10 {
        client.call(&within(Duration::from_millis(500)), getattr()).await.unwrap();
    }
    assert_eq!(one.with(|world| world.next_session), 1);
}

#[tokio::test]
async fn a_client_learns_soon_that_somebody_serves_again() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    volcano.with(|world| world.interregnum = true);
    let asked = volcano.with(|world| world.requests);
    let waiting = spawn(&client, getattr());
    // Home asks ten times a second; by then the pauses between the request's own tries are half a second long.
    volcano.until(|world| world.requests > asked + 25).await;
    volcano.with(|world| world.interregnum = false);
    tokio::time::timeout(Duration::from_millis(400), waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_volcano_that_leads_nowhere_is_left_for_another() {
    let (one, two) = ring();
    let client = client_of(&[&one, &two]).await;
    one.with(|world| world.cut_off = Some(VolcanoId(1)));
    two.with(|world| world.promote(VolcanoId(2)));
    client.call(&within(SURVIVAL), getattr()).await.unwrap();
}

#[tokio::test]
async fn a_volcano_that_answers_slowly_keeps_its_connection() {
    let volcano = FakeVolcano::start();
    let client = volcano.client().await;
    volcano.with(|world| world.mute = true);
    let failure = client.call(&within(Duration::from_millis(3500)), getattr()).await.unwrap_err();
    assert_eq!(failure.error, FlareError::TimedOut);
    assert_eq!(volcano.with(|world| (world.held, world.roles.len())), (1, 1));
}
