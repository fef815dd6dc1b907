//! Whatever happens, there is one sequence of topologies.

use std::time::Duration;

use magma_common::topology::{Epoch, SliceId, VolcanoId};

use super::network::{Network, Random};
use super::{alone, enter, life};
use crate::coordinator::{Change, Coordinator, Proposing, Refusal, SliceChange};

fn slice(epoch: u64, change: SliceChange) -> Change {
    Change::Slice(SliceId(1), Epoch(epoch), change)
}

/// A minute of losses, cuts, crashes and changes, then quiet. Topologies of one version are compared as they come.
fn stormy(seed: u64) -> Network {
    let mut network = Network::grown(seed, 5, &[1, 2, 3]);
    let mut random = Random(seed ^ 0xabcd);
    network.loss = 20;
    for _ in 0..120 {
        let id = 1 + random.below(5);
        match random.below(8) {
            0 if network.volcanos[&id].coordinator.is_some() => network.crash(id),
            0..=2 if network.volcanos[&id].coordinator.is_none() => network.start(id),
            1 => drop(network.cut.insert(id)),
            2 | 3 => network.cut.clear(),
            4 => drop(network.propose(Change::Leave(VolcanoId(id), random.below(2) == 0))),
            _ => drop(network.propose(Change::Copies(1 + random.below(5) as u8))),
        }
        network.run(Duration::from_millis(500));
    }
    network.loss = 0;
    network.cut.clear();
    for id in 1..=5 {
        if network.volcanos[&id].coordinator.is_none() {
            network.start(id);
        }
    }
    network
}

#[test]
fn all_see_one_sequence_of_topologies_through_losses_cuts_and_crashes() {
    for seed in 0..20 {
        let mut network = stormy(seed);
        network.insist(&Change::Copies(4));
        network.insist(&Change::Copies(3));
        network.until("all voters have the newest topology", |network| {
            let newest = *network.history.keys().max().unwrap();
            let voters = network.history[&newest].voters.clone();
            voters.iter().all(|voter| network.at(voter.0).topology().is_some_and(|t| t.version == newest))
        });
        assert!(network.history.len() > 10, "seed {seed}: too little happened");
    }
}

#[test]
fn one_seed_gives_one_run() {
    let (first, second) = (stormy(3), stormy(3));
    assert!(first.trace == second.trace);
    assert_eq!(first.history, second.history);
    assert!(stormy(4).trace != first.trace);
}

#[test]
fn of_two_rival_changes_of_a_slice_one_wins() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    let epoch = alone().slices[0].epoch.0;
    let (one, other) =
        (slice(epoch, SliceChange::Add(life(2, 1))), slice(epoch, SliceChange::Add(life(3, 1))));
    assert_eq!(network.propose(one), Proposing::Accepted);
    assert_eq!(network.propose(other.clone()), Proposing::Accepted);
    network.until("the loser is told", |network| !network.refused.is_empty());
    assert_eq!(network.refused, [(other.clone(), Refusal::Stale)]);
    let newest = network.history.values().max_by_key(|topology| topology.version).unwrap();
    assert_eq!(newest.slices[0].joining, [life(2, 1)]);
    assert_eq!(network.propose(other), Proposing::Refused(Refusal::Stale));
}

#[test]
fn a_change_that_waits_is_not_put_into_the_log_twice() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    let add = slice(1, SliceChange::Add(life(2, 1)));
    assert_eq!(network.propose(add.clone()), Proposing::Accepted);
    assert_eq!(network.propose(add), Proposing::Accepted);
    network.run(Duration::from_secs(2));
    assert_eq!(network.refused, []);
}

#[test]
fn what_is_so_already_is_accepted_and_changes_nothing() {
    let mut network = Network::new(1, 1);
    assert_eq!(network.propose(Change::Copies(2)), Proposing::Accepted);
    assert_eq!(network.at(1).topology().unwrap().version, 1);
}

#[test]
fn a_restarted_single_voter_leads_at_once_and_knows_everything() {
    let mut network = Network::new(1, 2);
    network.insist(&enter(2));
    network.insist(&Change::Copies(4));
    network.crash(1);
    network.start(1);
    assert!(network.at(1).is_leader());
    assert_eq!(network.at(1).topology().unwrap().copies, 4);
    assert_eq!(network.propose(Change::Copies(5)), Proposing::Accepted);
    assert_eq!(network.at(1).topology().unwrap().copies, 5);
}

#[test]
fn who_does_not_lead_names_the_leader() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    let leader = network.leader().unwrap();
    network.run(Duration::from_secs(1));
    let now = network.now;
    for id in (1..=3).filter(|id| *id != leader) {
        let answer = network.at(id).propose(now, Change::Copies(1));
        assert_eq!(answer, Proposing::NotLeader(Some(VolcanoId(leader))));
    }
}

#[test]
fn a_leader_without_a_majority_steps_down_and_what_it_took_is_void() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    let old = network.leader().unwrap();
    network.cut.insert(old);
    assert_eq!(network.propose(Change::Copies(5)), Proposing::Accepted);
    network.until("another one leads", |network| network.leader().is_some_and(|leader| leader != old));
    assert!(!network.at(old).is_leader());
    network.insist(&Change::Copies(1));
    network.cut.clear();
    network.run(Duration::from_secs(3));
    assert_eq!(network.at(old).topology().unwrap().copies, 1);
    assert!(network.history.values().all(|topology| topology.copies != 5));
}

#[test]
fn a_quiet_network_writes_nothing() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    network.run(Duration::from_secs(2));
    let saves = |network: &Network| -> Vec<u32> {
        network.volcanos.values().map(|volcano| *volcano.vault.saves.borrow()).collect()
    };
    let before = saves(&network);
    network.run(Duration::from_secs(300));
    assert_eq!(saves(&network), before);
}

#[test]
fn what_is_kept_does_not_grow_with_the_number_of_changes() {
    let mut network = Network::new(1, 1);
    let length = |network: &Network| network.volcanos[&1].vault.state.borrow().as_ref().unwrap().len();
    let before = length(&network);
    for _ in 0..250 {
        network.insist(&Change::Copies(1));
        network.insist(&Change::Copies(2));
    }
    assert!(length(&network) < before + 100);
}

#[test]
fn a_stopped_process_makes_up_for_few_ticks() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    let follower = (1..=3).find(|id| Some(*id) != network.leader()).unwrap();
    let later = network.now + Duration::from_secs(3600);
    let term = network.at(follower).node.raft.term;
    network.at(follower).tick(later);
    assert_eq!(network.at(follower).node.raft.term, term);
    assert!(network.at(follower).leader().is_some());
    assert!(network.at(follower).due() > later);
}

#[test]
fn a_volcano_that_was_never_taken_in_does_nothing() {
    let mut network = Network::new(1, 2);
    network.run(Duration::from_secs(10));
    assert_eq!(network.at(2).leader(), None);
    assert_eq!(network.at(2).topology(), None);
    assert!(!network.at(2).is_voter());
    assert!(network.trace.is_empty());
}

#[test]
fn the_founder_refuses_to_found_again() {
    let network = Network::new(1, 1);
    let vault = Box::new(network.volcanos[&1].vault.clone());
    let again = Coordinator::found(VolcanoId(1), alone(), vault, Box::new(|| 0), network.now);
    assert_eq!(again.err(), Some(crate::coordinator::OpenError::Founded));
}
