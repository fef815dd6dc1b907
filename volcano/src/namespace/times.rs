//! When reading counts as reading: `relatime`, as Linux mounts by default.

use std::time::Duration;

use magma_common::time::Timestamp;

use super::plan::Plan;
use crate::rows::FlareRow;

/// A time of last read this old is renewed by any reading.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A flare whose mtime lies ahead of the clock renews its atime at most this often, else each read would become a record.
const AHEAD_OF_CLOCK: Duration = Duration::from_secs(1);

/// Notes that the flare has been read, if its time of last read says too little. It is not a change that others must hear of.
pub(super) fn note_read(plan: &mut Plan<'_>, row: &mut FlareRow) {
    let now = plan.moment.now;
    if due(row, now) {
        row.atime = now;
        plan.put(row.clone());
    }
}

fn due(row: &FlareRow, now: Timestamp) -> bool {
    let age = now.since(row.atime);
    let changed = row.mtime.max(row.ctime);
    if changed > now {
        return row.atime <= changed && age >= AHEAD_OF_CLOCK;
    }
    age >= DAY || (row.atime <= changed && row.atime < now)
}
