//! What must go of a copy before a range is brought in anew, or because it belongs to none any more.

use magma_common::key::KeyRange;

use super::super::db::{Db, Flare};
use crate::record::{BodyChange, Change};
use crate::view::ReadError;

/// Most flares and most bodies that are removed at once.
const FLARES: usize = 256;
/// Most rows that are removed at once, besides those of extended attributes, of which a flare has few.
const ROWS: usize = 4096;

/// A piece of the work.
#[derive(Debug, Default)]
pub(in super::super) struct Wiped {
    /// What removes it.
    pub(in super::super) changes: Vec<Change>,
    /// There is more in the range.
    pub(super) more: bool,
    /// Rows and bodies that it removes.
    rows: usize,
}

impl Wiped {
    /// Plans to remove what lies in a range, as much as may be done at once with what is planned already.
    ///
    /// A body can be there without its flare: a large flare's comes first.
    pub(in super::super) fn plan(&mut self, db: &Db, range: KeyRange) -> Result<(), ReadError> {
        let room = self.room();
        let bodies = db.bodies_of(range, FLARES.min(room))?;
        let inos = db.inos(range, FLARES.min(room))?;
        self.more |= bodies.len().max(inos.len()) >= FLARES.min(room);
        for (body, flare) in bodies {
            self.push(Change::Body { body, flare, change: BodyChange::Drop });
        }
        for ino in inos {
            let Some(flare) = db.flare_by_ino(ino)? else { continue };
            let room = self.room();
            let rows = rows_of(db, &flare, room)?;
            if rows.len() >= room {
                for row in rows {
                    self.push(row);
                }
                self.more = true;
                break;
            }
            self.rows += rows.len();
            self.push(Change::DeleteFlare(flare.row.key()));
        }
        Ok(())
    }

    /// Rows that may still be removed.
    pub(in super::super) fn room(&self) -> usize {
        ROWS.saturating_sub(self.rows)
    }

    /// Adds removals of rows, as many as there was room for or all there are.
    pub(super) fn remove(&mut self, rows: Vec<Change>) {
        self.more |= rows.len() >= self.room();
        for row in rows {
            self.push(row);
        }
    }

    fn push(&mut self, change: Change) {
        self.rows += 1;
        self.changes.push(change);
    }
}

/// The removal of up to `limit` entries and names of a flare, one by one.
fn rows_of(db: &Db, flare: &Flare, limit: usize) -> Result<Vec<Change>, ReadError> {
    let key = flare.row.key();
    let entries = db.entries_after(&key, 0, limit)?;
    let references = db.references_after(flare.local, None, limit.saturating_sub(entries.len()))?;
    let entries = entries.into_iter().map(|entry| Change::DeleteEntry { dir: key, name: entry.name });
    let references = references.into_iter().map(|reference| Change::DeleteReference {
        flare: key,
        parent: reference.parent.key,
        name: reference.name,
        made_by: reference.made_by,
    });
    Ok(entries.chain(references).collect())
}
