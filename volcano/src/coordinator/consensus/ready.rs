//! What follows from an input: saving, carrying out what is agreed on, sending.

use magma_common::topology::VolcanoId;
use raft::eraftpb::{ConfChangeV2, Entry, Message};
use raft::{Changer, Ready};

use super::{Coordinator, ELECTION_TICKS, Output, Unsaved};
use crate::coordinator::wire::{self, Content, Letter, Members};

/// More rounds than any input can cause.
const MAX_ROUNDS: u32 = 10_000;

impl Coordinator {
    /// Does all that the consensus library asks for.
    pub(super) fn settle(&mut self) {
        let version = self.topology().map(|topology| topology.version);
        let mut rounds = 0;
        while self.failed.is_none() && self.node.has_ready() {
            let ready = self.node.ready();
            self.handle(ready);
            rounds += 1;
            if rounds == MAX_ROUNDS {
                self.fail("the consensus does not come to rest".to_owned());
            }
        }
        if self.failed.is_some() {
            return;
        }
        let role = (self.node.raft.term, self.node.raft.state);
        if role != self.drawn_for {
            self.drawn_for = role;
            self.listening_since = self.now;
            self.draw();
        }
        // The library has drawn another number if it changed its role.
        self.node.raft.set_randomized_election_timeout(self.patience);
        let topology = self.topology().filter(|topology| Some(topology.version) != version).cloned();
        if let Some(topology) = topology {
            self.heard.retain(|id, _| topology.member(*id).is_some());
            self.outputs.push(Output::Committed(Box::new(topology)));
        }
    }

    /// Draws how long to wait for a leader.
    pub(super) fn draw(&mut self) {
        self.patience = ELECTION_TICKS + ((self.random)() % ELECTION_TICKS as u64) as usize;
        self.node.raft.set_randomized_election_timeout(self.patience);
    }

    fn handle(&mut self, mut ready: Ready) {
        let must_save = ready.must_sync();
        let entries = ready.take_entries();
        let log = self.node.mut_store();
        let restored = ready.snapshot().is_empty() || log.restore(ready.snapshot());
        log.append(entries);
        if let Some(state) = ready.hs() {
            log.set_hard_state(state);
        }
        if !restored {
            return self.fail("a snapshot of the topology cannot be decoded".to_owned());
        }
        if must_save && let Err(error) = self.save() {
            self.disk_failed = matches!(error, Unsaved::Failed(_));
            return self.fail(error.to_string());
        }
        let mut messages = ready.take_messages();
        messages.append(&mut ready.take_persisted_messages());
        let mut agreed = ready.take_committed_entries();
        let mut light = self.node.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().set_commit(commit);
        }
        messages.append(&mut light.take_messages());
        agreed.append(&mut light.take_committed_entries());
        self.send(messages);
        for entry in &agreed {
            self.carry_out(entry);
        }
        self.node.advance_apply();
        self.node.mut_store().compact();
    }

    fn save(&mut self) -> Result<(), Unsaved> {
        let cannot = || Unsaved::Failed("the state of the coordinator cannot be encoded".to_owned());
        let state = self.node.store().encode().ok_or_else(cannot)?;
        self.vault.save(&state)
    }

    fn fail(&mut self, why: String) {
        tracing::error!("the coordinator stops: {why}");
        self.failed = Some(why);
    }

    /// The library's order among addressees is that of a hash table.
    fn send(&mut self, mut messages: Vec<Message>) {
        messages.sort_by_key(|message| message.to);
        let letters = messages.iter().filter(|message| message.to != self.me.0).filter_map(Letter::from_raft);
        let sends = letters.filter_map(|letter| Some(Output::Send(VolcanoId(letter.to), letter.encode()?)));
        self.outputs.extend(sends);
    }

    /// Does what an entry says. Every voter does so in the same order, and comes to the same result.
    fn carry_out(&mut self, entry: &Entry) {
        match Content::from_raft(entry) {
            Some(Content::Change(change)) => self.carry_out_change(entry, &change),
            Some(Content::Members(transition, changes)) => {
                self.carry_out_members(&wire::conf_change(transition, &changes));
            }
            Some(Content::Nothing) | None => {}
        }
        let applied = self.node.mut_store().applied_mut();
        (applied.index, applied.term) = (entry.index, entry.term);
    }

    fn carry_out_change(&mut self, entry: &Entry, change: &super::Change) {
        let Some(topology) = &mut self.node.mut_store().applied_mut().topology else { return };
        let result = change.apply(topology);
        let later = self.accepted.split_off(&(entry.index + 1));
        let accepted = std::mem::replace(&mut self.accepted, later).remove(&entry.index);
        if let (Err(refusal), Some((term, change))) = (result, accepted)
            && term == entry.term
        {
            self.outputs.push(Output::Refused(change, refusal));
        }
    }

    /// A change that cannot be made is ignored, by everybody.
    fn carry_out_members(&mut self, change: &ConfChangeV2) {
        let raft = &mut self.node.raft;
        let mut changer = Changer::new(raft.prs());
        let outcome = if change.leave_joint() {
            changer.leave_joint()
        } else if let Some(auto_leave) = change.enter_joint() {
            changer.enter_joint(auto_leave, &change.changes)
        } else {
            changer.simple(&change.changes)
        };
        let Ok((configuration, _)) = outcome else { return };
        if self.node.raft.state == raft::StateRole::Leader && !configuration.voters().contains(self.me.0) {
            // The library cannot bear a leader that does not vote. The others elect one.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        if let Ok(state) = self.node.apply_conf_change(change) {
            self.node.mut_store().applied_mut().members = Members::from_raft(&state);
        }
    }
}
