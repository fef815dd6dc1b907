//! Many small files.

use std::path::{Path, PathBuf};

use super::{Bench, Figures, Rate};
use crate::error::{Doing, Error, Result};

/// Small files of one measurement, over all threads.
const FILES: u64 = 4000;
/// What each holds.
const CONTENT: [u8; 1024] = [b'm'; 1024];

/// With one thread.
pub(super) fn one_thread(bench: &Bench) -> Result<Figures> {
    let [create, stat, read, rename, unlink] = phases(bench, 1)?;
    Ok(vec![
        ("create a 1 KiB file, 1 thread", "files/s", create),
        ("stat, 1 thread", "files/s", stat),
        ("open, read and close, 1 thread", "files/s", read),
        ("rename, 1 thread", "files/s", rename),
        ("unlink, 1 thread", "files/s", unlink),
    ])
}

/// With eight, each in a folder of its own.
pub(super) fn eight_threads(bench: &Bench) -> Result<Figures> {
    let [create, stat, read, rename, unlink] = phases(bench, 8)?;
    Ok(vec![
        ("create a 1 KiB file, 8 threads", "files/s", create),
        ("stat, 8 threads", "files/s", stat),
        ("open, read and close, 8 threads", "files/s", read),
        ("rename, 8 threads", "files/s", rename),
        ("unlink, 8 threads", "files/s", unlink),
    ])
}

fn phases(bench: &Bench, threads: u64) -> Result<[Rate; 5]> {
    let each = bench.scaled(FILES) / threads;
    let folders: Vec<PathBuf> = (0..threads).map(|thread| bench.folder.join(format!("t{thread}"))).collect();
    for folder in &folders {
        std::fs::create_dir(folder).doing(|| format!("{}", folder.display()))?;
    }
    let phase = |work: fn(&Path, u64) -> std::io::Result<()>| {
        Rate::of(each * threads, || {
            std::thread::scope(|scope| {
                let running: Vec<_> = folders
                    .iter()
                    .map(|folder| scope.spawn(move || (0..each).try_for_each(|number| work(folder, number))))
                    .collect();
                running.into_iter().try_for_each(|thread| {
                    let outcome = thread.join().map_err(|_| Error::Wrong("a thread panicked".to_owned()))?;
                    outcome.doing(|| "small files".to_owned())
                })
            })
        })
    };
    Ok([
        phase(|folder, number| std::fs::write(folder.join(format!("f{number}")), CONTENT))?,
        phase(|folder, number| std::fs::metadata(folder.join(format!("f{number}"))).map(|_| ()))?,
        phase(|folder, number| std::fs::read(folder.join(format!("f{number}"))).map(|_| ()))?,
        phase(|folder, number| {
            std::fs::rename(folder.join(format!("f{number}")), folder.join(format!("g{number}")))
        })?,
        phase(|folder, number| std::fs::remove_file(folder.join(format!("g{number}"))))?,
    ])
}

/// Stats of a hundred files whose attributes the kernel may keep.
pub(super) fn warm_stat(bench: &Bench) -> Result<Figures> {
    let paths: Vec<PathBuf> = (0..100).map(|number| bench.folder.join(format!("w{number}"))).collect();
    for path in &paths {
        std::fs::write(path, CONTENT).doing(|| format!("{}", path.display()))?;
    }
    let rounds = bench.scaled(1000);
    let rate = Rate::of(rounds * 100, || {
        (0..rounds)
            .try_for_each(|_| paths.iter().try_for_each(|path| std::fs::metadata(path).map(|_| ())))
            .doing(|| "stat".to_owned())
    })?;
    Ok(vec![("stat of the same 100 files", "stats/s", rate)])
}

/// A folder of 5,000 entries.
pub(super) fn listing(bench: &Bench) -> Result<Figures> {
    let doing = || format!("{}", bench.folder.display());
    let entries = bench.scaled(5000);
    for number in 0..entries {
        std::fs::write(bench.folder.join(format!("entry-{number}")), "").doing(doing)?;
    }
    let rounds = bench.scaled(20);
    let rate = Rate::of(rounds * entries, || {
        for _ in 0..rounds {
            let mut seen = 0;
            for entry in std::fs::read_dir(bench.folder).doing(doing)? {
                entry.doing(doing)?;
                seen += 1;
            }
            if seen != entries {
                return crate::error::wrong(format!("{seen} of {entries} entries are listed"));
            }
        }
        Ok(())
    })?;
    Ok(vec![("list a folder of 5,000", "entries/s", rate)])
}
