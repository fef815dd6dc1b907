//! Who votes, and what the network bears.

use std::time::Duration;

use magma_common::topology::VolcanoId;

use super::network::Network;
use super::{enter, member};
use crate::coordinator::voters::{Peer, choose, wanted};
use crate::coordinator::{Change, Proposing};

#[test]
fn three_vote_as_soon_as_there_are_three_and_any_one_may_go() {
    for lost in 1..=3 {
        let mut network = Network::grown(lost, 3, &[1, 2, 3]);
        network.crash(lost);
        network.until("the others have a leader", |network| network.leader().is_some());
        network.insist(&Change::Copies(5));
        network.start(lost);
        network.until("it catches up", |network| network.at(lost).topology().is_some_and(|t| t.copies == 5));
    }
}

#[test]
fn of_two_only_the_first_votes() {
    let mut network = Network::new(1, 2);
    network.insist(&enter(2));
    network.run(Duration::from_secs(40));
    assert!(network.vote(&[1]));
    assert!(!network.at(2).is_voter());
}

#[test]
fn there_never_are_two_voters() {
    let mut network = Network::new(5, 3);
    network.insist(&enter(2));
    assert_eq!(network.propose(enter(3)), Proposing::Accepted);
    network.until("three vote", |network| {
        let members = &network.at(1).node.raft.store().applied().members;
        assert_ne!(members.voters.len(), 2);
        network.vote(&[1, 2, 3])
    });
    assert!(network.history.values().all(|topology| topology.voters.len() != 2));
}

#[test]
fn nine_have_five_voters() {
    let mut network = Network::grown(2, 8, &[1, 2, 3]);
    network.run(Duration::from_secs(5));
    assert!(network.vote(&[1, 2, 3]));
    let ninth = member(9);
    let mut bigger = Network::new(2, 9);
    for id in 2..=8 {
        bigger.insist(&enter(id));
    }
    bigger.insist(&Change::Enter(Box::new(ninth), None));
    bigger.until("five vote", |network| network.vote(&[1, 2, 3, 4, 5]));
}

#[test]
fn a_voter_that_is_silent_for_long_is_replaced() {
    let mut network = Network::grown(3, 4, &[1, 2, 3]);
    let silent = (2..=3).find(|id| Some(*id) != network.leader()).unwrap();
    let rest: Vec<u64> = (1..=4).filter(|id| *id != silent).collect();
    network.crash(silent);
    network.run(Duration::from_secs(25));
    assert!(network.vote(&[1, 2, 3]), "not so soon");
    network.until("it is replaced", |network| network.vote(&rest));
    network.start(silent);
    network.run(Duration::from_secs(10));
    assert!(network.vote(&rest), "it comes back as a member");
}

#[test]
fn a_silent_voter_stays_while_nobody_can_take_its_place() {
    let mut network = Network::grown(3, 3, &[1, 2, 3]);
    network.crash(2);
    network.run(Duration::from_secs(50));
    assert!(network.vote(&[1, 2, 3]));
}

#[test]
fn a_leader_that_leaves_is_replaced_and_forgotten() {
    let mut network = Network::grown(4, 4, &[1, 2, 3]);
    let leader = network.leader().unwrap();
    // Volcano 1 keeps the data and cannot be forgotten.
    let going = if leader == 1 {
        network.crash(1);
        network.until("another one leads", |network| network.leader().is_some());
        network.start(1);
        network.leader().unwrap()
    } else {
        leader
    };
    network.insist(&Change::Leave(VolcanoId(going), true));
    let rest: Vec<u64> = (1..=4).filter(|id| *id != going).collect();
    network.until("it is replaced", |network| network.vote(&rest));
    network.until("it is forgotten", |network| {
        network
            .leader()
            .is_some_and(|id| network.at(id).topology().unwrap().member(VolcanoId(going)).is_none())
    });
    assert!(network.at(going).failed().is_none());
}

#[test]
fn the_only_voter_can_leave_when_another_volcano_stays() {
    let mut network = Network::new(4, 2);
    network.insist(&enter(2));
    network.insist(&Change::Leave(VolcanoId(1), true));
    network.until("the other one votes", |network| network.vote(&[2]));
    network.run(Duration::from_secs(3));
    // It keeps the data, so it stays known.
    assert!(network.at(2).topology().unwrap().member(VolcanoId(1)).is_some());
}

#[test]
fn a_new_voter_gets_the_topology_although_the_log_no_longer_reaches_back_and_the_first_try_is_lost() {
    let mut network = Network::new(6, 3);
    for round in 0..100 {
        network.insist(&Change::Copies(1 + round % 2));
    }
    network.insist(&enter(2));
    network.loss = 60;
    network.propose(enter(3));
    network.run(Duration::from_secs(20));
    network.loss = 0;
    network.insist(&enter(3));
    network.until("three vote", |network| network.vote(&[1, 2, 3]));
    network.run(Duration::from_secs(1));
    let version = network.at(1).topology().unwrap().version;
    assert_eq!(network.at(3).topology().unwrap().version, version);
}

#[test]
fn nobody_may_say_who_votes_or_forget_a_voter() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    assert!(matches!(network.propose(Change::Voters(vec![VolcanoId(2)])), Proposing::Refused(_)));
    assert!(matches!(network.propose(Change::Forget(VolcanoId(2))), Proposing::Refused(_)));
}

fn peer(id: u64, votes: bool) -> Peer {
    let id = VolcanoId(id);
    Peer { id, witness: false, leaving: false, votes, learns: false, heard: true, silent: false }
}

fn chosen(me: u64, peers: &[Peer]) -> Vec<u64> {
    choose(VolcanoId(me), peers).into_iter().map(|id| id.0).collect()
}

#[test]
fn the_number_of_voters_follows_the_number_of_members() {
    assert_eq!([1, 2, 3, 8, 9, 50].map(wanted), [1, 1, 3, 3, 5, 5]);
}

#[test]
fn witnesses_are_chosen_first_then_the_lower_ids() {
    let mut peers: Vec<Peer> = (1..=5).map(|id| peer(id, id == 3)).collect();
    peers[4].witness = true;
    assert_eq!(chosen(3, &peers), [1, 3, 5]);
}

#[test]
fn who_votes_goes_on_voting() {
    let peers: Vec<Peer> = (1..=8).map(|id| peer(id, id > 5)).collect();
    assert_eq!(chosen(8, &peers), [6, 7, 8]);
}

#[test]
fn there_are_no_two_voters_while_the_third_is_down() {
    let mut peers: Vec<Peer> = (1..=3).map(|id| peer(id, id == 2)).collect();
    peers[2].heard = false;
    assert_eq!(chosen(2, &peers), [2]);
}

#[test]
fn when_the_network_shrinks_the_leader_remains() {
    let peers: Vec<Peer> = (1..=2).map(|id| peer(id, true)).collect();
    assert_eq!(chosen(2, &peers), [2]);
}

#[test]
fn the_choice_is_stable_and_odd_whatever_the_peers_are() {
    for bits in 0..(1u32 << 16) {
        // Four peers with four properties each.
        let peers: Vec<Peer> = (0..4u32)
            .map(|i| {
                let has = |property: u32| bits >> (4 * i + property) & 1 == 1;
                Peer {
                    id: VolcanoId(u64::from(i) + 1),
                    witness: i == 3,
                    leaving: has(0),
                    votes: has(1),
                    learns: false,
                    heard: has(2),
                    silent: has(3) && !has(2),
                }
            })
            .collect();
        let choice = choose(VolcanoId(1), &peers);
        assert!(choice.is_empty() || choice.len() % 2 == 1);
        assert!(!choice.is_empty() || !peers.iter().any(|peer| peer.votes));
        let after: Vec<Peer> = peers.iter().map(|p| Peer { votes: choice.contains(&p.id), ..*p }).collect();
        assert_eq!(choose(VolcanoId(1), &after), choice, "{peers:?}");
    }
}
