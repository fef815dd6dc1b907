//! The operations against a view in memory, one file per theme.

mod acls;
mod content;
mod creating;
mod keys;
mod links;
mod listing;
mod locking;
mod permissions;
mod removing;
mod renaming;
mod setting;
mod split;
mod storage;
mod stripes;
mod trees;
mod world;
mod xattrs;
