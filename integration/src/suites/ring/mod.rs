//! Drills on a ring of several volcanos, each on a machine of its own: they are killed, stopped, cut off and wiped under load.

pub(super) mod doors;
pub(super) mod failover;
pub(super) mod grow;
pub(super) mod power;
mod pressure;
pub(super) mod spread;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::pressure::{Pace, Pressure};
use super::{Context, workloads};
use crate::error::{Doing, Result};
use crate::lava::Lava;
use crate::ring::Layout;
use crate::tally::Tally;
use crate::testing::command::{self, Show};
use crate::testing::random::Random;
use crate::testing::scratch::Scratch;

/// How long copies may take to be in sync after volcanos have come or gone.
const SETTLES: Duration = Duration::from_secs(60);
/// How long every application may take to do one more thing, whatever has happened: that may be a `git clone` in the guest.
const GOES_ON: Duration = Duration::from_secs(120);

/// Making a tree, and reading it, through FUSE and with all else that goes on.
const READS: Duration = Duration::from_secs(300);

/// A mount that keeps nothing: what it shows is what the volcanos say.
const UNCACHED: &str = "actimeo=0,negative_timeout=0,direct_io";

/// A ring of machines with two mounts: one for the load, and one that caches nothing, to look through.
struct Field {
    scratch: Scratch,
    lava: Lava,
    mount: PathBuf,
    check: PathBuf,
    mounts: usize,
}

impl Field {
    fn new(context: &Context, volcanos: usize, copies: usize) -> Result<Self> {
        let (scratch, mut lava) = context.lava_of(Layout::Machines(volcanos))?;
        lava.start_volcanos()?;
        if copies != lava.ring().copies() {
            lava.ring().set_copies(copies)?;
        }
        lava.ring().settle(SETTLES)?;
        let (mount, check) = (scratch.path().join("mnt"), scratch.path().join("check"));
        lava.mount(&mount)?;
        lava.mount_with(&check, UNCACHED)?;
        Ok(Self { scratch, lava, mount, check, mounts: 0 })
    }

    /// A mount of somebody who knows nothing yet.
    fn fresh_mount(&mut self) -> Result<PathBuf> {
        self.mounts += 1;
        let point = self.scratch.path().join(format!("fresh{}", self.mounts));
        self.lava.mount_with(&point, UNCACHED)?;
        Ok(point)
    }

    fn mounts(&self) -> (&Path, &Path) {
        (&self.mount, &self.check)
    }

    fn finish(self, tally: &mut Tally) {
        Context::finish(self.scratch, self.lava, tally);
    }
}

/// Counts a check whose outcome is a sentence: that is part of its line.
fn check(tally: &mut Tally, name: &str, outcome: Said) {
    match outcome {
        Ok(Ok(said)) => tally.check(&format!("{name}: {said}"), Ok(())),
        Ok(Err(said)) => tally.check(name, Err(said)),
        Err(error) => tally.check(name, Err(error.to_string())),
    }
}

/// What a step is answered with: a sentence about how it went, good or bad.
type Said = Result<std::result::Result<String, String>>;

/// How a step is taken.
type Take<S> = fn(&mut Field, &mut Pressure, S) -> Said;

/// Takes steps one after the other under load, and looks after each whether a tree of so many files is as it was. The load has
/// ended when this returns.
fn step_by_step<S: Copy + std::fmt::Debug>(
    context: &Context,
    field: &mut Field,
    (files, random): (u64, &mut Random),
    (steps, take): (&[S], Take<S>),
    tally: &mut Tally,
) -> Result<Pressure> {
    manifest(context, &["make"], &field.mount.join("tree"), &[&files.to_string()], "make")?;
    let before = manifest(context, &["show"], &field.check.join("tree"), &[], "before")?;
    let workers = &["append1", "storm1", "bank1", "bank2"];
    let mut load = Pressure::start(context, field.mounts(), "load", (workers, Pace::Light), random)?;
    load.goes_on(GOES_ON)?;
    for (number, step) in steps.iter().enumerate() {
        let outcome = take(field, &mut load, *step);
        let failed = outcome.is_err();
        check(tally, &format!("{}. {step:?}", number + 1), outcome);
        if failed {
            break;
        }
        manifest_check(context, field, &before, tally);
        if context.time_is_up() {
            break;
        }
    }
    tally.check("no application gets an error", load.end().map_err(|error| error.to_string()));
    Ok(load)
}

/// The tree that must not change is as it was.
fn manifest_check(context: &Context, field: &Field, before: &str, tally: &mut Tally) {
    let outcome = match manifest(context, &["show"], &field.check.join("tree"), &[], "after") {
        Ok(after) if after == before => Ok(()),
        Ok(_) => Err(format!("see the logs in {}", context.folder.display())),
        Err(error) => Err(error.to_string()),
    };
    tally.check("   the tree is as it was", outcome);
}

/// Runs the script on a tree and gives what it prints.
fn manifest(context: &Context, before: &[&str], tree: &Path, after: &[&str], log: &str) -> Result<String> {
    let mut command = workloads::python();
    command
        .arg(context.programs.integration().join("workloads/manifest.py"))
        .args(before)
        .arg(tree)
        .args(after);
    let log = context.log(&format!("manifest-{log}"))?;
    command::succeed("manifest.py", &mut command, &log, Show::No, READS)?;
    std::fs::read_to_string(&log).doing(|| format!("cannot read {}", log.display()))
}
