//! Changes of the ring: in which order the volcanos follow each other, and what becomes of what they own.

use magma_common::topology::{Epoch, Slice, Topology, VolcanoId};

use super::{Refusal, name, unfit};

/// See [`Change::Place`](super::Change::Place).
pub(super) fn place(
    topology: &mut Topology,
    volcano: VolcanoId,
    after: VolcanoId,
    epoch: Epoch,
) -> Result<bool, Refusal> {
    for who in [volcano, after] {
        match topology.member(who) {
            None => return unfit(format!("{} is not in the network", name(topology, who))),
            Some(member) if !member.stays() => {
                return unfit(format!(
                    "{} is a witness or leaving, and has no place on the ring",
                    member.nickname
                ));
            }
            Some(_) => {}
        }
    }
    if volcano == after {
        return unfit(format!("{} cannot follow itself", name(topology, volcano)));
    }
    if topology.ring_from(after).nth(1).is_some_and(|next| next.id == volcano) {
        return Ok(false);
    }
    for slice in disown(topology, volcano) {
        // A new owner is a new epoch, as with any change of a slice: what was asked for before is asked for again.
        slice.epoch = epoch;
        slice.assigned = epoch;
    }
    let Some(from) = topology.members.iter().position(|member| member.id == volcano) else {
        return Ok(false);
    };
    let moved = topology.members.remove(from);
    let before = topology.members.iter().position(|member| member.id == after);
    topology.members.insert(before.map_or(topology.members.len(), |before| before + 1), moved);
    Ok(true)
}

/// What this volcano owns is owned by the next one of the ring from now on, if there is another one. Gives out what that was.
pub(in crate::coordinator) fn disown(topology: &mut Topology, volcano: VolcanoId) -> Vec<&mut Slice> {
    let heir = topology.ring_from(volcano).map(|member| member.id).find(|heir| *heir != volcano);
    let Some(heir) = heir else { return Vec::new() };
    let mut owned: Vec<&mut Slice> =
        topology.slices.iter_mut().filter(|slice| slice.owner == volcano).collect();
    for slice in &mut owned {
        slice.owner = heir;
    }
    owned
}
