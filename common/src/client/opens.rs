//! What this client has open, and what the volcanos have to be told of it.
//!
//! The primary of a slice keeps in memory how often each session has a flare open, and what has no name and is not open it
//! buries. It hears of opens, of releases, and of *statements* ([`ReclaimOpens`](crate::proto::operation::ReclaimOpens)): this flare
//! is open so and so often, whatever you have counted; and, in the end, that this was all. It waits for that end from every session
//! before it buries anything. A statement names the slice's reign, and a primary of another one refuses it.
//!
//! A slice is *told* when the primary of its present reign has our statement of all that is open in its range, made in
//! our present session. Invariants, for each flare:
//!
//! 1. A release is sent to slices that have been told only. For others it waits, and their statement settles it.
//! 2. A statement is made of what is open while no release of that range is under way, nor another statement. A release counts as under way
//!    from its first sending until it is answered, so nothing that a statement contains already arrives after it.
//! 3. An open under way counts as open in statements. If one was made meanwhile, the flare is stated once more when the open has ended,
//!    before anybody hears of its success: the primary may have counted it before the statement, after it, both, or not at all. So it is if
//!    one that was made before had not been heard when the open began: the open may overtake it on another way, and is not in it.
//! 4. Of a creation that opens, the flare is not known before its answer. A statement is ended only when all creations that had begun before it
//!    have ended: until then nothing in that slice is buried.
//! 5. An open whose caller has gone is not released but stated, since nobody knows which statements have counted it.
//! 6. What a statement may have said in vain, because it was not answered, is said again by the next one.
//!
//! From 1 to 4 follows that the primary never takes a flare for closed that is open, and from 3, 5 and 6 that nothing stays open for good. Numbers
//! are ordered by one counter, so that "meanwhile" is a comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::handle::{BirthNumber, Handle};
use crate::key::{Ino, Key, KeyRange};
use crate::proto::SessionId;
use crate::topology::{Epoch, Slice, SliceId, Topology};
use crate::transport::lock;

/// Releases to one slice that are under way at a time.
const WIDTH: usize = 64;

/// A slice that has been told what is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    reign: Epoch,
    range: KeyRange,
}

/// A request under way that would open something.
struct Begun {
    /// What it opens, if that is known and not yet counted as open.
    flare: Option<Handle>,
    /// Statements are not ended before it is.
    creates: bool,
}

/// A statement that was made.
struct Stated {
    range: KeyRange,
    made: u64,
    /// When the primary was known to have it. Until then opens may overtake it, also if it is not under way any more: nobody knows.
    heard: Option<u64>,
}

impl Stated {
    fn was_heard_before(&self, number: u64) -> bool {
        self.heard.is_some_and(|heard| heard < number)
    }
}

#[derive(Default)]
struct State {
    /// The session that `told` is about.
    session: SessionId,
    told: BTreeMap<SliceId, Told>,
    open: BTreeMap<Handle, u32>,
    unsent: BTreeMap<Handle, u32>,
    releasing: BTreeSet<Handle>,
    /// By the number under which each was begun.
    opening: BTreeMap<u64, Begun>,
    /// The last statement about each part of the keyspace; those heard before all opens under way are forgotten.
    stated: Vec<Stated>,
    /// Statements under way.
    stating: Vec<KeyRange>,
    /// Flares to be stated, since the primary's number may be too high.
    doubtful: BTreeSet<Handle>,
    last_number: u64,
}

impl State {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn is_told(&self, key: &Key) -> bool {
        self.told.values().any(|told| told.range.contains(key))
    }

    fn is_being_stated(&self, key: &Key) -> bool {
        self.stating.iter().any(|range| range.contains(key))
    }

    /// Whether a statement was made since.
    fn was_stated_since(&self, number: u64, key: &Key) -> bool {
        self.stated.iter().any(|stated| stated.made > number && stated.range.contains(key))
    }

    /// Whether a statement may have come to the primary since.
    fn may_have_been_stated_since(&self, number: u64, key: &Key) -> bool {
        self.stated.iter().any(|stated| !stated.was_heard_before(number) && stated.range.contains(key))
    }

    /// The primary has this statement, and heeds none any more that was made before.
    fn note_heard(&mut self, range: KeyRange, made: u64) {
        let now = self.number();
        for stated in std::mem::take(&mut self.stated) {
            if stated.made == made {
                self.stated.push(Stated { heard: Some(now), ..stated });
            } else if stated.heard.is_some() || range.common(stated.range).is_none() {
                self.stated.push(stated);
            } else {
                let left = beyond(stated.range, range).map(|range| Stated { range, ..stated });
                self.stated.extend(left);
            }
        }
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Opens {
    state: Mutex<State>,
    /// There may be something to release.
    pub(super) wanted: Notify,
    /// There may be something to state.
    pub(super) news: Notify,
    /// Something is under way no more.
    ended: Notify,
}

impl Opens {
    /// The number of a statement that is about to be sent.
    pub(super) fn next_statement(&self) -> u64 {
        lock(&self.state).number()
    }

    /// A request that opens something is about to be sent; `flare` says what, if that is known.
    pub(super) fn begin(&self, flare: Option<Handle>) -> Opening<'_> {
        let mut state = lock(&self.state);
        let number = state.number();
        state.opening.insert(number, Begun { flare, creates: flare.is_none() });
        Opening { opens: self, number, flare, answered: false, is_owed: false }
    }

    /// Gives one open back; false if there is none.
    pub(super) fn release(&self, handle: Handle) -> bool {
        let mut state = lock(&self.state);
        if !close(&mut state, handle) {
            return false;
        }
        *state.unsent.entry(handle).or_default() += 1;
        drop(state);
        self.wanted.notify_one();
        true
    }

    /// An open has been answered whose caller had gone.
    pub(super) fn orphaned(&self, handle: Handle) {
        lock(&self.state).doubtful.insert(handle);
        self.news.notify_one();
    }

    /// There is a new session: nobody has been told anything in it.
    pub(super) fn begin_session(&self, session: SessionId) {
        let mut state = lock(&self.state);
        state.session = session;
        state.told.clear();
    }

    /// The topology has changed: slices of another reign, and slices that are new or have grown, have to be told.
    pub(super) fn heed(&self, topology: &Topology) {
        lock(&self.state).told.retain(|id, told| {
            let slice = topology.slices.iter().find(|slice| slice.id == *id);
            let same = slice.filter(|slice| slice.reign == told.reign && told.range.covers(slice.range));
            same.inspect(|slice| told.range = slice.range).is_some()
        });
        self.news.notify_one();
    }

    /// Slices that have to be told what is open.
    pub(super) fn untold(&self, topology: &Topology) -> Vec<SliceId> {
        let told = &lock(&self.state).told;
        topology.slices.iter().map(|slice| slice.id).filter(|id| !told.contains_key(id)).collect()
    }

    /// Whether this slice has been told.
    pub(super) fn has_told(&self, slice: SliceId) -> bool {
        lock(&self.state).told.contains_key(&slice)
    }

    /// This slice, as it was then, has been told in this session. What has changed since is for [`heed`](Self::heed) to say.
    pub(super) fn tell(&self, session: SessionId, slice: &Slice) {
        let mut state = lock(&self.state);
        if state.session == session {
            state.told.insert(slice.id, Told { reign: slice.reign, range: slice.range });
        }
        drop(state);
        self.wanted.notify_one();
        self.news.notify_one();
    }

    /// Releases that can be sent now.
    pub(super) fn take_releases(self: &Arc<Self>) -> Vec<Releasing> {
        let mut state = lock(&self.state);
        let mut taken = Vec::new();
        for told in state.told.values() {
            let busy = state.releasing.range(handles(told.range)).count();
            let free = state.unsent.range(handles(told.range)).filter(|(handle, _)| {
                !state.releasing.contains(handle) && !state.is_being_stated(&handle.key)
            });
            taken.extend(free.take(WIDTH.saturating_sub(busy)).map(|(handle, count)| (*handle, *count)));
        }
        let session = state.session;
        let begin = |(handle, count)| {
            state.unsent.remove(&handle);
            state.releasing.insert(handle);
            Releasing { opens: Arc::clone(self), session, handle, count }
        };
        taken.into_iter().map(begin).collect()
    }

    /// Waits until all releases have been sent and answered.
    pub(super) async fn released(&self) {
        self.wait_until(|state| state.unsent.is_empty() && state.releasing.is_empty()).await;
    }

    /// Flares that have to be stated although their slice has been told.
    pub(super) fn take_doubtful(&self) -> Vec<Handle> {
        let mut state = lock(&self.state);
        let (now, later) =
            std::mem::take(&mut state.doubtful).into_iter().partition(|handle| state.is_told(&handle.key));
        state.doubtful = later;
        now.into_iter().collect()
    }

    /// Waits until a statement can be made about this part of the keyspace.
    pub(super) async fn state(&self, range: KeyRange) -> Stating<'_> {
        let overlaps = |other: &KeyRange| range.start() <= other.stop() && other.start() <= range.stop();
        let stating = loop {
            let ended = self.ended.notified();
            {
                let mut state = lock(&self.state);
                if !state.stating.iter().any(overlaps) {
                    state.stating.push(range);
                    break Stating { opens: self, range, made: 0, closed: Vec::new() };
                }
            }
            ended.await;
        };
        self.wait_until(|state| state.releasing.range(handles(range)).next().is_none()).await;
        stating
    }

    /// Whether a creation that began before this statement is still under way.
    pub(super) fn is_creating(&self, before: u64) -> bool {
        is_creating(&lock(&self.state), before)
    }

    /// Waits until all creations that began before this statement have ended.
    pub(super) async fn created(&self, before: u64) {
        self.wait_until(|state| !is_creating(state, before)).await;
    }

    async fn wait_until(&self, done: impl Fn(&State) -> bool) {
        loop {
            let ended = self.ended.notified();
            if done(&lock(&self.state)) {
                return;
            }
            ended.await;
        }
    }
}

/// What of a range is not in the other one.
fn beyond(range: KeyRange, other: KeyRange) -> impl Iterator<Item = KeyRange> {
    let below = other.start().0.checked_sub(1).and_then(|stop| KeyRange::new(range.start(), Ino(stop)));
    let above = other.stop().0.checked_add(1).and_then(|start| KeyRange::new(Ino(start), range.stop()));
    [below, above].into_iter().flatten()
}

/// All handles of flares in a range.
fn handles(range: KeyRange) -> RangeInclusive<Handle> {
    let first = Handle { key: range.first_key(), birth: BirthNumber(0) };
    first..=Handle { key: range.last_key(), birth: BirthNumber(u64::MAX) }
}

fn is_creating(state: &State, before: u64) -> bool {
    state.opening.range(..before).any(|(_, begun)| begun.creates)
}

/// Counts one open less; false if there is none.
fn close(state: &mut MutexGuard<'_, State>, handle: Handle) -> bool {
    match state.open.get_mut(&handle) {
        None => return false,
        Some(1) => drop(state.open.remove(&handle)),
        Some(count) => *count -= 1,
    }
    true
}

/// A request under way that would open something, until it has failed, or its caller has the success.
pub(super) struct Opening<'a> {
    opens: &'a Opens,
    number: u64,
    flare: Option<Handle>,
    answered: bool,
    /// The flare must be stated before anybody hears of the success.
    is_owed: bool,
}

impl Opening<'_> {
    /// The request has opened this flare. If true, the flare must be stated before [`delivered`](Self::delivered).
    pub(super) fn opened(&mut self, handle: Handle) -> bool {
        let mut state = lock(&self.opens.state);
        let count = state.open.entry(handle).or_default();
        *count = count.saturating_add(1);
        if let Some(begun) = state.opening.get_mut(&self.number) {
            begun.flare = None;
        }
        self.flare = Some(handle);
        self.answered = true;
        self.is_owed = state.may_have_been_stated_since(self.number, &handle.key);
        self.is_owed
    }

    /// The caller has the success; what had to be stated has been.
    pub(super) fn delivered(mut self) {
        self.flare = None;
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.opens.state);
        state.opening.remove(&self.number);
        if let Some(handle) = self.flare {
            if self.answered {
                // Its caller went away while the flare was being stated.
                close(&mut state, handle);
            }
            if self.answered || state.was_stated_since(self.number, &handle.key) {
                state.doubtful.insert(handle);
                self.opens.news.notify_one();
            }
        }
        drop(state);
        self.opens.ended.notify_waiters();
    }
}

/// A release under way, until it is answered.
pub(super) struct Releasing {
    opens: Arc<Opens>,
    /// In which session its slice was told.
    pub(super) session: SessionId,
    pub(super) handle: Handle,
    pub(super) count: u32,
}

impl Drop for Releasing {
    fn drop(&mut self) {
        lock(&self.opens.state).releasing.remove(&self.handle);
        self.opens.ended.notify_waiters();
        self.opens.wanted.notify_one();
    }
}

/// A statement under way, until it is answered.
pub(super) struct Stating<'a> {
    opens: &'a Opens,
    range: KeyRange,
    /// Its number, once it is made.
    made: u64,
    /// Stated to be open no more.
    closed: Vec<Handle>,
}

impl Stating<'_> {
    /// How often each flare is open, and the statement's number. Settles all releases.
    pub(super) fn counts(&mut self) -> (BTreeMap<Handle, u32>, u64) {
        let mut state = lock(&self.opens.state);
        let number = state.number();
        let oldest = state.opening.keys().next().copied().unwrap_or(number);
        state.stated.retain(|stated| !stated.was_heard_before(oldest) && !self.range.covers(stated.range));
        state.stated.push(Stated { range: self.range, made: number, heard: None });
        self.made = number;
        let mut counts = BTreeMap::new();
        let settled = |handle: &Handle| self.range.contains(&handle.key);
        counts.extend(state.unsent.range(handles(self.range)).map(|(handle, _)| (*handle, 0)));
        counts.extend(state.doubtful.range(handles(self.range)).map(|handle| (*handle, 0)));
        state.unsent.retain(|handle, _| !settled(handle));
        state.doubtful.retain(|handle| !settled(handle));
        counts.extend(state.open.range(handles(self.range)).map(|(handle, count)| (*handle, *count)));
        for handle in state.opening.values().filter_map(|begun| begun.flare).filter(settled) {
            let count = counts.entry(handle).or_default();
            *count = count.saturating_add(1);
        }
        self.closed = counts.iter().filter(|(_, count)| **count == 0).map(|(handle, _)| *handle).collect();
        (counts, number)
    }

    /// The primary has it.
    pub(super) fn heard(mut self) {
        self.closed.clear();
        lock(&self.opens.state).note_heard(self.range, self.made);
    }
}

impl Drop for Stating<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.opens.state);
        if let Some(place) = state.stating.iter().position(|range| *range == self.range) {
            state.stating.swap_remove(place);
        }
        let is_in_vain = !self.closed.is_empty();
        state.doubtful.extend(self.closed.drain(..));
        drop(state);
        self.opens.ended.notify_waiters();
        self.opens.wanted.notify_one();
        if is_in_vain {
            self.opens.news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
