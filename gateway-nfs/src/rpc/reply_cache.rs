//! Replies to recent calls, so that a retransmission is answered and not executed again.
//!
//! The volcano's ledger would catch it as well, wherever it comes in; this cache
//! saves the journey, and lets a retransmission of a call that is still running wait for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::connection::ConnectionId;

/// Names a call: see [`call_id`](crate::call_id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CallId(pub(crate) u128);

/// How much the cache holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheLimits {
    /// Replies.
    pub(crate) entries: usize,
    /// Bytes of replies, with what it takes to keep them.
    pub(crate) bytes: usize,
    /// Time after which a reply is forgotten.
    pub(crate) age: Duration,
}

impl Default for CacheLimits {
    /// As long as the volcano's ledger, and what other NFS servers keep: 120 s.
    fn default() -> Self {
        Self { entries: 65_536, bytes: 32 << 20, age: Duration::from_secs(120) }
    }
}

/// What it takes to keep a reply besides its bytes: entries in map and queue.
const OVERHEAD: usize = 160;

/// The cache.
#[derive(Debug)]
pub(crate) struct ReplyCache {
    limits: CacheLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<CallId, Entry>,
    /// Finished calls, oldest first.
    finished: VecDeque<(Instant, CallId)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    origin: ConnectionId,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// Hears of the reply, or of the end of whoever was to make it.
    Running(watch::Receiver<Option<Bytes>>),
    Finished(Bytes),
}

/// What the cache knows of a call.
#[derive(Debug)]
pub(crate) enum Admission<'a> {
    /// It is new, and to be executed by whoever holds the ticket.
    First(Ticket<'a>),
    /// It was seen before.
    Seen(Seen),
}

/// An earlier appearance of a call.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The connection it came by.
    pub(crate) origin: ConnectionId,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Coming(watch::Receiver<Option<Bytes>>),
    There(Bytes),
}

impl Seen {
    /// The reply it got or will get; `None` if it ended without one.
    pub(crate) async fn reply(self) -> Option<Bytes> {
        match self.outcome {
            Outcome::There(reply) => Some(reply),
            Outcome::Coming(mut running) => running.wait_for(Option::is_some).await.ok()?.clone(),
        }
    }
}

impl ReplyCache {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether a call is new, and if so announces that it is being executed.
    pub(crate) fn admit(&self, call: CallId, origin: ConnectionId, now: Instant) -> Admission<'_> {
        let mut state = self.state();
        state.forget_old(&self.limits, now);
        if let Some(entry) = state.calls.get(&call) {
            let outcome = match &entry.progress {
                Progress::Running(running) => Outcome::Coming(running.clone()),
                Progress::Finished(reply) => Outcome::There(reply.clone()),
            };
            return Admission::Seen(Seen { origin: entry.origin, outcome });
        }
        let (done, running) = watch::channel(None);
        state.calls.insert(call, Entry { origin, progress: Progress::Running(running) });
        Admission::First(Ticket { cache: self, call, done })
    }

    /// Replies held and calls running.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.state().calls.len()
    }
}

impl State {
    fn forget_old(&mut self, limits: &CacheLimits, now: Instant) {
        while let Some(&(finished, call)) = self.finished.front() {
            let full = self.finished.len() > limits.entries || self.bytes > limits.bytes;
            if !full && now.saturating_duration_since(finished) <= limits.age {
                break;
            }
            self.finished.pop_front();
            if let Some(Entry { progress: Progress::Finished(reply), .. }) = self.calls.remove(&call) {
                self.bytes -= reply.len() + OVERHEAD;
            }
        }
    }
}

/// The right and duty to execute a call. Dropped without a reply, the call may be executed by the next who brings it.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    cache: &'a ReplyCache,
    call: CallId,
    done: watch::Sender<Option<Bytes>>,
}

impl Ticket<'_> {
    /// Records the reply and hands it to those who wait.
    pub(crate) fn complete(self, reply: Bytes, now: Instant) {
        {
            let mut state = self.cache.state();
            if let Some(entry) = state.calls.get_mut(&self.call) {
                entry.progress = Progress::Finished(reply.clone());
                state.bytes += reply.len() + OVERHEAD;
                state.finished.push_back((now, self.call));
            }
            state.forget_old(&self.cache.limits, now);
        }
        self.done.send_replace(Some(reply));
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state();
        if matches!(state.calls.get(&self.call), Some(Entry { progress: Progress::Running(_), .. })) {
            state.calls.remove(&self.call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ConnectionId = ConnectionId(1);

    fn cache(entries: usize, bytes: usize) -> ReplyCache {
        ReplyCache::new(CacheLimits { entries, bytes, age: Duration::from_secs(120) })
    }

    fn ticket(cache: &ReplyCache, call: u128, now: Instant) -> Ticket<'_> {
        match cache.admit(CallId(call), HERE, now) {
            Admission::First(ticket) => ticket,
            Admission::Seen(_) => panic!("seen before"),
        }
    }

    fn seen(cache: &ReplyCache, call: u128, now: Instant) -> Option<Seen> {
        match cache.admit(CallId(call), HERE, now) {
            Admission::First(_) => None,
            Admission::Seen(seen) => Some(seen),
        }
    }

    #[tokio::test]
    async fn a_finished_call_is_answered_with_its_reply() {
        let (cache, now) = (cache(10, 10_000), Instant::now());
        ticket(&cache, 1, now).complete(Bytes::from_static(b"reply"), now);
        let seen = seen(&cache, 1, now).unwrap();
        assert_eq!(seen.origin, HERE);
        assert_eq!(seen.reply().await, Some(Bytes::from_static(b"reply")));
    }

    #[tokio::test]
    async fn a_duplicate_of_a_running_call_waits_for_its_reply() {
        let (cache, now) = (cache(10, 10_000), Instant::now());
        let ticket = ticket(&cache, 1, now);
        let waiting = seen(&cache, 1, now).unwrap().reply();
        let finish = async { ticket.complete(Bytes::from_static(b"reply"), now) };
        let (reply, ()) = tokio::join!(waiting, finish);
        assert_eq!(reply, Some(Bytes::from_static(b"reply")));
    }

    #[tokio::test]
    async fn a_call_that_ended_without_reply_may_be_executed_again() {
        let (cache, now) = (cache(10, 10_000), Instant::now());
        let first = ticket(&cache, 1, now);
        let waiting = seen(&cache, 1, now).unwrap();
        drop(first);
        assert_eq!(waiting.reply().await, None);
        drop(ticket(&cache, 1, now));
    }

    #[test]
    fn replies_are_forgotten_after_their_time() {
        let (cache, now) = (cache(10, 10_000), Instant::now());
        ticket(&cache, 1, now).complete(Bytes::new(), now);
        assert!(seen(&cache, 1, now + Duration::from_secs(120)).is_some());
        assert!(seen(&cache, 1, now + Duration::from_secs(121)).is_none());
    }

    #[test]
    fn the_oldest_replies_go_when_there_are_too_many_or_too_large_ones() {
        let now = Instant::now();
        let many = cache(3, 10_000);
        for call in 0..10 {
            ticket(&many, call, now).complete(Bytes::new(), now);
        }
        assert_eq!(many.len(), 3);
        assert!(seen(&many, 9, now).is_some() && seen(&many, 6, now).is_none());

        let large = cache(100, 3 * (100 + OVERHEAD));
        for call in 0..10 {
            ticket(&large, call, now).complete(Bytes::from(vec![0; 100]), now);
        }
        assert_eq!(large.len(), 3);
    }
}
