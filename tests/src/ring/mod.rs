//! A ring of volcanos in a simulation: real volcanos (consensus, replication, namespace, store) and clients in one thread, on a
//! simulated clock, network and disk, with faults; everything is decided by one seed, and the same seed does the same again.
//!
//! | file | concern |
//! |---|---|
//! | `scenario` | what kind of world a seed has |
//! | `world` | what happens next, and to whom |
//! | `volcano` | a machine with its disk and process |
//! | `caller`, `client`, `library`, `workload` | who asks, by which means, and for what |
//! | `network`, `clock`, `dice` | how messages travel, what time it is, chance |
//! | `faults` | what goes wrong |
//! | `reshaping` | slices that are divided and moved meanwhile |
//! | `striping` | what clients ask of stripes |
//! | `history` | what clients heard |
//! | `oracle`, `line`, `chronicle`, `lives` | every record, and what may be lost: as a whole, of one slice; in their order; every life |
//! | `namespace`, `linearizability` | whether what clients heard makes sense |
//! | `watch` | what must hold at every moment |
//! | `invariants` | what must hold at rest |
//! | `digest`, `trace` | whether it was the same again; what happened, for people |
//! | `sweep` | many seeds, and planted faults |

#![allow(
    clippy::pedantic,
    reason = "a simulation for tests: it converts its own small numbers freely and hands its events on by value"
)]

pub mod caller;
pub mod chronicle;
pub mod client;
pub mod clock;
pub mod dice;
pub mod digest;
mod faults;
pub mod history;
pub mod invariants;
pub mod library;
pub mod line;
pub mod linearizability;
pub mod lives;
mod moment;
pub mod namespace;
pub mod network;
pub mod oracle;
mod reshaping;
pub mod scenario;
pub mod striping;
pub mod sweep;
pub mod trace;
pub mod volcano;
mod watch;
pub mod workload;
pub mod world;

use std::path::Path;

use self::client::Phase;
use self::clock::{SECOND, Time};
use self::history::{History, Violation, violation};
use self::namespace::Namespace;
use self::sweep::Seed;
use self::trace::Trace;
use self::world::World;

/// Clients go on for so long when faults are over.
const AFTERWARDS: Time = 4 * SECOND;
/// Then everything that was asked is answered within this time.
const PATIENCE: Time = 30 * SECOND;
/// The whole tree is read within this time: one flare after the other.
const READING: Time = 120 * SECOND;
/// Where nothing goes wrong, every operation is answered within this time.
const CALM_PATIENCE: Time = 3 * SECOND;
/// And everything is at rest within this time: a copy that was lost often is taken back after five minutes at the latest, and
/// a session ends a minute after its client has vanished.
const SETTLING: Time = 480 * SECOND;

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The hash over all that happened.
    pub digest: String,
    /// Operations that clients began.
    pub operations: usize,
    /// Events.
    pub events: u64,
    /// Simulated time, in seconds.
    pub seconds: u64,
    /// Times that a slice lost what was not on disk.
    pub losses: usize,
    /// Slices.
    pub slices: u32,
}

/// Runs the world of a seed. Its databases lie in this folder.
pub fn run(seed: Seed, folder: &Path, trace: Trace) -> (Summary, Result<(), Violation>) {
    let mut world = World::new(seed, folder, trace);
    let outcome = go_through(&mut world);
    let summary = Summary {
        digest: world.digest(),
        operations: world.history().operations.len(),
        events: world.events,
        seconds: world.now / SECOND,
        losses: world.oracle.chronicle.cuts.len(),
        slices: world.scenario.slices,
    };
    (summary, outcome)
}

fn go_through(world: &mut World) -> Result<(), Violation> {
    let end = world.scenario.duration;
    world.run_until(end)?;
    world.end_troubles();
    world.run_until(end + AFTERWARDS)?;
    world.all_clients(Phase::Finishing);
    wait(world, PATIENCE, "progress: everything that was asked is answered", |world| {
        world.clients.iter().enumerate().find_map(|(index, client)| {
            let since = client.oldest()?;
            Some(format!("client {} has waited since {:.3}", index, since as f64 / SECOND as f64))
        })
    })?;
    let reader = world.clients.iter().position(|client| client.phase() != Phase::Gone).unwrap_or(0);
    world.clients[reader].read_everything();
    world.client_acts(reader);
    wait(world, READING, "progress: the whole tree is read", |world| {
        (!world.clients[reader].is_done()).then(|| "it is not".into())
    })?;
    world.all_clients(Phase::Leaving);
    wait(world, PATIENCE, "progress: clients leave", |world| {
        let stays = |client: &caller::Caller| client.phase() == Phase::Leaving && !client.is_done();
        world.clients.iter().position(stays).map(|index| format!("client {index} is still there"))
    })?;
    if world.scenario.is_calm {
        nobody_waits_long(world.history())?;
    }
    let checked =
        linearizability::check(world.history(), &world.oracle, Namespace::new(world.scenario.stripes))?;
    world.trace.say(world.now, || format!("{checked} operations make sense"));
    wait(world, SETTLING, "rest", |world| invariants::unrest(&world.volcanos))?;
    invariants::check(&world.volcanos)
}

/// Where nothing goes wrong, nobody waits long, however slices are divided and moved.
fn nobody_waits_long(history: &History) -> Result<(), Violation> {
    for operation in &history.operations {
        let Some(answered) = &operation.answered else { continue };
        let waited = answered.at.saturating_sub(answered.sent);
        if waited > CALM_PATIENCE && answered.released.is_some() && !operation.asked.request.waits() {
            let asked = history::describe(&operation.asked);
            let (sent, waited) = (answered.sent as f64 / SECOND as f64, waited as f64 / SECOND as f64);
            return violation(format!(
                "calm: {asked} was sent at {sent:.3} and answered {waited:.3} s later"
            ));
        }
    }
    Ok(())
}

/// Lets time pass until nothing is missing any more.
fn wait(
    world: &mut World,
    patience: Time,
    what: &str,
    missing: impl Fn(&World) -> Option<String>,
) -> Result<(), Violation> {
    let end = world.now + patience;
    while let Some(lack) = missing(world) {
        if world.now >= end {
            return violation(format!("{what}: after {} seconds, {lack}", patience / SECOND));
        }
        world.run_until(world.now + SECOND / 2)?;
    }
    Ok(())
}
