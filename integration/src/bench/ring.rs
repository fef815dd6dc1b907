//! `./magma bench --ring`: what copies cost. Rings of two, three and five volcanos with two copies, and of three with one,
//! against a single volcano and a local folder; and how fast an empty volcano gets a copy of everything.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use super::{Options, Rate, Row, free_ports, table};
use crate::error::{Doing, Error, Result};
use crate::lava::{Lava, Ports};
use crate::programs::Programs;
use crate::ring::Layout;
use crate::testing::random::Random;
use crate::testing::scratch::Scratch;
use crate::testing::signals;

/// Small files of one measurement.
const FILES: u64 = 3000;
/// What each holds.
const CONTENT: [u8; 1024] = [b'm'; 1024];
/// Writes of 4 KiB, each with fsync.
const SYNCS: u64 = 400;
/// Blocks of 1 MiB of the big file.
const BLOCKS: u64 = 256;
/// Small files that an empty volcano has to get.
const RESYNCED: u64 = 50_000;
/// How long it may take for them, and any other change of copies.
const RESYNC_LIMIT: Duration = Duration::from_secs(1800);
/// Threads that make those files.
const THREADS: u64 = 8;

/// A folder under test and what serves it.
struct Place {
    name: &'static str,
    folder: PathBuf,
    lava: Option<Lava>,
}

/// One figure: a rate, and what it cost all volcanos of the folder.
struct Figure {
    name: &'static str,
    unit: &'static str,
    rate: Rate,
    cpu: Duration,
}

/// Runs it.
pub(super) fn run(options: &Options, programs: &Programs, scratch: &Scratch) -> Result<()> {
    let mut places = [
        Place { name: "local", folder: scratch.folder("local")?, lava: None },
        served(programs, scratch, "one volcano", Layout::ONE, None)?,
        served(programs, scratch, "three, 1 copy", Layout::Loopback(3), Some(1))?,
        served(programs, scratch, "two, 2 copies", Layout::Loopback(2), Some(2))?,
        served(programs, scratch, "three, 2 copies", Layout::Loopback(3), Some(2))?,
        served(programs, scratch, "five, 2 copies", Layout::Loopback(5), Some(2))?,
    ];
    let divisor = if options.quick { 16 } else { 1 };
    let (mut rates, mut costs): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let count = places.len();
        for (position, place) in places.iter_mut().enumerate() {
            signals::check()?;
            eprintln!("round {round} of {}: {}", options.rounds, place.name);
            for (at, figure) in measure(place, divisor)?.into_iter().enumerate() {
                note(&mut rates, at, (position, count), (figure.name, figure.unit), figure.rate.per_second());
                // A local folder has no volcano: its column is left out of the costs.
                if let Some(position) = position.checked_sub(1) {
                    let cost = micros(figure.cpu) / amount(&figure.rate);
                    note(&mut costs, at, (position, count - 1), (figure.name, "us"), cost);
                }
            }
        }
    }
    let names: Vec<PathBuf> = places.iter().map(|place| place.name.into()).collect();
    println!("{}", table::text(&names, &rates));
    let served = names.get(1..).unwrap_or_default();
    println!(
        "Processor time of all magmads for one of them (a ratio above 1 costs more):\n\n{}",
        table::text(served, &costs)
    );
    for lava in places.iter_mut().filter_map(|place| place.lava.take()) {
        lava.stop()?;
    }
    println!("{}", resync(programs, scratch, RESYNCED / divisor)?);
    Ok(())
}

fn served(
    programs: &Programs,
    scratch: &Scratch,
    name: &'static str,
    layout: Layout,
    copies: Option<usize>,
) -> Result<Place> {
    let ports = Ports { volcano: free_ports()?, nfs: 0, ninep: 0 };
    let folder = scratch.folder(&format!("lava {name}"))?;
    let mut lava = Lava::at(programs, &folder, layout, ports)?;
    lava.start_volcanos()?;
    if let Some(copies) = copies.filter(|copies| *copies != lava.ring().copies()) {
        lava.ring().set_copies(copies)?;
        lava.ring().settle(RESYNC_LIMIT)?;
    }
    let mount = folder.join("mnt");
    lava.mount(&mount)?;
    Ok(Place { name, folder: mount, lava: Some(lava) })
}

/// All figures of one place in one round.
fn measure(place: &mut Place, divisor: u64) -> Result<Vec<Figure>> {
    let ids = place.lava.as_mut().map(|lava| lava.ring().ids()).unwrap_or_default();
    let own = Scratch::fresh(&place.folder, "bench")?;
    let folder = own.path();
    let scaled = |count: u64| (count / divisor).max(8);
    let figure =
        |name: &'static str, unit, amount, work: &mut dyn FnMut() -> std::io::Result<()>| -> Result<Figure> {
            let before = processor_time(&ids)?;
            let rate = Rate::of(amount, || work().doing(|| name.to_owned()))?;
            Ok(Figure { name, unit, rate, cpu: processor_time(&ids)?.saturating_sub(before) })
        };
    let (files, syncs, blocks) = (scaled(FILES), scaled(SYNCS), scaled(BLOCKS));
    let (one, eight, big) = (folder.join("one"), folder.join("eight"), folder.join("big"));
    let figures = vec![
        figure("create a 1 KiB file, 1 thread", "files/s", files, &mut || make_files(&one, files, 1))?,
        figure("create a 1 KiB file, 8 threads", "files/s", files, &mut || {
            make_files(&eight, files, THREADS)
        })?,
        figure("stat", "files/s", files, &mut || {
            (0..files).try_for_each(|number| std::fs::metadata(path_of(&one, number, 1)).map(|_| ()))
        })?,
        figure("write 4 KiB and fsync", "writes/s", syncs, &mut || {
            let mut file = File::create(folder.join("synced"))?;
            (0..syncs).try_for_each(|_| file.write_all(&[b'x'; 4096]).and_then(|()| file.sync_all()))
        })?,
        figure("write 1 MiB blocks, then fsync", "MiB/s", blocks, &mut || {
            let block = Random::seeded(1).bytes(1 << 20);
            let mut file = File::create(&big)?;
            (0..blocks).try_for_each(|_| file.write_all(&block))?;
            file.sync_all()
        })?,
        figure("read 1 MiB blocks, not cached by the client", "MiB/s", blocks, &mut || {
            let mut file = File::open(&big)?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
            let mut block = vec![0; 1 << 20];
            (0..blocks).try_for_each(|_| file.read_exact(&mut block))
        })?,
    ];
    own.discard();
    Ok(figures)
}

fn path_of(folder: &Path, number: u64, threads: u64) -> PathBuf {
    folder.join(format!("t{}/f{number}", number % threads))
}

/// Makes files, each thread in a folder of its own.
fn make_files(folder: &Path, files: u64, threads: u64) -> std::io::Result<()> {
    (0..threads).try_for_each(|thread| std::fs::create_dir_all(folder.join(format!("t{thread}"))))?;
    let make = |thread: u64| {
        let mut numbers = (thread..files).step_by(usize::try_from(threads).unwrap_or(1));
        numbers.try_for_each(|number| std::fs::write(path_of(folder, number, threads), CONTENT))
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || make(thread))).collect();
        running.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")))
        })
    })
}

/// How long a volcano that comes back with nothing takes to have a copy of so many small files.
fn resync(programs: &Programs, scratch: &Scratch, files: u64) -> Result<String> {
    let mut place = served(programs, scratch, "resync", Layout::Loopback(2), None)?;
    let Some(mut lava) = place.lava.take() else { return Ok(String::new()) };
    eprintln!("resync: making {files} files");
    make_files(&place.folder.join("files"), files, THREADS).doing(|| "making files".to_owned())?;
    let ring = lava.ring();
    let mirror = ring.mirror()?;
    ring.kill(mirror)?;
    ring.wipe(mirror)?;
    eprintln!("resync: an empty volcano joins");
    let begin = Instant::now();
    ring.start(mirror)?;
    ring.settle(RESYNC_LIMIT)?;
    let took = begin.elapsed();
    lava.stop()?;
    let rate = Rate { amount: files, time: took };
    Ok(format!(
        "an empty volcano has a copy of {files} files of 1 KiB after {:.1} s: {:.0} flares a minute",
        took.as_secs_f64(),
        rate.per_second() * 60.0
    ))
}

/// Adds a figure of one place to its row.
fn note(
    rows: &mut Vec<Row>,
    at: usize,
    (position, places): (usize, usize),
    (name, unit): (&'static str, &'static str),
    value: f64,
) {
    if at >= rows.len() {
        rows.push(Row { name, unit, rates: vec![Vec::new(); places] });
    }
    if let Some(rates) = rows.get_mut(at).and_then(|row| row.rates.get_mut(position)) {
        rates.push(value);
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn amount(rate: &Rate) -> f64 {
    rate.amount.max(1) as f64
}

/// Processor time of these processes so far (`utime` and `stime` of `/proc/PID/stat`).
fn processor_time(ids: &[u32]) -> Result<Duration> {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let mut ticks = 0;
    for id in ids {
        let path = format!("/proc/{id}/stat");
        let text = std::fs::read_to_string(&path).doing(|| format!("cannot read {path}"))?;
        ticks += ticks_of(&text).ok_or_else(|| Error::Wrong(format!("{path} says {text:?}")))?;
    }
    Ok(Duration::from_millis(ticks * 1000 / ticks_per_second))
}

/// Fields 14 and 15; the second one, the name, may contain blanks and is in parentheses.
fn ticks_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::ticks_of;

    #[test]
    fn processor_time_is_read_behind_a_name_with_blanks() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks_of(stat), Some(280));
    }
}
