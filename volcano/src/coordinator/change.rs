//! Changes of the topology: what may be asked for, and what becomes of it.
//!
//! A change of a slice is a compare-and-set: it names the slice's epoch that the one who asks for it knows, and nothing
//! happens if the slice has another one by now.

mod members;
mod ring;
mod slices;
#[cfg(test)]
mod tests;

use magma_common::key::Ino;
use magma_common::stripes::StripeUnit;
use magma_common::topology::{Division, Epoch, MAX_COPIES, Member, Replica, SliceId, Topology, VolcanoId};
use serde::{Deserialize, Serialize};

pub(super) use self::ring::disown;

/// Most volcanos that store.
pub const MAX_STORING: usize = 50;
/// Most witnesses beside them.
pub const MAX_WITNESSES: usize = 9;
/// Most voters.
pub const MAX_VOTERS: usize = 5;

/// A change that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A volcano is new, or has started anew: its entry under its id is made or replaced. A `boot` that is not newer than the
    /// one there changes nothing. A new one follows the other volcano on the ring, or the last one.
    Enter(Box<Member>, Option<VolcanoId>),
    /// This volcano is to give its copies away and go, or (false) is to stay after all.
    Leave(VolcanoId, bool),
    /// Forgets a volcano that has no copy of any slice and does not vote. What it owned is the next volcano's.
    Forget(VolcanoId),
    /// The first volcano is to follow the second one on the ring. Nothing is its own any more: the one that followed it owns that.
    Place(VolcanoId, VolcanoId),
    /// Whether the coordinator moves slices by itself.
    Balance(bool),
    /// How many copies there should be.
    Copies(u8),
    /// The unit of files that are made from then on; none if they are not striped.
    Stripes(Option<StripeUnit>),
    /// Who votes, as the consensus has it now.
    Voters(Vec<VolcanoId>),
    /// Changes the members of a slice, if this still is its epoch.
    Slice(SliceId, Epoch, SliceChange),
}

/// A change of one slice. Each gives it a new epoch, and a new reign if it gives it a primary.
///
/// Whatever becomes of a slice while it is divided, it goes on being divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SliceChange {
    /// A mirror takes over: it becomes primary and the primary is no member any more. Joining copies are dropped.
    Promote(Replica),
    /// The primary gives the slice to a mirror and becomes a mirror itself. Joining copies are dropped.
    HandOver(Replica),
    /// A copy begins to catch up.
    Add(Replica),
    /// A joining copy has everything: it becomes a mirror.
    InSync(Replica),
    /// A mirror or a joining copy is no member any more.
    Remove(Replica),
    /// This volcano is to serve the slice. The primary gives it away as soon as that costs nothing.
    Assign(VolcanoId),
    /// All in-sync copies have started anew: this one, whose log is the longest, becomes primary; those of the others that have
    /// every byte for certain, in their new lives, are mirrors, and the rest are no members. The loss counter goes up if anything that was not on disk may be lost.
    ColdStart {
        /// The primary.
        primary: Replica,
        /// The mirrors: other in-sync copies' volcanos, in their new lives.
        mirrors: Vec<Replica>,
        /// Whether the loss counter goes up. If there are other slices, this one asks them before it serves.
        lost: bool,
    },
    /// The other slices have been asked what this one may have lost.
    Recalled,
    /// The slice begins to be divided in two. Its copies stay the same until it has been.
    Divide(Division),
    /// All in-sync copies have divided it on their disks: the new slice begins, with the same copies.
    Divided,
}

/// Why a change is not made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The slice has another epoch by now, or does not exist.
    #[error("the slice has changed meanwhile")]
    Stale,
    /// The change does not fit the topology.
    #[error("{0}")]
    Unfit(String),
}

impl Change {
    /// The change that begins to divide a slice where these keys begin; `None` if there is no such slice, or no number for another one.
    /// Whoever has a copy can say where the [median](crate::store::Store::median) is.
    pub fn division(topology: &Topology, slice: SliceId, at: Ino) -> Option<Self> {
        let epoch = topology.slices.iter().find(|known| known.id == slice)?.epoch;
        Some(Self::Slice(slice, epoch, SliceChange::Divide(Division { at, new: topology.unused_slice()? })))
    }

    /// Makes the change: true if it changed anything, and then the version has gone up by one. A refused change leaves the
    /// topology as it was.
    pub fn apply(&self, topology: &mut Topology) -> Result<bool, Refusal> {
        let Some(version) = topology.version.checked_add(1) else {
            return unfit("the topology cannot change any more: its version has reached the end");
        };
        let changed = match self {
            Self::Enter(member, after) => members::enter(topology, member, *after)?,
            Self::Leave(volcano, leaving) => members::leave(topology, *volcano, *leaving)?,
            Self::Forget(volcano) => members::forget(topology, *volcano)?,
            Self::Place(volcano, after) => ring::place(topology, *volcano, *after, Epoch(version))?,
            Self::Balance(on) => std::mem::replace(&mut topology.balancer, *on) != *on,
            Self::Copies(copies) => set_copies(topology, *copies)?,
            Self::Stripes(unit) => std::mem::replace(&mut topology.stripes, *unit) != *unit,
            Self::Voters(voters) => members::set_voters(topology, voters)?,
            Self::Slice(slice, epoch, change) => {
                slices::change(topology, *slice, *epoch, Epoch(version), change)?;
                true
            }
        };
        if changed {
            topology.version = version;
        }
        Ok(changed)
    }
}

fn set_copies(topology: &mut Topology, copies: u8) -> Result<bool, Refusal> {
    if !(1..=MAX_COPIES).contains(&copies) {
        return unfit(format!("there can be 1 to {MAX_COPIES} copies, not {copies}"));
    }
    Ok(std::mem::replace(&mut topology.copies, copies) != copies)
}

/// A refusal with this sentence.
pub(super) fn unfit<T>(sentence: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Unfit(sentence.into()))
}

/// How messages name a volcano.
pub(super) fn name(topology: &Topology, volcano: VolcanoId) -> String {
    match topology.member(volcano) {
        Some(member) => member.nickname.clone(),
        None => format!("the unknown volcano {:016x}", volcano.0),
    }
}
