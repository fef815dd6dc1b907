//! The network: what becomes of a message.

use std::collections::BTreeSet;

use super::clock::{MICROSECOND, MILLISECOND, SECOND, Time};
use super::dice::Dice;

/// An end of the network: a volcano's machine, or a client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// The machine of this volcano.
    Volcano(usize),
    /// The machine of this client.
    Client(usize),
}

/// How bad the network is, in parts per million of the messages.
#[derive(Clone, Debug)]
pub struct Weather {
    /// They are lost.
    pub loss: u32,
    /// They arrive twice.
    pub twice: u32,
    /// They arrive once more, up to minutes later.
    pub late: u32,
    /// They take seconds.
    pub slow: u32,
    /// What a message takes at least.
    pub latency: Time,
    /// What it may take longer than that.
    pub jitter: Time,
}

impl Weather {
    /// The weather of a seed.
    pub fn draw(dice: &mut Dice) -> Self {
        Self {
            loss: *dice.pick(&[0, 0, 100, 1_000, 10_000, 100_000]),
            twice: *dice.pick(&[0, 1_000, 10_000]),
            late: *dice.pick(&[0, 500, 2_000]),
            slow: *dice.pick(&[0, 0, 500, 5_000]),
            latency: *dice.pick(&[20 * MICROSECOND, 200 * MICROSECOND, 2 * MILLISECOND]),
            jitter: *dice.pick(&[0, 200 * MICROSECOND, 5 * MILLISECOND, 30 * MILLISECOND]),
        }
    }
}

/// The network.
#[derive(Debug)]
pub struct Network {
    dice: Dice,
    weather: Weather,
    /// Nothing gets from the first to the second.
    cut: BTreeSet<(Host, Host)>,
}

impl Network {
    /// A network with all its lines up.
    pub fn new(dice: Dice, weather: Weather) -> Self {
        Self { dice, weather, cut: BTreeSet::new() }
    }

    /// Nothing gets through from one to the other any more.
    pub fn cut(&mut self, from: Host, to: Host) {
        self.cut.insert((from, to));
    }

    /// Everything gets through again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// The faults of the network are over.
    pub fn calm(&mut self) {
        self.heal();
        self.weather = Weather { loss: 0, twice: 0, late: 0, slow: 0, ..self.weather };
    }

    /// Whether all its lines are up.
    pub fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }

    /// Whether a message gets from one to the other now.
    pub fn is_open(&self, from: Host, to: Host) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// After how much time the message arrives, each time that it does.
    pub fn carry(&mut self, from: Host, to: Host) -> Vec<Time> {
        let mut arrivals = Vec::new();
        let (dice, weather) = (&mut self.dice, &self.weather);
        let is_lost = dice.chance(weather.loss) || self.cut.contains(&(from, to));
        let delay = |dice: &mut Dice| weather.latency + dice.below(weather.jitter + 1);
        if !is_lost {
            let slow =
                if dice.chance(weather.slow) { dice.magnitude(100 * MILLISECOND, 8 * SECOND) } else { 0 };
            arrivals.push(delay(dice) + slow);
        }
        if !is_lost && dice.chance(weather.twice) {
            let again = delay(dice) + dice.below(100 * MILLISECOND);
            arrivals.push(again);
        }
        if !is_lost && dice.chance(weather.late) {
            arrivals.push(dice.magnitude(SECOND, 150 * SECOND));
        }
        arrivals
    }
}
