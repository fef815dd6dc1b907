//! One tree, three doors at once: FUSE here, NFS and 9P in the guest (`workloads/doors.py`).

use std::time::Duration;

use super::{Context, script, workloads};
use crate::error::Result;
use crate::guest::{Door, Guest};
use crate::lava::SUITE_PORTS;
use crate::tally::Tally;
use crate::testing::process::Process;

/// Where the guest's agents reach the script on the host.
const AGENT_PORT: u16 = 12900;
/// How long the script may take to listen.
const LISTENS: Duration = Duration::from_secs(20);

/// Runs it.
pub(super) fn run(context: &Context) -> Result<Tally> {
    let (scratch, mut lava) = context.lava()?;
    let mount = lava.start_all()?;
    let share = context.share()?;
    let limit = context.limit.saturating_sub(Duration::from_secs(60));

    let log = context.log("doors")?;
    let mut command = workloads::python();
    command
        .arg(context.programs.integration().join("workloads/doors.py"))
        .arg(&mount)
        .arg(AGENT_PORT.to_string());
    let mut driver = Process::start("doors.py", command, &log)?;
    driver.ready("LISTENING", LISTENS)?;

    let agent =
        |name: &str| format!("python3 -B /share/workloads/door_agent.py 10.0.2.2 {AGENT_PORT} {name}");
    let work = format!("{} & {} & wait", agent("nfs"), agent("9p"));
    let guest = Guest::new(&context.programs, share.path(), limit);
    let mut guest =
        guest.start(SUITE_PORTS, &[Door::NfsFresh, Door::NinepClient], &work, &context.log("guest")?)?;

    let outcome = driver.wait(limit).and_then(|status| {
        if status.success() { guest.wait(limit).map(|_| ()) } else { crate::error::wrong("a case failed") }
    });
    drop(guest);
    print!("{}", driver.printed()?);
    let mut tally = script::judge(outcome, &log)?;
    share.discard();
    Context::finish(scratch, lava, &mut tally);
    Ok(tally)
}
