//! Moments of an operation across slices, at which somebody is to die.

use magma_volcano::slice::across::message::AcrossMessage;

/// What slices say to each other in the course of an operation across them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Prepare,
    Prepared,
    Commit,
    Applied,
    Settled,
}

impl Moment {
    pub(super) const ALL: [Self; 5] =
        [Self::Prepare, Self::Prepared, Self::Commit, Self::Applied, Self::Settled];

    /// What a message says, if it is one of these.
    pub(super) fn of(message: &AcrossMessage) -> Option<Self> {
        match message {
            AcrossMessage::Prepare(_) => Some(Self::Prepare),
            AcrossMessage::Prepared { .. } => Some(Self::Prepared),
            AcrossMessage::Commit { .. } => Some(Self::Commit),
            AcrossMessage::Applied { .. } => Some(Self::Applied),
            AcrossMessage::Settled { .. } => Some(Self::Settled),
            _ => None,
        }
    }
}
