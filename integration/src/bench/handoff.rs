//! What a `stat` costs that no cache answers: its latency, and how often a thread had to be woken for it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Doing, Result};
use crate::lava::Lava;

/// Measured calls, after a tenth as many to warm up.
const CALLS: u32 = 5000;

/// Mounts without caches and measures `stat` of one file: FUSE, client library, volcano and back.
///
/// A thread that waits and is woken counts as one voluntary context switch (`/proc/PID/task/TID/status`), so their
/// number per call is the number of hand-offs in that process. Background work (keep-alives, checkpoints) counts as well.
pub(super) fn measure(lava: &mut Lava, point: &Path) -> Result<String> {
    let mount = lava.mount_with(point, "actimeo=0")?;
    let volcano = lava.volcano()?.id();
    let path = point.join("uncached");
    let doing = || format!("{}", path.display());
    std::fs::write(&path, "x").doing(doing)?;
    let stat = || std::fs::metadata(&path).map(|_| ()).doing(doing);
    (0..CALLS / 10).try_for_each(|_| stat())?;

    let before = (waits(mount)?, waits(volcano)?);
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let begin = Instant::now();
        stat()?;
        times.push(begin.elapsed());
    }
    let after = (waits(mount)?, waits(volcano)?);
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(Duration::ZERO).as_micros();
    let per_call = |before: u64, after: u64| {
        f64::from(u32::try_from(after.saturating_sub(before)).unwrap_or(u32::MAX)) / f64::from(CALLS)
    };
    Ok(format!(
        "\nstat that no cache answers: median {} us, 99 % below {} us; threads woken per call: \
         {:.1} in mount.magma, {:.1} in magmad\n",
        at(50),
        at(99),
        per_call(before.0, after.0),
        per_call(before.1, after.1),
    ))
}

/// Voluntary context switches of all threads of a process.
fn waits(process: u32) -> Result<u64> {
    let tasks = format!("/proc/{process}/task");
    let mut sum = 0;
    for task in std::fs::read_dir(&tasks).doing(|| tasks.clone())? {
        let status = task.doing(|| tasks.clone())?.path().join("status");
        // A thread may have ended since the listing.
        let text = std::fs::read_to_string(status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}
