//! What was brought in and may not survive a power cut.

use magma_common::key::KeyRange;
use magma_common::topology::SliceId;

use super::super::Store;
use super::super::error::StoreError;
use super::super::log::Lsn;
use crate::missing::Missing;

/// A range that was brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Landed {
    /// The range.
    pub(in super::super) range: KeyRange,
    /// What it waits for.
    pub(in super::super) waits: Waits,
}

/// What must come before a range is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Waits {
    /// A sync of all bodies that began after this entry of the log.
    Bodies(Lsn),
    /// An entry of the log that says so.
    Entry,
    /// That this entry, which says so, is on disk.
    Log(Lsn),
}

/// Which syncs would let copies be complete.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Landing {
    /// Of all bodies.
    pub(in super::super) bodies: bool,
    /// Of the log.
    pub(in super::super) log: bool,
}

impl Store {
    /// Whether a copy lacks nothing, and would lack nothing after a power cut either, but for records and bytes that a sync was
    /// not asked for. False for a copy that is not here.
    pub fn is_complete(&self, slice: SliceId) -> bool {
        self.db.slices.get(&slice).is_some_and(|state| state.missing.is_empty() && state.landed.is_empty())
    }

    /// A sync is done: of the log up to here and, perhaps, of all bodies as they were then.
    pub(in super::super) fn note_landed(&mut self, through: Lsn, bodies: bool) {
        for state in self.db.slices.values_mut() {
            for landed in &mut state.landed {
                if bodies && matches!(landed.waits, Waits::Bodies(lsn) if lsn <= through) {
                    landed.waits = Waits::Entry;
                }
            }
            state.landed.retain(|landed| !matches!(landed.waits, Waits::Log(lsn) if lsn <= through));
        }
    }

    /// Tells the log of the ranges whose bodies are on disk.
    pub(in super::super) fn log_landed(&mut self) -> Result<(), StoreError> {
        let slices: Vec<_> = self.db.slices.keys().copied().collect();
        for slice in slices {
            let mut safe = Missing::NOTHING;
            let landed = self.db.slices.get(&slice).into_iter().flat_map(|state| &state.landed);
            for landed in landed.filter(|landed| landed.waits == Waits::Entry) {
                safe.insert(landed.range);
            }
            for &range in safe.ranges() {
                let lsn = self.copied(slice, &[], Some(range))?;
                if let Some(state) = self.db.slices.get_mut(&slice) {
                    state.landed.retain(|landed| landed.waits != Waits::Entry || !range.covers(landed.range));
                    state.landed.push(Landed { range, waits: Waits::Log(lsn) });
                }
            }
        }
        Ok(())
    }

    /// What the copies wait for that have everything.
    pub(in super::super) fn landing(&self) -> Landing {
        let whole = self.db.slices.values().filter(|state| state.missing.is_empty());
        let waits: Vec<_> = whole.flat_map(|state| &state.landed).map(|landed| landed.waits).collect();
        Landing {
            bodies: waits.iter().any(|waits| matches!(waits, Waits::Bodies(_))),
            log: waits.iter().any(|waits| matches!(waits, Waits::Log(_))),
        }
    }
}
