//! All doors to a ring at once: volcanos end and come back, and an NFS gateway hands its address to another one.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use super::failover::{LONG_FROZEN, QUIET, Trouble, Victim, at_random, get_into, look_at_all_copies};
use super::pressure::{NFS_WORKERS, NINEP_WORKERS, Pace, Pressure, SOME_WORKERS};
use super::{Field, SETTLES, check};
use crate::error::{Doing, Result};
use crate::guest::{Door, GUEST, MOVING_HOST};
use crate::lava::{Lava, NfsClients, SUITE_PORTS};
use crate::ring::add_hosts;
use crate::ring::machine::{Cut, Machine};
use crate::suites::Context;
use crate::tally::Tally;
use crate::testing::process::Process;
use crate::testing::random::{self, Random};

/// How long a gateway may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// Volcanos and copies of the test.
const RING: (usize, usize) = (5, 3);
/// What a soak chooses from.
const SOAK_RINGS: [(usize, usize); 4] = [(3, 2), (3, 3), (5, 2), (5, 3)];
/// How long the guest may take to boot and every worker to begin.
const STARTS: Duration = Duration::from_secs(240);
/// How long an NFS client may take to find the gateway on another machine: it asks again after up to 60 s.
const FINDS_GATEWAY: Duration = Duration::from_secs(100);
/// Events of one run in a soak.
const SOAK_EVENTS: usize = 15;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A volcano gets into trouble.
    Volcano(Trouble, Victim),
    /// The machine of the NFS gateway ends, and another one takes its address.
    GatewayMoves,
}

/// What happens in the test, in this order.
const TEST: &[Event] = &[
    Event::Volcano(Trouble::Kill, Victim::Primary),
    Event::Volcano(Trouble::Kill, Victim::Coordinator),
    Event::GatewayMoves,
    Event::Volcano(Trouble::Freeze, Victim::Primary),
    Event::Volcano(Trouble::Damage(Cut::Speaking), Victim::Primary),
    Event::Volcano(Trouble::Damage(Cut::Hearing), Victim::Primary),
    Event::Volcano(Trouble::Kill, Victim::Mirror),
];

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
    // The guest's own address arrives here: these packets are only passed on.
    command.args(["--export", &format!("{},client={GUEST}", NfsClients::Any.export())]);
    let mut process = Process::start("magma-nfs", command, &context.log(&format!("magma-nfs-{number}"))?)?;
    process.ready("magma-nfs ready", READY)?;
    machine.take(MOVING_HOST)?;
    Ok(process)
}

/// Runs it.
pub(in crate::suites) fn run(context: &Context) -> Result<Tally> {
    let mut random = random::announced();
    let (volcanos, copies) = if context.long { one_of(&SOAK_RINGS, &mut random, RING) } else { RING };
    println!("  {volcanos} volcanos, {copies} copies");
    let mut field = Field::new(context, volcanos, copies)?;
    let mut tally = Tally::default();
    field.lava.start_ninep()?;
    let mut gateways = Gateways::start(context, &mut field.lava)?;
    let share = context.share()?;

    let mut load =
        Pressure::start(context, field.mounts(), "load", (SOME_WORKERS, Pace::Light), &mut random)?;
    let doors = [(Door::NfsMoving, NFS_WORKERS), (Door::NinepClient, NINEP_WORKERS)];
    load.start_in_guest(context, (&field.mount, share.path()), &doors, &mut random)?;
    load.goes_on(STARTS)?;

    for (number, event) in plan(context, &mut random).into_iter().enumerate() {
        let outcome = match event {
            Event::Volcano(trouble, victim) => {
                get_into(field.lava.ring(), &mut load, &mut random, (trouble, victim), LONG_FROZEN)
            }
            Event::GatewayMoves => move_gateway(context, &mut field, &mut gateways, &mut load),
        };
        let failed = outcome.is_err();
        check(&mut tally, &format!("{}. {event:?}", number + 1), outcome);
        let broken = failed && field.lava.ring().settle(SETTLES).is_err();
        if broken || context.time_is_up() {
            break;
        }
    }
    tally.check("no application gets an error", load.end().map_err(|error| error.to_string()));
    look_at_all_copies(context, &mut field, &load, &mut tally)?;
    let ended = gateways.process.stop();
    tally.check("the NFS gateway ends in order", ended.map_err(|error| error.to_string()));
    drop(gateways);
    share.discard();
    field.finish(&mut tally);
    Ok(tally)
}

fn one_of<T: Copy>(all: &[T], random: &mut Random, or: T) -> T {
    let number = usize::try_from(random.below(all.len() as u64)).unwrap_or(0);
    all.get(number).copied().unwrap_or(or)
}

fn plan(context: &Context, random: &mut Random) -> Vec<Event> {
    if !context.long {
        return TEST.to_vec();
    }
    let troubles = at_random(random, SOAK_EVENTS).into_iter();
    let events = troubles.map(|(trouble, victim)| match random.below(5) {
        0 => Event::GatewayMoves,
        _ => Event::Volcano(trouble, victim),
    });
    events.collect()
}

/// The NFS gateway is lost and found on another machine. A client notices when it asks again: its operations may take longer
/// than those that wait for a volcano.
fn move_gateway(
    context: &Context,
    field: &mut Field,
    gateways: &mut Gateways,
    load: &mut Pressure,
) -> Result<std::result::Result<String, String>> {
    load.work_for(QUIET)?;
    let _before = load.slowest()?;
    gateways.take_over(context, &mut field.lava)?;
    load.goes_on(FINDS_GATEWAY)?;
    Ok(Ok(load.slowest()?.to_string()))
}
