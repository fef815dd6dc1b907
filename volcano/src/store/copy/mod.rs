//! Copying a slice from one store to another, while records go on.
//!
//! The store that has the slice gives out parts of it ([`export`]): all that there is in a range of inode numbers at one
//! position of the slice. The store that is to become a copy takes them ([`import`]) while it stands at that position, and in
//! between takes records, of which only what concerns the keys that it has changes anything ([`filter`]). A flare too large for
//! one part comes in several; how much of it is here is a [`Partial`].

mod export;
mod filter;

pub use export::Inside;
pub use filter::{Filtered, Partial, filter};
