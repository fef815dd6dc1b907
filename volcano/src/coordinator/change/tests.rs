mod dividing;

use std::collections::BTreeSet;

use magma_common::key::{Ino, KeyRange};
use magma_common::topology::{
    BootId, Epoch, MAX_DEPARTED, Member, Replica, Slice, SliceId, Topology, VolcanoId,
};
use proptest::prelude::*;

use super::*;

const VOLCANOS: u64 = 6;

fn member(id: u64, boot: u64) -> Member {
    Member {
        id: VolcanoId(id),
        boot: BootId(boot),
        nickname: format!("volcano{id}"),
        servername: format!("host{id}"),
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        port: 12_000,
        bandwidth: 100,
        witness: false,
        leaving: false,
    }
}

fn life(id: u64, boot: u64) -> Replica {
    Replica { volcano: VolcanoId(id), boot: BootId(boot) }
}

/// Volcanos 1 to 4; 1 and 2 keep the slice, 3 is catching up.
fn topology() -> Topology {
    Topology {
        version: 10,
        network: 1,
        lineage: 1,
        loss_counter: 0,
        departed: Vec::new(),
        members: (1..=4).map(|id| member(id, 1)).collect(),
        slices: vec![Slice {
            id: SliceId(1),
            range: KeyRange::ALL,
            epoch: Epoch(9),
            reign: Epoch(4),
            owner: life(1, 1).volcano,
            assigned: Epoch(1),
            primary: life(1, 1),
            mirrors: vec![life(2, 1)],
            joining: vec![life(3, 1)],
            recalling: false,
            dividing: None,
        }],
        ancestors: Vec::new(),
        handle_key: [0; 32],
        copies: 2,
        voters: vec![VolcanoId(1)],
        balancer: false,
        stripes: None,
    }
}

fn slice(change: SliceChange) -> Change {
    Change::Slice(SliceId(1), Epoch(9), change)
}

/// The one slice after a change that is made.
fn made(topology: &mut Topology, change: &SliceChange) -> (Replica, Vec<Replica>, Vec<Replica>) {
    let version = topology.version;
    let epoch = topology.slices[0].epoch;
    assert_eq!(Change::Slice(SliceId(1), epoch, change.clone()).apply(topology), Ok(true));
    assert_eq!(topology.version, version + 1);
    assert_eq!(topology.slices[0].epoch, Epoch(version + 1));
    let slice = topology.slices[0].clone();
    (slice.primary, slice.mirrors, slice.joining)
}

/// A change that is refused, and what is said.
fn refused(topology: &Topology, change: &Change) -> String {
    let mut after = topology.clone();
    let refusal = change.apply(&mut after).expect_err("it must be refused");
    assert_eq!(after, *topology, "a refused change changes nothing");
    refusal.to_string()
}

fn enter(member: Member) -> Change {
    Change::Enter(Box::new(member), None)
}

#[test]
fn a_new_volcano_becomes_a_member_and_stays() {
    let mut topology = topology();
    assert_eq!(enter(Member { leaving: true, ..member(5, 1) }).apply(&mut topology), Ok(true));
    assert_eq!(topology.member(VolcanoId(5)), Some(&member(5, 1)));
    assert_eq!(topology.version, 11);
}

#[test]
fn a_newer_boot_replaces_the_entry_but_not_that_it_leaves() {
    let mut topology = topology();
    assert_eq!(Change::Leave(VolcanoId(4), true).apply(&mut topology), Ok(true));
    let moved = Member { port: 13_000, nickname: "other".to_owned(), bandwidth: 5, ..member(4, 2) };
    assert_eq!(enter(moved.clone()).apply(&mut topology), Ok(true));
    assert_eq!(topology.member(VolcanoId(4)), Some(&Member { leaving: true, ..moved }));
}

#[test]
fn a_boot_that_is_not_newer_changes_nothing() {
    let mut topology = topology();
    let before = topology.clone();
    for boot in [0, 1] {
        assert_eq!(enter(Member { port: 13_000, ..member(4, boot) }).apply(&mut topology), Ok(false));
    }
    assert_eq!(topology, before);
}

#[test]
fn an_entry_that_makes_no_sense_is_refused() {
    let topology = topology();
    let wrong = [
        Member { nickname: "volcano1".to_owned(), ..member(5, 1) },
        Member { nickname: String::new(), ..member(5, 1) },
        Member { nickname: "x".repeat(65), ..member(5, 1) },
        Member { servername: "x".repeat(256), ..member(5, 1) },
        Member { port: 0, ..member(5, 1) },
        Member { port: 65_534, ..member(5, 1) },
        Member { id: VolcanoId(0), ..member(5, 1) },
        Member { witness: true, ..member(3, 2) },
    ];
    for member in wrong {
        refused(&topology, &enter(member));
    }
}

#[test]
fn fifty_store_and_some_witnesses_watch() {
    let mut topology = topology();
    for id in 5..=50 {
        assert_eq!(enter(member(id, 1)).apply(&mut topology), Ok(true));
    }
    assert!(refused(&topology, &enter(member(51, 1))).contains("50 volcanos"));
    for id in 51..60 {
        assert_eq!(enter(Member { witness: true, ..member(id, 1) }).apply(&mut topology), Ok(true));
    }
    assert!(refused(&topology, &enter(Member { witness: true, ..member(60, 1) })).contains("witnesses"));
    assert_eq!(enter(member(50, 2)).apply(&mut topology), Ok(true), "who is there may start anew");
}

#[test]
fn leaving_can_be_taken_back_and_the_last_one_stays() {
    let mut topology = topology();
    assert_eq!(Change::Leave(VolcanoId(1), true).apply(&mut topology), Ok(true));
    assert_eq!(Change::Leave(VolcanoId(1), true).apply(&mut topology), Ok(false));
    assert_eq!(Change::Leave(VolcanoId(1), false).apply(&mut topology), Ok(true));
    for id in 1..=3 {
        assert_eq!(Change::Leave(VolcanoId(id), true).apply(&mut topology), Ok(true));
    }
    refused(&topology, &Change::Leave(VolcanoId(4), true));
    refused(&topology, &Change::Leave(VolcanoId(9), true));
}

#[test]
fn only_who_has_no_part_is_forgotten() {
    let mut topology = topology();
    for id in 1..=3 {
        assert!(refused(&topology, &Change::Forget(VolcanoId(id))).contains("keeps data"));
    }
    topology.voters = vec![VolcanoId(1), VolcanoId(4)];
    assert!(refused(&topology, &Change::Forget(VolcanoId(4))).contains("votes"));
    topology.voters = vec![VolcanoId(1)];
    assert_eq!(Change::Forget(VolcanoId(4)).apply(&mut topology), Ok(true));
    assert_eq!(Change::Forget(VolcanoId(4)).apply(&mut topology), Ok(false));
}

/// A message that asked for it may come late, from whoever passed it on.
#[test]
fn who_was_forgotten_does_not_come_in_again() {
    let mut topology = topology();
    assert_eq!(Change::Forget(VolcanoId(4)).apply(&mut topology), Ok(true));
    for boot in [1, 2] {
        let enter = Change::Enter(Box::new(member(4, boot)), Some(VolcanoId(1)));
        assert!(refused(&topology, &enter).contains("has left"));
    }
    // Another one may have its name.
    let another = Member { nickname: "volcano4".into(), ..member(5, 1) };
    assert_eq!(Change::Enter(Box::new(another), None).apply(&mut topology), Ok(true));
}

#[test]
fn so_many_of_those_who_left_are_remembered() {
    let mut topology = topology();
    for id in 10..12 + MAX_DEPARTED as u64 {
        assert_eq!(Change::Enter(Box::new(member(id, 1)), None).apply(&mut topology), Ok(true));
        assert_eq!(Change::Forget(VolcanoId(id)).apply(&mut topology), Ok(true));
    }
    assert_eq!(topology.departed.len(), MAX_DEPARTED);
    assert_eq!(topology.departed[0], VolcanoId(11 + MAX_DEPARTED as u64), "the last one first");
}

#[test]
fn there_are_one_to_five_copies() {
    let mut topology = topology();
    refused(&topology, &Change::Copies(0));
    refused(&topology, &Change::Copies(6));
    assert_eq!(Change::Copies(5).apply(&mut topology), Ok(true));
    assert_eq!(Change::Copies(5).apply(&mut topology), Ok(false));
}

#[test]
fn voters_are_members_each_once() {
    let mut topology = topology();
    let voters = |ids: &[u64]| Change::Voters(ids.iter().copied().map(VolcanoId).collect());
    for wrong in [&[][..], &[1, 1], &[9], &[1, 2, 3, 4, 5, 6]] {
        refused(&topology, &voters(wrong));
    }
    assert_eq!(voters(&[3, 1, 2]).apply(&mut topology), Ok(true));
    assert_eq!(topology.voters, [1, 2, 3].map(VolcanoId));
    assert_eq!(voters(&[1, 2, 3]).apply(&mut topology), Ok(false));
}

#[test]
fn another_epoch_or_slice_is_stale() {
    let topology = topology();
    let remove = SliceChange::Remove(life(2, 1));
    for (id, epoch) in [(1, 8), (1, 10), (2, 9)] {
        let change = Change::Slice(SliceId(id), Epoch(epoch), remove.clone());
        assert_eq!(change.apply(&mut topology.clone()), Err(Refusal::Stale));
    }
}

#[test]
fn a_promoted_mirror_drops_the_primary_and_who_is_joining() {
    let after = made(&mut topology(), &SliceChange::Promote(life(2, 1)));
    assert_eq!(after, (life(2, 1), vec![], vec![]));
}

#[test]
fn a_handover_makes_the_primary_a_mirror() {
    let after = made(&mut topology(), &SliceChange::HandOver(life(2, 1)));
    assert_eq!(after, (life(2, 1), vec![life(1, 1)], vec![]));
}

#[test]
fn only_a_mirror_in_its_present_life_takes_over() {
    let topology = topology();
    for copy in [life(1, 1), life(3, 1), life(4, 1), life(9, 1), life(2, 2)] {
        refused(&topology, &slice(SliceChange::Promote(copy)));
        refused(&topology, &slice(SliceChange::HandOver(copy)));
    }
    let mut restarted = topology;
    assert_eq!(enter(member(2, 2)).apply(&mut restarted), Ok(true));
    refused(&restarted, &slice(SliceChange::Promote(life(2, 1))));
}

#[test]
fn a_copy_joins_comes_in_sync_and_goes() {
    let mut topology = topology();
    let (_, _, joining) = made(&mut topology, &SliceChange::Add(life(4, 1)));
    assert_eq!(joining, [life(3, 1), life(4, 1)]);
    let (_, mirrors, joining) = made(&mut topology, &SliceChange::InSync(life(3, 1)));
    assert_eq!((mirrors, joining), (vec![life(2, 1), life(3, 1)], vec![life(4, 1)]));
    let (_, mirrors, _) = made(&mut topology, &SliceChange::Remove(life(2, 1)));
    assert_eq!(mirrors, [life(3, 1)]);
    let (_, _, joining) = made(&mut topology, &SliceChange::Remove(life(4, 1)));
    assert_eq!(joining, []);
}

#[test]
fn only_a_member_without_a_part_that_stays_is_added() {
    let mut topology = topology();
    topology.members.push(Member { leaving: true, ..member(5, 1) });
    topology.members.push(Member { witness: true, ..member(6, 1) });
    topology.members[1].boot = BootId(2);
    for copy in [life(1, 1), life(3, 1), life(4, 2), life(5, 1), life(6, 1), life(9, 1)] {
        refused(&topology, &slice(SliceChange::Add(copy)));
    }
    assert!(refused(&topology, &slice(SliceChange::Add(life(2, 2)))).contains("must be removed first"));
}

#[test]
fn only_who_is_joining_comes_in_sync_and_the_primary_is_not_removed() {
    let topology = topology();
    for copy in [life(1, 1), life(2, 1), life(4, 1), life(3, 2)] {
        refused(&topology, &slice(SliceChange::InSync(copy)));
    }
    for copy in [life(1, 1), life(4, 1), life(2, 2)] {
        refused(&topology, &slice(SliceChange::Remove(copy)));
    }
}

#[test]
fn a_cold_start_needs_new_lives_of_all_that_had_everything() {
    let mut topology = topology();
    let cold = |primary, mirrors| slice(SliceChange::ColdStart { primary, mirrors, lost: true });
    refused(&topology, &cold(life(2, 1), vec![life(1, 1)]));
    assert_eq!(enter(member(2, 5)).apply(&mut topology), Ok(true));
    refused(&topology, &cold(life(2, 5), vec![]));
    assert_eq!(enter(member(1, 5)).apply(&mut topology), Ok(true));
    refused(&topology, &cold(life(2, 5), vec![life(2, 5)]));
    refused(&topology, &cold(life(2, 5), vec![life(1, 5), life(3, 1)]));
    refused(&topology, &cold(life(2, 5), vec![life(1, 1)]));
    refused(&topology, &cold(life(2, 5), vec![life(1, 4)]));
    assert_eq!(cold(life(2, 5), vec![life(1, 5)]).apply(&mut topology), Ok(true));
    let slice = &topology.slices[0];
    assert_eq!(
        (slice.primary, &slice.mirrors[..], &slice.joining[..]),
        (life(2, 5), &[life(1, 5)][..], &[][..])
    );
    assert_eq!(topology.loss_counter, 1);
}

#[test]
fn a_cold_start_may_leave_out_a_copy_whose_bytes_are_in_doubt() {
    let mut topology = topology();
    for id in 1..=2 {
        assert_eq!(enter(member(id, 5)).apply(&mut topology), Ok(true));
    }
    let cold = slice(SliceChange::ColdStart { primary: life(2, 5), mirrors: vec![], lost: true });
    assert_eq!(cold.apply(&mut topology), Ok(true));
    assert_eq!((topology.slices[0].primary, &topology.slices[0].mirrors[..]), (life(2, 5), &[][..]));
}

#[test]
fn a_reign_begins_with_its_primary_and_outlives_other_changes() {
    let reign_after = |change: SliceChange| {
        let mut topology = topology();
        made(&mut topology, &change);
        topology.slices[0].reign
    };
    for keeps in
        [SliceChange::Add(life(4, 1)), SliceChange::InSync(life(3, 1)), SliceChange::Remove(life(2, 1))]
    {
        assert_eq!(reign_after(keeps), Epoch(4));
    }
    assert_eq!(reign_after(SliceChange::Promote(life(2, 1))), Epoch(11));
    assert_eq!(reign_after(SliceChange::HandOver(life(2, 1))), Epoch(11));
    let mut topology = restarted();
    made(&mut topology, &cold_start(false));
    assert_eq!(topology.slices[0].reign, topology.slices[0].epoch);
}

/// Both in-sync copies of the slice have started anew.
fn restarted() -> Topology {
    let mut topology = topology();
    for id in 1..=2 {
        assert_eq!(enter(member(id, 5)).apply(&mut topology), Ok(true));
    }
    topology
}

fn cold_start(lost: bool) -> SliceChange {
    SliceChange::ColdStart { primary: life(2, 5), mirrors: vec![life(1, 5)], lost }
}

/// The upper half of the keyspace becomes a slice of its own, with the same copies.
fn split(topology: &mut Topology) {
    let middle = 1 << 63;
    topology.slices[0].range = KeyRange::new(Ino(0), Ino(middle - 1)).unwrap();
    let upper = KeyRange::new(Ino(middle), Ino(u64::MAX)).unwrap();
    topology.slices.push(Slice { id: SliceId(2), range: upper, ..topology.slices[0].clone() });
}

#[test]
fn a_slice_that_may_have_lost_records_recalls_them_from_the_others() {
    let mut topology = restarted();
    split(&mut topology);
    let before = topology.clone();
    made(&mut topology, &cold_start(true));
    let reign = topology.slices[0].reign;
    assert!(topology.slices[0].recalling);
    assert!(!topology.slices[1].recalling);
    made(&mut topology, &SliceChange::Remove(life(1, 5)));
    assert!(topology.slices[0].recalling, "only an answer ends it");
    made(&mut topology, &SliceChange::Recalled);
    assert!(!topology.slices[0].recalling);
    assert_eq!(topology.slices[0].reign, reign);
    let again = Change::Slice(SliceId(1), topology.slices[0].epoch, SliceChange::Recalled);
    refused(&topology, &again);
    let mut topology = before;
    made(&mut topology, &cold_start(false));
    assert!(!topology.slices[0].recalling, "nothing is lost");
}

#[test]
fn a_slice_that_starts_cold_again_has_still_to_recall() {
    let mut topology = restarted();
    split(&mut topology);
    made(&mut topology, &cold_start(true));
    for id in 1..=2 {
        assert_eq!(enter(member(id, 6)).apply(&mut topology), Ok(true));
    }
    let again = SliceChange::ColdStart { primary: life(2, 6), mirrors: vec![life(1, 6)], lost: false };
    made(&mut topology, &again);
    assert!(topology.slices[0].recalling);
}

#[test]
fn a_slice_that_is_alone_has_nobody_to_ask() {
    let mut topology = restarted();
    made(&mut topology, &cold_start(true));
    assert!(!topology.slices[0].recalling);
    assert_eq!(topology.loss_counter, 1);
}

#[test]
fn a_version_at_its_end_refuses_everything() {
    let mut topology = topology();
    topology.version = u64::MAX;
    refused(&topology, &Change::Copies(3));
}

/// A change that some volcano might ask for, right or wrong, `epoch` being how far from the present one.
fn any_change() -> impl Strategy<Value = (Change, u64)> {
    let id = || 1..=VOLCANOS;
    let copy = || (id(), 1..4u64).prop_map(|(id, boot)| life(id, boot));
    let slice = prop_oneof![
        copy().prop_map(SliceChange::Promote),
        copy().prop_map(SliceChange::HandOver),
        copy().prop_map(SliceChange::Add),
        copy().prop_map(SliceChange::Add),
        copy().prop_map(SliceChange::InSync),
        copy().prop_map(SliceChange::InSync),
        copy().prop_map(SliceChange::Remove),
        Just(SliceChange::Recalled),
        (copy(), prop::collection::vec(copy(), 0..3), any::<bool>())
            .prop_map(|(primary, mirrors, lost)| SliceChange::ColdStart { primary, mirrors, lost }),
    ];
    let slice = (1..3u32, slice).prop_map(|(id, change)| Change::Slice(SliceId(id), Epoch(0), change));
    let entry = (id(), 1..4u64, any::<bool>()).prop_map(|(id, boot, witness)| {
        enter(Member { witness: witness && id == VOLCANOS, ..member(id, boot) })
    });
    let change = prop_oneof![
        1 => entry,
        1 => (id(), any::<bool>()).prop_map(|(id, leaving)| Change::Leave(VolcanoId(id), leaving)),
        1 => id().prop_map(|id| Change::Forget(VolcanoId(id))),
        1 => (0..7u8).prop_map(Change::Copies),
        1 => prop::collection::vec(id().prop_map(VolcanoId), 0..4).prop_map(Change::Voters),
        8 => slice,
    ];
    (change, prop_oneof![9 => Just(0), 1 => 1..3u64])
}

fn check(before: &Topology, change: &Change, result: &Result<bool, Refusal>, after: &Topology) {
    if *result == Ok(true) {
        assert_eq!(after.version, before.version + 1);
    } else {
        assert_eq!(after, before);
    }
    let ranges: Vec<KeyRange> = after.slices.iter().map(|slice| slice.range).collect();
    assert_eq!(ranges, before.slices.iter().map(|slice| slice.range).collect::<Vec<_>>());
    for voter in &after.voters {
        assert!(after.member(*voter).is_some());
    }
    for (old, new) in before.slices.iter().zip(&after.slices) {
        let volcanos: BTreeSet<VolcanoId> = new.copies().map(|copy| copy.volcano).collect();
        assert_eq!(volcanos.len(), new.copies().count(), "no volcano is there twice");
        for copy in new.copies() {
            let member = after.member(copy.volcano).expect("every copy is on a member");
            assert!(member.boot >= copy.boot && !member.witness);
        }
        assert!(new.epoch >= old.epoch);
        assert!(new.epoch.0 <= after.version);
        let kept = |slice: &Slice| {
            let copies = (slice.primary, slice.mirrors.clone(), slice.joining.clone());
            (copies, slice.reign, slice.recalling)
        };
        let changed = kept(new) != kept(old);
        assert!(!changed || new.epoch == Epoch(after.version));
        let reign = if new.primary == old.primary { old.reign } else { new.epoch };
        assert_eq!(new.reign, reign, "a reign is a primary's");
        let planned = matches!(
            change,
            Change::Slice(_, _, SliceChange::Add(_) | SliceChange::InSync(_) | SliceChange::HandOver(_))
        );
        assert!(!planned || new.in_sync().count() >= old.in_sync().count());
    }
}

proptest! {
    #[test]
    fn no_row_of_changes_breaks_the_topology(changes in prop::collection::vec(any_change(), 1..80)) {
        let mut topology = topology();
        split(&mut topology);
        for (change, behind) in changes {
            let change = match change {
                Change::Slice(id, _, change) => {
                    let epoch = topology.slices[id.0 as usize - 1].epoch;
                    Change::Slice(id, Epoch(epoch.0.saturating_sub(behind)), change)
                }
                other => other,
            };
            let before = topology.clone();
            let result = change.apply(&mut topology);
            check(&before, &change, &result, &topology);
        }
    }
}

/// Volcanos 1 to 4, of which 3 and 4 have no copy.
fn ring_of_four() -> Topology {
    let mut topology = topology();
    topology.members = (1..=4).map(|id| member(id, 1)).collect();
    topology.slices[0].joining.clear();
    topology
}

fn order(topology: &Topology) -> Vec<u64> {
    topology.members.iter().map(|member| member.id.0).collect()
}

#[test]
fn a_newcomer_follows_the_one_that_brings_it_in() {
    let mut topology = ring_of_four();
    let enter = |id, after: Option<u64>| Change::Enter(Box::new(member(id, 1)), after.map(VolcanoId));
    assert_eq!(enter(5, Some(2)).apply(&mut topology), Ok(true));
    assert_eq!(enter(6, Some(77)).apply(&mut topology), Ok(true), "whom nobody knows");
    assert_eq!(enter(7, None).apply(&mut topology), Ok(true));
    assert_eq!(order(&topology), [1, 2, 5, 3, 4, 6, 7]);
    let anew = Change::Enter(Box::new(member(1, 2)), Some(VolcanoId(7)));
    assert_eq!(anew.apply(&mut topology), Ok(true));
    assert_eq!(order(&topology)[0], 1, "who starts anew keeps its place");
}

#[test]
fn a_slice_is_assigned_to_one_that_stays() {
    let mut topology = ring_of_four();
    topology.members[2].witness = true;
    topology.members[3].leaving = true;
    let before = topology.clone();
    for (owner, why) in [
        (1, "volcano1 is the owner of that slice already"),
        (3, "volcano3 is a witness or leaving, and takes no slices"),
        (4, "volcano4 is a witness or leaving, and takes no slices"),
        (9, "the unknown volcano 0000000000000009 is not in the network"),
    ] {
        let change = Change::Slice(SliceId(1), Epoch(9), SliceChange::Assign(VolcanoId(owner)));
        assert_eq!(change.apply(&mut topology), Err(Refusal::Unfit(why.to_owned())));
    }
    let stale = Change::Slice(SliceId(1), Epoch(8), SliceChange::Assign(VolcanoId(2)));
    assert_eq!(stale.apply(&mut topology), Err(Refusal::Stale));
    assert_eq!(topology, before);
    let change = Change::Slice(SliceId(1), Epoch(9), SliceChange::Assign(VolcanoId(2)));
    assert_eq!(change.apply(&mut topology), Ok(true));
    let slice = &topology.slices[0];
    assert_eq!(
        (slice.owner, slice.assigned, slice.epoch),
        (VolcanoId(2), slice.epoch, Epoch(topology.version))
    );
    assert_eq!((slice.primary, &slice.mirrors), (before.slices[0].primary, &before.slices[0].mirrors));
    assert_eq!(slice.reign, before.slices[0].reign, "who serves it goes on");
}

#[test]
fn a_volcano_gets_another_place_without_what_it_owned() {
    let mut topology = ring_of_four();
    let place = |who, after| Change::Place(VolcanoId(who), VolcanoId(after));
    assert_eq!(place(2, 1).apply(&mut topology), Ok(false), "there it is");
    assert_eq!(place(1, 4).apply(&mut topology), Ok(false), "the first follows the last");
    assert!(place(1, 1).apply(&mut topology).is_err() && place(1, 9).apply(&mut topology).is_err());
    assert_eq!(place(1, 3).apply(&mut topology), Ok(true));
    assert_eq!(order(&topology), [2, 3, 1, 4]);
    let slice = &topology.slices[0];
    assert_eq!((slice.owner, slice.epoch), (VolcanoId(2), Epoch(topology.version)));
    assert_eq!(place(4, 2).apply(&mut topology), Ok(true));
    assert_eq!(order(&topology), [2, 4, 3, 1]);
    assert_eq!(topology.slices[0].epoch, slice_epoch_before(&topology), "it is not concerned");
    topology.members[1].leaving = true;
    assert!(place(4, 1).apply(&mut topology).is_err() && place(3, 4).apply(&mut topology).is_err());
}

fn slice_epoch_before(topology: &Topology) -> Epoch {
    Epoch(topology.version - 1)
}

#[test]
fn what_a_forgotten_volcano_owned_is_owned_by_the_next() {
    let mut topology = ring_of_four();
    topology.slices[0].owner = VolcanoId(3);
    topology.members[3].leaving = true;
    assert_eq!(Change::Forget(VolcanoId(3)).apply(&mut topology), Ok(true));
    assert_eq!(topology.slices[0].owner, VolcanoId(1));
    assert_eq!(Change::Balance(true).apply(&mut topology), Ok(true));
    assert_eq!(Change::Balance(true).apply(&mut topology), Ok(false));
}
