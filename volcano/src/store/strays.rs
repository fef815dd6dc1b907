//! Rows that belong to no copy here: a copy has been placed anew with fewer keys than it had, or has made way for another one.

use magma_common::key::KeyRange;

use super::Store;
use super::copy::Wiped;
use super::error::StoreError;
use crate::missing::Missing;

impl Store {
    /// There may be some; [`maintain`](Self::maintain) removes them.
    pub fn remove_strays(&mut self) {
        self.upkeep.strays = true;
    }

    /// Removes some of them; true if there may be more.
    pub(super) fn stray_step(&mut self) -> Result<bool, StoreError> {
        // what is removed is told to the log under some copy's name
        let Some(&slice) = self.db.slices.keys().next().filter(|_| self.upkeep.strays) else {
            return Ok(false);
        };
        let mut free = Missing::all(KeyRange::ALL);
        self.db.slices.values().for_each(|state| free.remove(state.range));
        let mut wiped = Wiped::default();
        for &range in free.ranges() {
            if wiped.room() > 0 {
                wiped.plan(&self.db, range)?;
            }
        }
        if wiped.changes.is_empty() {
            self.upkeep.strays = false;
            return Ok(false);
        }
        match self.copied(slice, &wiped.changes, None) {
            Ok(_) => Ok(true),
            // tried again when there is space
            Err(StoreError::NoSpace(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
