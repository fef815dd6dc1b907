//! How much the network as a whole can store.

use std::cmp::Reverse;

use magma_common::proto::Reply;
use magma_common::topology::{Member, VolcanoId};

use super::{Now, Slice};
use crate::dht::Figures;
use crate::health;

impl Slice<'_> {
    /// What a volcano says of its own space becomes what the network has, if more than one of them stores.
    pub(super) fn tell_capacity(&self, now: Now, reply: &mut Reply) {
        let Reply::Statfs(told) = reply else { return };
        let own = self.identity.volcano;
        let figures = self.figures.of_members(self.topology, own);
        let stores = |(id, figures)| {
            self.topology.member(id).filter(|member| member.stays()).map(|who| (who, figures))
        };
        let storing: Vec<(&Member, Figures)> = figures.iter().cloned().filter_map(stores).collect();
        if self.topology.ring_from(VolcanoId(0)).count() < 2 {
            return;
        }
        // Nobody can write where nobody answers.
        let is_there = |who: &Member| who.id == own || self.present.is_present(who.replica(), now.monotonic);
        let free = storing.iter().map(|(who, figures)| if is_there(who) { figures.free } else { 0 });
        let copies = usize::from(self.topology.copies);
        told.total = storable(storing.iter().map(|(_, figures)| figures.total).collect(), copies);
        told.free = storable(free.collect(), copies).min(told.total);
        told.available = told.free;
        told.flares_free = told.free / crate::namespace::BYTES_PER_FLARE;
        let loads = health::loads(self.topology, &figures);
        if loads.len() == self.topology.slices.len() {
            told.flares = loads.values().map(|load| load.keys).sum();
        }
    }
}

/// What can be stored in so many copies, each on another volcano, where each volcano has so many bytes. What a large one has beyond that
/// is of no use, as nobody could have the other copies of it.
fn storable(mut each: Vec<u64>, copies: usize) -> u64 {
    each.sort_unstable_by_key(|bytes| Reverse(*bytes));
    let copies = copies.clamp(1, each.len().max(1));
    let without_largest = |left_out: usize| {
        let sum = each.iter().skip(left_out).fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        sum / (copies - left_out) as u64
    };
    (0..copies).map(without_largest).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_volcano_counts_only_as_far_as_others_can_hold_the_other_copies() {
        assert_eq!(storable(vec![100, 100, 100], 2), 150);
        assert_eq!(storable(vec![1000, 100], 2), 100);
        assert_eq!(storable(vec![1000, 300, 200, 100], 2), 600);
        assert_eq!(storable(vec![1000, 300, 200, 100], 3), 300);
        assert_eq!(storable(vec![1000, 300], 1), 1300);
        assert_eq!(storable(vec![1000, 300], 5), 300, "there are no five volcanos");
        assert_eq!(storable(vec![], 2), 0);
    }
}
