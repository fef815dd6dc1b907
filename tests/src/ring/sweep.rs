//! Many seeds, and faults that are planted to see whether they are found.

use std::fmt::{Display, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use magma_volcano::observed;
use magma_volcano::planted::{Bug, plant};

use super::Summary;
use super::history::Violation;
use super::trace::Trace;

/// What a seed came to.
pub type Outcome = Result<Summary, String>;

/// Where databases lie: in memory if there is a place for it.
fn scratch() -> std::io::Result<tempfile::TempDir> {
    let memory = PathBuf::from("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("magma-ring-").tempdir_in(&memory).or_else(|_| builder.prefix("magma-ring-").tempdir())
}

/// A world to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// What decides everything.
    pub number: u64,
    /// So many slices, unless that is left to the seed.
    pub slices: Option<u32>,
    /// Whether client libraries ask, and not clients that speak the protocol by themselves.
    pub libraries: bool,
    /// Whether nothing goes wrong while slices are divided and moved.
    pub calm: bool,
    /// Whether files are striped.
    pub stripes: bool,
}

impl Seed {
    /// The world that this number draws.
    pub fn drawn(number: u64) -> Self {
        Self { number, slices: None, libraries: false, calm: false, stripes: false }
    }
}

impl Display for Seed {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.number)?;
        self.slices.map_or(Ok(()), |slices| write!(f, " --slices {slices}"))?;
        let options =
            [(self.libraries, " --libraries"), (self.calm, " --calm"), (self.stripes, " --stripes")];
        for (is_so, option) in options {
            f.write_str(if is_so { option } else { "" })?;
        }
        Ok(())
    }
}

/// Runs one seed with this fault planted, if any.
pub fn seed(seed: Seed, bug: Option<Bug>, trace: Trace) -> Outcome {
    let folder = scratch().map_err(|error| format!("there is no place for databases: {error}"))?;
    plant(bug);
    drop(observed::taken());
    let ran = catch_unwind(AssertUnwindSafe(|| super::run(seed, folder.path(), trace)));
    plant(None);
    match ran {
        Ok((summary, Ok(()))) => Ok(summary),
        Ok((_, Err(Violation(sentence)))) => Err(sentence),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("a panic: {}", text.unwrap_or_default()))
        }
    }
}

/// Runs seeds on so many threads; `heard` is told of each.
pub fn seeds(
    seeds: &[Seed],
    jobs: usize,
    bug: Option<Bug>,
    heard: impl FnMut(Seed, &Outcome) -> bool + Send,
) {
    let next = AtomicU64::new(0);
    let heard = Mutex::new((heard, false));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(&number) = seeds.get(at) else { return };
                    let outcome = seed(number, bug, Trace::default());
                    let Ok(mut heard) = heard.lock() else { return };
                    if heard.1 || !(heard.0)(number, &outcome) {
                        heard.1 = true;
                        return;
                    }
                }
            });
        }
    });
}

/// The seeds that once failed: one a line, with the number of slices if there are several (0: the seed decides), `libraries` if these ask, `calm` if
/// nothing goes wrong, `stripes` if files are striped, and what they found behind a `#`.
pub fn corpus(text: &str) -> Vec<Seed> {
    let seed = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let number = words.next()?.parse().ok()?;
        let words: Vec<&str> = words.collect();
        let slices = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1);
        let has = |word| words.contains(&word);
        let slices = Some(slices).filter(|slices| *slices > 0);
        let (libraries, calm, stripes) = (has("libraries"), has("calm"), has("stripes"));
        Some(Seed { number, slices, libraries, calm, stripes })
    };
    text.lines().filter_map(seed).collect()
}
