//! The balancer: which slices should have other owners, so that every volcano holds about the same.
//!
//! It commits whole slices, and only to the next volcano of the ring. Seen from there the slices form a circle, cut into one run for
//! each volcano: the slice that a volcano got last comes first in its run, and the one that it has had for longest goes first. Every
//! move pushes one of the cuts back by one slice. So it is enough to know where the cuts belong: at equal distances, as far on as
//! possible without pushing any of them forward, each then at the end of the slice that it would go through. A cut that is in the right
//! place stays there whatever the others do, so that the plan, carried out step by step and made anew after each step, only gets shorter.
//!
//! A slice that is too heavy for that is divided first, which moves nothing. Where all volcanos have copies of everything, nothing is
//! divided: an operation across slices costs more than one inside of one, and nothing would be won.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use magma_common::key::Ino;
use magma_common::topology::{MAX_SLICES, Slice, SliceId, Topology, VolcanoId};
use serde::{Deserialize, Serialize};

use super::{Change, SliceChange};

/// What a flare weighs beside its bytes: rows, an inode, requests.
const BYTES_PER_KEY: u64 = 4096;
/// Bytes that are reckoned with in addition, spread evenly over the keyspace: what is to come. Without them the first files of an empty
/// network would decide who gets what.
const BYTES_TO_COME: u64 = 1 << 30;
/// Nothing is moved for less than this part of an even share.
const LEAST_GAIN: u128 = 10;

/// A slice that weighs more than so many percent of an even share is divided: a little more than half of one.
const HEAVY: u128 = 55;
/// A slice that covers no more than this part of the keyspace is not divided: what makes it heavy is a few large files.
const NARROWEST: u64 = 1024;
/// Who was not heard from for so long may be about to come back with what it owns: nothing is moved meanwhile.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Who was not heard from for so long is not reckoned with any more.
const LOST_AFTER: Duration = Duration::from_secs(600);

/// What a slice holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Flares in it.
    pub keys: u64,
    /// Bytes of files in it.
    pub bytes: u64,
}

/// What the plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The network.
    pub topology: &'a Topology,
    /// What each slice holds.
    pub loads: &'a BTreeMap<SliceId, Load>,
    /// Volcanos that are silent, but may be back in a moment.
    pub silent: &'a [VolcanoId],
    /// Volcanos that have been silent for so long that others are to own what they own.
    pub lost: &'a [VolcanoId],
}

/// Something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The slice gets another owner.
    Assign {
        /// Which slice.
        slice: SliceId,
        /// Who owns it.
        from: VolcanoId,
        /// Who is to own it.
        to: VolcanoId,
    },
    /// The slice is divided in two.
    Divide {
        /// Which slice.
        slice: SliceId,
        /// Where the other one begins.
        at: Ino,
    },
}

/// A step, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What is to be done.
    pub step: Step,
    /// Why, in a sentence.
    pub why: String,
    /// It need not wait until the one before is carried out.
    pub at_once: bool,
}

impl Step {
    /// What to ask the coordinator for, by this topology; none if there is no such slice.
    pub fn change(&self, topology: &Topology) -> Option<Change> {
        match self {
            Self::Assign { slice, to, .. } => {
                let known = topology.slices.iter().find(|known| known.id == *slice)?;
                Some(Change::Slice(known.id, known.epoch, SliceChange::Assign(*to)))
            }
            Self::Divide { slice, at } => Change::division(topology, *slice, *at),
        }
    }
}

/// Of the volcanos that have not been heard from for so long, those that are silent, and those that are lost.
pub fn quiet(silences: &[(VolcanoId, Duration)]) -> (Vec<VolcanoId>, Vec<VolcanoId>) {
    let quiet = silences.iter().copied().filter(|(_, silence)| *silence >= SILENT_AFTER);
    let (lost, silent): (Vec<_>, Vec<_>) = quiet.partition(|(_, silence)| *silence >= LOST_AFTER);
    let ids = |quiet: Vec<(VolcanoId, Duration)>| quiet.into_iter().map(|(id, _)| id).collect();
    (ids(silent), ids(lost))
}

/// Why nothing should be moved now, in a sentence; none if nothing speaks against it.
pub fn hindrance(situation: &Situation) -> Option<String> {
    let Situation { topology, loads, silent, lost } = *situation;
    if let Some(who) = silent.iter().find_map(|id| topology.member(*id).filter(|member| member.stays())) {
        return Some(format!("{} is silent.", who.nickname));
    }
    let counts = |id: &VolcanoId| !lost.contains(id);
    topology.slices.iter().find_map(|slice| {
        let id = slice.id.0;
        let mut group = topology.group(slice);
        group.retain(counts);
        let in_sync: Vec<VolcanoId> = slice.in_sync().map(|copy| copy.volcano).collect();
        let there = topology.ring_from(slice.owner).filter(|member| counts(&member.id)).count();
        let is_current = |copy: magma_common::topology::Replica| {
            topology.member(copy.volcano).is_some_and(|member| member.boot == copy.boot)
        };
        let has_moved = lost.contains(&slice.owner) || group.first() == in_sync.first();
        if slice.recalling {
            Some(format!("Slice {id} asks the other slices what it has lost."))
        } else if !slice.joining.is_empty() {
            Some(format!("A copy of slice {id} is being made."))
        } else if in_sync.len() < usize::from(topology.copies).min(there) || !slice.in_sync().all(is_current)
        {
            Some(format!("Slice {id} has too few copies."))
        } else if !has_moved || !group.iter().all(|member| in_sync.contains(member)) {
            Some(format!("Slice {id} is being moved."))
        } else if !loads.contains_key(&slice.id) {
            Some(format!("What slice {id} holds is not known yet."))
        } else {
            None
        }
    })
}

/// The steps that the plan allows to be taken now: what a volcano without slices gets is taken in one go, everything else one by one.
pub fn due(plan: &[Planned]) -> &[Planned] {
    let more = plan.iter().skip(1).take_while(|planned| planned.at_once).count();
    plan.get(..(1 + more).min(plan.len())).unwrap_or_default()
}

/// All that is to be done, in order; nothing if it is even enough.
pub fn plan(situation: &Situation) -> Vec<Planned> {
    let (mut circle, mut steps) = Circle::new(situation);
    if steps.is_empty() {
        steps.extend(circle.division(situation.topology));
    }
    let passing = circle.passing();
    if !steps.is_empty() || !circle.is_worth(&passing) {
        return steps;
    }
    let mut left = passing;
    while let Some(giver) = circle.next_giver(&left) {
        let planned = circle.pass(situation.topology, giver);
        if let Some(left) = left.get_mut(giver) {
            *left = left.saturating_sub(1);
        }
        let Some(planned) = planned else { return steps };
        steps.push(planned);
    }
    steps
}

/// A volcano of the ring and its run of slices, with their weights.
#[derive(Clone, Debug)]
struct Holder {
    id: VolcanoId,
    run: VecDeque<(SliceId, u64)>,
    /// It had nothing when the plan was begun.
    is_new: bool,
}

impl Holder {
    fn weight(&self) -> u128 {
        self.run.iter().map(|(_, weight)| u128::from(*weight)).sum()
    }
}

/// The ring.
#[derive(Clone, Debug)]
struct Circle {
    holders: Vec<Holder>,
    /// Who got the last step's slice.
    last: Option<usize>,
}

impl Circle {
    /// The ring without those that are lost, and the steps by which others get what these own.
    fn new(situation: &Situation) -> (Self, Vec<Planned>) {
        let Situation { topology, loads, lost, .. } = *situation;
        let first = topology.members.first().map_or(VolcanoId(0), |member| member.id);
        let there = topology.ring_from(first).filter(|member| !lost.contains(&member.id));
        let mut holders: Vec<Holder> =
            there.map(|member| Holder { id: member.id, run: VecDeque::new(), is_new: false }).collect();
        let mut slices: Vec<&Slice> = topology.slices.iter().collect();
        slices.sort_by_key(|slice| (Reverse(slice.assigned), slice.range.start()));
        let mut steps = Vec::new();
        for slice in slices {
            let owners = topology.ring_from(slice.owner).map(|member| member.id);
            let mut owners = owners.skip_while(|owner| lost.contains(owner));
            let Some(owner) = owners.next() else { continue };
            let weight = weight(slice, loads.get(&slice.id).copied().unwrap_or_default());
            if let Some(holder) = holders.iter_mut().find(|holder| holder.id == owner) {
                holder.run.push_back((slice.id, weight));
            }
            if lost.contains(&slice.owner) {
                let why = format!(
                    "{} is lost and {} follows it",
                    name(topology, slice.owner),
                    name(topology, owner)
                );
                let step = Step::Assign { slice: slice.id, from: slice.owner, to: owner };
                steps.push(Planned { step, why, at_once: false });
            }
        }
        for holder in &mut holders {
            holder.is_new = holder.run.is_empty();
        }
        (Self { holders, last: None }, steps)
    }

    /// Halves the heaviest slice if it cannot be evened out as it is.
    fn division(&self, topology: &Topology) -> Option<Planned> {
        let volcanos = self.holders.len();
        if volcanos <= usize::from(topology.copies) || topology.slices.len() >= MAX_SLICES as usize {
            return None;
        }
        let all = self.holders.iter().flat_map(|holder| &holder.run);
        let (id, weight) = all.max_by_key(|(id, weight)| (*weight, Reverse(*id)))?;
        let share = self.holders.iter().map(Holder::weight).sum::<u128>() / volcanos as u128;
        let range = topology.slices.iter().find(|slice| slice.id == *id)?.range;
        let width = range.stop().0 - range.start().0;
        if u128::from(*weight) * 100 <= share * HEAVY || width <= u64::MAX / NARROWEST {
            return None;
        }
        let at = Ino(range.start().0 + width / 2 + 1);
        let percent = u128::from(*weight) * 100 / share.max(1);
        let why = format!("it holds {percent} % of an even share, too much to be moved as a whole");
        Some(Planned { step: Step::Divide { slice: *id, at }, why, at_once: false })
    }

    /// How many slices each volcano passes on to the next one.
    fn passing(&self) -> Vec<usize> {
        let weights: Vec<i128> = self.runs().map(i128::from).collect();
        let (slices, volcanos) = (weights.len(), self.holders.len() as i128);
        let total: i128 = weights.iter().sum();
        // All positions are multiplied by the number of volcanos, so that shares are whole numbers.
        let mut cut = 0_i128;
        let cuts: Vec<i128> = self
            .holders
            .iter()
            .map(|holder| {
                cut += i128::try_from(holder.weight()).unwrap_or(i128::MAX / volcanos) * volcanos;
                cut
            })
            .collect();
        let shares = (1..).map(|number: i128| number * total);
        let offset = cuts.iter().zip(shares.clone()).map(|(cut, share)| cut - share).min().unwrap_or(0);
        let mut end = 0;
        self.holders
            .iter()
            .zip(cuts)
            .zip(shares)
            .map(|((holder, cut), share)| {
                end += holder.run.len();
                let (mut at, mut passed) = (cut, 0);
                // Back over the slices before the cut, round the circle if need be.
                while passed < slices {
                    let before = (end + slices - 1 - passed) % slices;
                    let Some(weight) = weights.get(before) else { break };
                    if at - weight * volcanos < offset + share {
                        break;
                    }
                    at -= weight * volcanos;
                    passed += 1;
                }
                passed
            })
            .collect()
    }

    /// The weights of all slices, run by run.
    fn runs(&self) -> impl Iterator<Item = u64> {
        self.holders.iter().flat_map(|holder| holder.run.iter().map(|(_, weight)| *weight))
    }

    /// Whether passing so many slices on makes enough of a difference.
    fn is_worth(&self, passing: &[usize]) -> bool {
        let mut after = self.clone();
        let mut left = passing.to_vec();
        while let Some(giver) = after.next_giver(&left) {
            after.hand_on(giver);
            if let Some(left) = left.get_mut(giver) {
                *left = left.saturating_sub(1);
            }
        }
        let weights = |circle: &Self| circle.holders.iter().map(Holder::weight).collect::<Vec<u128>>();
        let (before, after) = (weights(self), weights(&after));
        let squares = |weights: &[u128]| weights.iter().map(|weight| (weight >> 16).pow(2)).sum::<u128>();
        let least = (before.iter().sum::<u128>() / (before.len().max(1) as u128) / LEAST_GAIN).max(1);
        let (most_before, most_after) = (before.iter().max(), after.iter().max());
        let (least_before, least_after) = (before.iter().min(), after.iter().min());
        let is_gain = |more: Option<&u128>, less: Option<&u128>| {
            more.zip(less).is_some_and(|(more, less)| more.saturating_sub(*less) >= least)
        };
        squares(&after) < squares(&before)
            && (is_gain(most_before, most_after) || is_gain(least_after, least_before))
    }

    /// Who passes a slice on first: to a volcano that had nothing, else where the difference is greatest.
    fn next_giver(&self, left: &[usize]) -> Option<usize> {
        let can = |at: &usize| {
            left.get(*at).is_some_and(|left| *left > 0)
                && self.holders.get(*at).is_some_and(|holder| !holder.run.is_empty())
        };
        let urgency = |at: &usize| {
            let weight = |at: usize| self.holders.get(at).map_or(0, |holder| holder.weight().cast_signed());
            let next = self.next(*at);
            let is_new = self.holders.get(next).is_some_and(|next| next.is_new);
            (is_new && self.last == Some(next), is_new, weight(*at) - weight(next), Reverse(*at))
        };
        (0..self.holders.len()).filter(can).max_by_key(urgency)
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 < self.holders.len() { at + 1 } else { 0 }
    }

    /// Moves the last slice of a run to the beginning of the next one: which, and between which volcanos.
    fn hand_on(&mut self, giver: usize) -> Option<(SliceId, VolcanoId, VolcanoId)> {
        let next = self.next(giver);
        let from = self.holders.get_mut(giver)?;
        let (slice, from) = (from.run.pop_back()?, from.id);
        let to = self.holders.get_mut(next)?;
        to.run.push_front(slice);
        let to = to.id;
        self.last = Some(next);
        Some((slice.0, from, to))
    }

    fn pass(&mut self, topology: &Topology, giver: usize) -> Option<Planned> {
        let next = self.next(giver);
        let share = self.holders.iter().map(Holder::weight).sum::<u128>() / self.holders.len().max(1) as u128;
        let percent =
            |at: usize| self.holders.get(at).map_or(0, |holder| holder.weight() * 100 / share.max(1));
        let (giver_has, next_has) = (percent(giver), percent(next));
        let is_new = self.holders.get(next).is_some_and(|next| next.is_new);
        let at_once = is_new && self.last == Some(next);
        let (slice, from, to) = self.hand_on(giver)?;
        let (giving, getting) = (name(topology, from), name(topology, to));
        let why = if next_has == 0 {
            format!("{giving} holds {giver_has} % of an even share and {getting}, which follows it, nothing")
        } else if giver_has > next_has {
            format!(
                "{giving} holds {giver_has} % of an even share and {getting}, which follows it, {next_has} %"
            )
        } else {
            format!("{giving} gets more from the volcano before it, and {getting} passes on as much")
        };
        Some(Planned { step: Step::Assign { slice, from, to }, why, at_once })
    }
}

/// What a slice counts for.
fn weight(slice: &Slice, load: Load) -> u64 {
    let width = slice.range.stop().0 - slice.range.start().0;
    let to_come = width / (u64::MAX / BYTES_TO_COME);
    let keys = load.keys.saturating_mul(BYTES_PER_KEY);
    load.bytes.saturating_add(keys).saturating_add(to_come).clamp(1, 1 << 56)
}

fn name(topology: &Topology, volcano: VolcanoId) -> String {
    topology.member(volcano).map_or_else(|| format!("{:016x}", volcano.0), |member| member.nickname.clone())
}
