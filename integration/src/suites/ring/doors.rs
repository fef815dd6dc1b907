//! All doors to a ring at once: volcanos end and come back, and an NFS gateway hands its address to another one.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Field, SETTLES, check};
use crate::error::{Doing, Result};
use crate::guest::{Door, Guest, MOVING_HOST};
use crate::lava::{Lava, NfsClients, SUITE_PORTS};
use crate::ring::add_hosts;
use crate::ring::machine::Machine;
use crate::suites::Context;
use crate::suites::drills::{GOES_ON, Load, appender};
use crate::tally::Tally;
use crate::testing::process::Process;
use crate::testing::random::{self, Random};

/// How long a gateway may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// Something happens after each writer has had between 1 and this many more lines acknowledged.
const LINES_BETWEEN: u64 = 60;
/// How often all of it happens in a run of a soak.
const SOAK_ROUNDS: usize = 6;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    KillPrimary,
    KillMirror,
    GatewayMoves,
}

const EVENTS: &[Event] =
    &[Event::KillPrimary, Event::KillMirror, Event::GatewayMoves, Event::KillPrimary, Event::GatewayMoves];

/// Two machines with an NFS gateway each, of which one has the address that clients know.
struct Gateways {
    machines: Vec<Machine>,
    /// The one that serves.
    process: Process,
    active: usize,
}

impl Gateways {
    fn start(context: &Context, lava: &mut Lava) -> Result<Self> {
        // The guest's packets pass through this namespace.
        let forward = "/proc/sys/net/ipv4/ip_forward";
        std::fs::write(forward, "1").doing(|| format!("cannot write {forward}"))?;
        let log = context.log("machines")?;
        let machines = vec![lava.ring().machine(101, &log)?, lava.ring().machine(102, &log)?];
        let process = serve(context, lava, &machines, 0)?;
        Ok(Self { machines, process, active: 0 })
    }

    /// The gateway ends without warning; the other machine takes its address and starts one.
    fn take_over(&mut self, context: &Context, lava: &mut Lava) -> Result<()> {
        self.process.kill()?;
        if let Some(machine) = self.machines.get(self.active) {
            machine.give_up(MOVING_HOST)?;
        }
        self.active = 1 - self.active;
        self.process = serve(context, lava, &self.machines, self.active)?;
        Ok(())
    }
}

/// Starts a gateway on a machine, which takes the address.
fn serve(context: &Context, lava: &mut Lava, machines: &[Machine], number: usize) -> Result<Process> {
    let Some(machine) = machines.get(number) else { return crate::error::wrong("there is no such machine") };
    let mut command: Command = machine.command(&context.programs.binary("magma-nfs")?);
    add_hosts(&mut command, &lava.ring().hosts());
    command.arg("--key-file").arg(lava.key_file());
    command.arg("--listen").arg(format!("{}:{}", Ipv4Addr::UNSPECIFIED, SUITE_PORTS.nfs));
    command.args(["--export", NfsClients::Any.export()]);
    let mut process = Process::start("magma-nfs", command, &context.log(&format!("magma-nfs-{number}"))?)?;
    process.ready("magma-nfs ready", READY)?;
    machine.take(MOVING_HOST)?;
    Ok(process)
}

/// Runs it.
pub(in crate::suites) fn run(context: &Context) -> Result<Tally> {
    let mut random = random::announced();
    let mut field = Field::new(context, 3, 3)?;
    let mut tally = Tally::default();
    field.lava.start_ninep()?;
    let mut gateways = Gateways::start(context, &mut field.lava)?;
    let share = context.share()?;

    let mut load = Load::new(&field.mount)?;
    load.start_here(context, "fuse")?;
    let work = format!("{} & {} & wait", appender("nfs", "/mnt/nfs"), appender("9p", "/mnt/9p"));
    let guest = Guest::new(&context.programs, share.path(), context.limit);
    let doors = [Door::NfsMoving, Door::NinepClient];
    load.add(guest.start(SUITE_PORTS, &doors, &work, &context.log("guest")?)?, &["nfs", "9p"]);
    load.progress(1, GOES_ON)?;

    let rounds = if context.long { SOAK_ROUNDS } else { 1 };
    for event in std::iter::repeat_n(EVENTS, rounds).flatten() {
        let outcome = happen(context, &mut field, &mut gateways, &load, &mut random, *event);
        let failed = outcome.is_err();
        check(&mut tally, &format!("{event:?}"), outcome.map(Ok));
        if failed {
            break;
        }
    }
    tally.check("the writers end without an error", load.end().map_err(|error| error.to_string()));
    let fresh = field.fresh_mount()?;
    load.verify(&fresh.join("load"), &mut tally)?;
    let ended = gateways.process.stop();
    tally.check("the NFS gateway ends in order", ended.map_err(|error| error.to_string()));
    drop(gateways);
    share.discard();
    field.finish(&mut tally);
    Ok(tally)
}

/// One event, until every door has gone on and all copies are in sync.
fn happen(
    context: &Context,
    field: &mut Field,
    gateways: &mut Gateways,
    load: &Load,
    random: &mut Random,
    event: Event,
) -> Result<String> {
    load.progress(1 + random.below(LINES_BETWEEN), GOES_ON)?;
    let begin = Instant::now();
    let killed = match event {
        Event::KillPrimary => Some(field.lava.ring().primary()?),
        Event::KillMirror => Some(field.lava.ring().mirror()?),
        Event::GatewayMoves => None,
    };
    match killed {
        Some(number) => field.lava.ring().kill(number)?,
        None => gateways.take_over(context, &mut field.lava)?,
    }
    load.progress(1, GOES_ON)?;
    let went_on = begin.elapsed();
    if let Some(number) = killed {
        field.lava.ring().start(number)?;
        load.progress(1, GOES_ON)?;
    }
    field.lava.ring().settle(SETTLES)?;
    Ok(format!("every door goes on after {:.1} s", went_on.as_secs_f64()))
}
