//! What kind of world a seed has.

use magma_common::stripes::StripeUnit;

use super::clock::{SECOND, Time};
use super::dice::Dice;
use super::network::Weather;
use super::volcano::Beginning;

/// The faults that are chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process dies.
    Crash,
    /// A process dies in the middle of writing.
    Kill,
    /// A machine loses power.
    PowerCut,
    /// All machines lose power.
    PowerCutAll,
    /// All processes die.
    CrashAll,
    /// A process stops for a while.
    Pause,
    /// A disk is slow for a while.
    SlowDisk,
    /// A disk is full for a while.
    FullDisk,
    /// A sync fails.
    FailSync,
    /// A disk is lost for ever.
    LoseDisk,
    /// The coordinator's leader dies.
    CrashLeader,
    /// The primary dies.
    CrashPrimary,
    /// Two parts of the network do not hear each other.
    Split,
    /// A part of the network does not hear the other.
    OneWay,
    /// Some pairs do not hear each other.
    Holes,
    /// Clocks are disturbed.
    Clocks,
    /// Another volcano joins.
    Join,
    /// A volcano leaves.
    Leave,
    /// Another number of copies is wanted.
    Copies,
    /// The network is stopped in order, and started again.
    Shutdown,
    /// A client vanishes, and another one comes.
    Client,
    /// Clients are idle for a while.
    Idle,
    /// All copies of a slice lose power, whatever becomes of the others. Of several slices only.
    PowerCutSlice,
    /// Somebody dies in the middle of an operation across slices. Of several slices only.
    Moment,
}

/// All of them, with how often they are chosen in an ordinary world.
const KINDS: [(Kind, u32); 22] = [
    (Kind::Crash, 12),
    (Kind::Kill, 8),
    (Kind::PowerCut, 8),
    (Kind::PowerCutAll, 3),
    (Kind::CrashAll, 2),
    (Kind::Pause, 8),
    (Kind::SlowDisk, 4),
    (Kind::FullDisk, 2),
    (Kind::FailSync, 1),
    (Kind::LoseDisk, 2),
    (Kind::CrashLeader, 3),
    (Kind::CrashPrimary, 6),
    (Kind::Split, 6),
    (Kind::OneWay, 5),
    (Kind::Holes, 4),
    (Kind::Clocks, 3),
    (Kind::Join, 2),
    (Kind::Leave, 2),
    (Kind::Copies, 2),
    (Kind::Shutdown, 1),
    (Kind::Client, 3),
    (Kind::Idle, 3),
];

/// Those of several slices.
const KINDS_OF_SEVERAL: [(Kind, u32); 2] = [(Kind::PowerCutSlice, 4), (Kind::Moment, 16)];

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Volcanos at first.
    pub volcanos: usize,
    /// Copies wanted at first.
    pub copies: u8,
    /// Into so many slices the keyspace is cut.
    pub slices: u32,
    /// Clients.
    pub clients: usize,
    /// They are client libraries.
    pub libraries: bool,
    /// By which unit files are striped.
    pub stripes: Option<StripeUnit>,
    /// Nothing goes wrong.
    pub is_calm: bool,
    /// How long faults go on.
    pub duration: Time,
    /// Time between faults, about.
    pub pause: Time,
    /// No more than all copies but one are down at a time, but when everybody is.
    pub is_careful: bool,
    /// The clock of a stopped machine stands still.
    pub frozen_clocks: bool,
    /// How slices change; none if they stay as they are.
    pub reshaping: Option<Reshaping>,
    /// The network.
    pub weather: Weather,
    /// How often each fault is chosen.
    pub faults: Vec<(Kind, u32)>,
    /// Nothing goes back to its disk for longer than this, at first.
    pub longest_outage: Time,
}

/// How slices change while everything goes on.
#[derive(Clone, Copy, Debug)]
pub struct Reshaping {
    /// Time between changes, about.
    pub pause: Time,
    /// They are not only divided: they get other owners, volcanos other places on the ring, and the balancer is switched on and off.
    pub moves: bool,
}

/// Into how many slices worlds are cut, each as often as the others.
const SLICES: [u32; 10] = [1, 1, 1, 1, 1, 1, 2, 2, 3, 4];
/// One world of so many is fickle.
const FICKLE: u64 = 6;
/// How often a message arrives once more, much later, in such a world.
const MUCH_LATE: u32 = 50_000;

impl Scenario {
    /// How the first volcano founds the network.
    pub fn foundation(&self) -> Beginning {
        Beginning::Found(self.slices, self.stripes)
    }

    /// Makes some worlds fickle: whole processes that lose touch with each other again and again, while messages of long ago turn
    /// up. Whoever was primary becomes it again, in the same life, which is what epochs and promises are for.
    #[must_use]
    pub fn seasoned(mut self, dice: &mut Dice) -> Self {
        if dice.one_in(FICKLE) {
            use Kind::{Holes, Idle, OneWay, Pause, Split};
            self.volcanos = dice.range(3, 6) as usize;
            self.copies = dice.range(2, 4) as u8;
            self.pause = dice.magnitude(2 * SECOND, 8 * SECOND);
            self.faults = vec![(Split, 4), (OneWay, 3), (Holes, 2), (Pause, 4), (Idle, 1)];
            self.weather.late = MUCH_LATE;
            self.frozen_clocks = false;
        }
        self
    }

    /// The same world, but nothing goes wrong in it: slices are divided and, in every other world, moved.
    #[must_use]
    pub fn calmed(self, dice: &mut Dice) -> Self {
        let weather = Weather { loss: 0, twice: 0, late: 0, slow: 0, ..self.weather };
        let reshaping = Some(Reshaping { pause: 3 * SECOND, moves: dice.one_in(2) });
        Self {
            faults: Vec::new(),
            weather,
            reshaping,
            volcanos: self.volcanos.max(3),
            copies: 2,
            is_calm: true,
            ..self
        }
    }

    /// Cuts the keyspace into so many slices; some worlds into several, if that is left open, and then some of them go on being cut.
    #[must_use]
    pub fn cut(mut self, slices: Option<u32>, dice: &mut Dice) -> Self {
        let drawn = *dice.pick(&SLICES);
        self.slices = slices.unwrap_or(drawn);
        if slices.is_none() && dice.one_in(2) {
            let pause = dice.magnitude(2 * SECOND, 30 * SECOND);
            self.reshaping = Some(Reshaping { pause, moves: dice.one_in(2) });
        }
        let is_fickle = self.faults.iter().all(|(kind, _)| *kind != Kind::PowerCut);
        if (self.slices > 1 || self.reshaping.is_some()) && !is_fickle {
            self.faults.extend(KINDS_OF_SEVERAL);
        }
        self
    }

    /// The world of a seed.
    pub fn draw(dice: &mut Dice) -> Self {
        let volcanos = *dice.pick(&[1, 2, 2, 3, 3, 3, 3, 4, 5]);
        let copies = *dice.pick(&[1, 2, 2, 2, 3, 3]);
        let mut faults = KINDS.to_vec();
        match dice.below(4) {
            // A few kinds of faults, again and again.
            0 => {
                let loved: Vec<usize> = (0..3).map(|_| dice.below(faults.len() as u64) as usize).collect();
                for (at, (_, weight)) in faults.iter_mut().enumerate() {
                    *weight = if loved.contains(&at) { 10 } else { 0 };
                }
            }
            1 => {
                for (_, weight) in &mut faults {
                    *weight *= dice.below(3) as u32;
                }
            }
            _ => {}
        }
        let is_quiet = dice.one_in(15);
        Self {
            volcanos,
            copies,
            slices: 1,
            clients: dice.range(3, 7) as usize,
            libraries: false,
            stripes: None,
            is_calm: false,
            duration: dice.range(40, 160) * SECOND,
            pause: if is_quiet { 1000 * SECOND } else { dice.magnitude(2 * SECOND, 20 * SECOND) },
            is_careful: !dice.one_in(4),
            frozen_clocks: dice.one_in(20),
            reshaping: None,
            weather: Weather::draw(dice),
            faults,
            longest_outage: dice.magnitude(SECOND, 60 * SECOND),
        }
    }
}
