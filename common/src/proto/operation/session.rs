//! Sessions, the opens they hold, and the topology that clients route by.

use serde::{Deserialize, Serialize};

use crate::handle::Handle;
use crate::key::Key;
use crate::proto::SessionId;
use crate::topology::{Epoch, Topology, VolcanoId};

/// Opens a session. Its id is in the reply; every later request of this client carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Who this is, for people: door, host and process, at most 255 bytes.
    pub client: String,
}

/// The terms of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReply {
    /// The new session.
    pub session: SessionId,
    /// It ends when nothing has been heard for this long, in milliseconds.
    pub lease_ms: u32,
    /// The volcano at the other end of the connection, which may have passed the request on.
    pub door: VolcanoId,
    /// The topology as the volcano knows it.
    pub topology: Topology,
}

/// Keeps the session alive and acknowledges results up to a low-water mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The client has the results of all its operations up to this sequence number.
    pub acknowledged: u64,
}

/// The session lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAliveReply {
    /// The volcano at the other end of the connection: the one that answers, or one that passes its answer on.
    pub door: VolcanoId,
    /// The version of the topology it knows.
    pub topology_version: u64,
}

/// Ends the session: its locks and opens go, and it is refused for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSession;

/// Tells one slice which of its flares this session has open: after the beginning of a
/// [reign](crate::topology::Slice::reign), of the session, or of the slice.
///
/// A flare that is not named stays as it was. An unlinked one waits until every session that was alive has sent its last
/// such message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimOpens {
    /// Any key of the slice.
    pub at: Key,
    /// The slice's reign, as far as the client knows. The primary of another one answers `NotOwner`: it must hear
    /// all parts, and those of a former reign were said to somebody else.
    pub reign: Epoch,
    /// Handles and how often each is open, at most [`MAX_OPENS_PER_MESSAGE`](crate::proto::limits::MAX_OPENS_PER_MESSAGE).
    pub opens: Vec<(Handle, u32)>,
    /// No more follow.
    pub last: bool,
    /// Counts what the session says in this way. What comes after something newer, having been held up, counts no more.
    pub number: u64,
}

/// Asks for the topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchTopology;
