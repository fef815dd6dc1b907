//! What this client has open at the volcanos.
//!
//! A primary keeps opens in memory. When another one serves, or it has restarted, or a new session had to be opened, all of them are *reclaimed*: it
//! is told for each flare how often we have it open. That counts everything done so far, so releases that were not sent by
//! then are settled by it and must not be sent any more.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::{Notify, RwLock};

use crate::handle::Handle;
use crate::transport::lock;

#[derive(Default)]
struct State {
    open: HashMap<Handle, u32>,
    unsent: HashMap<Handle, u32>,
    /// Requests under way that would open something.
    in_flight: u32,
    /// Grows with each reclaim.
    generation: u64,
}

/// The flares that are open.
#[derive(Default)]
pub(super) struct Opens {
    state: Mutex<State>,
    /// There is something to release.
    pub(super) wanted: Notify,
    /// Held for reading while a release is under way, for writing while the primary is told what is open.
    pub(super) settling: RwLock<()>,
}

impl Opens {
    /// A request that opens something is about to be sent.
    pub(super) fn begin(&self) -> Opening<'_> {
        let mut state = lock(&self.state);
        state.in_flight += 1;
        Opening { opens: self, generation: state.generation }
    }

    pub(super) fn generation(&self) -> u64 {
        lock(&self.state).generation
    }

    /// Gives one open back; false if there is none.
    pub(super) fn release(&self, handle: Handle) -> bool {
        let mut state = lock(&self.state);
        match state.open.get_mut(&handle) {
            None => return false,
            Some(1) => drop(state.open.remove(&handle)),
            Some(count) => *count -= 1,
        }
        *state.unsent.entry(handle).or_default() += 1;
        drop(state);
        self.wanted.notify_one();
        true
    }

    /// Gives back an open that nobody was told of.
    pub(super) fn release_orphan(&self, handle: Handle) {
        *lock(&self.state).unsent.entry(handle).or_default() += 1;
        self.wanted.notify_one();
    }

    /// The releases to send, and the generation beyond which they must not be sent any more.
    pub(super) fn take_unsent(&self) -> (u64, HashMap<Handle, u32>) {
        let mut state = lock(&self.state);
        (state.generation, std::mem::take(&mut state.unsent))
    }

    /// Everything that is open, to be reclaimed now. Settles all releases.
    pub(super) fn reclaim(&self) -> Vec<(Handle, u32)> {
        let mut state = lock(&self.state);
        state.generation += 1;
        state.unsent.clear();
        state.open.iter().map(|(handle, count)| (*handle, *count)).collect()
    }
}

/// A request under way that would open something.
pub(super) struct Opening<'a> {
    opens: &'a Opens,
    generation: u64,
}

impl Opening<'_> {
    /// The request has opened this flare. If opens were reclaimed since it was first sent, the volcano may not count
    /// this one: then the result is how often we have it open at most, to be reclaimed once more.
    pub(super) fn opened(self, handle: Handle) -> Option<u32> {
        let mut state = lock(&self.opens.state);
        let count = state.open.entry(handle).or_default();
        *count = count.saturating_add(1);
        let count = *count;
        // Others under way may have been counted already; counting them twice keeps a dead flare's data until the session ends,
        // counting one too few would let a flare die that is in use.
        let others = state.in_flight.saturating_sub(1);
        (state.generation != self.generation).then_some(count.saturating_add(others))
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        lock(&self.opens.state).in_flight -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_that_were_not_sent_are_settled_by_a_reclaim() {
        let opens = Opens::default();
        let root = Handle::root();
        assert_eq!(opens.begin().opened(root), None);
        assert_eq!(opens.begin().opened(root), None);
        assert!(opens.release(root));
        assert_eq!(opens.reclaim(), vec![(root, 1)]);
        assert!(opens.take_unsent().1.is_empty());
        assert!(opens.release(root));
        assert!(!opens.release(root), "nothing is left to release");
        assert_eq!(opens.take_unsent().1.get(&root), Some(&1));
    }

    #[test]
    fn an_open_answered_across_a_reclaim_is_reclaimed_itself() {
        let opens = Opens::default();
        let opening = opens.begin();
        assert!(opens.reclaim().is_empty());
        assert_eq!(opening.opened(Handle::root()), Some(1));
    }
}
