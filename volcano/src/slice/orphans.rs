//! Flares without a name die when nobody has them open.
//!
//! The release of the last open buries its flare in the same record. What that cannot reach (a session's end, the last
//! report after a restart, a release that a full disk refused) is found by a search through all orphans, in bounded
//! steps: there are few of them, while a session may hold a million flares open.

use magma_common::handle::Handle;
use magma_common::key::Key;

use super::{Now, Slice, Trouble};
use crate::namespace;
use crate::view::View;

/// Orphans looked at in one step.
const ORPHANS_PER_STEP: usize = 256;

/// Where the search for nameless flares that nobody has open stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// None is to be found.
    Done,
    /// To be gone on with after this key.
    After(Option<Key>),
}

impl Search {
    /// Everything is to be looked at.
    pub(super) fn from_start() -> Self {
        Self::After(None)
    }
}

impl Slice<'_> {
    /// One step of the search. After a restart it waits until each session that was alive has said what it holds open.
    pub(super) fn bury_some(&mut self, now: Now) -> Result<(), Trouble> {
        let Search::After(after) = *self.search else { return Ok(()) };
        if !self.sessions.all_reported() {
            return Ok(());
        }
        let orphans = self.view().orphans(after, ORPHANS_PER_STEP)?;
        for key in &orphans {
            if let Some(row) = self.store.flare(key)? {
                self.bury(now, row.handle)?;
            }
            *self.search = Search::After(Some(*key));
        }
        if orphans.len() < ORPHANS_PER_STEP {
            *self.search = Search::Done;
        }
        Ok(())
    }

    /// Lets a flare die that has no name and is not open.
    fn bury(&mut self, now: Now, handle: Handle) -> Result<(), Trouble> {
        let changes = self.plan_internal(now, |plan| namespace::release_last(plan, handle))?;
        if changes.is_empty() { Ok(()) } else { self.record(now, changes, None) }
    }
}
