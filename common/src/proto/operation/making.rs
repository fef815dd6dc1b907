//! Making flares: files, directories, symbolic links, special files.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::attr::{Attr, Kind, SetAttr, Wcc};
use crate::handle::Handle;
use crate::name::Name;

/// What a create does about a name that exists (RFC 1813 §3.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateHow {
    /// Takes the existing regular file, applying only a size that is given.
    Unchecked,
    /// Fails with [`FlareError::Exists`](crate::error::FlareError::Exists).
    Guarded,
    /// Fails unless the file was made by a create with the same verifier.
    Exclusive(u64),
}

/// Creates a regular file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Where.
    pub dir: Handle,
    /// Its name.
    pub name: Name,
    /// Permission bits, applied with `umask` unless the directory has a default ACL.
    pub mode: u32,
    /// The caller's file creation mask; 0 where the client has applied it already.
    pub umask: u32,
    /// What to do about an existing name.
    pub how: CreateHow,
    /// Further attributes; `mode` inside is not used.
    pub set: SetAttr,
    /// Also open it, as [`Open`](super::Open) does, for this session. No permission of the file's own mode is needed.
    pub open: bool,
}

/// A flare made (or, for an unchecked create, found).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeReply {
    /// The flare.
    pub attr: Attr,
    /// False if an unchecked or exclusive create found it there.
    pub created: bool,
    /// The directory.
    pub dir: Wcc,
}

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mkdir {
    /// Where.
    pub dir: Handle,
    /// Its name.
    pub name: Name,
    /// As in [`Create`].
    pub mode: u32,
    /// As in [`Create`].
    pub umask: u32,
    /// Further attributes; `mode` and `size` inside are not used.
    pub set: SetAttr,
}

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symlink {
    /// Where.
    pub dir: Handle,
    /// Its name.
    pub name: Name,
    /// What it points to: 1 to 4095 bytes, not interpreted.
    pub target: Bytes,
    /// Further attributes; `mode` and `size` inside are not used.
    pub set: SetAttr,
}

/// Makes a FIFO, socket or device. Devices need root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mknod {
    /// Where.
    pub dir: Handle,
    /// Its name.
    pub name: Name,
    /// Anything but a directory or a symbolic link.
    pub kind: Kind,
    /// As in [`Create`].
    pub mode: u32,
    /// As in [`Create`].
    pub umask: u32,
    /// Device number in Linux's `makedev` encoding.
    pub rdev: u64,
    /// Further attributes; `mode` and `size` inside are not used.
    pub set: SetAttr,
}
