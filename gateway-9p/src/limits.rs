//! What one client, and all of them together, may take of the gateway.

use std::time::Duration;

use magma_common::proto::limits::MAX_IO;

/// Smallest msize that is agreed to, in bytes.
pub const MIN_MSIZE: u32 = 4096;
/// Largest msize that is agreed to, in bytes: a payload of 1 MiB and room for any header.
pub const MAX_MSIZE: u32 = MAX_IO + 4096;

/// The limits; the defaults are for use, tests take smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. At the limit, one that never attached makes room for a new one.
    pub connections: usize,
    /// Fids per connection, some 300 bytes each. A guest that caches names holds one for each.
    pub fids: usize,
    /// Requests per connection that have been read and not answered, in bytes; each counts as at least 4 KiB.
    pub requests_bytes: u32,
    /// Replies per connection that are being made or not yet taken by the client, in bytes; each counts as at least 64 KiB.
    pub replies_bytes: u32,
    /// Flushes per connection that wait for their request, or for the client to take the answer.
    pub flushes: usize,
    /// Values of extended attributes that the fids of a connection may hold, in bytes.
    pub xattr_bytes: usize,
    /// Locks per connection that are waited for at once.
    pub waiting_locks: usize,
    /// How long a request for a lock waits before the client is told to ask again.
    pub lock_patience: Duration,
    /// Time from connecting to the first Tversion.
    pub handshake: Duration,
    /// Time for the rest of a message that has begun. A paused virtual machine is silent in the middle of one.
    pub unfinished_frame: Duration,
    /// How long a flushed request that changes something may still go on, so that it ends before the flush is answered.
    pub flush_grace: Duration,
    /// How long requests may go on when the gateway stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            fids: 1 << 18,
            requests_bytes: 16 << 20,
            replies_bytes: 16 << 20,
            flushes: 4096,
            xattr_bytes: 16 << 20,
            waiting_locks: 256,
            lock_patience: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            unfinished_frame: Duration::from_secs(15 * 60),
            flush_grace: Duration::from_secs(2),
            drain: Duration::from_secs(5),
        }
    }
}
