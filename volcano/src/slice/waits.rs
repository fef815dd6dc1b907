//! Requests that wait for an advisory lock.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use magma_common::handle::Handle;
use magma_common::key::Key;
use magma_common::proto::SessionId;
use magma_common::proto::operation::LockFamily;

/// Most requests that wait at a time.
const MAX_WAITING: usize = 100_000;
/// Most that wait for locks of one flare: each change of its locks lets them all try again.
const MAX_WAITING_PER_FLARE: usize = 4096;

/// Who waits or holds: an owner number within a session.
pub type Holder = (SessionId, u64);

/// A request that cannot have its lock yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The file.
    pub flare: Handle,
    /// Which family of locks.
    pub family: LockFamily,
    /// Who wants it.
    pub who: Holder,
    /// Who has it.
    pub by: Holder,
}

struct Waiting<W> {
    blocked: Blocked,
    deadline: Option<Duration>,
    what: W,
}

/// Lock requests in the order in which they came; `W` is what the caller needs to try again.
pub struct LockWaits<W> {
    next: u64,
    waiting: HashMap<u64, Waiting<W>>,
    by_flare: HashMap<Key, BTreeSet<u64>>,
    by_holder: HashMap<Holder, BTreeSet<u64>>,
}

impl<W> Default for LockWaits<W> {
    fn default() -> Self {
        Self { next: 0, waiting: HashMap::new(), by_flare: HashMap::new(), by_holder: HashMap::new() }
    }
}

/// Why a request may not wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The one that blocks it waits for it, directly or through others.
    Deadlock,
    /// Too many wait already.
    TooMany,
}

impl<W> LockWaits<W> {
    /// Lets a request wait until `deadline` on the monotonic clock. POSIX locks are checked for deadlock, as `fcntl(2)` asks; flock's are not.
    pub fn wait(
        &mut self,
        blocked: Blocked,
        deadline: Option<Duration>,
        what: W,
    ) -> Result<(), (Refusal, W)> {
        let here = self.by_flare.get(&blocked.flare.key).map_or(0, BTreeSet::len);
        if self.waiting.len() >= MAX_WAITING || here >= MAX_WAITING_PER_FLARE {
            return Err((Refusal::TooMany, what));
        }
        if blocked.family == LockFamily::Posix && self.leads_to(blocked.by, blocked.who) {
            return Err((Refusal::Deadlock, what));
        }
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Waiting { blocked, deadline, what });
        self.by_flare.entry(blocked.flare.key).or_default().insert(number);
        self.by_holder.entry(blocked.who).or_default().insert(number);
        Ok(())
    }

    fn leads_to(&self, from: Holder, to: Holder) -> bool {
        let mut seen = HashSet::new();
        let mut next = vec![from];
        while let Some(holder) = next.pop() {
            if holder == to {
                return true;
            }
            if seen.insert(holder) {
                let waits =
                    self.by_holder.get(&holder).into_iter().flatten().filter_map(|n| self.waiting.get(n));
                next.extend(waits.map(|w| w.blocked).filter(|b| b.family == LockFamily::Posix).map(|b| b.by));
            }
        }
        false
    }

    /// Locks of this flare changed: those who wait there, in order, to try again.
    pub fn wake(&mut self, flare: &Key) -> Vec<W> {
        let numbers = self.by_flare.get(flare).into_iter().flatten().copied().collect();
        self.remove(numbers)
    }

    /// Those whose deadline has passed.
    pub fn expire(&mut self, now: Duration) -> Vec<W> {
        self.remove_where(|w| w.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// Those for which `matches` says so: their callers went away.
    pub fn cancel(&mut self, matches: impl Fn(&W) -> bool) -> Vec<W> {
        self.remove_where(|w| matches(&w.what))
    }

    fn remove_where(&mut self, matches: impl Fn(&Waiting<W>) -> bool) -> Vec<W> {
        let mut numbers: Vec<u64> =
            self.waiting.iter().filter(|(_, w)| matches(w)).map(|(n, _)| *n).collect();
        numbers.sort_unstable();
        self.remove(numbers)
    }

    fn remove(&mut self, numbers: Vec<u64>) -> Vec<W> {
        let mut removed = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Some(waiting) = self.waiting.remove(&number) else { continue };
            unlist(&mut self.by_flare, &waiting.blocked.flare.key, number);
            unlist(&mut self.by_holder, &waiting.blocked.who, number);
            removed.push(waiting.what);
        }
        removed
    }

    /// Number of requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn unlist<K: Eq + Hash>(index: &mut HashMap<K, BTreeSet<u64>>, key: &K, number: u64) {
    if let Some(numbers) = index.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::handle::BirthNumber;

    fn flare(n: u8) -> Handle {
        Handle { key: Key::from_bytes([n; 20]), birth: BirthNumber(1) }
    }

    fn blocked(file: u8, family: LockFamily, who: u64, by: u64) -> Blocked {
        Blocked { flare: flare(file), family, who: (SessionId(who), who), by: (SessionId(by), by) }
    }

    #[test]
    fn a_circle_of_posix_waiters_is_refused() {
        let mut waits = LockWaits::default();
        waits.wait(blocked(1, LockFamily::Posix, 1, 2), None, "1 for 2").unwrap();
        waits.wait(blocked(2, LockFamily::Posix, 2, 3), None, "2 for 3").unwrap();
        let refused = waits.wait(blocked(3, LockFamily::Posix, 3, 1), None, "3 for 1");
        assert_eq!(refused, Err((Refusal::Deadlock, "3 for 1")));
    }

    #[test]
    fn waking_a_flare_wakes_its_waiters_in_order_and_no_others() {
        let mut waits = LockWaits::default();
        waits.wait(blocked(1, LockFamily::Flock, 1, 9), None, "a").unwrap();
        waits.wait(blocked(2, LockFamily::Flock, 2, 9), None, "other").unwrap();
        waits.wait(blocked(1, LockFamily::Flock, 3, 9), None, "b").unwrap();
        assert_eq!(waits.wake(&flare(1).key), vec!["a", "b"]);
        assert_eq!(waits.len(), 1);
    }

    #[test]
    fn a_waiter_goes_at_its_deadline_or_with_its_caller() {
        let mut waits = LockWaits::default();
        let at = |secs| Some(Duration::from_secs(secs));
        waits.wait(blocked(1, LockFamily::Flock, 1, 9), at(5), "five").unwrap();
        waits.wait(blocked(1, LockFamily::Flock, 2, 9), at(9), "nine").unwrap();
        assert!(waits.expire(Duration::from_secs(4)).is_empty());
        assert_eq!(waits.expire(Duration::from_secs(5)), vec!["five"]);
        assert_eq!(waits.cancel(|what| *what == "nine"), vec!["nine"]);
        assert!(waits.is_empty() && waits.by_flare.is_empty() && waits.by_holder.is_empty());
    }
}
