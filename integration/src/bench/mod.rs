//! `./magma bench`: the same work in several folders, side by side, as rates and ratios.

mod directory;
mod files;
mod handoff;
mod programs;
mod ring;
mod stream;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::error::{Doing, Result, wrong};
use crate::lava::{ADDRESS, Lava, Ports, free_port};
use crate::programs::Programs;
use crate::ring::Layout;
use crate::testing::scratch::Scratch;
use crate::testing::signals;

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folders to compare; the first is what the others are compared with. Without any, a local folder and
    /// a FUSE mount of a volcano that is started for it.
    folders: Vec<PathBuf>,
    /// Rings of two, three and five volcanos against one volcano and a local folder; and how fast an empty volcano gets a
    /// copy of everything.
    #[arg(long, conflicts_with_all = ["folders", "only", "json"])]
    ring: bool,
    /// A directory of 1,000,000 entries against one of 1,000.
    #[arg(long, conflicts_with_all = ["folders", "only", "json", "ring"])]
    directory: bool,
    /// Rounds; the median of each figure counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Only works whose name contains this.
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// Sixteen times less of everything, to try it out.
    #[arg(long)]
    quick: bool,
    /// Write the figures of all rounds as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What one work may use.
struct Bench<'a> {
    /// A new folder in the folder under test, which is removed afterwards.
    folder: &'a Path,
    /// A local folder for originals.
    scratch: &'a Path,
    /// Divides all sizes.
    divisor: u64,
}

impl Bench<'_> {
    /// A size, smaller in a quick run.
    fn scaled(&self, count: u64) -> u64 {
        (count / self.divisor).max(8)
    }
}

/// One figure: how much was done in what time.
struct Rate {
    amount: u64,
    time: Duration,
}

impl Rate {
    /// Measures one piece of work that does `amount`.
    fn of(amount: u64, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let begin = Instant::now();
        work()?;
        Ok(Self { amount, time: begin.elapsed() })
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn per_second(&self) -> f64 {
        self.amount as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Figures by name; the unit belongs to the name.
type Figures = Vec<(&'static str, &'static str, Rate)>;

/// What a work does.
type Work = fn(&Bench) -> Result<Figures>;

/// The works, each with a name to choose it by.
const WORKS: &[(&str, Work)] = &[
    ("stream", stream::sequential),
    ("random", stream::random),
    ("appends", stream::appends),
    ("files", files::one_thread),
    ("files8", files::eight_threads),
    ("stat", files::warm_stat),
    ("readdir", files::listing),
    ("tar", programs::tar_find_remove),
    ("git", programs::git),
    ("sqlite", programs::sqlite),
];

/// All figures of one name.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    name: &'static str,
    unit: &'static str,
    /// By folder, by round.
    rates: Vec<Vec<f64>>,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let programs = Programs::locate()?;
    std::fs::create_dir_all(programs.runs()).doing(|| "cannot make the folder for benchmarks".to_owned())?;
    let scratch = Scratch::fresh(&programs.runs(), "bench")?;
    if options.ring {
        ring::run(options, &programs, &scratch)?;
        scratch.discard();
        return Ok(());
    }
    if options.directory {
        directory::run(options, &programs, &scratch)?;
        scratch.discard();
        return Ok(());
    }
    if !options.folders.is_empty() {
        let rows = measure(options, &options.folders, scratch.path())?;
        report(options, &options.folders, &rows)?;
        scratch.discard();
        return Ok(());
    }
    let ports = Ports { volcano: free_ports()?, nfs: 0, ninep: 0 };
    let mut lava = Lava::at(&programs, &scratch.path().join("lava"), Layout::ONE, ports)?;
    lava.start_volcanos()?;
    let mount = scratch.path().join("fuse");
    lava.mount(&mount)?;
    let folders = vec![scratch.folder("local")?, mount];
    let rows = measure(options, &folders, scratch.path())?;
    report(options, &folders, &rows)?;
    if options.only.is_none() {
        print!("{}", handoff::measure(&mut lava, &scratch.path().join("uncached"))?);
    }
    lava.stop()?;
    scratch.discard();
    Ok(())
}

/// Four ports in a row, beside those of a demo.
fn free_ports() -> Result<u16> {
    let bases = [12100, 12200, 12300, 12400, 12500, 12600];
    let free = bases.iter().find(|base| (0..4).all(|offset| free_port(&[**base + offset]).is_ok()));
    free.copied().map_or_else(|| wrong(format!("no four free ports on {ADDRESS} among {bases:?}")), Ok)
}

fn measure(options: &Options, folders: &[PathBuf], scratch: &Path) -> Result<Vec<Row>> {
    let chosen: Vec<_> = WORKS
        .iter()
        .filter(|(name, _)| options.only.as_ref().is_none_or(|part| name.contains(part)))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = WORKS.iter().map(|(name, _)| *name).collect();
        return wrong(format!("no work has that name; there are {}", names.join(" ")));
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 1..=options.rounds {
        for (name, work) in &chosen {
            for (position, folder) in folders.iter().enumerate() {
                signals::check()?;
                eprintln!("round {round} of {}: {name} in {}", options.rounds, folder.display());
                let own = Scratch::fresh(folder, &format!("magma-bench-{}", std::process::id()))?;
                let local = Scratch::fresh(scratch, "originals")?;
                let bench = Bench {
                    folder: own.path(),
                    scratch: local.path(),
                    divisor: if options.quick { 16 } else { 1 },
                };
                let figures = work(&bench);
                own.discard();
                local.discard();
                for (figure, unit, rate) in figures? {
                    let at = *index.entry(figure).or_insert(rows.len());
                    if at == rows.len() {
                        rows.push(Row { name: figure, unit, rates: vec![Vec::new(); folders.len()] });
                    }
                    if let Some(rates) = rows.get_mut(at).and_then(|row| row.rates.get_mut(position)) {
                        rates.push(rate.per_second());
                    }
                }
            }
        }
    }
    Ok(rows)
}

fn report(options: &Options, folders: &[PathBuf], rows: &[Row]) -> Result<()> {
    print!("{}", table::text(folders, rows));
    if let Some(path) = &options.json {
        let value = serde_json::json!({ "folders": folders, "rounds": options.rounds, "rows": rows });
        std::fs::write(path, format!("{value:#}\n")).doing(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
