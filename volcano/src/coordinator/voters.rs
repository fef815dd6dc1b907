//! Who votes: how many, which ones, and the leader's steps towards that.

use std::time::Duration;

use magma_common::topology::{Member, Topology, VolcanoId};

use super::change::Change;
use super::consensus::Coordinator;
use super::wire::{Members, Part, Transition};

/// So long after its last sign of life a volcano still counts as one that can become a voter.
const LATELY: Duration = Duration::from_secs(5);
/// A voter that gave no sign of life for so long is replaced.
const PATIENCE: Duration = Duration::from_secs(30);
/// A learner that lacks at most so many entries can become a voter.
const CLOSE: u64 = 16;

/// What the choice of voters depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: VolcanoId,
    pub(super) witness: bool,
    pub(super) leaving: bool,
    pub(super) votes: bool,
    /// It follows the log already.
    pub(super) learns: bool,
    /// It gave a sign of life lately.
    pub(super) heard: bool,
    /// It gave none for long.
    pub(super) silent: bool,
}

/// How many voters a network of so many volcanos and witnesses should have. Always odd: two are worse than one.
pub(super) fn wanted(members: usize) -> usize {
    match members {
        0..3 => 1,
        3..9 => 3,
        9.. => 5,
    }
}

/// Who should vote, ascending. Who votes goes on doing so unless there is a reason against it; `me`, which leads, first of
/// all. An odd number; at least one if anybody votes or could.
pub(super) fn choose(me: VolcanoId, peers: &[Peer]) -> Vec<VolcanoId> {
    let target = wanted(peers.iter().filter(|peer| !peer.leaving).count());
    let pick = |which: &dyn Fn(&Peer) -> bool, rank: &dyn Fn(&Peer) -> (bool, bool)| {
        let mut picked: Vec<&Peer> = peers.iter().filter(|peer| which(peer)).collect();
        picked.sort_by_key(|peer| (rank(peer), peer.id));
        picked.into_iter().map(|peer| peer.id).collect::<Vec<_>>()
    };
    let fit = |peer: &Peer| peer.votes && !peer.leaving && !peer.silent;
    let spare = |peer: &Peer| !peer.votes && !peer.leaving && peer.heard;
    let unfit = |peer: &Peer| peer.votes && !fit(peer);
    let mut chosen = pick(&fit, &|peer| (peer.id != me, !peer.witness));
    chosen.truncate(target);
    chosen.extend(pick(&spare, &|peer| (!peer.learns, !peer.witness)));
    chosen.truncate(target);
    chosen.extend(pick(&unfit, &|peer| (peer.silent, peer.leaving)));
    chosen.truncate(target);
    if chosen.len() % 2 == 0 {
        chosen.pop();
    }
    chosen.sort_unstable();
    chosen
}

/// What the leader does next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Members(Vec<(Part, VolcanoId)>),
    Topology(Change),
}

impl Coordinator {
    /// The leader's duties, one step at a time: the next one follows when this one is agreed on.
    pub(super) fn steer(&mut self) {
        let raft = &self.node.raft;
        if !self.is_leader() || !raft.apply_to_current_term() || raft.has_pending_conf() {
            return;
        }
        let applied = raft.store().applied();
        let Some(topology) = &applied.topology else { return };
        if !applied.members.outgoing.is_empty() {
            // The library leaves a joint change by itself unless the leader changed at the wrong moment.
            self.propose_members(Transition::Auto, &[]);
            return;
        }
        match self.next_step(topology, &applied.members) {
            Some(Step::Members(changes)) => {
                let changes: Vec<(Part, u64)> = changes.into_iter().map(|(part, id)| (part, id.0)).collect();
                let transition = if changes.len() > 1 { Transition::Implicit } else { Transition::Auto };
                self.propose_members(transition, &changes);
            }
            Some(Step::Topology(change)) => self.propose_own(&change),
            None => {}
        }
    }

    fn next_step(&self, topology: &Topology, members: &Members) -> Option<Step> {
        let voters: Vec<VolcanoId> = members.voters.iter().copied().map(VolcanoId).collect();
        let learners: Vec<VolcanoId> = members.learners.iter().copied().map(VolcanoId).collect();
        let peers: Vec<Peer> = topology.members.iter().map(|m| self.peer(m, &voters, &learners)).collect();
        let chosen = choose(self.me, &peers);
        if chosen.is_empty() {
            return None;
        }
        let new: Vec<VolcanoId> = chosen.iter().copied().filter(|id| !voters.contains(id)).collect();
        if let Some(surplus) = learners.iter().find(|id| !new.contains(id)) {
            return Some(Step::Members(vec![(Part::None, *surplus)]));
        }
        if let Some(missing) = new.iter().find(|id| !learners.contains(id)) {
            return Some(Step::Members(vec![(Part::Learner, *missing)]));
        }
        if chosen != voters {
            let old = voters.iter().filter(|id| !chosen.contains(id));
            let changes = new.iter().map(|id| (Part::Voter, *id)).chain(old.map(|id| (Part::None, *id)));
            return new.iter().all(|id| self.has_caught_up(*id)).then(|| Step::Members(changes.collect()));
        }
        self.next_change(topology, voters).map(Step::Topology)
    }

    /// What the topology does not say yet. Not while it is about to change: the same would be proposed again.
    fn next_change(&self, topology: &Topology, voters: Vec<VolcanoId>) -> Option<Change> {
        if self.node.raft.store().pending().next().is_some() {
            return None;
        }
        let gone = topology.members.iter().filter(|member| member.leaving && !voters.contains(&member.id));
        let mut changes: Vec<Change> = gone.map(|member| Change::Forget(member.id)).collect();
        changes.insert(0, Change::Voters(voters));
        changes.into_iter().find(|change| change.apply(&mut topology.clone()) == Ok(true))
    }

    fn peer(&self, member: &Member, voters: &[VolcanoId], learners: &[VolcanoId]) -> Peer {
        let me = member.id == self.me;
        let heard = self.heard.get(&member.id).copied();
        // Nobody is called silent for what this one could not hear, because it did not listen yet.
        let last = heard.unwrap_or_default().max(self.listening_since);
        Peer {
            id: member.id,
            witness: member.witness,
            leaving: member.leaving,
            votes: voters.contains(&member.id),
            learns: learners.contains(&member.id),
            heard: me || heard.is_some_and(|heard| self.now.saturating_sub(heard) <= LATELY),
            silent: !me && self.now.saturating_sub(last) > PATIENCE,
        }
    }

    fn has_caught_up(&self, learner: VolcanoId) -> bool {
        let raft = &self.node.raft;
        let close = raft.raft_log.last_index().saturating_sub(CLOSE);
        raft.prs().get(learner.0).is_some_and(|progress| progress.matched > 0 && progress.matched >= close)
    }
}
