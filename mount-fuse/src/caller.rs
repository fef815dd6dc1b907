//! Who makes a request: identity for the volcano's permission checks, and signals that wait for an answer.
//!
//! The kernel passes user and group with each request; supplementary groups and signals are read from
//! `/proc/TID/status`, as libfuse does. That file needs no lock of the caller's address space, so reading
//! it is safe while the caller waits for us inside a page fault.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use magma_common::client::Context;
use magma_common::proto::limits::MAX_GROUPS;
use magma_common::proto::{Credentials, Durability};

use crate::sync::locked;

/// How long the supplementary groups of a thread are believed.
const GROUPS_TTL: Duration = Duration::from_secs(1);
/// Most threads whose groups are remembered.
const MAX_REMEMBERED: usize = 4096;

/// A thread that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Caller {
    /// Thread id; 0 for the kernel itself and for processes of other pid namespaces.
    pub(crate) tid: u32,
    /// File system user.
    pub(crate) uid: u32,
    /// File system group.
    pub(crate) gid: u32,
}

impl Caller {
    /// The thread that a request is made for.
    pub(crate) fn of(request: &fuser::Request) -> Self {
        Self { tid: request.pid(), uid: request.uid(), gid: request.gid() }
    }
}

/// Remembers the credentials of recent callers.
#[derive(Default)]
pub(crate) struct Callers {
    recent: Mutex<HashMap<Caller, Remembered>>,
}

struct Remembered {
    since: Instant,
    credentials: Arc<Credentials>,
}

impl Callers {
    /// The conditions under which this caller's operations are done.
    pub(crate) fn context(&self, caller: Caller) -> Context {
        Context {
            credentials: self.credentials(caller, Instant::now()),
            durability: Durability::Replicated,
            deadline: None,
            call: None,
        }
    }

    fn credentials(&self, caller: Caller, now: Instant) -> Arc<Credentials> {
        // Root is refused nothing, so its groups decide nothing; all its threads share one entry per group.
        let caller = if caller.uid == 0 { Caller { tid: 0, ..caller } } else { caller };
        let fresh = |entry: &Remembered| now.saturating_duration_since(entry.since) < GROUPS_TTL;
        if let Some(entry) = locked(&self.recent).get(&caller).filter(|entry| fresh(entry)) {
            return Arc::clone(&entry.credentials);
        }
        let groups = Status::of(caller.tid).map_or_else(Vec::new, |status| status.groups);
        let credentials = Arc::new(Credentials { uid: caller.uid, gid: caller.gid, groups });
        let mut recent = locked(&self.recent);
        if recent.len() >= MAX_REMEMBERED {
            recent.retain(|_, entry| fresh(entry));
        }
        if recent.len() >= MAX_REMEMBERED {
            recent.clear();
        }
        recent.insert(caller, Remembered { since: now, credentials: Arc::clone(&credentials) });
        credentials
    }
}

/// Whether a fatal signal waits for this thread, so that nobody will look at the answer.
///
/// The kernel turns any signal whose default action ends the process into a pending SIGKILL of each of its threads.
pub(crate) fn is_being_killed(tid: u32) -> bool {
    Status::of(tid).is_some_and(|status| status.pending & bit(libc::SIGKILL) != 0)
}

/// Whether a signal waits that would end an interruptible system call of this thread.
pub(crate) fn has_signal(tid: u32) -> bool {
    Status::of(tid).is_some_and(|status| status.deliverable())
}

/// Whether the thread waits inside `flock(2)`, as opposed to `fcntl(2)`; `None` if that cannot be seen.
///
/// `/proc/TID/syscall` is for root and, where the Yama module allows it, for the same user.
pub(crate) fn is_in_flock(tid: u32) -> Option<bool> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    let number: i64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    // 143 is flock for 32-bit programs on x86 and ARM; on 64-bit kernels no call of that number waits for a lock.
    Some(number == libc::SYS_flock || number == 143)
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// What `/proc/TID/status` says of interest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    groups: Vec<u32>,
    pending: u64,
    blocked: u64,
    ignored: u64,
}

impl Status {
    fn of(tid: u32) -> Option<Self> {
        if tid == 0 {
            return None;
        }
        std::fs::read_to_string(format!("/proc/{tid}/status")).ok().map(|text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        let mask = |value: &str| u64::from_str_radix(value.trim(), 16).unwrap_or(0);
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            match name {
                "Groups" => {
                    let groups = value.split_ascii_whitespace().filter_map(|group| group.parse().ok());
                    status.groups = groups.take(MAX_GROUPS).collect();
                }
                "SigPnd" | "ShdPnd" => status.pending |= mask(value),
                "SigBlk" => status.blocked = mask(value),
                "SigIgn" => status.ignored = mask(value),
                _ => {}
            }
        }
        status
    }

    fn deliverable(&self) -> bool {
        self.pending & !self.blocked & !self.ignored != 0 || self.pending & bit(libc::SIGKILL) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tcat\nUid:\t1000\t1000\t1000\t1000\nGroups:\t4 24 1000 \nVmPeak:\t 1 kB\n\
        SigPnd:\t0000000000000100\nShdPnd:\t0000000000002000\nSigBlk:\t0000000000002000\nSigIgn:\t0000000000001000\n";

    #[test]
    fn groups_and_signals_are_read_from_the_status_file() {
        let status = Status::parse(STATUS);
        assert_eq!(status.groups, [4, 24, 1000]);
        assert_eq!(status.pending, bit(libc::SIGKILL) | bit(libc::SIGALRM));
        assert!(status.deliverable());
    }

    #[test]
    fn a_blocked_or_ignored_signal_interrupts_nothing() {
        let blocked = Status { pending: 0x2000, blocked: 0x2000, ..Status::default() };
        let ignored = Status { pending: 0x1000, ignored: 0x1000, ..Status::default() };
        assert!(!blocked.deliverable() && !ignored.deliverable());
    }

    #[test]
    fn a_hostile_status_file_does_not_make_the_group_list_grow_without_limit() {
        let text = format!("Groups:\t{}\n", "7 ".repeat(MAX_GROUPS + 50));
        assert_eq!(Status::parse(&text).groups.len(), MAX_GROUPS);
    }

    #[test]
    fn this_process_is_not_being_killed() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        assert!(!is_being_killed(tid));
        assert_ne!(is_in_flock(tid), Some(true));
    }

    #[test]
    fn remembered_callers_are_bounded() {
        let callers = Callers::default();
        let now = Instant::now();
        for uid in 1..=2 * MAX_REMEMBERED as u32 {
            callers.credentials(Caller { tid: 0, uid, gid: 1 }, now);
        }
        assert!(locked(&callers.recent).len() <= MAX_REMEMBERED);
    }
}
