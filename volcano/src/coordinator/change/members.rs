//! Changes of who belongs to the network.

use magma_common::topology::{Member, STATUS_PORT_OFFSET, Topology, VolcanoId};

use super::{MAX_STORING, MAX_VOTERS, MAX_WITNESSES, Refusal, name, ring, unfit};

/// Longest nickname, in bytes.
const MAX_NICKNAME: usize = 64;
/// Longest host name, in bytes.
const MAX_SERVERNAME: usize = 255;

/// See [`Change::Enter`](super::Change::Enter).
pub(super) fn enter(
    topology: &mut Topology,
    new: &Member,
    after: Option<VolcanoId>,
) -> Result<bool, Refusal> {
    check_entry(new)?;
    if topology.departed.contains(&new.id) {
        return unfit(format!("{} has left the network under this id", new.nickname));
    }
    let old = topology.member(new.id);
    if old.is_some_and(|old| old.boot >= new.boot) {
        return Ok(false);
    }
    if topology.members.iter().any(|other| other.id != new.id && other.nickname == new.nickname) {
        return unfit(format!("another volcano already has the nickname {}", new.nickname));
    }
    if new.witness && has_copy(topology, new.id) {
        return unfit(format!("{} keeps data and cannot become a witness", name(topology, new.id)));
    }
    let alike = topology.members.iter().filter(|m| m.id != new.id && m.witness == new.witness).count();
    if new.witness && alike >= MAX_WITNESSES {
        return unfit(format!("the network already has {MAX_WITNESSES} witnesses, which is the most"));
    }
    if !new.witness && alike >= MAX_STORING {
        return unfit(format!("the network already has {MAX_STORING} volcanos, which is the most"));
    }
    let entry = Member { leaving: old.is_some_and(|old| old.leaving), ..new.clone() };
    if let Some(old) = topology.members.iter_mut().find(|member| member.id == new.id) {
        *old = entry;
    } else {
        let before = after.and_then(|after| topology.members.iter().position(|known| known.id == after));
        let at = before.map_or(topology.members.len(), |before| before + 1);
        topology.members.insert(at, entry);
    }
    Ok(true)
}

/// What a member says of itself must make sense; it comes from the network.
fn check_entry(member: &Member) -> Result<(), Refusal> {
    if member.id.0 == 0 {
        return unfit("no volcano has the id 0");
    }
    if member.nickname.is_empty() || member.nickname.len() > MAX_NICKNAME {
        return unfit(format!("a nickname has 1 to {MAX_NICKNAME} bytes"));
    }
    if member.servername.len() > MAX_SERVERNAME {
        return unfit(format!("a server name has at most {MAX_SERVERNAME} bytes"));
    }
    if member.port == 0 || member.port.checked_add(STATUS_PORT_OFFSET).is_none() {
        return unfit(format!(
            "{} cannot listen on port {} and the ones after it",
            member.nickname, member.port
        ));
    }
    Ok(())
}

/// See [`Change::Leave`](super::Change::Leave).
pub(super) fn leave(topology: &mut Topology, volcano: VolcanoId, leaving: bool) -> Result<bool, Refusal> {
    let others_stay = topology.members.iter().any(|member| member.id != volcano && member.stays());
    let Some(member) = topology.members.iter_mut().find(|member| member.id == volcano) else {
        return unfit("there is no such volcano");
    };
    if leaving && !member.witness && !others_stay {
        return unfit(format!("{} cannot leave: no other volcano would keep the data", member.nickname));
    }
    Ok(std::mem::replace(&mut member.leaving, leaving) != leaving)
}

/// See [`Change::Forget`](super::Change::Forget).
pub(super) fn forget(topology: &mut Topology, volcano: VolcanoId) -> Result<bool, Refusal> {
    if has_copy(topology, volcano) {
        return unfit(format!("{} still keeps data", name(topology, volcano)));
    }
    if topology.voters.contains(&volcano) {
        return unfit(format!("{} still votes on changes of the topology", name(topology, volcano)));
    }
    ring::disown(topology, volcano);
    Ok(topology.dismiss(volcano))
}

/// See [`Change::Voters`](super::Change::Voters). They are kept sorted.
pub(super) fn set_voters(topology: &mut Topology, voters: &[VolcanoId]) -> Result<bool, Refusal> {
    let mut sorted = voters.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != voters.len() || sorted.is_empty() || sorted.len() > MAX_VOTERS {
        return unfit(format!("there are 1 to {MAX_VOTERS} voters, each named once"));
    }
    if let Some(stranger) = sorted.iter().find(|voter| topology.member(**voter).is_none()) {
        return unfit(format!("{} cannot vote", name(topology, *stranger)));
    }
    let changed = topology.voters != sorted;
    topology.voters = sorted;
    Ok(changed)
}

/// Whether any life of this volcano has a part in any slice.
fn has_copy(topology: &Topology, volcano: VolcanoId) -> bool {
    topology.slices.iter().any(|slice| slice.copies().any(|copy| copy.volcano == volcano))
}
