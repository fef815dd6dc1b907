//! What happens, for people.

use magma_common::topology::{Replica, Topology, VolcanoId};

use super::clock::{SECOND, Time};

/// Prints what happens, if it is to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace(bool);

impl Trace {
    /// One that prints, or does not.
    pub fn new(prints: bool) -> Self {
        Self(prints)
    }

    /// Whether it prints.
    pub fn prints(self) -> bool {
        self.0
    }

    /// One line.
    pub fn say(self, now: Time, line: impl FnOnce() -> String) {
        if self.0 {
            println!("{:12.6} {}", now as f64 / SECOND as f64, line());
        }
    }
}

/// A topology, in one line.
pub(super) fn show_topology(topology: &Topology) -> String {
    let name = |volcano: VolcanoId| {
        let member = topology.member(volcano).map(|member| member.nickname.clone());
        member.unwrap_or_else(|| format!("{:x}", volcano.0))
    };
    let slices = topology.slices.iter().map(|slice| {
        let life = |copy: &Replica| format!("{}/{}", name(copy.volcano), copy.boot.0 >> 32);
        let list = |copies: &[Replica]| copies.iter().map(life).collect::<Vec<_>>().join(" ");
        format!(
            "slice {}, epoch {}{}: primary {}, mirrors [{}], joining [{}]",
            slice.id.0,
            slice.epoch.0,
            if slice.recalling {
                " (recalling)"
            } else if slice.dividing.is_some() {
                " (dividing)"
            } else {
                ""
            },
            life(&slice.primary),
            list(&slice.mirrors),
            list(&slice.joining)
        )
    });
    let slices = slices.collect::<Vec<_>>().join("; ");
    format!(
        "topology {} (loss {}, copies {}, voters {:?}): {slices}",
        topology.version,
        topology.loss_counter,
        topology.copies,
        topology.voters.iter().map(|voter| name(*voter)).collect::<Vec<_>>(),
    )
}
