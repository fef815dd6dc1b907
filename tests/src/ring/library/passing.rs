//! What volcanos pass on to each other for libraries: over connections that send again what is lost, and that are given up when the other end is silent.

use std::time::Duration;

use magma_volcano::slice::Call;

use super::traffic::AGAIN;
use crate::ring::clock::{SECOND, Time};
use crate::ring::network::Host;
use crate::ring::volcano::Route;
use crate::ring::world::{Event, World};

/// A volcano looks so often whether another one, to which it has passed something on, still acknowledges what it is sent.
const LOOK: Time = SECOND / 2;
/// After so many looks in vain it is given up.
const SILENT_LOOKS: u32 = 5;
/// What is passed on is sent so often: longer than it takes to give a volcano up.
pub(in crate::ring) const TRIES: u32 = 50;

impl World {
    /// Something arrives that is sent again and again when it is lost.
    pub(in crate::ring) fn carry_reliably(
        &mut self,
        (from, to): (Host, Host),
        event: Box<Event>,
        tries: u32,
    ) {
        if let Some(delay) = self.network.carry(from, to).first().copied() {
            self.after(delay, *event);
        } else if tries > 0 {
            let pause = self.dice.range(AGAIN, 8 * AGAIN);
            self.after(pause, Event::Repeat((from, to), event, tries - 1));
        }
    }

    /// A request of a library is passed on over a connection, which is given up when it is silent.
    pub(in crate::ring) fn forward_reliably(
        &mut self,
        target: usize,
        (route, patience, call): (Route, Option<Duration>, Box<Call>),
    ) {
        let Some(hop) = route.through else { return };
        let run = self.volcanos[target].run;
        self.after(LOOK, Event::Hop(hop, (target, run), 0));
        let way = (Host::Volcano(hop.0), Host::Volcano(target));
        self.carry_reliably(way, Box::new(Event::Request(target, route, patience, call)), TRIES);
    }

    pub(in crate::ring) fn look_at_hop(
        &mut self,
        hop: (usize, u64, u64),
        (target, run): (usize, u64),
        silent: u32,
    ) {
        let (place, own_run, number) = hop;
        let own = &self.volcanos[place];
        if own.run != own_run || !own.forwards.contains_key(&number) {
            return;
        }
        let other = &self.volcanos[target];
        let (from, to) = (Host::Volcano(place), Host::Volcano(target));
        let is_connected = self.network.is_open(from, to) && self.network.is_open(to, from);
        let is_silent = !is_connected || !other.is_up() || other.paused.is_some();
        let is_reset = is_connected && other.is_up() && other.run != run;
        let silent = if is_silent { silent + 1 } else { 0 };
        if is_reset || silent >= SILENT_LOOKS {
            self.comes_back(hop, None);
        } else {
            self.after(LOOK, Event::Hop(hop, (target, run), silent));
        }
    }
}
