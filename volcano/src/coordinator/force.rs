//! Going on without a volcano, although the votes for that are not there or it has the only copy that is sure to have everything.
//!
//! An administrator who knows that a volcano will not come back may decide so at another one. That one begins another *line of
//! history*: with itself as the only voter, and with the copies that are left. Volcanos that stay in the network follow it; who is
//! of the former line and does not stay is refused, and its data is kept aside. Nothing here can know whether the volcano is
//! really gone: if it is not, and serves clients that this one cannot see, then what they are told is lost with its line.

use magma_common::topology::{Epoch, MAX_ANCESTORS, Replica, Slice, SliceId, Topology, VolcanoId};

use super::change::{Refusal, disown, name, unfit};

/// The new line's topology is this many versions ahead: beyond everything that the former voters may have agreed on unheard.
const VERSIONS_AHEAD: u64 = 1 << 32;

/// What is known at the volcano where the administrator decides.
pub struct Force<'a> {
    /// The newest topology.
    pub topology: &'a Topology,
    /// This volcano in its present life.
    pub own: Replica,
    /// Whether its store has all keys of a slice, at some position of its history.
    pub has_whole: &'a dyn Fn(SliceId) -> bool,
}

impl Force<'_> {
    /// The first topology of the line of history that goes on without this volcano.
    pub fn without(&self, evicted: VolcanoId, lineage: u64) -> Result<Topology, Refusal> {
        let mut topology = self.topology.clone();
        if evicted == self.own.volcano {
            return unfit("a volcano cannot go on without itself");
        }
        if topology.member(evicted).is_none() || lineage == topology.lineage {
            return unfit("there is no such volcano");
        }
        let Some(version) = topology.version.checked_add(VERSIONS_AHEAD) else {
            return unfit("the topology cannot change any more: its version has reached the end");
        };
        topology.version = version;
        topology.ancestors.insert(0, topology.lineage);
        topology.ancestors.truncate(MAX_ANCESTORS);
        topology.lineage = lineage;
        disown(&mut topology, evicted);
        topology.dismiss(evicted);
        let Some(own) = topology.members.iter_mut().find(|member| member.id == self.own.volcano) else {
            return unfit("this volcano is no member of the network any more");
        };
        // Without the votes nobody has agreed that this life of it has begun.
        (own.boot, own.leaving) = (self.own.boot, false);
        topology.voters = vec![self.own.volcano];
        let mut may_have_lost = false;
        let is_alone = topology.slices.len() == 1;
        for mut slice in std::mem::take(&mut topology.slices) {
            let lost = self.go_on(&topology, &mut slice, evicted, Epoch(version))?;
            may_have_lost |= lost;
            slice.recalling |= lost && !is_alone;
            topology.slices.push(slice);
        }
        topology.loss_counter = topology.loss_counter.saturating_add(u64::from(may_have_lost));
        Ok(topology)
    }

    /// Gives a slice to those who are left: whether something that was answered may be lost by that.
    fn go_on(
        &self,
        topology: &Topology,
        slice: &mut Slice,
        evicted: VolcanoId,
        epoch: Epoch,
    ) -> Result<bool, Refusal> {
        let lives = |copy: &Replica| topology.member(copy.volcano).is_some_and(|m| m.boot == copy.boot);
        let before = slice.clone();
        let mut stay: Vec<Replica> = before.in_sync().filter(lives).collect();
        // Of those who may follow a primary that goes, this one is there for certain.
        stay.sort_by_key(|copy| (*copy != before.primary, *copy != self.own));
        let had = |who: VolcanoId| before.in_sync().any(|copy| copy.volcano == who);
        slice.joining.retain(|copy| copy.volcano != evicted && lives(copy));
        if let Some((primary, mirrors)) = stay.split_first() {
            (slice.primary, slice.mirrors) = (*primary, mirrors.to_vec());
        } else {
            let started_anew = topology.members.iter().find(|member| !member.witness && had(member.id));
            let heir = match started_anew {
                _ if (self.has_whole)(slice.id) => self.own,
                Some(member) => member.replica(),
                None => {
                    return unfit(format!(
                        "{} has the only copy of slice {}, and this volcano has nothing of it",
                        name(self.topology, evicted),
                        slice.id.0
                    ));
                }
            };
            (slice.primary, slice.mirrors) = (heir, Vec::new());
        }
        if slice.primary != before.primary {
            slice.reign = epoch;
            slice.joining.clear();
        }
        if *slice != before {
            slice.epoch = epoch;
        }
        Ok(stay.is_empty())
    }
}
