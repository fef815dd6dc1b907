//! What every request says about itself: who asks, on whose behalf, and until when.

use serde::{Deserialize, Serialize};

/// The protocol version spoken here; a volcano refuses others with a sentence.
pub const PROTOCOL_VERSION: u8 = 1;

/// A session: one life of one client library, opened by a record and dead for ever once ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

impl SessionId {
    /// No session: for requests that open one or change nothing.
    pub const NONE: Self = Self(0);
}

/// Names one mutating operation, so that a retry of it is recognised, whoever brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OpId {
    /// The `sequence`-th operation of a session, counted from 1.
    Session {
        /// Who asked.
        session: SessionId,
        /// Grows by one with each mutating operation.
        sequence: u64,
    },
    /// A call of a protocol whose clients have no session: a 128-bit hash that any gateway computes alike.
    Call(u128),
}

/// How safe an operation is when it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// In the memory of every in-sync copy (in the local log where there is only one).
    #[default]
    Replicated,
    /// On the disk of every in-sync copy.
    Stable,
}

/// On whose behalf an operation is done. Root squash and the like are applied at the door, before this is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, at most [`MAX_GROUPS`](super::limits::MAX_GROUPS).
    pub groups: Vec<u32>,
}

impl Credentials {
    /// Root, who is refused nothing.
    pub const ROOT: Self = Self { uid: 0, gid: 0, groups: Vec::new() };

    /// Whether permission bits do not bind this caller.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether the caller is in the group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}
