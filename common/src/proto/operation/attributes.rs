//! Attributes, permissions, and the space of the network.

use serde::{Deserialize, Serialize};

use crate::attr::{Attr, SetAttr};
use crate::handle::Handle;
use crate::time::Timestamp;

/// Reads attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Getattr {
    /// The flare.
    pub handle: Handle,
}

/// Reads the attributes of many flares; the reply has one result each, in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatMany {
    /// The flares, at most [`MAX_STAT_MANY`](crate::proto::limits::MAX_STAT_MANY).
    pub handles: Vec<Handle>,
}

/// Sets attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setattr {
    /// The flare.
    pub handle: Handle,
    /// What to set.
    pub set: SetAttr,
    /// Do it only if this is the flare's ctime, else [`FlareError::GuardMismatch`](crate::error::FlareError::GuardMismatch) (RFC 1813 §3.3.2).
    pub guard: Option<Timestamp>,
    /// The caller has the file open for writing: no permission check for the size.
    pub opened: bool,
}

/// Asks which accesses the caller has: bits `R_OK` 4, `W_OK` 2, `X_OK` 1, and 8 for deleting entries of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The flare.
    pub handle: Handle,
    /// The bits asked for.
    pub mask: u8,
}

/// [`Access`]: read a file, list a directory.
pub const ACCESS_READ: u8 = 4;
/// [`Access`]: write a file, add entries to a directory.
pub const ACCESS_WRITE: u8 = 2;
/// [`Access`]: execute a file, search a directory.
pub const ACCESS_EXECUTE: u8 = 1;
/// [`Access`]: remove entries of a directory.
pub const ACCESS_DELETE: u8 = 8;

/// The granted part of the bits asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessReply {
    /// Granted bits.
    pub granted: u8,
    /// The flare.
    pub attr: Attr,
}

/// Asks how much space there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statfs;

/// Space and numbers of the whole network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatfsReply {
    /// Bytes in all.
    pub total: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes free for users.
    pub available: u64,
    /// Flares that exist.
    pub flares: u64,
    /// Flares that could still be made.
    pub flares_free: u64,
}
