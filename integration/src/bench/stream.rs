//! Reading and writing within one file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use super::{Bench, Figures, Rate};
use crate::error::{Doing, Result};
use crate::testing::random::Random;

const MIB: u64 = 1 << 20;

/// 512 MiB in blocks of 1 MiB: written, made durable, read from the server, read from the kernel's cache.
pub(super) fn sequential(bench: &Bench) -> Result<Figures> {
    let path = bench.folder.join("stream");
    let doing = || format!("{}", path.display());
    let blocks = bench.scaled(512);
    let block = Random::seeded(1).bytes(1 << 20);
    let mut file = File::create(&path).doing(doing)?;
    let write = Rate::of(blocks, || (0..blocks).try_for_each(|_| file.write_all(&block)).doing(doing))?;
    let sync = Rate::of(1, || file.sync_all().doing(doing))?;
    let durable = Rate { amount: blocks, time: write.time + sync.time };
    forget(&path)?;
    let read = Rate::of(blocks, || read_all(&path, blocks))?;
    let again = Rate::of(blocks, || read_all(&path, blocks))?;
    Ok(vec![
        ("write 1 MiB blocks", "MiB/s", write),
        ("write 1 MiB blocks, then fsync", "MiB/s", durable),
        ("read 1 MiB blocks, not cached by the client", "MiB/s", read),
        ("read 1 MiB blocks again", "MiB/s", again),
    ])
}

/// Drops what the client's kernel keeps of a file. (Of a local file this is all there is in memory, so a
/// local folder then reads from its disk.)
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path).doing(|| format!("{}", path.display()))?;
    fadvise(&file, 0, None, Advice::DontNeed).doing(|| format!("dropping the cache of {}", path.display()))
}

fn read_all(path: &Path, blocks: u64) -> Result<()> {
    let doing = || format!("{}", path.display());
    let mut file = File::open(path).doing(doing)?;
    let mut block = vec![0; 1 << 20];
    (0..blocks).try_for_each(|_| file.read_exact(&mut block)).doing(doing)
}

/// Blocks of 4 KiB at random places of a file of 64 MiB.
pub(super) fn random(bench: &Bench) -> Result<Figures> {
    let path = bench.folder.join("random");
    let doing = || format!("{}", path.display());
    let length = bench.scaled(64) * MIB;
    let operations = bench.scaled(8192);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).doing(doing)?;
    let fill = Random::seeded(2).bytes(1 << 20);
    (0..length / MIB).try_for_each(|block| file.write_all_at(&fill, block * MIB)).doing(doing)?;
    file.sync_all().doing(doing)?;
    let mut places = Random::seeded(3);
    let block = Random::seeded(4).bytes(4096);
    let write = Rate::of(operations, || {
        (0..operations)
            .try_for_each(|_| file.write_all_at(&block, places.below(length / 4096) * 4096))
            .doing(doing)
    })?;
    file.sync_all().doing(doing)?;
    forget(&path)?;
    let mut buffer = vec![0; 4096];
    let read = Rate::of(operations, || {
        (0..operations)
            .try_for_each(|_| file.read_exact_at(&mut buffer, places.below(length / 4096) * 4096))
            .doing(doing)
    })?;
    Ok(vec![("write 4 KiB at random", "writes/s", write), ("read 4 KiB at random", "reads/s", read)])
}

/// A log: each line is on disk before the next is written.
pub(super) fn appends(bench: &Bench) -> Result<Figures> {
    let path = bench.folder.join("log");
    let doing = || format!("{}", path.display());
    let lines = bench.scaled(500);
    let mut file = OpenOptions::new().append(true).create_new(true).open(&path).doing(doing)?;
    let rate = Rate::of(lines, || {
        (0..lines).try_for_each(|_| file.write_all(&[b'x'; 120]).and_then(|()| file.sync_data())).doing(doing)
    })?;
    Ok(vec![("append 120 bytes and fdatasync", "appends/s", rate)])
}
