//! Messages about advisory locks.

use super::codec::{Text, messages};

/// Others may hold shared locks as well.
pub const RDLCK: u8 = 0;
/// Nobody else holds any.
pub const WRLCK: u8 = 1;
/// No lock.
pub const UNLCK: u8 = 2;

/// [`Tlock`]: wait for it.
pub const FLAG_BLOCK: u32 = 1;

/// [`Rlock`]: granted, or given back.
pub const SUCCESS: u8 = 0;
/// [`Rlock`]: somebody else holds a conflicting one.
pub const BLOCKED: u8 = 1;
/// [`Rlock`]: no more locks can be held.
pub const ERROR: u8 = 2;

messages! {
    /// Takes or gives back a lock on a range of bytes.
    Tlock {
        /// Which file.
        fid: u32,
        /// [`RDLCK`], [`WRLCK`] or [`UNLCK`].
        kind: u8,
        /// [`FLAG_BLOCK`] or nothing.
        flags: u32,
        /// First byte.
        start: u64,
        /// Number of bytes; 0 to the end of the file.
        length: u64,
        /// The owner's process.
        proc_id: u32,
        /// The owner's host.
        client_id: Text,
    }
    /// What came of it.
    Rlock {
        /// [`SUCCESS`], [`BLOCKED`] or [`ERROR`].
        status: u8,
    }
    /// Asks which lock would be in the way.
    Tgetlock {
        /// Which file.
        fid: u32,
        /// As in [`Tlock`].
        kind: u8,
        /// First byte.
        start: u64,
        /// As in [`Tlock`].
        length: u64,
        /// The asking process.
        proc_id: u32,
        /// Its host.
        client_id: Text,
    }
    /// That lock, or [`UNLCK`] if none is.
    Rgetlock {
        /// As in [`Tlock`].
        kind: u8,
        /// First byte.
        start: u64,
        /// As in [`Tlock`].
        length: u64,
        /// The holder's process.
        proc_id: u32,
        /// The holder's host.
        client_id: Text,
    }
}
