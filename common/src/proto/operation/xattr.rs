//! Extended attributes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::handle::Handle;
use crate::name::Name;

/// Reads an extended attribute. POSIX ACLs are `system.posix_acl_access` and `system.posix_acl_default`, in Linux's encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetXattr {
    /// The flare.
    pub handle: Handle,
    /// Full name with its prefix.
    pub name: Name,
}

/// The value of an extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrValue {
    /// At most [`MAX_XATTR_VALUE`](crate::proto::limits::MAX_XATTR_VALUE) bytes.
    pub value: Bytes,
}

/// What [`SetXattr`] does about an existing attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrHow {
    /// Creates or replaces.
    Any,
    /// Fails with [`FlareError::Exists`](crate::error::FlareError::Exists) if it exists.
    Create,
    /// Fails with [`FlareError::NoAttribute`](crate::error::FlareError::NoAttribute) if it does not.
    Replace,
}

/// Sets an extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetXattr {
    /// The flare.
    pub handle: Handle,
    /// Full name with its prefix: `user.`, `trusted.`, `security.`, or a POSIX ACL.
    pub name: Name,
    /// The value.
    pub value: Bytes,
    /// About an existing one.
    pub how: XattrHow,
    /// Setting an access ACL may clear set-group-id when the caller is not in the owning group.
    pub clear_setgid: bool,
}

/// Lists extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListXattr {
    /// The flare.
    pub handle: Handle,
}

/// Removes an extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveXattr {
    /// The flare.
    pub handle: Handle,
    /// Full name with its prefix.
    pub name: Name,
}
