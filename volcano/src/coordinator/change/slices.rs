//! Changes of who keeps a slice.

use std::collections::BTreeSet;

use magma_common::topology::{
    Division, Epoch, MAX_COPIES, MAX_SLICES, Member, Replica, Slice, SliceId, Topology, VolcanoId,
};

use super::{Refusal, SliceChange, name, unfit};
use crate::planted::{Bug, planted};

/// One more than there may be in the end: who moves a copy makes the new one first.
const MAX_COPIES_WHILE_MOVING: usize = MAX_COPIES as usize + 1;

/// Changes a slice that still has the epoch `expected`; it gets `epoch`.
pub(super) fn change(
    topology: &mut Topology,
    id: SliceId,
    expected: Epoch,
    epoch: Epoch,
    change: &SliceChange,
) -> Result<(), Refusal> {
    let is_present = |slice: &&Slice| slice.epoch == expected || planted(Bug::SkipEpochCheck);
    let Some(slice) = topology.slices.iter().find(|slice| slice.id == id).filter(is_present) else {
        return Err(Refusal::Stale);
    };
    let (mut slice, mut new) = (slice.clone(), None);
    match change {
        SliceChange::Promote(mirror) => {
            check_present(topology, *mirror)?;
            take_mirror(topology, &mut slice, *mirror)?;
            slice.primary = *mirror;
            slice.reign = epoch;
            slice.joining.clear();
        }
        SliceChange::HandOver(mirror) => {
            check_present(topology, *mirror)?;
            take_mirror(topology, &mut slice, *mirror)?;
            let primary = std::mem::replace(&mut slice.primary, *mirror);
            slice.mirrors.push(primary);
            slice.reign = epoch;
            slice.joining.clear();
        }
        SliceChange::Add(copy) => {
            check_addition(topology, &slice, *copy)?;
            slice.joining.push(*copy);
        }
        SliceChange::InSync(copy) => {
            check_present(topology, *copy)?;
            if !take(&mut slice.joining, *copy) {
                return unfit(format!("{} is not catching up with that slice", name(topology, copy.volcano)));
            }
            slice.mirrors.push(*copy);
        }
        SliceChange::Remove(copy) => {
            if !take(&mut slice.mirrors, *copy) && !take(&mut slice.joining, *copy) {
                return unfit(format!("{} is no mirror of that slice", name(topology, copy.volcano)));
            }
        }
        SliceChange::Assign(volcano) => {
            check_owner(topology, &slice, *volcano)?;
            slice.owner = *volcano;
            slice.assigned = epoch;
        }
        SliceChange::ColdStart { primary, mirrors, lost } => {
            check_cold_start(topology, &slice, *primary, mirrors)?;
            slice.primary = *primary;
            slice.reign = epoch;
            slice.mirrors.clone_from(mirrors);
            slice.joining.clear();
            // What it had not asked before it stopped is still to be asked.
            slice.recalling |= *lost && topology.slices.len() > 1;
        }
        SliceChange::Recalled => {
            if !std::mem::replace(&mut slice.recalling, false) {
                return unfit("that slice has nothing to ask the other slices");
            }
        }
        SliceChange::Divide(division) => {
            check_division(topology, &slice, *division)?;
            slice.dividing = Some(*division);
        }
        SliceChange::Divided => new = Some(divide(&mut slice, epoch)?),
    }
    slice.epoch = epoch;
    if let Some(at) = topology.slices.iter().position(|old| old.id == id) {
        topology.slices.splice(at..=at, std::iter::once(slice).chain(new));
    }
    if matches!(change, SliceChange::ColdStart { lost: true, .. }) {
        topology.loss_counter = topology.loss_counter.saturating_add(1);
    }
    Ok(())
}

/// Takes a copy out of a list: whether it was there.
fn take(list: &mut Vec<Replica>, copy: Replica) -> bool {
    let before = list.len();
    list.retain(|other| *other != copy);
    list.len() != before
}

fn take_mirror(topology: &Topology, slice: &mut Slice, copy: Replica) -> Result<(), Refusal> {
    if take(&mut slice.mirrors, copy) {
        return Ok(());
    }
    unfit(format!("{} is no mirror of that slice", name(topology, copy.volcano)))
}

/// Only who stores and stays can own a slice.
fn check_owner(topology: &Topology, slice: &Slice, volcano: VolcanoId) -> Result<(), Refusal> {
    let name = name(topology, volcano);
    match topology.member(volcano) {
        None => unfit(format!("{name} is not in the network")),
        Some(member) if !member.stays() => {
            unfit(format!("{name} is a witness or leaving, and takes no slices"))
        }
        Some(_) if slice.owner == volcano => unfit(format!("{name} is the owner of that slice already")),
        Some(_) => Ok(()),
    }
}

/// This must be the life of the volcano that the network knows: an earlier one does nothing any more.
fn check_present(topology: &Topology, copy: Replica) -> Result<(), Refusal> {
    match topology.member(copy.volcano) {
        Some(member) if member.boot == copy.boot => Ok(()),
        Some(member) => unfit(format!("{} has started anew", member.nickname)),
        None => unfit(format!("{} is not in the network", name(topology, copy.volcano))),
    }
}

fn check_division(topology: &Topology, slice: &Slice, division: Division) -> Result<(), Refusal> {
    let Division { at, new } = division;
    if slice.dividing.is_some() {
        return unfit("that slice is being divided already");
    }
    if !slice.joining.is_empty() {
        return unfit("a copy of that slice is catching up; it is not divided before that has ended");
    }
    if slice.recalling {
        return unfit("that slice has to find out what it may have lost before it is divided");
    }
    if slice.range.cut(at).is_none() {
        return unfit(format!("{:016x} does not lie inside that slice, with keys on both sides of it", at.0));
    }
    let coming = topology.slices.iter().filter(|slice| slice.dividing.is_some()).count();
    if topology.slices.len() + coming >= MAX_SLICES as usize {
        return unfit(format!("the network already has {MAX_SLICES} slices, which is the most"));
    }
    if topology.unused_slice().is_none_or(|unused| new < unused) {
        return unfit(format!("the number {} has been given to a slice before", new.0));
    }
    Ok(())
}

/// Cuts a slice that its copies have divided: the one that comes of it has the same copies, which begin anew.
fn divide(slice: &mut Slice, epoch: Epoch) -> Result<Slice, Refusal> {
    let Some(Division { at, new }) = slice.dividing.take() else {
        return unfit("that slice is not being divided");
    };
    let Some((kept, given)) = slice.range.cut(at) else {
        return unfit("that slice cannot be divided there");
    };
    slice.range = kept;
    Ok(Slice { id: new, range: given, epoch, reign: epoch, joining: Vec::new(), ..slice.clone() })
}

fn check_addition(topology: &Topology, slice: &Slice, copy: Replica) -> Result<(), Refusal> {
    check_present(topology, copy)?;
    if slice.dividing.is_some() {
        return unfit("that slice is being divided; it takes no copies before that has ended");
    }
    if let Some(known) = slice.copies().find(|known| known.volcano == copy.volcano) {
        let name = name(topology, copy.volcano);
        return if known == copy {
            unfit(format!("{name} already has a copy of that slice"))
        } else {
            unfit(format!("{name} has started anew; the copy from before must be removed first"))
        };
    }
    let stays = topology.member(copy.volcano).is_some_and(Member::stays);
    if !stays {
        return unfit(format!(
            "{} is a witness or leaving, and takes no copies",
            name(topology, copy.volcano)
        ));
    }
    if slice.copies().count() >= MAX_COPIES_WHILE_MOVING {
        return unfit(format!("that slice already has {MAX_COPIES_WHILE_MOVING} copies, which is the most"));
    }
    Ok(())
}

fn check_cold_start(
    topology: &Topology,
    slice: &Slice,
    primary: Replica,
    mirrors: &[Replica],
) -> Result<(), Refusal> {
    let new: Vec<Replica> = std::iter::once(primary).chain(mirrors.iter().copied()).collect();
    let volcanos: BTreeSet<VolcanoId> = new.iter().map(|copy| copy.volcano).collect();
    let known: BTreeSet<VolcanoId> = slice.in_sync().map(|copy| copy.volcano).collect();
    if !volcanos.is_subset(&known) || volcanos.len() != new.len() {
        return unfit("a slice starts cold with none but the volcanos that had everything");
    }
    for old in slice.in_sync() {
        if topology.member(old.volcano).is_none_or(|member| member.boot <= old.boot) {
            return unfit(format!("{} has not started anew", name(topology, old.volcano)));
        }
    }
    for copy in &new {
        check_present(topology, *copy)?;
        if slice.in_sync().any(|old| old.volcano == copy.volcano && old.boot >= copy.boot) {
            return unfit(format!("{} has not started anew", name(topology, copy.volcano)));
        }
    }
    Ok(())
}
