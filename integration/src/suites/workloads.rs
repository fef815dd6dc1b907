//! Everyday work through one door; the scripts are in `integration/workloads`.

use std::process::Command;
use std::time::Duration;

use super::{Context, Through, script};
use crate::error::Result;
use crate::guest::Guest;
use crate::lava::{NfsClients, SUITE_PORTS};
use crate::tally::Tally;
use crate::testing::command::{self, Show};

/// Runs them.
pub(super) fn run(context: &Context, through: Through) -> Result<Tally> {
    let (scratch, mut lava) = context.lava()?;
    lava.start_volcanos()?;
    let mount = scratch.path().join("mnt");
    lava.mount(&mount)?;
    let log = context.log("workloads")?;
    let limit = context.limit.saturating_sub(Duration::from_secs(60));
    let scripts = context.programs.integration().join("workloads");
    let outcome = match through {
        Through::Fuse => {
            let mut command = python();
            command.arg(scripts.join("run.py")).arg(&mount).arg("--scratch").arg(scratch.path());
            command::succeed("the workloads", &mut command, &log, Show::Yes, limit)
        }
        Through::Guest(door) => {
            match through.name() {
                "nfs" => lava.start_nfs(NfsClients::Any)?,
                _ => lava.start_ninep()?,
            }
            // The guest's part is to list and to change the folder; filling it is quicker from here.
            let mut fill = python();
            fill.arg(scripts.join("listing.py")).arg(mount.join("many"));
            command::succeed("filling a folder", &mut fill, &context.log("fill")?, Show::No, limit)?;
            let share = context.share()?;
            let name = door.name();
            // Linux's 9P client declares times of whole seconds.
            let times = if name == "9p" { "--whole-seconds" } else { "" };
            let work = format!(
                "python3 -B /share/workloads/run.py /mnt/{name} --quick --listing /mnt/{name}/many {times}"
            );
            let outcome =
                Guest::new(&context.programs, share.path(), limit).run(SUITE_PORTS, &[door], &work, &log);
            share.discard();
            outcome
        }
    };
    let mut tally = script::judge(outcome, &log)?;
    Context::finish(scratch, lava, &mut tally);
    Ok(tally)
}

/// Python that leaves no compiled files in the checkout.
pub(super) fn python() -> Command {
    let mut command = Command::new("python3");
    command.arg("-B");
    command
}
