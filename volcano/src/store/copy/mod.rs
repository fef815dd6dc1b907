//! Copying a slice from one store to another, while records go on.
//!
//! The store that has the slice gives out parts of it (`export`): all that there is in a range of inode numbers at one
//! position of the slice. The store that is to become a copy takes them (`import`) while it stands at that position, and in
//! between takes records, of which only what concerns the keys that it has changes anything ([`filter`]). A flare too large for
//! one part comes in several; how much of it is here is a [`Partial`].
//!
//! What belongs to no key but to the slice as a whole, its sessions and transactions, travels with the first inode number of the
//! slice's range, before the flare that may have this number: as one that is too large for one part if it is.

mod export;
mod filter;
#[cfg(any(test, feature = "simulation"))]
mod fingerprint;
mod import;
mod landing;
mod whole;
mod wipe;

pub use export::Inside;
pub use filter::{Filtered, Partial, filter};
pub use import::Imported;
pub(super) use landing::Landed;
pub(super) use wipe::Wiped;

use magma_common::key::{Ino, KeyRange};

/// The part of a range after this inode number.
fn after(range: KeyRange, ino: Ino) -> Option<KeyRange> {
    KeyRange::new(Ino(ino.0.checked_add(1)?), range.stop())
}
