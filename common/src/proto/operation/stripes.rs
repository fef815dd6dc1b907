//! Striped files: see `docs/STRIPES.md`.

use serde::{Deserialize, Serialize};

use crate::attr::Attr;
use crate::handle::Handle;
use crate::stripes::StripeUnit;

/// Asks the head of a striped file where the bytes of a range are, and whether the caller may read or write them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The file.
    pub handle: Handle,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// For writing; else for reading.
    pub write: bool,
    /// The caller has it open: no permission check.
    pub opened: bool,
}

/// One stripe of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeAt {
    /// Which: it has the bytes from `number` units on. Never 0.
    pub number: u64,
    /// Its flare.
    pub handle: Handle,
    /// Its bytes from here on (counted from its beginning) are zeros, whatever it says, and only the head may write to it.
    pub trimmed: Option<u64>,
}

/// Where the bytes of a range are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutReply {
    /// The file.
    pub attr: Attr,
    /// How many bytes are in each flare; none if all are in the file's own.
    pub unit: Option<StripeUnit>,
    /// The cut number.
    pub cut: u64,
    /// The stripes that there are, ascending; at most [`MAX_LAYOUT`](crate::proto::limits::MAX_LAYOUT). All others are zeros.
    pub stripes: Vec<StripeAt>,
    /// There are more: ask for the range from here on.
    pub next: Option<u64>,
}

/// Reads from a stripe; what it has of the range comes as the reply's payload. Behind that are zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadStripe {
    /// The stripe.
    pub stripe: Handle,
    /// Its file.
    pub head: Handle,
    /// The cut number of the layout. [`Stale`](crate::error::FlareError::Stale) if the stripe knows a higher one.
    pub cut: u64,
    /// First byte, counted from the stripe's beginning.
    pub offset: u64,
    /// At most so many bytes, up to [`MAX_IO`](crate::proto::limits::MAX_IO).
    pub length: u32,
}

/// Writes the request's payload to a stripe. It counts when the head has heard of it: see [`WriteDone`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteStripe {
    /// The stripe.
    pub stripe: Handle,
    /// Its file.
    pub head: Handle,
    /// As in [`ReadStripe`].
    pub cut: u64,
    /// First byte, counted from the stripe's beginning.
    pub offset: u64,
}

/// Bytes were written to a stripe, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteStripeReply {
    /// As in [`WriteReply`](super::WriteReply).
    pub verifier: u64,
}

/// Tells the head that stripes were written. The file is extended, unless it was cut meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteDone {
    /// The file.
    pub handle: Handle,
    /// One more than the last byte written, counted from the file's beginning.
    pub end: u64,
    /// The cut number under which they were written.
    pub cut: u64,
}

/// Answers when one flare of a striped file is on disk at every in-sync copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPart {
    /// A stripe, or the head itself.
    pub part: Handle,
    /// The file.
    pub head: Handle,
}

/// Removes some of what a striped file does not need any more. Volcanos do that by themselves; it never does harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shed {
    /// The file.
    pub handle: Handle,
}
