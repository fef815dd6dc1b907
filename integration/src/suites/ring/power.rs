//! All volcanos end at once, again and again: whatever an application was promised is there afterwards.
//!
//! The processes end, not the machines: what a process has written is in the kernel's memory and comes back. So everything
//! that was acknowledged is looked for, synced or not. What a power cut takes is simulated in the store's own tests.

use std::time::Duration;

use super::pressure::{Pace, Pressure};
use super::{Field, GOES_ON, SETTLES, check};
use crate::error::Result;
use crate::suites::Context;
use crate::tally::Tally;
use crate::testing::random::{self, Random};

/// How often in the test.
const ROUNDS: u64 = 10;
/// How often at most in a run of a soak.
const SOAK_ROUNDS: u64 = 400;
/// The longest that the applications work between two cuts.
const LONGEST_WORK_MS: u64 = 2500;
/// How long the last one to come may be late.
const LATEST_MS: u64 = 1500;

/// Runs it.
pub(in crate::suites) fn run(context: &Context) -> Result<Tally> {
    let mut random = random::announced();
    let mut field = Field::new(context, 3, 2)?;
    let mut tally = Tally::default();
    let workers = &["append1", "append2", "append3", "storm1", "storm2", "bank1", "bank2"];
    let mut load = Pressure::start(context, field.mounts(), "load", (workers, Pace::Full), &mut random)?;
    load.goes_on(GOES_ON)?;
    let rounds = if context.long { SOAK_ROUNDS } else { ROUNDS };
    let (mut longest, mut longest_stall) = (Duration::ZERO, Duration::ZERO);
    for round in 1..=rounds {
        let outcome = cut(context, &mut field, &mut load, &mut random);
        let stall = load.slowest()?;
        longest_stall = longest_stall.max(stall.time);
        if let Ok(Ok(back)) = &outcome {
            longest = longest.max(*back);
        }
        let told =
            |back: Duration| format!("{stall}, all had done something after {:.1} s", back.as_secs_f64());
        check(&mut tally, &format!("cut {round} of {rounds}"), outcome.map(|found| found.map(told)));
        if tally.failed > 0 || context.time_is_up() {
            break;
        }
    }
    println!(
        "  the longest stall was {:.2} s; from the last start until every application had done something it took up to {:.1} s \
         (two of them write to one database)",
        longest_stall.as_secs_f64(),
        longest.as_secs_f64()
    );
    tally.check("no application gets an error", load.end().map_err(|error| error.to_string()));
    let settled = field.lava.ring().settle(SETTLES);
    tally.check("all copies are in sync in the end", settled.map(|_| ()).map_err(|error| error.to_string()));
    let fresh = field.fresh_mount()?;
    load.verify(context, &fresh, &mut tally, "after all of them")?;
    field.finish(&mut tally);
    Ok(tally)
}

/// One cut: all volcanos end at some moment, come back in some order, and what the appending workers were promised is looked
/// for at once. Gives how long the applications then took to go on, or what is missing.
fn cut(
    context: &Context,
    field: &mut Field,
    load: &mut Pressure,
    random: &mut Random,
) -> Result<std::result::Result<Duration, String>> {
    load.work_for(Duration::from_millis(random.below(LONGEST_WORK_MS)))?;
    let ring = field.lava.ring();
    ring.kill_all()?;
    let mut order: Vec<usize> = (0..ring.len()).collect();
    for place in 1..order.len() {
        order.swap(place, usize::try_from(random.below(place as u64 + 1)).unwrap_or(0));
    }
    let late = if random.below(3) == 0 { order.pop() } else { None };
    ring.start_together(&order)?;
    if let Some(late) = late {
        load.work_for(Duration::from_millis(random.below(LATEST_MS)))?;
        ring.start(late)?;
    }
    let back = load.goes_on(GOES_ON)?;
    if let Err(missing) = load.look(context, &field.check)? {
        return Ok(Err(missing));
    }
    // Half of the time the next cut comes before the copies are in sync again.
    if random.below(2) == 0 {
        field.lava.ring().settle(SETTLES)?;
    }
    Ok(Ok(back))
}
