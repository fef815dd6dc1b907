//! A network grows from one volcano to five and shrinks to two again, under load.

use std::time::Duration;

use super::pressure::{LONGEST_STALL, Pressure};
use super::{Field, GOES_ON, SETTLES, Said, step_by_step};
use crate::error::Result;
use crate::suites::Context;
use crate::tally::Tally;
use crate::testing::random;

/// Files of the tree that must not change.
const FILES: u64 = 250;
/// The same in a soak.
const SOAK_FILES: u64 = 800;
/// The applications work at least so long after each step.
const QUIET: Duration = Duration::from_secs(2);

/// What is done to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// One more volcano joins.
    Join,
    /// A witness joins.
    Witness,
    /// So many copies from now on.
    Copies(usize),
    /// This one leaves.
    Leave(&'static str),
    /// Whoever serves leaves.
    LeavePrimary,
    /// Whoever serves is killed, and comes back.
    KillPrimary,
    /// Whoever serves and the witness are lost, with them two of three votes. An administrator goes on with the mirror.
    ForceOut,
}

const STEPS: &[Step] = &[
    Step::Join,
    Step::Join,
    Step::Copies(3),
    Step::Join,
    Step::Join,
    Step::Copies(2),
    // The only one that the mount was told of.
    Step::Leave("wallace"),
    Step::LeavePrimary,
    Step::LeavePrimary,
    // Two that store can only do without one of them if somebody else votes as well.
    Step::Witness,
    Step::KillPrimary,
    Step::ForceOut,
];

/// Runs it.
pub(in crate::suites) fn run(context: &Context) -> Result<Tally> {
    let mut random = random::announced();
    let mut field = Field::new(context, 1, 2)?;
    let mut tally = Tally::default();
    let files = if context.long { SOAK_FILES } else { FILES };
    let load = step_by_step(context, &mut field, (files, &mut random), (STEPS, take), &mut tally)?;
    let fresh = field.fresh_mount()?;
    load.verify(context, &fresh, &mut tally, "in the end")?;
    field.finish(&mut tally);
    Ok(tally)
}

fn take(field: &mut Field, load: &mut Pressure, step: Step) -> Said {
    let _before = load.slowest()?;
    let ring = field.lava.ring();
    match step {
        Step::Join | Step::Witness => {
            let number = ring.add(step == Step::Witness)?;
            ring.start(number)?;
        }
        Step::Copies(copies) => ring.set_copies(copies)?,
        Step::Leave(name) => ring.leave(ring.number(name)?)?,
        Step::LeavePrimary => ring.leave(ring.primary()?)?,
        Step::KillPrimary => {
            let primary = ring.primary()?;
            ring.kill(primary)?;
            load.work_for(QUIET * 2)?;
            load.goes_on(GOES_ON)?;
            ring.start(primary)?;
        }
        Step::ForceOut => return force_out(field, load),
    }
    let settled = ring.settle(SETTLES)?;
    load.work_for(QUIET)?;
    load.goes_on(GOES_ON)?;
    let stall = load.slowest()?;
    let said = format!("{stall}, all in sync after {:.1} s", settled.as_secs_f64());
    Ok(if stall.time < LONGEST_STALL { Ok(said) } else { Err(said) })
}

/// Nobody is served until the administrator has decided. Everything that was acknowledged must be there then, and nobody who was
/// lost may bring back what the network was before.
fn force_out(field: &mut Field, load: &mut Pressure) -> Said {
    let ring = field.lava.ring();
    let (primary, mirror) = (ring.primary()?, ring.mirror()?);
    let witness = ring.witness()?;
    ring.kill(witness)?;
    ring.kill(primary)?;
    let said = ring.force_out(mirror, primary)?;
    if !said.contains("had everything that was acknowledged") {
        return Ok(Err(format!("the console says {said:?}")));
    }
    load.work_for(QUIET)?;
    load.goes_on(GOES_ON)?;
    ring.start_forced_out(primary)?;
    ring.start(witness)?;
    let settled = ring.settle(SETTLES)?;
    load.work_for(QUIET)?;
    load.goes_on(GOES_ON)?;
    Ok(Ok(format!("{}, all in sync after {:.1} s", load.slowest()?, settled.as_secs_f64())))
}
