//! The coordinator's volcano moves slices, if the network wants it to.

use std::time::Duration;

use super::Node;
use crate::coordinator::balance::{self, Situation};
use crate::health;
use crate::slice::Now;

/// How often it looks whether something is to be moved.
const LOOK: Duration = Duration::from_secs(5);

impl Node {
    /// Takes the next steps of the balancer's plan if they are due. They are asked for like anybody's changes: if one is lost, the plan
    /// that is made next contains it again.
    pub(super) fn balance(&mut self, now: Now) {
        if !self.topology.balancer || !self.coordinator.is_leader() || !self.is_due(now, self.balanced, LOOK)
        {
            return;
        }
        self.balanced = Some(now.monotonic);
        let loads = health::loads(&self.topology, &self.slices.all_figures());
        let (silent, lost) = balance::quiet(&self.silences(now.monotonic));
        let situation = Situation { topology: &self.topology, loads: &loads, silent: &silent, lost: &lost };
        if let Some(why) = balance::hindrance(&situation) {
            tracing::debug!(target: "magma::balancer", %why, "nothing is moved now");
            return;
        }
        let plan = balance::plan(&situation);
        for planned in balance::due(&plan) {
            tracing::info!(target: "magma::balancer", step = ?planned.step, why = %planned.why, "a slice gets another owner");
            if let Some(change) = planned.step.change(&self.topology) {
                self.propose(now, &change);
            }
        }
    }
}
