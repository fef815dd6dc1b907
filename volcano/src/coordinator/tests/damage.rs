//! Damaged states, broken disks, forged messages.

use std::time::Duration;

use magma_common::topology::VolcanoId;

use super::network::{Kept, Network, Random};
use super::{alone, enter};
use crate::coordinator::log::MAX_NUMBER;
use crate::coordinator::wire::{Body, Content, Letter, LoggedEntry, Members, Part, Transition};
use crate::coordinator::{Change, Coordinator, OpenError, Proposing};

fn open(id: u64, state: Vec<u8>) -> Result<Coordinator, OpenError> {
    let vault = Kept::default();
    *vault.state.borrow_mut() = Some(state);
    Coordinator::open(VolcanoId(id), Box::new(vault), Box::new(|| 0), Duration::ZERO)
}

fn saved_state() -> Vec<u8> {
    let network = Network::grown(1, 3, &[1, 2, 3]);
    network.volcanos[&1].vault.state.borrow().clone().unwrap()
}

#[test]
fn a_state_with_any_bit_flipped_is_refused_with_a_sentence() {
    let state = saved_state();
    assert!(open(1, state.clone()).is_ok());
    for place in 0..state.len() {
        let mut state = state.clone();
        state[place] ^= 1 << (place % 8);
        let error = open(1, state).err().expect("it is damaged");
        assert!(error.to_string().starts_with("the state of the coordinator is damaged: it"), "{error}");
    }
}

#[test]
fn a_state_that_was_cut_off_is_refused() {
    let state = saved_state();
    for length in 0..state.len() {
        assert!(open(1, state[..length].to_vec()).is_err());
    }
}

#[test]
fn the_state_of_another_volcano_is_refused() {
    assert_eq!(open(2, saved_state()).err(), Some(OpenError::Foreign(1)));
}

#[test]
fn a_failed_save_stops_the_coordinator_before_it_says_anything() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    let leader = network.leader().unwrap();
    network.run(Duration::from_secs(1));
    *network.volcanos[&leader].vault.broken.borrow_mut() = true;
    let now = network.now;
    network.at(leader).propose(now, Change::Copies(5));
    assert_eq!(network.at(leader).failed(), Some("the disk is broken"));
    assert!(network.at(leader).has_failed_disk());
    assert_eq!(network.at(leader).outputs(), []);
    assert_eq!(network.at(leader).propose(now, Change::Copies(5)), Proposing::NotLeader(None));
    network.crash(leader);
    network.until("another one leads", |network| network.leader().is_some());
    network.insist(&Change::Copies(4));
    assert!(network.history.values().all(|topology| topology.copies != 5));
}

#[test]
fn a_network_that_cannot_be_saved_is_not_founded() {
    let vault = Kept::default();
    *vault.broken.borrow_mut() = true;
    let founded = Coordinator::found(VolcanoId(1), alone(), Box::new(vault), Box::new(|| 0), Duration::ZERO);
    assert_eq!(founded.err(), Some(OpenError::Vault("the disk is broken".to_owned())));
}

#[test]
fn a_change_that_is_too_long_is_refused() {
    let mut network = Network::new(1, 1);
    let voters = (1..10_000).map(VolcanoId).collect();
    assert!(matches!(network.propose(Change::Voters(voters)), Proposing::Refused(_)));
    let mut long = super::member(2);
    long.servername = "x".repeat(100_000);
    assert!(matches!(network.propose(Change::Enter(Box::new(long), None)), Proposing::Refused(_)));
}

/// A number that is likely to hurt.
fn number(random: &mut Random, about: u64) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => MAX_NUMBER,
        3 => random.next(),
        4 => 1 + random.below(4),
        _ => about.saturating_add(random.below(6)).saturating_sub(3),
    }
}

fn ids(random: &mut Random) -> Vec<u64> {
    (0..random.below(4)).map(|_| random.below(6)).collect()
}

fn content(random: &mut Random) -> Content {
    match random.below(4) {
        0 => Content::Nothing,
        1 => Content::Change(enter(random.below(9))),
        2 => Content::Change(Change::Copies(random.below(8) as u8)),
        _ => {
            let transition = [Transition::Auto, Transition::Implicit, Transition::Explicit];
            let parts = [Part::Voter, Part::Learner, Part::None];
            let changes = ids(random).into_iter().map(|id| (parts[random.below(3) as usize], id)).collect();
            Content::Members(transition[random.below(3) as usize], changes)
        }
    }
}

fn body(random: &mut Random, term: u64, last: u64) -> Body {
    let [index, commit] = [(); 2].map(|()| number(random, last));
    let [log_term, commit_term] = [(); 2].map(|()| number(random, term));
    let (pre, granted) = (random.below(2) == 0, random.below(2) == 0);
    match random.below(9) {
        0..=1 => {
            let entry =
                |random: &mut Random| LoggedEntry { term: number(random, term), content: content(random) };
            let entries = (0..random.below(5)).map(|_| entry(random)).collect();
            Body::Append { index, log_term, commit, entries }
        }
        2 => Body::Appended { index, commit },
        3 => Body::NotAppended { index, commit, hint: number(random, last), hint_term: log_term },
        4 => Body::AskVote { pre, index, log_term, commit, commit_term },
        5 => Body::Vote { pre, granted, commit, commit_term },
        6 => {
            let (voters, learners) = (ids(random), ids(random));
            let (outgoing, learners_next) = (ids(random), ids(random));
            let members = Members { voters, learners, outgoing, learners_next, auto_leave: pre };
            Body::Snapshot { index, log_term, members, topology: Box::new(alone()) }
        }
        7 => Body::Heartbeat { commit },
        _ => Body::HeartbeatHeard { commit },
    }
}

#[test]
fn any_bytes_are_borne() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    let mut random = Random(1);
    let trace = network.trace.clone();
    for _ in 0..20_000 {
        let (_, _, to, bytes) = &trace[random.below(trace.len() as u64) as usize];
        let mut bytes = bytes.to_vec();
        for _ in 0..=random.below(3) {
            let place = random.below(bytes.len() as u64) as usize;
            bytes[place] = random.next() as u8;
        }
        bytes.truncate(1 + random.below(2 * bytes.len() as u64) as usize);
        network.honest = false;
        let from = 1 + random.below(3);
        network.forge(from, *to, &bytes);
    }
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..random.below(64)).map(|_| random.next() as u8).collect();
        network.forge(1, 2, &bytes);
    }
}

#[test]
fn a_length_without_end_allocates_nothing() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    // From, to, term, an append, its index, term and commit, and a number of entries as large as it goes.
    let mut bytes = vec![1, 2, 2, 0, 1, 1, 1];
    bytes.extend([0xff; 9]);
    bytes.push(1);
    network.forge(1, 2, &bytes);
    assert!(network.at(2).failed().is_none());
}

#[test]
fn well_formed_nonsense_is_borne() {
    for seed in 0..30 {
        let mut network = Network::grown(seed, 5, &[1, 2, 3]);
        network.honest = false;
        let mut random = Random(seed);
        for round in 0..3000 {
            let (from, to) = (random.below(7), 1 + random.below(5));
            let raft = &network.at(to).node.raft;
            let (now, last) = (raft.term, raft.raft_log.last_index());
            let term = number(&mut random, now);
            let body = body(&mut random, term, last);
            let letter = Letter { from, to, term, body };
            network.forge(from, to, &letter.encode().unwrap());
            if round % 10 == 0 {
                network.propose(Change::Copies(1 + random.below(5) as u8));
                network.run(Duration::from_millis(100));
            }
            assert_eq!(network.at(to).failed(), None);
        }
        // What was made of it can be read back.
        for id in 1..=5 {
            network.crash(id);
            network.start(id);
        }
        network.run(Duration::from_secs(5));
    }
}

/// Changes one number of a message that somebody really sent.
fn spoil(random: &mut Random, letter: &mut Letter) {
    let number = |random: &mut Random, about: &mut u64| *about = number(random, *about);
    let Letter { term, body, .. } = letter;
    let mut numbers = vec![term];
    match body {
        Body::Append { index, log_term, commit, entries } => {
            numbers.extend([index, log_term, commit]);
            numbers.extend(entries.iter_mut().map(|entry| &mut entry.term));
        }
        Body::Appended { index, commit } => numbers.extend([index, commit]),
        Body::NotAppended { index, commit, hint, hint_term } => {
            numbers.extend([index, commit, hint, hint_term]);
        }
        Body::AskVote { index, log_term, commit, commit_term, .. } => {
            numbers.extend([index, log_term, commit, commit_term]);
        }
        Body::Vote { commit, commit_term, .. } => numbers.extend([commit, commit_term]),
        Body::Snapshot { index, log_term, members, .. } => {
            numbers.extend([index, log_term]);
            numbers.extend(members.voters.iter_mut().chain(&mut members.learners));
        }
        Body::Heartbeat { commit } | Body::HeartbeatHeard { commit } => numbers.push(commit),
    }
    let place = random.below(numbers.len() as u64) as usize;
    number(random, numbers.remove(place));
}

#[test]
fn real_messages_with_one_wrong_number_are_borne() {
    for seed in 0..20 {
        let mut network = Network::grown(seed, 5, &[1, 2, 3]);
        network.honest = false;
        let mut random = Random(seed);
        for _ in 0..300 {
            network.trace.clear();
            network.propose(Change::Copies(1 + random.below(5) as u8));
            network.run(Duration::from_millis(50 + random.below(400)));
            for (_, from, to, bytes) in network.trace.clone() {
                let mut letter = Letter::decode(&bytes).unwrap();
                spoil(&mut random, &mut letter);
                network.forge(from, to, &letter.encode().unwrap());
                assert_eq!(network.at(to).failed(), None);
            }
        }
    }
}

#[test]
fn who_claims_more_than_the_leader_has_is_not_believed() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    let leader = network.leader().unwrap();
    let other = (1..=3).find(|id| *id != leader).unwrap();
    let raft = &network.at(leader).node.raft;
    let (term, last) = (raft.term, raft.raft_log.last_index());
    let letter =
        Letter { from: other, to: leader, term, body: Body::Appended { index: last + 1, commit: 0 } };
    network.forge(other, leader, &letter.encode().unwrap());
    assert!(network.at(leader).node.raft.prs().get(other).unwrap().matched <= last);
}

#[test]
fn a_message_from_or_for_somebody_else_is_ignored() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    let term = network.at(2).node.raft.term + 5;
    let body = || Body::AskVote { pre: false, index: 1 << 40, log_term: term, commit: 0, commit_term: 0 };
    for (said_from, said_to, from) in [(3, 1, 3), (3, 2, 1), (2, 2, 2), (0, 2, 0)] {
        let letter = Letter { from: said_from, to: said_to, term, body: body() };
        network.forge(from, 2, &letter.encode().unwrap());
        assert!(network.at(2).node.raft.term < term);
    }
}

#[test]
fn agreed_entries_are_never_rewritten() {
    let mut network = Network::grown(1, 3, &[1, 2, 3]);
    network.insist(&Change::Copies(5));
    network.run(Duration::from_secs(1));
    let follower = (1..=3).find(|id| Some(*id) != network.leader()).unwrap();
    let before = network.at(follower).topology().cloned();
    let raft = &network.at(follower).node.raft;
    let (term, committed) = (raft.term, raft.raft_log.committed);
    let log_term = raft.raft_log.term(committed - 1).unwrap();
    let entries = vec![LoggedEntry { term: term + 1, content: Content::Change(Change::Copies(1)) }];
    // The place before an agreed entry is only looked at when nothing is agreed beyond it.
    for index in [committed - 1, committed] {
        let body = Body::Append { index, log_term, commit: committed, entries: entries.clone() };
        let letter = Letter { from: 9, to: follower, term: term + 1, body };
        network.honest = false;
        network.forge(9, follower, &letter.encode().unwrap());
    }
    assert_eq!(network.at(follower).topology().cloned(), before);
}
