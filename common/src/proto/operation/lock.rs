//! Advisory locks.

use serde::{Deserialize, Serialize};

use crate::handle::Handle;
use crate::proto::SessionId;

/// Two families of advisory locks that do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockFamily {
    /// POSIX byte ranges (`fcntl(2)`).
    Posix,
    /// Whole files (`flock(2)`).
    Flock,
}

/// What a lock does to others, or its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockKind {
    /// Others may hold shared ones.
    Shared,
    /// Nobody else holds any.
    Exclusive,
    /// Gives the range back.
    Unlock,
}

/// Who holds a lock: an owner number within the request's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockOwner {
    /// The door's number for the owner.
    pub owner: u64,
    /// Its process id, for people.
    pub pid: u32,
}

/// Takes or releases an advisory lock.
///
/// A conflict is [`FlareError::WouldBlock`](crate::error::FlareError::WouldBlock), at once or, with `wait`, when the request's deadline comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The file.
    pub handle: Handle,
    /// Which family.
    pub family: LockFamily,
    /// Who.
    pub owner: LockOwner,
    /// What.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; `u64::MAX` for the end of the file.
    pub end: u64,
    /// Wait for it.
    pub wait: bool,
}

/// Asks which lock would be in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestLock {
    /// The file.
    pub handle: Handle,
    /// Which family.
    pub family: LockFamily,
    /// Who asks.
    pub owner: LockOwner,
    /// For which lock.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
}

/// A lock that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLock {
    /// Whose session.
    pub session: SessionId,
    /// Who there.
    pub owner: LockOwner,
    /// What.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
}
