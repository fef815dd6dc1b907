//! What the volcanos of a network do, judged by the topology and by what they say of themselves.
//!
//! Everything here follows from what every volcano is told twice a second, so all of them come to the same judgement.

use std::collections::BTreeMap;
use std::fmt;

use magma_common::topology::{Member, Slice, SliceId, Topology, VolcanoId};

use crate::coordinator::Load;
use crate::dht::Figures;
use crate::slice::report::Doing;

/// What a volcano does in the network, the more the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It has no copy of anything, and passes requests on.
    StandingBy,
    /// It votes and stores nothing.
    Witness,
    /// It had a copy before it started anew, and waits to be taken back.
    Waiting,
    /// Its copy catches up.
    Joining,
    /// It has everything and stands in when the primary is lost.
    Mirror,
    /// It is the primary, and not ready to serve.
    Preparing,
    /// It serves.
    Serving,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Through `pad`, so that tables can align it.
        f.pad(match self {
            Self::StandingBy => "standing by",
            Self::Witness => "witness",
            Self::Waiting => "waiting",
            Self::Joining => "joining",
            Self::Mirror => "mirror",
            Self::Preparing => "preparing",
            Self::Serving => "serving",
        })
    }
}

/// What a volcano says that its copy of the slice does; `None` if it spoke last under other members than the slice has now.
pub fn doing<'a>(figures: &'a [(VolcanoId, Figures)], who: VolcanoId, slice: &Slice) -> Option<&'a Doing> {
    let (_, figures) = figures.iter().find(|(id, _)| *id == who)?;
    let report = figures.copies.iter().find(|copy| copy.slice == slice.id && copy.epoch == slice.epoch);
    report.map(|report| &report.doing)
}

/// What the slices hold, by what their primaries say.
pub fn loads(topology: &Topology, figures: &[(VolcanoId, Figures)]) -> BTreeMap<SliceId, Load> {
    let load = |slice: &Slice| {
        let (_, figures) = figures.iter().find(|(id, _)| *id == slice.primary.volcano)?;
        let report = figures.copies.iter().find(|copy| copy.slice == slice.id)?;
        Some((slice.id, report.load?))
    };
    topology.slices.iter().filter_map(load).collect()
}

/// What this volcano does; of several slices the one in which it does most counts.
pub fn role(topology: &Topology, figures: &[(VolcanoId, Figures)], member: &Member) -> Role {
    let idle = if member.witness { Role::Witness } else { Role::StandingBy };
    let roles = topology.slices.iter().filter_map(|slice| role_in(slice, figures, member));
    roles.max().map_or(idle, |role| role.max(idle))
}

fn role_in(slice: &Slice, figures: &[(VolcanoId, Figures)], member: &Member) -> Option<Role> {
    let life = member.replica();
    if slice.primary == life {
        let serves = matches!(doing(figures, member.id, slice), Some(Doing::Serving { .. }));
        Some(if serves { Role::Serving } else { Role::Preparing })
    } else if slice.mirrors.contains(&life) {
        Some(Role::Mirror)
    } else if slice.joining.contains(&life) {
        Some(Role::Joining)
    } else {
        slice.copies().any(|copy| copy.volcano == member.id).then_some(Role::Waiting)
    }
}

/// The in-sync copies whose volcanos have not started anew since.
pub fn standing<'a>(topology: &'a Topology, slice: &Slice) -> Vec<&'a Member> {
    let members =
        slice.in_sync().map(|copy| topology.member(copy.volcano).filter(|member| member.boot == copy.boot));
    members.flatten().collect()
}
