//! The file system exerciser: random operations on one file, compared with a copy in memory.

use std::process::Command;
use std::time::Duration;

use super::{Context, Through};
use crate::error::{Doing, Result};
use crate::guest::Guest;
use crate::lava::{Lava, NfsClients, SUITE_PORTS};
use crate::ring::Layout;
use crate::tally::Tally;
use crate::testing::command::{self, Show};
use crate::testing::random;

/// Operations of one run on the host.
const HOST_OPERATIONS: u32 = 8_000;
/// Operations of one run in the guest, whose system calls are emulated.
const GUEST_OPERATIONS: u32 = 5_000;
/// How long copies may take until they are in sync.
const SETTLES: Duration = Duration::from_secs(60);
/// Runs, each with a seed of its own.
const RUNS: u64 = 3;

/// Runs it through one door, with that door's operations (`integration/expected/fsx-DOOR.toml`).
pub(super) fn run(context: &Context, through: Through, layout: Layout) -> Result<Tally> {
    run_on(context, through, layout, through.name(), |_| Ok(()))
}

/// Runs it through FUSE on files that are striped over slices of two volcanos, with what such files can do.
pub(super) fn run_striped(context: &Context) -> Result<Tally> {
    run_on(context, Through::Fuse, Layout::Loopback(2), "striped", |lava| {
        let ring = lava.ring();
        ring.settle(SETTLES)?;
        for command in ["lava stripes 64K", "lava divide 1", "lava divide 1", "lava divide 2"] {
            ring.console(0, command)?;
        }
        ring.settle(SETTLES).map(|_| ())
    })
}

fn run_on(
    context: &Context,
    through: Through,
    layout: Layout,
    operations: &str,
    prepare: fn(&mut Lava) -> Result<()>,
) -> Result<Tally> {
    let (scratch, mut lava) = context.lava_of(layout)?;
    lava.start_volcanos()?;
    prepare(&mut lava)?;
    let limit = context.limit.saturating_sub(Duration::from_secs(60));
    let configuration = context.programs.integration().join(format!("expected/fsx-{operations}.toml"));
    let mut random = random::announced();
    let seeds: Vec<u64> = (0..RUNS).map(|_| random.below(1 << 32)).collect();
    let mut tally = Tally::default();
    match through {
        Through::Fuse => {
            let mount = scratch.path().join("mnt");
            lava.mount(&mount)?;
            for seed in seeds {
                let mut command = Command::new(context.programs.tool("fsx"));
                command
                    .args(["-N", &HOST_OPERATIONS.to_string(), "-S", &seed.to_string(), "-f"])
                    .arg(&configuration);
                command.arg("-P").arg(scratch.path()).arg(mount.join(format!("fsx-{seed}")));
                let log = context.log(&format!("fsx-{seed}"))?;
                let outcome = command::succeed("fsx", &mut command, &log, Show::No, limit);
                tally.check(&format!("seed {seed}"), outcome.map_err(|error| error.to_string()));
            }
        }
        Through::Guest(door) => {
            match through.name() {
                "nfs" => lava.start_nfs(NfsClients::Any)?,
                _ => lava.start_ninep()?,
            }
            let share = context.share()?;
            super::copy(&configuration, &share.path().join("fsx.toml"))?;
            for seed in seeds {
                let file = format!("/mnt/{}/fsx-{seed}", door.name());
                let script = format!(
                    "/share/bin/fsx -N {GUEST_OPERATIONS} -S {seed} -f /share/fsx.toml -P /tmp {file} \
                     > /share/output 2>&1"
                );
                let guest = Guest::new(&context.programs, share.path(), limit);
                let outcome = guest.run(SUITE_PORTS, &[door], &script, &context.log("guest")?);
                let output = share.path().join("output");
                if output.exists() {
                    super::copy(&output, &context.log(&format!("fsx-{seed}"))?)?;
                    std::fs::remove_file(&output).doing(|| "cannot remove the output of fsx".to_owned())?;
                }
                tally.check(&format!("seed {seed}"), outcome.map_err(|error| error.to_string()));
            }
            share.discard();
        }
    }
    Context::finish(scratch, lava, &mut tally);
    Ok(tally)
}
