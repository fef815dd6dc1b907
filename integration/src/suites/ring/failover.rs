//! One volcano at a time gets into trouble while applications work: none of them sees an error, and none waits long.

use std::time::Duration;

use super::pressure::{ALL_WORKERS, LONGEST_STALL, Pace, Pressure};
use super::{Field, GOES_ON, SETTLES, check};
use crate::error::Result;
use crate::ring::{Ring, machine::Cut};
use crate::suites::Context;
use crate::tally::Tally;
use crate::testing::random::{self, Random};

/// Volcanos of the drill. With two copies, one of them has none: it is the reserve.
const VOLCANOS: usize = 3;
/// How long a volcano stands still, in the test.
const FROZEN: Duration = Duration::from_secs(10);
/// The same in a soak.
pub(super) const LONG_FROZEN: Duration = Duration::from_secs(30);
/// How long the applications work undisturbed before and between the troubles.
pub(super) const QUIET: Duration = Duration::from_secs(3);
/// How late packets are.
const LATE: Duration = Duration::from_millis(100);

/// Who gets into trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Primary,
    Mirror,
    Coordinator,
    /// Whoever has no copy; a mirror if each has one.
    Reserve,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its process ends without warning and comes back after a while.
    Kill,
    /// The same, and everything that it had on disk is gone.
    Wipe,
    /// It stands still and goes on as if nothing had been.
    Freeze,
    /// The cable is pulled.
    Unplug,
    /// The cable is damaged in one direction.
    Damage(Cut),
    /// The volcanos do not reach it any more, but clients do, or the other way round.
    Partition,
    /// A fifth of what it is sent is lost.
    Lose,
    /// What it sends is late.
    Delay,
}

/// What happens in the test, in this order.
const TEST: &[(Trouble, Victim)] = &[
    (Trouble::Kill, Victim::Primary),
    (Trouble::Kill, Victim::Mirror),
    (Trouble::Kill, Victim::Coordinator),
    (Trouble::Freeze, Victim::Primary),
    (Trouble::Unplug, Victim::Primary),
    (Trouble::Damage(Cut::Speaking), Victim::Primary),
    (Trouble::Partition, Victim::Primary),
];

/// What a soak chooses from.
const SOAK: &[Trouble] = &[
    Trouble::Kill,
    Trouble::Kill,
    Trouble::Wipe,
    Trouble::Freeze,
    Trouble::Unplug,
    Trouble::Damage(Cut::Speaking),
    Trouble::Damage(Cut::Hearing),
    Trouble::Partition,
    Trouble::Lose,
    Trouble::Delay,
];
const VICTIMS: &[Victim] =
    &[Victim::Primary, Victim::Primary, Victim::Mirror, Victim::Coordinator, Victim::Reserve];

/// Troubles of one run in a soak.
const SOAK_TROUBLES: usize = 20;

/// Runs it.
pub(in crate::suites) fn run(context: &Context) -> Result<Tally> {
    let mut random = random::announced();
    let mut field = Field::new(context, VOLCANOS, 2)?;
    let mut tally = Tally::default();
    let mut load = Pressure::start(context, field.mounts(), "load", (ALL_WORKERS, Pace::Full), &mut random)?;
    load.goes_on(GOES_ON)?;

    for (number, (trouble, victim)) in plan(context, &mut random).into_iter().enumerate() {
        let frozen = if context.long { LONG_FROZEN } else { FROZEN };
        let outcome = get_into(field.lava.ring(), &mut load, &mut random, (trouble, victim), frozen);
        let failed = outcome.is_err();
        check(&mut tally, &format!("{}. {trouble:?} of the {victim:?}", number + 1), outcome);
        // What comes next means something only if the ring is whole again.
        let broken = failed && field.lava.ring().settle(SETTLES).is_err();
        if broken || context.time_is_up() {
            break;
        }
    }
    tally.check("no application gets an error", load.end().map_err(|error| error.to_string()));
    look_at_all_copies(context, &mut field, &load, &mut tally)?;
    field.finish(&mut tally);
    Ok(tally)
}

fn plan(context: &Context, random: &mut Random) -> Vec<(Trouble, Victim)> {
    if !context.long {
        return TEST.to_vec();
    }
    at_random(random, SOAK_TROUBLES)
}

/// So many troubles for a soak.
pub(super) fn at_random(random: &mut Random, troubles: usize) -> Vec<(Trouble, Victim)> {
    let choice = |random: &mut Random, count: usize| usize::try_from(random.below(count as u64)).unwrap_or(0);
    let troubles = (0..troubles).filter_map(|_| {
        let trouble = SOAK.get(choice(random, SOAK.len()))?;
        Some((*trouble, *VICTIMS.get(choice(random, VICTIMS.len()))?))
    });
    troubles.collect()
}

/// One trouble from its beginning until all copies are in sync again. The sentence tells the longest stall.
pub(super) fn get_into(
    ring: &mut Ring,
    load: &mut Pressure,
    random: &mut Random,
    (trouble, victim): (Trouble, Victim),
    frozen: Duration,
) -> Result<std::result::Result<String, String>> {
    load.work_for(QUIET)?;
    let _before = load.slowest()?;
    let number = match victim {
        Victim::Primary => ring.primary()?,
        Victim::Mirror => ring.mirror()?,
        Victim::Coordinator => ring.coordinator()?,
        Victim::Reserve => reserve(ring)?.map_or_else(|| ring.mirror(), Ok)?,
    };
    let while_gone = Duration::from_millis(2000 + random.below(4000));
    begin(ring, number, trouble)?;
    let went_on = load.work_for(if trouble == Trouble::Freeze { frozen } else { while_gone });
    // Whatever the load says, the volcano gets out of its trouble.
    end(ring, number, trouble)?;
    went_on?;
    let settled = ring.settle(SETTLES)?;
    load.goes_on(GOES_ON)?;
    let stall = load.slowest()?;
    let said =
        format!("{} of it, {stall}, all in sync after {:.1} s", ring.name(number), settled.as_secs_f64());
    Ok(if stall.time < LONGEST_STALL { Ok(said) } else { Err(said) })
}

fn begin(ring: &mut Ring, number: usize, trouble: Trouble) -> Result<()> {
    match trouble {
        Trouble::Kill => ring.kill(number),
        Trouble::Wipe => {
            ring.kill(number)?;
            ring.wipe(number)
        }
        Trouble::Freeze => ring.freeze(number),
        Trouble::Unplug => ring.machine_of(number)?.unplug(),
        Trouble::Damage(cut) => ring.machine_of(number)?.cut(cut, &[]),
        Trouble::Partition => ring.machine_of(number)?.cut(Cut::Both, &ring.others_of(number)),
        Trouble::Lose => ring.machine_of(number)?.lose(20),
        Trouble::Delay => {
            if !ring.machine_of(number)?.delay(LATE)? {
                println!("  this kernel has no netem: nothing is late");
            }
            Ok(())
        }
    }
}

fn end(ring: &mut Ring, number: usize, trouble: Trouble) -> Result<()> {
    match trouble {
        Trouble::Kill | Trouble::Wipe => ring.start(number),
        Trouble::Freeze => ring.thaw(number),
        Trouble::Unplug => ring.machine_of(number)?.plug_in(),
        Trouble::Damage(_) | Trouble::Partition | Trouble::Lose | Trouble::Delay => {
            ring.machine_of(number)?.heal()
        }
    }
}

/// A volcano without a copy, if there is one.
fn reserve(ring: &Ring) -> Result<Option<usize>> {
    let state = ring.state()?;
    let copies: Vec<&String> =
        state.slices.iter().flat_map(|slice| slice.mirrors.iter().chain([&slice.primary])).collect();
    let free = state.members.iter().find(|name| !copies.contains(name));
    free.map(|name| ring.number(name)).transpose()
}

/// Looks at what the primary has, and then, with that one gone, at what its mirror has.
pub(super) fn look_at_all_copies(
    context: &Context,
    field: &mut Field,
    load: &Pressure,
    tally: &mut Tally,
) -> Result<()> {
    let settled = field.lava.ring().settle(SETTLES);
    tally.check("all copies are in sync in the end", settled.map(|_| ()).map_err(|error| error.to_string()));
    let fresh = field.fresh_mount()?;
    load.verify(context, &fresh, tally, "at the primary")?;
    let ring = field.lava.ring();
    let primary = ring.primary()?;
    ring.kill(primary)?;
    let fresh = field.fresh_mount()?;
    load.verify(context, &fresh, tally, "at its mirror")?;
    field.lava.ring().start(primary)
}
