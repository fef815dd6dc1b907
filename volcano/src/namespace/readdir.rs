//! READDIR, with or without attributes (RFC 1813 §3.3.16, §3.3.17).

use magma_common::error::FlareError;
use magma_common::name::NAME_MAX;
use magma_common::proto::limits::{MAX_BODY, MAX_READDIR_ENTRIES};
use magma_common::proto::operation::{Dirent, Readdir, ReaddirReply};

use super::permission::{self, EXECUTE, READ};
use super::plan::{Caller, Plan, Stop};
use super::times;
use crate::rows::EntryRow;

/// Most bytes that an entry takes in a reply beyond its name, with attributes.
const DIRENT_MAX: usize = 320;
/// Entries that fit a reply whatever they are.
const ALWAYS_FIT: usize = MAX_BODY as usize / (2 * (DIRENT_MAX + NAME_MAX));

pub(super) fn readdir(plan: &mut Plan<'_>, caller: &Caller<'_>, op: &Readdir) -> Result<ReaddirReply, Stop> {
    let mut dir = plan.directory(&op.dir)?;
    if !op.opened {
        permission::require(plan, caller.credentials, &dir, READ)?;
    }
    if op.limit == 0 {
        return Err(FlareError::Invalid.into());
    }
    let limit = (op.limit.min(MAX_READDIR_ENTRIES) as usize).min(ALWAYS_FIT);
    let mut rows = plan.view.entries_after(&op.dir.key, op.cookie, limit + 1)?;
    let eof = rows.len() <= limit;
    rows.truncate(limit);
    // Attributes let a client skip the lookups, so they need what lookups need.
    let attributes = op.attributes && permission::granted(plan, caller.credentials, &dir, EXECUTE)?;
    let entries = dirents(plan, rows, attributes)?;
    if op.cookie == 0 {
        times::note_read(plan, &mut dir);
    }
    Ok(ReaddirReply { entries, eof, dir: plan.attr(&dir)? })
}

/// What is wanted of flares elsewhere is noted for all of them before it is asked for.
fn dirents(plan: &Plan<'_>, rows: Vec<EntryRow>, attributes: bool) -> Result<Vec<Dirent>, Stop> {
    let mut entries = Vec::with_capacity(rows.len());
    let mut is_complete = true;
    for row in rows {
        plan.view.led_to(&row.child.key, row.made_by);
        match dirent(plan, row, attributes) {
            Ok(entry) => entries.push(entry),
            Err(Stop::Elsewhere) => is_complete = false,
            Err(other) => return Err(other),
        }
    }
    if is_complete { Ok(entries) } else { Err(Stop::Elsewhere) }
}

/// An entry. Its attributes are left out if the flare cannot be read here.
fn dirent(plan: &Plan<'_>, entry: EntryRow, attributes: bool) -> Result<Dirent, Stop> {
    let attr = if attributes {
        let row = plan.view.flare(&entry.child.key)?.filter(|row| row.handle == entry.child);
        row.map(|row| plan.attr(&row)).transpose()?
    } else {
        None
    };
    let EntryRow { name, child, kind, cookie, .. } = entry;
    Ok(Dirent { name, handle: child, kind, cookie, attr })
}
