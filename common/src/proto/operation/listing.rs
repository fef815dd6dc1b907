//! Finding flares by name: one, or all of a directory.

use serde::{Deserialize, Serialize};

use crate::attr::{Attr, Kind};
use crate::handle::Handle;
use crate::name::Name;

/// Looks a name up in a directory; the caller needs search permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The directory.
    pub dir: Handle,
    /// The name.
    pub name: Name,
}

/// Looks up `..`; the root is its own parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupParent {
    /// The directory whose parent is wanted.
    pub dir: Handle,
}

/// A flare found by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReply {
    /// The flare.
    pub attr: Attr,
    /// The directory it was found in.
    pub dir: Attr,
}

/// Lists a directory in the order of its cookies. `.` and `..` are the door's business.
///
/// An entry keeps its cookie as long as it exists; cookies of removed entries remain valid positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readdir {
    /// The directory.
    pub dir: Handle,
    /// Entries with a cookie above this one; 0 for the first.
    pub cookie: u64,
    /// At most so many, 1 to [`MAX_READDIR_ENTRIES`](crate::proto::limits::MAX_READDIR_ENTRIES).
    pub limit: u32,
    /// With the attributes of each entry's flare.
    pub attributes: bool,
    /// The caller has the directory open: no permission check.
    pub opened: bool,
}

/// One directory entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dirent {
    /// Its name.
    pub name: Name,
    /// The flare.
    pub handle: Handle,
    /// What the flare is.
    pub kind: Kind,
    /// Its position: 3 and up, below 2^63.
    pub cookie: u64,
    /// Attributes, if asked for.
    pub attr: Option<Attr>,
}

/// Part of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaddirReply {
    /// Entries, cookies ascending.
    pub entries: Vec<Dirent>,
    /// Nothing follows.
    pub eof: bool,
    /// The directory.
    pub dir: Attr,
}
