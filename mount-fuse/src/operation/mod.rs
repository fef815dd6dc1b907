//! The operations, by what they are about: names, attributes, data, directories, extended attributes, locks.
//!
//! Each takes what the kernel said, asks the volcano, and yields what the kernel is told.

pub(crate) mod attributes;
pub(crate) mod copy;
pub(crate) mod data;
pub(crate) mod directory;
pub(crate) mod lock;
pub(crate) mod name;
pub(crate) mod opening;
pub(crate) mod xattr;
