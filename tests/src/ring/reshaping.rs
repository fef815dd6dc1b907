//! Changes that an administrator or the balancer makes while everything goes on: slices are divided and get other owners, volcanos get
//! other places on the ring.

use magma_common::key::Ino;
use magma_common::topology::{SliceId, Topology, VolcanoId};
use magma_volcano::coordinator::{Change, SliceChange};

use super::dice::Dice;
use super::faults::Trouble;
use super::scenario::Reshaping;
use super::volcano::Input;
use super::world::{Event, World};

/// Most slices of a world, as far as it is up to these changes.
const MOST_SLICES: usize = 8;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// A slice is to be divided.
    Divide,
    /// A slice is to have this owner, whoever that is.
    Assign,
    /// A volcano is to have another place on the ring.
    Place,
    /// The balancer is to do something by itself, or nothing.
    Balance,
}

/// How often each is chosen in worlds with moves.
const WISHES: [(Wish, u32); 4] = [(Wish::Divide, 4), (Wish::Assign, 3), (Wish::Place, 2), (Wish::Balance, 1)];

impl World {
    /// A change of the slices is wanted, and the next one is drawn.
    pub(super) fn reshape(&mut self) {
        let Some(Reshaping { pause, moves }) = self.scenario.reshaping.filter(|_| !self.faults.is_over)
        else {
            return;
        };
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
        let wish = if moves { wish(&mut self.faults.reshaping) } else { Wish::Divide };
        let change = match wish {
            Wish::Divide => self.division(place, slice),
            wish => self.volcanos[place]
                .node
                .as_ref()
                .and_then(|node| change(node.topology(), slice, wish, &mut self.faults.reshaping)),
        };
        if let Some(change) = change {
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

fn wish(dice: &mut Dice) -> Wish {
    let weights = WISHES.map(|(_, weight)| weight);
    dice.weighted(&weights).map_or(Wish::Divide, |at| WISHES[at].0)
}

/// What to ask for so that this wish comes true, by this topology.
fn change(topology: &Topology, slice: SliceId, wish: Wish, dice: &mut Dice) -> Option<Change> {
    let members: Vec<VolcanoId> = topology.members.iter().map(|member| member.id).collect();
    if members.is_empty() {
        return None;
    }
    let mut any = || *dice.pick(&members);
    match wish {
        Wish::Divide => None,
        Wish::Assign => {
            let known = topology.slices.iter().find(|known| known.id == slice)?;
            Some(Change::Slice(slice, known.epoch, SliceChange::Assign(any())))
        }
        Wish::Place => Some(Change::Place(any(), any())),
        Wish::Balance => Some(Change::Balance(!dice.one_in(3))),
    }
}
