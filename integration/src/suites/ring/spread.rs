//! A network of one slice is spread over all its volcanos, under load, and goes on being spread while volcanos come, go and are lost. Its files
//! are striped as finely as can be.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::failover::look_at_all_copies;
use super::pressure::{LONGEST_STALL, Pressure};
use super::{Field, GOES_ON, SETTLES, Said, step_by_step};
use crate::error::{Error, Result, wrong};
use crate::ring::Ring;
use crate::suites::Context;
use crate::tally::Tally;
use crate::testing::random;
use crate::testing::wait;

/// Volcanos and copies at the beginning.
const RING: (usize, usize) = (3, 2);
/// Files of the tree that must not change.
const FILES: u64 = 40;
/// What the administrator says of the files that are to be made.
const STRIPES: &str = "lava stripes 64K";
/// How long dividing and moving may take until all volcanos serve their share.
const SPREADS: Duration = Duration::from_secs(240);
/// The applications work at least so long after each step.
const QUIET: Duration = Duration::from_secs(2);

/// What is done to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The balancer begins.
    Balance,
    /// One that serves some of the slices is killed, and comes back.
    Kill(&'static str),
    /// One more volcano joins, and gets its share.
    Join,
    /// One leaves; others get what it had.
    Leave(&'static str),
}

const STEPS: &[Step] = &[Step::Balance, Step::Kill("gromit"), Step::Join, Step::Leave("wallace")];

/// Runs it.
pub(in crate::suites) fn run(context: &Context) -> Result<Tally> {
    let mut random = random::announced();
    let (volcanos, copies) = RING;
    let mut field = Field::new(context, volcanos, copies)?;
    field.lava.ring().console(0, STRIPES)?;
    let mut tally = Tally::default();
    let load = step_by_step(context, &mut field, (FILES, &mut random), (STEPS, take), &mut tally)?;
    look_at_all_copies(context, &mut field, &load, &mut tally)?;
    field.finish(&mut tally);
    Ok(tally)
}

fn take(field: &mut Field, load: &mut Pressure, step: Step) -> Said {
    let _before = load.slowest()?;
    let ring = field.lava.ring();
    let began = Instant::now();
    match step {
        Step::Balance => {
            ring.console(0, "lava balance on")?;
        }
        Step::Kill(name) => {
            let number = ring.number(name)?;
            ring.kill(number)?;
            load.work_for(QUIET * 2)?;
            load.goes_on(GOES_ON)?;
            ring.start(number)?;
        }
        Step::Join => {
            let number = ring.add(false)?;
            ring.start(number)?;
        }
        Step::Leave(name) => ring.leave(ring.number(name)?)?,
    }
    ring.settle(SETTLES)?;
    spread(ring)?;
    let took = began.elapsed();
    load.work_for(QUIET)?;
    load.goes_on(GOES_ON)?;
    let stall = load.slowest()?;
    let slices = field.lava.ring().state()?.slices.len();
    let said = format!("{stall}, {slices} slices spread after {:.1} s", took.as_secs_f64());
    Ok(if stall.time < LONGEST_STALL { Ok(said) } else { Err(said) })
}

/// Waits until every volcano serves some of the slices, and the balancer has nothing left to do.
fn spread(ring: &mut Ring) -> Result<()> {
    let mut last = String::new();
    let waited = wait::until("all volcanos to serve their share", SPREADS, || {
        ring.must_run()?;
        let Some(asked) = (0..ring.len()).find(|&number| ring.runs(number)) else { return Ok(None) };
        let (Ok(state), Ok(plan)) = (ring.state_by(asked), ring.console(asked, "lava balance plan")) else {
            return Ok(None);
        };
        let serving: BTreeSet<&String> = state.slices.iter().map(|slice| &slice.primary).collect();
        let all_serve = state.members.iter().all(|member| serving.contains(member));
        let is_even = plan.contains("evenly enough");
        let is_spread = all_serve && is_even && state.is_in_sync(ring.copies());
        last = format!("{state:?} {plan:?}");
        Ok(is_spread.then_some(()))
    });
    match waited {
        Err(Error::TimedOut { what, limit }) => {
            wrong(format!("{what}: not within {} s; the last state is {last}", limit.as_secs()))
        }
        waited => waited,
    }?;
    ring.settle(SETTLES).map(|_| ())
}
