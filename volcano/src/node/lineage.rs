//! Lines of history: one begins when an administrator goes on without a volcano against the rules of the vote.

use std::net::SocketAddr;

use magma_common::topology::{Replica, Topology, VolcanoId};

use super::Node;
use super::message::Message;
use crate::coordinator::{Force, Refusal};
use crate::slice::Now;

impl Node {
    /// An administrator goes on without a volcano that will not come back, whatever votes are missing. See [`Force`].
    pub fn force_out(&mut self, now: Now, who: VolcanoId) -> Result<(), Refusal> {
        let lineage = self.slices.draw();
        let store = self.slices.store();
        let has_whole = |slice| store.position(slice).is_some() && store.missing(slice).is_empty();
        let force = Force { topology: &self.topology, own: self.own.replica(), has_whole: &has_whole };
        let topology = force.without(who, lineage)?;
        let founded = self.coordinator.found_again(topology.clone());
        founded.map_err(|error| Refusal::Unfit(format!("nothing was changed: {error}")))?;
        tracing::warn!(
            target: "magma::boot", volcano = format_args!("{:016x}", who.0), lineage = format_args!("{lineage:016x}"),
            "by force this volcano goes on without another one, as the only voter of another line of history"
        );
        self.take_up(now, topology);
        self.settle(now);
        self.spread_topology();
        Ok(())
    }

    /// A volcano of another line of this network's history speaks. Who is of the former line learns of the one that goes on from it.
    pub(super) fn hear_of_another_line(
        &mut self,
        now: Now,
        from: SocketAddr,
        sender: Replica,
        lineage: u64,
        message: Message,
    ) {
        match message {
            Message::Topology(topology) if self.goes_on_here(&topology) => self.follow(now, *topology),
            _ if self.topology.ancestors.contains(&lineage) => {
                if self.peers.may_correct(now.monotonic) {
                    self.send_topology(from, Some(sender));
                }
            }
            _ => self.peers.stranger(now.monotonic, sender),
        }
    }

    fn goes_on_here(&self, topology: &Topology) -> bool {
        topology.network == self.topology.network
            && topology.version > self.topology.version
            && topology.ancestors.contains(&self.topology.lineage)
    }

    fn follow(&mut self, now: Now, topology: Topology) {
        tracing::warn!(
            target: "magma::boot", lineage = format_args!("{:016x}", topology.lineage),
            "an administrator has gone on by force elsewhere: this volcano follows, or stops if it is not in the network any more"
        );
        match self.coordinator.follow_another_line() {
            Ok(()) => self.take_up(now, topology),
            Err(error) => self.slices.fail(&format!("the former line of history cannot be left: {error}")),
        }
    }
}
