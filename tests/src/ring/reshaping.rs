//! Changes that an administrator or the balancer makes while everything goes on: slices are divided.

use magma_common::key::Ino;
use magma_common::topology::SliceId;
use magma_volcano::coordinator::Change;

use super::faults::Trouble;
use super::volcano::Input;
use super::world::{Event, World};

/// Most slices of a world.
const MOST_SLICES: usize = 8;

impl World {
    /// A change of the slices is wanted, and the next one is drawn.
    pub(super) fn reshape(&mut self) {
        let Some(pause) = self.scenario.reshaping.filter(|_| !self.faults.is_over) else { return };
        let pause = self.faults.reshaping.below(2 * pause) + 1;
        self.after(pause, Event::Trouble(Trouble::Reshape));
        let up = self.volcanos.iter().filter(|volcano| volcano.is_up()).map(|volcano| volcano.place);
        let up: Vec<usize> = up.collect();
        let slices: Vec<SliceId> = self.oracle.configs().map(|config| config.id).collect();
        if up.is_empty() || slices.is_empty() {
            return;
        }
        let place = *self.faults.reshaping.pick(&up);
        let slice = *self.faults.reshaping.pick(&slices);
        if let Some(change) = self.division(place, slice) {
            self.trace.say(self.now, || format!("wanted of volcano {place}: {change:?}"));
            self.put(place, Input::Wanted(change));
        }
    }

    /// Dividing a slice, as this volcano knows it: in the middle of what it holds, or anywhere.
    fn division(&mut self, place: usize, slice: SliceId) -> Option<Change> {
        let anywhere = self.faults.reshaping.below(u64::MAX);
        let is_even = self.faults.reshaping.one_in(2);
        let node = self.volcanos[place].node.as_ref()?;
        let topology = node.topology();
        let range = topology.slices.iter().find(|known| known.id == slice)?.range;
        if topology.slices.len() >= MOST_SLICES {
            return None;
        }
        let width = range.stop().0 - range.start().0;
        let drawn = Ino(range.start().0 + anywhere % width.max(1) + 1);
        let median = node.store().median(slice).ok().flatten().filter(|_| is_even);
        Change::division(topology, slice, median.unwrap_or(drawn))
    }
}
