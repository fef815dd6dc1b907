//! Every length that a peer can choose, and the most it may choose.

/// Largest payload of one read or write, in bytes.
pub const MAX_IO: u32 = 1 << 20;
/// Largest encoded body of a request or reply, payload not counted, in bytes.
pub const MAX_BODY: u32 = 1 << 20;
/// Most supplementary groups of a caller.
pub const MAX_GROUPS: usize = 1024;
/// Most handles in one `stat_many`.
pub const MAX_STAT_MANY: usize = 1024;
/// Most stripes in one layout.
pub const MAX_LAYOUT: usize = 1024;
/// Most bytes of a write into stripes that goes through their head.
pub const MAX_THROUGH_HEAD: usize = 64 << 10;
/// Most stripes that are removed, or cleared at their ends, by one request.
pub const MAX_SHED: usize = 64;
/// Most stripes that are made by one request.
pub const MAX_STRIPES_MADE: usize = 32;
/// Most entries in one reply to a readdir.
pub const MAX_READDIR_ENTRIES: u32 = 4096;
/// Largest value of an extended attribute, in bytes (`XATTR_SIZE_MAX`).
pub const MAX_XATTR_VALUE: usize = 64 << 10;
/// Largest list of extended attribute names, in bytes (`XATTR_LIST_MAX`).
pub const MAX_XATTR_LIST: usize = 64 << 10;
/// Most hard links of one flare.
pub const MAX_LINKS: u32 = 65_000;
/// Largest file in bytes: what a body on ext4 with 4 KiB blocks can hold.
pub const MAX_FILE_SIZE: u64 = (16 << 40) - 4096;
/// Results a session may leave unacknowledged before it is asked to wait.
pub const MAX_UNACKNOWLEDGED: usize = 4096;
/// Most handles in one keep-alive or reclaim message.
pub const MAX_OPENS_PER_MESSAGE: usize = 4096;
/// Most locks one flare may bear.
pub const MAX_LOCKS_PER_FLARE: usize = 4096;
