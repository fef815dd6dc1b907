//! Findings about the volcanos: who is silent, who votes, who goes.

use magma_common::topology::{Member, VolcanoId};

use super::{Finding, Lava, called, is, is_there, name, names, silence, silent_for};
use crate::health::{Role, role, standing};

/// The voters that are silent, if those that are there are too few to agree on anything.
pub(super) fn mute_majority(lava: &Lava) -> Vec<&Member> {
    let (there, silent) = voters(lava);
    if there.len() * 2 > there.len() + silent.len() { Vec::new() } else { silent }
}

fn voters(lava: &Lava) -> (Vec<&Member>, Vec<&Member>) {
    let topology = &lava.topology;
    let voters = topology.voters.iter().filter_map(|id: &VolcanoId| topology.member(*id));
    voters.partition(|voter| is_there(lava, voter))
}

/// Whether changes can be agreed on, and what that hangs by.
pub(super) fn votes(lava: &Lava) -> Option<Finding> {
    let topology = &lava.topology;
    let (there, silent) = voters(lava);
    let all = there.len() + silent.len();
    if let Some(first) = mute_majority(lava).first() {
        let mut details = Vec::new();
        if is_served(lava) {
            let next = "Requests do not wait for that; the next loss of a volcano would make them wait.";
            details.push(next.to_owned());
        }
        details.push(format!(
            "If {who} will never come back: `lava evict {who} --force`, at a volcano that has a copy.",
            who = called(first)
        ));
        return Some(Finding::trouble(
            format!(
                "Nobody can change who serves what: {} of {all} votes {} missing ({}).",
                silent.len(),
                is(silent.len()),
                names(&silent)
            ),
            details,
        ));
    }
    if lava.leader.is_none() {
        return Some(Finding::trouble(
            "Nobody coordinates at the moment: a coordinator is being elected.".to_owned(),
            vec!["That takes a second or two, and requests do not wait for it.".to_owned()],
        ));
    }
    let [only] = &*topology.voters else { return None };
    let lost = format!(
        "One vote: if {} is lost, nobody can change who serves what until it returns",
        name(topology, *only)
    );
    let stays = |member: &&Member| !member.leaving;
    let storing = topology.members.iter().filter(stays).filter(|member| !member.witness).count();
    match topology.members.iter().filter(stays).count() {
        // There is nobody who could serve in its place.
        _ if storing <= 1 => None,
        2 => Some(Finding::note(format!("{lost}; add a witness (magmad --witness -r ...)."), Vec::new())),
        _ => Some(Finding::note(format!("{lost}; others are being given a vote."), Vec::new())),
    }
}

fn is_served(lava: &Lava) -> bool {
    lava.topology.slices.iter().all(|slice| super::copies::unserved(lava, slice).is_none())
}

/// Who is silent.
pub(super) fn silent(lava: &Lava) -> Vec<Finding> {
    let finding = |member: &Member| {
        let silence = silence(lava, member.id)?;
        let who = called(member);
        let mut details = Vec::new();
        if role(&lava.topology, &lava.volcanos, member) == Role::Mirror && is_served(lava) {
            details
                .push(format!("What is being written waits for {who}, or until it is taken out, about 3 s."));
        }
        details.push(if has_substitutes(lava, member) {
            format!("If {who} does not come back: `lava evict {who}`, and join another one (magmad -r).")
        } else {
            format!("{who} has the only copy that is sure to have everything: it cannot be replaced.")
        });
        Some(Finding::trouble(format!("{who} ({}) is {}.", member.address, silent_for(silence)), details))
    };
    lava.topology.members.iter().filter_map(finding).collect()
}

/// Whether everything is on others that are there, so that the network can do without this volcano.
pub(in crate::console) fn has_substitutes(lava: &Lava, member: &Member) -> bool {
    lava.topology.slices.iter().all(|slice| {
        let others = standing(&lava.topology, slice);
        slice.in_sync().all(|copy| copy.volcano != member.id)
            || others.iter().any(|other| other.id != member.id && is_there(lava, other))
    })
}

/// Who is leaving.
pub(super) fn leaving(lava: &Lava) -> Vec<Finding> {
    let topology = &lava.topology;
    let finding = |member: &Member| {
        let who = called(member);
        let keeps = topology.slices.iter().any(|slice| slice.copies().any(|copy| copy.volcano == member.id));
        let why = if keeps {
            "Its copy goes when enough others have everything."
        } else if topology.voters.contains(&member.id) {
            "It has no copy any more; its vote goes as soon as another volcano can have it."
        } else {
            "It has neither copy nor vote any more and is forgotten next."
        };
        Finding::note(
            format!("{who} is leaving."),
            vec![why.to_owned(), format!("`lava stay {who}` keeps it.")],
        )
    };
    topology.members.iter().filter(|member| member.leaving).map(finding).collect()
}
