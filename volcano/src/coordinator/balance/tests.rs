//! Plans, carried out on paper.

use magma_common::key::{Ino, KeyRange};
use magma_common::topology::{BootId, Epoch, Member, Replica};
use proptest::prelude::*;

use super::*;

fn life(id: u64) -> Replica {
    Replica { volcano: VolcanoId(id), boot: BootId(1 << 32) }
}

fn member(id: u64) -> Member {
    Member {
        id: VolcanoId(id),
        boot: life(id).boot,
        nickname: format!("v{id}"),
        servername: String::new(),
        address: "127.0.0.1".parse().unwrap(),
        port: 12000,
        bandwidth: 0,
        witness: false,
        leaving: false,
    }
}

/// Volcanos 1 to `volcanos` on the ring, and a slice for each owner.
fn network(volcanos: u64, owners: &[u64]) -> Topology {
    let width = u64::MAX / owners.len() as u64;
    let slice = |(number, owner): (usize, &u64)| Slice {
        id: SliceId(number as u32 + 1),
        range: KeyRange::new(Ino(width * number as u64), Ino(width * number as u64 + (width - 1))).unwrap(),
        epoch: Epoch(1),
        reign: Epoch(1),
        owner: VolcanoId(*owner),
        assigned: Epoch(1),
        primary: life(*owner),
        mirrors: Vec::new(),
        joining: Vec::new(),
        recalling: false,
        dividing: None,
    };
    let mut topology = Topology {
        version: 1,
        network: 1,
        members: (1..=volcanos).map(member).collect(),
        slices: owners.iter().enumerate().map(slice).collect(),
        copies: 2,
        ..Topology::default()
    };
    settle(&mut topology);
    topology
}

/// All copies are where they belong.
fn settle(topology: &mut Topology) {
    let groups: Vec<Vec<VolcanoId>> = topology.slices.iter().map(|slice| topology.group(slice)).collect();
    for (slice, group) in topology.slices.iter_mut().zip(groups) {
        slice.primary = life(group[0].0);
        slice.mirrors = group[1..].iter().map(|id| life(id.0)).collect();
    }
}

fn loads(bytes: &[u64]) -> BTreeMap<SliceId, Load> {
    let load = |(number, bytes): (usize, &u64)| (SliceId(number as u32 + 1), Load { keys: 0, bytes: *bytes });
    bytes.iter().enumerate().map(load).collect()
}

fn plan_of(topology: &Topology, loads: &BTreeMap<SliceId, Load>) -> Vec<Planned> {
    plan(&Situation { topology, loads, silent: &[], lost: &[] })
}

fn moves(plan: &[Planned]) -> Vec<(u32, u64, u64)> {
    let parts = |planned: &Planned| {
        let Step::Assign { slice, from, to } = planned.step else { panic!("{planned:?}") };
        (slice.0, from.0, to.0)
    };
    plan.iter().map(parts).collect()
}

fn carry_out(topology: &mut Topology, planned: &Planned) {
    assert_eq!(planned.step.change(topology).unwrap().apply(topology), Ok(true));
    settle(topology);
}

/// Divides slices until none is to be divided; how often that was.
fn divide(topology: &mut Topology, loads: &mut BTreeMap<SliceId, Load>) -> usize {
    let mut times = 0;
    while let [Planned { step: step @ Step::Divide { slice, .. }, .. }] = plan_of(topology, loads)[..] {
        let new = topology.unused_slice().unwrap();
        assert_eq!(step.change(topology).unwrap().apply(topology), Ok(true));
        let epoch = topology.slices.iter().find(|known| known.id == slice).unwrap().epoch;
        assert_eq!(Change::Slice(slice, epoch, SliceChange::Divided).apply(topology), Ok(true));
        let Load { keys, bytes } = loads[&slice];
        let half = Load { keys: keys / 2, bytes: bytes / 2 };
        loads.extend([(slice, half), (new, half)]);
        times += 1;
    }
    times
}

const GIB: u64 = 1 << 30;

#[test]
fn slices_are_divided_where_that_lets_a_volcano_store_less_than_everything() {
    let (mut one, mut known) = (network(3, &[1]), loads(&[GIB]));
    let plan = plan_of(&one, &known);
    assert_eq!(plan[0].why, "it holds 300 % of an even share, too much to be moved as a whole");
    assert_eq!(plan[0].step, Step::Divide { slice: SliceId(1), at: Ino(1 << 63) });
    assert_eq!(divide(&mut one, &mut known), 7);
    let covered: Vec<u64> = one.slices.iter().map(|slice| slice.range.start().0 >> 61).collect();
    assert_eq!(covered, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(moves(&plan_of(&one, &known)).len(), 7, "what the last one gets goes through the one between");

    let (mut pair, mut known) = (network(2, &[1]), loads(&[GIB]));
    assert_eq!(divide(&mut pair, &mut known), 0, "both have copies of everything");
    pair.copies = 1;
    assert_eq!(divide(&mut pair, &mut known), 3);
}

#[test]
fn what_a_single_file_makes_heavy_is_not_divided_for_ever() {
    let (mut topology, mut known) = (network(3, &[1; 6]), loads(&[GIB, GIB, GIB, GIB, GIB, 100 * GIB]));
    let mut times = 0;
    while let [Planned { step: step @ Step::Divide { slice, .. }, .. }] = plan_of(&topology, &known)[..] {
        let new = topology.unused_slice().unwrap();
        step.change(&topology).unwrap().apply(&mut topology).unwrap();
        let epoch = topology.slices.iter().find(|known| known.id == slice).unwrap().epoch;
        Change::Slice(slice, epoch, SliceChange::Divided).apply(&mut topology).unwrap();
        // The file stays where it is.
        known.insert(new, Load::default());
        times += 1;
    }
    assert!((5..=10).contains(&times), "{times}");
}

#[test]
fn a_new_volcano_gets_its_share_at_once() {
    let topology = network(2, &[1; 8]);
    let plan = plan_of(&topology, &loads(&[GIB; 8]));
    assert_eq!(moves(&plan), [(8, 1, 2), (7, 1, 2), (6, 1, 2), (5, 1, 2)]);
    assert_eq!(due(&plan), plan);
    assert_eq!(plan[0].why, "v1 holds 200 % of an even share and v2, which follows it, nothing");
}

#[test]
fn an_empty_network_is_evened_out_by_its_keyspace() {
    let topology = network(3, &[1; 6]);
    let mut few = loads(&[0; 6]);
    few.insert(SliceId(1), Load { keys: 3, bytes: 100 });
    let plan = plan_of(&topology, &few);
    // Volcano 3 gets what volcano 2 has got first.
    assert_eq!(moves(&plan), [(6, 1, 2), (5, 1, 2), (4, 1, 2), (3, 1, 2), (6, 2, 3), (5, 2, 3)]);
}

#[test]
fn what_a_volcano_has_too_much_goes_on_one_by_one_round_the_ring() {
    let topology = network(3, &[1, 1, 2, 2, 3, 3, 3, 3, 3, 3]);
    let plan = plan_of(&topology, &loads(&[GIB; 10]));
    assert_eq!(moves(&plan)[0], (10, 3, 1));
    assert_eq!(due(&plan).len(), 1);
    assert!(moves(&plan).contains(&(2, 1, 2)), "nothing goes back: {plan:?}");
}

#[test]
fn nothing_is_moved_for_a_small_gain() {
    let topology = network(2, &[1, 1, 1, 1, 2, 2, 2, 2]);
    let plan = plan_of(&topology, &loads(&[110, 110, 100, 100, 100, 100, 90, 90].map(|part| part * GIB)));
    assert_eq!(plan, []);
    let plan = plan_of(&topology, &loads(&[10, 1, 1, 1, 1, 1, 1, 1].map(|part| part * GIB)));
    assert_eq!(moves(&plan), [(4, 1, 2), (3, 1, 2), (2, 1, 2)]);
    assert_eq!(plan_of(&network(1, &[1, 1]), &loads(&[GIB, 7])), [], "there is nobody else");
    assert_eq!(plan_of(&Topology::default(), &loads(&[])), []);
}

#[test]
fn who_is_lost_is_followed_by_the_next() {
    let topology = network(3, &[1, 2, 3]);
    let lost = [VolcanoId(2)];
    let loads = loads(&[GIB; 3]);
    let situation = Situation { topology: &topology, loads: &loads, silent: &[], lost: &lost };
    let plan = plan(&situation);
    assert_eq!(moves(&plan), [(2, 2, 3)]);
    assert_eq!(plan[0].why, "v2 is lost and v3 follows it");
}

#[test]
fn nothing_is_moved_while_anything_is_not_as_it_should_be() {
    let settled = network(3, &[1, 2, 3]);
    let known = loads(&[GIB; 3]);
    let judge = |change: &dyn Fn(&mut Topology)| {
        let mut topology = settled.clone();
        change(&mut topology);
        hindrance(&Situation { topology: &topology, loads: &known, silent: &[], lost: &[] })
    };
    assert_eq!(judge(&|_| {}), None);
    let because = |change: &dyn Fn(&mut Topology)| judge(change).unwrap();
    assert_eq!(
        because(&|topology| topology.slices[1].joining.push(life(1))),
        "A copy of slice 2 is being made."
    );
    assert_eq!(because(&|topology| topology.slices[1].mirrors.clear()), "Slice 2 has too few copies.");
    assert_eq!(
        because(&|topology| topology.members[2].boot = BootId(2 << 32)),
        "Slice 2 has too few copies."
    );
    assert_eq!(because(&|topology| topology.slices[0].owner = VolcanoId(2)), "Slice 1 is being moved.");
    assert_eq!(because(&|topology| topology.slices[0].mirrors = vec![life(3)]), "Slice 1 is being moved.");
    let asks = because(&|topology| topology.slices[2].recalling = true);
    assert_eq!(asks, "Slice 3 asks the other slices what it has lost.");
    let silent = [VolcanoId(3)];
    let situation = Situation { topology: &settled, loads: &known, silent: &silent, lost: &[] };
    assert_eq!(hindrance(&situation).unwrap(), "v3 is silent.");
    let unknown = loads(&[GIB; 2]);
    let situation = Situation { topology: &settled, loads: &unknown, silent: &[], lost: &[] };
    assert_eq!(hindrance(&situation).unwrap(), "What slice 3 holds is not known yet.");
}

#[test]
fn a_lost_owner_hinders_nothing() {
    let mut topology = network(3, &[1, 2, 3]);
    // The mirror of slice 2 took over, and volcano 1 has a copy in place of the lost one; that of slice 1 is with 3 now.
    topology.slices[1].primary = life(3);
    topology.slices[1].mirrors = vec![life(1)];
    topology.slices[0].mirrors = vec![life(3)];
    let (lost, known) = ([VolcanoId(2)], loads(&[GIB; 3]));
    let situation = Situation { topology: &topology, loads: &known, silent: &[], lost: &lost };
    assert_eq!(hindrance(&situation), None);
}

fn owners_and_bytes() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
    (1_u64..7).prop_flat_map(|volcanos| {
        let bytes = prop_oneof![Just(0), 0..GIB, 0..64 * GIB];
        (Just(volcanos), proptest::collection::vec((1..=volcanos, bytes), 1..40))
    })
}

proptest! {
    /// Carried out step by step and made anew after each, a plan only gets shorter, moves forward only, and ends near even.
    #[test]
    fn plans_come_to_an_end((volcanos, slices) in owners_and_bytes()) {
        let (owners, bytes): (Vec<u64>, Vec<u64>) = slices.into_iter().unzip();
        let (mut topology, mut loads) = (network(volcanos, &owners), loads(&bytes));
        divide(&mut topology, &mut loads);
        prop_assert!(topology.slices.len() <= MAX_SLICES as usize);
        let slices = topology.slices.len();
        let mut plan = plan_of(&topology, &loads);
        prop_assert!(plan.len() <= slices * volcanos as usize);
        while let Some(planned) = plan.first() {
            let Step::Assign { slice, from, to } = planned.step else { panic!("{planned:?}") };
            let known = topology.slices.iter().find(|known| known.id == slice).unwrap();
            prop_assert_eq!(known.owner, from);
            prop_assert_eq!(topology.ring_from(from).nth(1).unwrap().id, to);
            carry_out(&mut topology, planned);
            let next = plan_of(&topology, &loads);
            // It may find that the rest is not worth it.
            prop_assert!(next.is_empty() || next.len() == plan.len() - 1, "{:?} after {:?}", next, plan);
            plan = next;
        }
        let weights: Vec<(u64, u64)> = topology
            .slices
            .iter()
            .map(|slice| (slice.owner.0, weight(slice, loads[&slice.id])))
            .collect();
        let of = |volcano: u64| weights.iter().filter(|(owner, _)| *owner == volcano).map(|(_, w)| *w).sum::<u64>();
        let share = weights.iter().map(|(_, weight)| *weight).sum::<u64>() / volcanos;
        let largest = weights.iter().map(|(_, weight)| *weight).max().unwrap();
        let most = (1..=volcanos).map(of).max().unwrap();
        let bound = share + share / 10 + largest * (volcanos.isqrt() + 1) + (1 << 20);
        prop_assert!(most <= bound, "{} holds more than {}: {:?}", most, bound, weights);
    }
}
