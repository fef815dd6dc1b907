//! Giving names to flares that exist, and taking them away.

use serde::{Deserialize, Serialize};

use crate::attr::{Attr, Wcc};
use crate::handle::Handle;
use crate::name::Name;

/// Gives a flare another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The flare; not a directory.
    pub handle: Handle,
    /// Where the new name goes.
    pub dir: Handle,
    /// The new name.
    pub name: Name,
}

/// A name added to a flare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReply {
    /// The flare.
    pub attr: Attr,
    /// The directory.
    pub dir: Wcc,
}

/// Removes a name of anything but a directory. The flare dies with its last name, once nobody has it open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlink {
    /// The directory.
    pub dir: Handle,
    /// The name.
    pub name: Name,
}

/// Removes an empty directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rmdir {
    /// The parent directory.
    pub dir: Handle,
    /// The name.
    pub name: Name,
}

/// A name removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedReply {
    /// The flare that bore the name, as it is now.
    pub attr: Attr,
    /// The directory.
    pub dir: Wcc,
}

/// What a rename does about an existing target name (`renameat2(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameHow {
    /// Replaces it atomically.
    Replace,
    /// Fails with [`FlareError::Exists`](crate::error::FlareError::Exists).
    NoReplace,
    /// The two names change places.
    Exchange,
}

/// Renames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// The source directory.
    pub from_dir: Handle,
    /// The source name.
    pub from_name: Name,
    /// The target directory.
    pub to_dir: Handle,
    /// The target name.
    pub to_name: Name,
    /// About an existing target.
    pub how: RenameHow,
}

/// A rename done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameReply {
    /// The source directory.
    pub from_dir: Wcc,
    /// The target directory.
    pub to_dir: Wcc,
    /// The flare that moved.
    pub moved: Attr,
    /// The flare that lost its name at the target, as it is now (under exchange: the one that went the other way).
    pub replaced: Option<Attr>,
}
