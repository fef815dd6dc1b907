//! `./magma bench --directory`: whether a directory of a million entries is as fast as a small one, through one FUSE mount.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Options, Rate, Row, free_ports, table};
use crate::error::{Doing, Error, Result};
use crate::lava::{Lava, Ports};
use crate::programs::Programs;
use crate::ring::Layout;
use crate::testing::scratch::Scratch;
use crate::testing::signals;

/// Entries of the two directories.
const ENTRIES: [(&str, u64); 2] = [("1,000 entries", 1000), ("1,000,000 entries", 1_000_000)];
/// Entries that are made, looked up and removed in a measurement.
const TOUCHED: u64 = 1000;
/// Entries of one step while a directory is filled.
const STEP: u64 = 10_000;
/// Threads that fill it.
const THREADS: u64 = 8;

/// Runs it.
pub(super) fn run(options: &Options, programs: &Programs, scratch: &Scratch) -> Result<()> {
    let ports = Ports { volcano: free_ports()?, nfs: 0, ninep: 0 };
    let mut lava = Lava::at(programs, &scratch.path().join("lava"), Layout::ONE, ports)?;
    lava.start_volcanos()?;
    let mount = scratch.path().join("mnt");
    lava.mount(&mount)?;
    let divisor = if options.quick { 16 } else { 1 };
    for (number, (name, entries)) in ENTRIES.iter().enumerate() {
        eprintln!("making {name}");
        fill(&mount.join(number.to_string()), entries / divisor)?;
    }
    let mut rows: Vec<Row> = Vec::new();
    for round in 1..=options.rounds {
        for (number, (name, entries)) in ENTRIES.iter().enumerate() {
            eprintln!("round {round} of {}: {name}", options.rounds);
            // A mount that knows nothing of the directory yet.
            let fresh = scratch.path().join(format!("mnt-{round}-{number}"));
            lava.mount(&fresh)?;
            let figures = measure(&fresh.join(number.to_string()), entries / divisor)?;
            for (at, (name, unit, rate)) in figures.into_iter().enumerate() {
                if at == rows.len() {
                    rows.push(Row { name, unit, rates: vec![Vec::new(); ENTRIES.len()] });
                }
                if let Some(rates) = rows.get_mut(at).and_then(|row| row.rates.get_mut(number)) {
                    rates.push(rate.per_second());
                }
            }
        }
    }
    let names: Vec<PathBuf> = ENTRIES.iter().map(|(name, _)| name.into()).collect();
    print!("{}", table::text(&names, &rows));
    lava.stop()
}

/// The name of an entry; numbers that follow each other are far apart.
fn name(number: u64) -> String {
    format!("{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn fill(folder: &Path, entries: u64) -> Result<()> {
    std::fs::create_dir(folder).doing(|| format!("{}", folder.display()))?;
    for first in (0..entries).step_by(usize::try_from(STEP).unwrap_or(1)) {
        signals::check()?;
        let end = entries.min(first + STEP);
        std::thread::scope(|scope| {
            let make = |thread: u64| {
                (first..end)
                    .filter(|number| number % THREADS == thread)
                    .try_for_each(|number| File::create(folder.join(name(number))).map(drop))
            };
            let running: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || make(thread))).collect();
            running.into_iter().try_for_each(|thread| {
                let outcome = thread.join().map_err(|_| Error::Wrong("a thread panicked".to_owned()))?;
                outcome.doing(|| format!("filling {}", folder.display()))
            })
        })?;
    }
    Ok(())
}

fn measure(folder: &Path, entries: u64) -> Result<super::Figures> {
    let rate = |amount: u64, what: &'static str, work: &dyn Fn() -> std::io::Result<()>| {
        Rate::of(amount, || work().doing(|| what.to_owned()))
    };
    let touched = TOUCHED.min(entries);
    let every = (entries / touched).max(1);
    let there = |number: u64| folder.join(name(number * every));
    let new = |number: u64| folder.join(format!("new{number}"));
    Ok(vec![
        (
            "list the first 1,000",
            "entries/s",
            rate(touched, "listing", &|| list(folder, usize::try_from(touched).unwrap_or(usize::MAX)))?,
        ),
        (
            "look up names that are there",
            "names/s",
            rate(touched, "looking up", &|| {
                (0..touched).try_for_each(|number| std::fs::metadata(there(number)).map(drop))
            })?,
        ),
        (
            "look up names that are not",
            "names/s",
            rate(touched, "looking up", &|| {
                (0..touched)
                    .try_for_each(|number| std::fs::exists(folder.join(format!("no{number}"))).map(drop))
            })?,
        ),
        (
            "create, 1 thread",
            "files/s",
            rate(touched, "creating", &|| {
                (0..touched).try_for_each(|number| File::create(new(number)).map(drop))
            })?,
        ),
        (
            "unlink, 1 thread",
            "files/s",
            rate(touched, "unlinking", &|| {
                (0..touched).try_for_each(|number| std::fs::remove_file(new(number)))
            })?,
        ),
        ("list everything", "entries/s", rate(entries, "listing", &|| list(folder, usize::MAX))?),
    ])
}

fn list(folder: &Path, most: usize) -> std::io::Result<()> {
    std::fs::read_dir(folder)?.take(most).try_for_each(|entry| entry.map(drop))
}
