//! Volcanos with real stores, whose messages all arrive at once: joining, leaving, what administrators are told, and many slices.

mod across;
mod dividing;
mod lineage;
mod moving;
mod retries;
mod ring;
mod stripes;

use std::collections::BTreeSet;

use magma_common::handle::BirthNumber;
use magma_common::proto::SessionId;
use magma_common::proto::operation::{Getattr, OpenSession};
use magma_common::topology::{Seq, Slice, VolcanoId};

use self::ring::{PATIENCE, Ring, STEP, address, serves, three_with};
use super::message::SliceMessage;
use super::*;
use crate::life::{FIRST_SLICE, Origin};
use crate::view::View;

#[test]
fn a_volcano_that_leaves_gives_its_copy_away_and_then_ends() {
    let mut ring = Ring::founded();
    ring.join(2);
    ring.join(3);
    let leaving = ring.id(1);
    ring.propose(3, &Change::Leave(leaving, true));
    ring.until(|ring| ring.ended.get(&1) == Some(&"forgotten"));
    assert_eq!((ring.in_sync(), ring.topology().members.len()), (2, 2));
    assert!(ring.topology().member(leaving).is_none());
}

#[test]
fn a_volcano_that_was_forgotten_while_it_was_down_learns_so_and_does_not_come_back() {
    let mut ring = Ring::founded();
    for number in [2, 3, 4] {
        ring.join(number);
    }
    let gone = ring.id(4);
    ring.running.remove(&4).unwrap().close().unwrap();
    ring.propose(1, &Change::Leave(gone, true));
    ring.until(|ring| ring.topology().member(gone).is_none());
    ring.start(4, Origin::Resume);
    ring.until(|ring| ring.ended.get(&4) == Some(&"forgotten"));
    assert!(ring.topology().member(gone).is_none(), "nor was it taken in by itself");
    ring.start(4, Origin::Resume);
    assert!(ring.running[&4].is_forgotten(), "its folder remembers");
}

#[test]
fn a_volcano_that_was_taken_in_and_died_before_it_heard_so_is_the_same_one_when_it_asks_again() {
    let mut ring = Ring::founded();
    ring.start(2, Origin::Join(vec![address(1)]));
    while ring.running[&1].topology().members.len() < 2 {
        ring.now.monotonic += STEP;
        for number in [1, 2] {
            ring.running.get_mut(&number).unwrap().tick(ring.now);
        }
        while let Some((sender, envelope)) = next_message(&mut ring) {
            if sender == 2 {
                ring.deliver(1, envelope);
            }
        }
    }
    assert_eq!(ring.running[&2].topology().network, 0, "it has not heard anything");
    let first = ring.running.remove(&2).unwrap().replica();

    ring.start(2, Origin::Join(vec![address(1)]));
    ring.until(|ring| ring.in_sync() == 2);
    let second = ring.running[&2].replica();
    assert!(second.volcano == first.volcano && second.boot > first.boot);
    assert_eq!(ring.topology().members.len(), 2);

    // It has heard it now, and died before anybody noted that down in its folder.
    ring.running.remove(&2).unwrap();
    ring.start(2, Origin::Join(vec![address(1)]));
    assert_ne!(ring.running[&2].topology().network, 0, "it goes on as what it is");
    let third = ring.running[&2].replica();
    ring.until(|ring| ring.topology().member(third.volcano).is_some_and(|member| member.boot == third.boot));
    ring.until(|ring| ring.in_sync() == 2);
}

#[test]
fn an_administrator_hears_of_a_refusal_wherever_the_coordinator_is() {
    let mut ring = Ring::founded();
    ring.join(2);
    let first = ring.id(1);
    ring.propose(2, &Change::Leave(first, true));
    ring.until(|ring| ring.topology().member(first).is_some_and(|member| member.leaving));
    let second = ring.id(2);
    let change = Change::Leave(second, true);
    for number in [1, 2] {
        let Some(node) = ring.running.get(&number) else { continue };
        assert_eq!(node.refusal(&change), None);
        ring.propose(number, &change);
        ring.until(|ring| ring.running.get(&number).is_none_or(|node| node.refusal(&change).is_some()));
        let Some(node) = ring.running.get(&number) else { continue };
        let refusal = node.refusal(&change).unwrap().to_string();
        assert_eq!(refusal, "v2 cannot leave: no other volcano would keep the data");
        assert_eq!(node.refusal(&Change::Copies(2)), None, "that was not refused");
    }
}

#[test]
fn the_network_stops_as_a_whole_and_goes_on_where_it_was() {
    let mut ring = Ring::founded();
    for number in [2, 3] {
        ring.join(number);
    }
    let verifier = ring.topology().write_verifier();
    ring.running.get_mut(&2).unwrap().shut_down(true);
    ring.until(|ring| ring.ended.len() == 3 || ring.running.is_empty());
    assert!(ring.ended.values().all(|how| *how == "shut down"));
    for number in [1, 2, 3] {
        ring.start(number, Origin::Resume);
    }
    ring.until(Ring::all_served);
    assert_eq!(ring.topology().write_verifier(), verifier, "clients need not send anything again");
}

/// A primary whose cable had broken in one direction went on sending beacons, so that its mirror went on promising not to take
/// over. Then it had the mirror taken out, which it did not hear any more, and was the only copy: nobody was answered until the
/// cable was mended.
#[test]
fn a_primary_that_hears_nobody_is_replaced_although_all_hear_it() {
    let mut ring = three_with(1);
    ring.deaf = Some(1);
    let begin = ring.now.monotonic;
    ring.until(|ring| [2, 3].iter().any(|number| serves(&ring.running[number], FIRST_SLICE)));
    let took = ring.now.monotonic.saturating_sub(begin);
    assert!(took < Duration::from_secs(3), "it took {took:?}");
    assert!(!serves(&ring.running[&1], FIRST_SLICE));
    ring.deaf = None;
    ring.until(|ring| ring.in_sync() == 2 && ring.topology().slices[0].joining.is_empty());
    assert!(!serves(&ring.running[&1], FIRST_SLICE));
}

/// A release may have been under way for long, while the primary got new promises.
#[test]
fn a_release_undoes_no_promise_that_was_made_since() {
    let mut ring = three_with(1);
    let mirror = ring.topology().slices[0].mirrors[0].volcano;
    let number = [2, 3].into_iter().find(|number| ring.id(*number) == mirror).unwrap();
    let epoch = ring.topology().slices[0].epoch;
    let release = |ring: &mut Ring, upto| {
        let topology = ring.topology();
        let envelope = Envelope {
            network: topology.network,
            lineage: topology.lineage,
            from: ring.running[&1].replica(),
            to: None,
            boot: None,
            version: topology.version,
            message: Message::Slice(FIRST_SLICE, epoch, SliceMessage::Released { upto }),
        };
        let now = ring.now;
        let node = ring.running.get_mut(&number).unwrap();
        node.receive(now, address(1), envelope);
        node.batch_end(now);
    };
    for _ in 0..20 {
        release(&mut ring, 1);
        ring.step();
    }
    assert!(serves(&ring.running[&1], FIRST_SLICE) && ring.topology().slices[0].epoch == epoch);
    release(&mut ring, u64::MAX);
    ring.until(|ring| serves(&ring.running[&number], FIRST_SLICE));
}

/// A mirror whose cable had broken in one direction took over from a primary that worked, and heard nobody who asked it anything.
#[test]
fn a_mirror_that_hears_nobody_does_not_take_over() {
    let mut ring = three_with(1);
    let mirror = ring.topology().slices[0].mirrors[0].volcano;
    let number = [2, 3].into_iter().find(|number| ring.id(*number) == mirror).unwrap();
    ring.deaf = Some(number);
    let is_out = |ring: &Ring| !ring.topology().slices[0].copies().any(|copy| copy.volcano == mirror);
    ring.until(is_out);
    ring.until(|ring| ring.in_sync() == 2 && serves(&ring.running[&1], FIRST_SLICE));
    assert_eq!(ring.topology().slices[0].primary.volcano, ring.id(1));
}

#[test]
fn all_know_who_coordinates_and_who_is_silent() {
    let mut ring = Ring::founded();
    ring.join(2);
    let (first, second) = (ring.id(1), ring.id(2));
    for _ in 0..20 {
        ring.step();
    }
    let now = ring.now.monotonic;
    assert_eq!(ring.running[&1].leader(now), Some(first));
    assert_eq!(ring.running[&2].leader(now), Some(first), "it has no vote and knows it from the other");
    assert!(ring.running[&1].silences(now).iter().all(|(_, silence)| *silence < Duration::from_secs(1)));
    drop(ring.running.remove(&2));
    for _ in 0..100 {
        ring.step();
    }
    let silences = ring.running[&1].silences(ring.now.monotonic);
    assert!(matches!(silences[..], [(who, silence)] if who == second && silence >= Duration::from_secs(5)));
}

/// A voter that was cut off for half a minute lost its vote to another volcano. Nobody tells the ones without a vote who
/// leads, and it went on waiting for the voters to.
#[test]
fn who_has_lost_its_vote_while_it_was_cut_off_knows_who_coordinates() {
    let mut ring = three_with(1);
    ring.join(4);
    let lost = ring.id(3);
    ring.until(|ring| ring.topology().voters.contains(&lost));
    let volcano = ring.running.remove(&3).unwrap();
    ring.until(|ring| ring.topology().voters.len() == 3 && !ring.topology().voters.contains(&lost));
    ring.running.insert(3, volcano);
    for _ in 0..60 {
        ring.step();
    }
    let now = ring.now.monotonic;
    let leaders: Vec<_> = ring.running.values().map(|node| node.leader(now)).collect();
    assert!(leaders[0].is_some() && leaders.iter().all(|leader| *leader == leaders[0]), "{leaders:?}");
}

/// Some flare that would belong to this slice.
fn flare_of(slice: &Slice) -> Handle {
    Handle { key: slice.range.last_key(), birth: BirthNumber(1) }
}

#[test]
fn every_slice_gets_its_copies_and_knows_its_range() {
    let ring = three_with(4);
    let topology = ring.topology();
    assert_eq!(topology.slices.len(), 4);
    let mut next = 0;
    for slice in &topology.slices {
        assert_eq!((slice.range.start().0, slice.in_sync().count()), (next, 2), "{slice:?}");
        next = slice.range.stop().0.wrapping_add(1);
        let copies: Vec<&Store> = ring
            .running
            .values()
            .filter(|node| slice.in_sync().any(|copy| copy == node.replica()))
            .map(Node::store)
            .collect();
        for store in &copies {
            assert_eq!(store.range(slice.id), Some(slice.range));
            assert!(store.missing(slice.id).is_empty());
            assert_eq!(store.history(slice.id), copies[0].history(slice.id));
        }
        assert_eq!(copies.len(), 2);
    }
    assert_eq!(next, 0, "they cover the keyspace");
    let reports: Vec<SliceId> =
        ring.running[&1].slices().figures().copies.iter().map(|report| report.slice).collect();
    assert_eq!(reports, [1, 2, 3, 4].map(SliceId));
}

#[test]
fn the_keyspace_is_cut_even_where_that_leaves_a_remainder() {
    for slices in [0, 1, 3] {
        let ring = Ring::founded_with(slices);
        let found = &ring.topology().slices;
        assert_eq!(found.len(), slices.max(1) as usize);
        assert_eq!(found.last().unwrap().range.stop().0, u64::MAX);
        for pair in found.windows(2) {
            assert_eq!(pair[0].range.stop().0 + 1, pair[1].range.start().0);
        }
        let root = ring.topology().slice_of(&Handle::root().key).unwrap().id;
        let store = ring.running[&1].store();
        assert!(store.flare(&Handle::root().key).unwrap().is_some());
        assert!(serves(&ring.running[&1], root));
    }
}

#[test]
fn a_request_goes_to_the_slice_of_its_flare_wherever_that_is_served() {
    let mut ring = three_with(4);
    for slice in ring.topology().slices.clone() {
        let handle = flare_of(&slice);
        let served = ring.ask(1, Getattr { handle }, false);
        assert!(!ring.forwards.contains_key(&served), "the founder serves it");
        let answer = ring.answers[&served].as_ref().map_err(|failure| failure.error);
        assert_eq!(answer.err(), Some(FlareError::SessionEnded), "it was looked at");
        let passed_on = ring.ask(2, Getattr { handle }, false);
        assert_eq!(ring.forwards.get(&passed_on), Some(&ring.running[&1].own.flare_address()));
        let twice = ring.ask(2, Getattr { handle }, true);
        let answer = ring.answers[&twice].as_ref().map_err(|failure| failure.error);
        assert_eq!(answer.err(), Some(FlareError::NotOwner), "it is passed on once");
    }
    // What is about no flare is for the slice of the root.
    let home = ring.topology().slice_of(&Handle::root().key).unwrap().id;
    let opened = ring.ask(1, OpenSession { client: "a test".into() }, false);
    assert!(ring.answers[&opened].is_ok());
    for slice in ring.running[&1].slices().iter() {
        let expected = usize::from(slice.identity().slice == home);
        assert_eq!(slice.sessions().len(), expected, "{:?}", slice.identity());
    }
}

#[test]
fn whatever_a_lost_volcano_led_is_served_by_others() {
    let mut ring = three_with(4);
    let opened = ring.ask(1, OpenSession { client: "a test".into() }, false);
    assert!(ring.answers[&opened].is_ok());
    let lost = ring.id(1);
    drop(ring.running.remove(&1));
    ring.until(Ring::all_served);
    let topology = ring.topology();
    assert!(topology.slices.iter().all(|slice| slice.primary.volcano != lost));
    let home = topology.slice_of(&Handle::root().key).unwrap();
    for slice in &topology.slices {
        let node = ring.running.values().find(|node| serves(node, slice.id)).unwrap();
        let sessions = node.slice(slice.id).unwrap().sessions().len();
        assert_eq!(sessions, usize::from(slice.id == home.id), "sessions are their slice's alone");
    }
    // It comes back as a copy of what it led, or is replaced there.
    ring.start(1, Origin::Resume);
    ring.until(|ring| ring.all_served() && ring.in_sync() == 2);
}

#[test]
fn all_slices_come_back_after_everybody_was_lost() {
    let mut ring = three_with(4);
    let opened = ring.ask(1, OpenSession { client: "a test".into() }, false);
    assert!(ring.answers[&opened].is_ok());
    ring.running.clear();
    // The copies of a slice wait for each other.
    ring.start(1, Origin::Resume);
    for _ in 0..40 {
        ring.step();
    }
    let founder = &ring.running[&1];
    assert!(founder.slices().iter().all(|slice| !slice.is_serving() && slice.waits_for().len() == 1));
    for number in [2, 3] {
        ring.start(number, Origin::Resume);
    }
    ring.until(|ring| ring.all_served() && ring.in_sync() == 2);
    let home = ring.topology().slice_of(&Handle::root().key).unwrap().id;
    let node = ring.running.values().find(|node| serves(node, home)).unwrap();
    assert_eq!(node.slice(home).unwrap().sessions().len(), 1);
    assert!(node.store().flare(&Handle::root().key).unwrap().is_some());
}

#[test]
fn a_volcano_that_leaves_gives_the_copies_of_all_slices_away() {
    let mut ring = three_with(4);
    let leaving = ring.id(1);
    ring.propose(3, &Change::Leave(leaving, true));
    ring.until(|ring| ring.ended.get(&1) == Some(&"forgotten"));
    ring.until(|ring| ring.all_served() && ring.in_sync() == 2);
    assert!(ring.topology().member(leaving).is_none());
}

#[test]
fn one_sync_serves_all_slices_that_want_one() {
    let mut ring = Ring::founded_with(4);
    ring.join(2);
    let slices = ring.topology().slices.clone();
    let (founder, mirror) = (ring.running[&1].replica(), ring.running[&2].replica());
    let sync = SliceMessage::Sync { number: 1000, through: Seq(1), bodies: None };
    for slice in &slices {
        let message = Message::Slice(slice.id, slice.epoch, sync.clone());
        let envelope = ring.running[&1].envelope(Some(mirror.volcano), Some(mirror.boot), message);
        ring.running.get_mut(&2).unwrap().receive(ring.now, address(1), envelope);
    }
    let now = ring.now;
    let node = ring.running.get_mut(&2).unwrap();
    node.batch_end(now);
    let mut syncs = node.effects().into_iter().filter_map(|effect| match effect {
        Effect::Sync(job, purposes) => Some((job, purposes)),
        _ => None,
    });
    let (job, purposes) = syncs.next().unwrap();
    assert!(syncs.next().is_none());
    let wanted: Vec<_> = slices.iter().map(|slice| SyncFor::Primary(slice.id, founder, 1000)).collect();
    assert_eq!(purposes, wanted);
    node.synced(now, job.run(), purposes);
    let told = node.effects().into_iter().filter(|effect| match effect {
        Effect::Send(_, envelope) => {
            matches!(envelope.message, Message::Slice(.., SliceMessage::Standing { synced: 1000, .. }))
        }
        _ => false,
    });
    assert_eq!(told.count(), 4);
}

/// A copy's first word, that it had nothing, came a second time when the copy had everything: the primary told it to begin anew, and
/// called it in sync on the strength of what it had said before it heard that.
#[test]
fn a_copy_that_is_told_to_begin_anew_is_not_in_sync_by_what_it_said_before() {
    let mut ring = Ring::founded();
    ring.start(2, Origin::Join(vec![address(1)]));
    let (mut first_stand, mut second_place) = (None, None);
    while second_place.is_none() {
        ring.now.monotonic += STEP;
        for number in [1, 2] {
            ring.running.get_mut(&number).unwrap().tick(ring.now);
        }
        while let Some((number, envelope)) = next_message(&mut ring) {
            match &envelope.message {
                Message::Slice(.., SliceMessage::Stand(_)) if first_stand.is_none() => {
                    first_stand = Some(envelope.clone());
                }
                Message::Slice(.., SliceMessage::Sync { .. }) if second_place.is_none() => {
                    ring.deliver(1, first_stand.clone().unwrap());
                    let mut answers = ring.running.get_mut(&1).unwrap().effects().into_iter();
                    second_place = answers.find_map(|effect| match effect {
                        Effect::Send(_, envelope) => Some(*envelope),
                        _ => None,
                    });
                }
                _ => {}
            }
            ring.deliver(3 - number, envelope);
        }
    }
    let place = second_place.unwrap();
    assert!(matches!(place.message, Message::Slice(.., SliceMessage::Place { .. })), "{place:?}");
    assert_eq!(ring.in_sync(), 1, "it is about to lose everything");
    ring.deliver(2, place);
    ring.until(|ring| ring.in_sync() == 2);
    assert!(ring.running[&2].store().missing(FIRST_SLICE).is_empty());
}

/// The next message of a volcano to another one, after its syncs have run.
fn next_message(ring: &mut Ring) -> Option<(u8, Envelope)> {
    for (number, node) in &mut ring.running {
        for effect in std::mem::take(&mut node.effects) {
            match effect {
                Effect::Sync(job, purposes) => node.synced(ring.now, job.run(), purposes),
                other => node.effects.push(other),
            }
        }
        if let Some(at) = node.effects.iter().position(|effect| matches!(effect, Effect::Send(..)))
            && let Effect::Send(_, envelope) = node.effects.remove(at)
        {
            return Some((*number, *envelope));
        }
    }
    None
}
