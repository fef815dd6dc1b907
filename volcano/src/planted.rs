//! Faults that the simulation plants, one at a time, to show that it finds them. Without the feature `simulation` there are none.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Replies leave before the other copies have what they depend on.
    AcknowledgeBeforeMirror,
    /// Errors leave before the records that they saw are acknowledged.
    ReleaseErrorsEarly,
    /// Messages of another epoch are taken, and changes that were asked for under one are made.
    SkipEpochCheck,
    /// A promoted copy knows no outcomes of earlier operations.
    ForgetLedgerAtFailover,
    /// Replies leave although the lease has run out.
    ServeAfterLease,
    /// A mirror takes over although it has just answered a beacon.
    PromoteWithinPromise,
    /// A mirror goes on answering beacons after it has proposed itself.
    AnswerWhileProposing,
    /// A volcano that has started anew goes on as the member that it was.
    KeepMembershipOverRestart,
    /// A joining copy counts before what it copied is on its disk.
    CountBeforeSync,
    /// A joining copy that is proposed as in sync does not count until the outcome is known.
    ProposeWithoutWaiting,
    /// A joining copy counts although it lacks parts.
    CountIncomplete,
    /// After all have started anew the first one becomes primary, not the one with the longest log.
    ColdStartWithShortestLog,
    /// A cold start does not raise the loss counter.
    KeepVerifierOverLoss,
    /// Records of a lost tail stay when a copy comes back.
    SkipRewind,
    /// A copy that comes back after a power cut keeps bytes that it never synced.
    KeepDoubtfulBytes,
    /// What a lost tail had touched is not fetched again.
    RewindWithoutRefresh,
    /// Of the records that arrive while a copy is being filled, all changes are thrown away.
    DropRecordsWhileCopying,
    /// `Stable` is answered when this disk has it.
    StableWithoutMirrors,
    /// `Stable` is answered when the log was handed over, not synced.
    StableWithoutSync,
    /// A new primary serves before the other copies stand where it does.
    ServeBeforeLeveling,
    /// A retry is evaluated again.
    IgnoreLedger,
    /// Participants hear of a commit before the driver's other copies have its record.
    CommitBeforeMirrors,
    /// A participant that asks is told that the attempt is dead although it goes on.
    GiveUpRunning,
    /// What a prepared step concerns is shown and changed.
    ShowPrepared,
    /// A promoted copy knows no prepared steps.
    ForgetPreparedAtFailover,
    /// A slice that may have lost records does again what others know of, though it was settled.
    DoSettledAgain,
    /// A new slice is let be before the record that has divided it off is on the disks of all copies.
    DivideBeforeDisk,
    /// A new slice knows no outcomes of the operations before it was divided off.
    ForgetLedgerAtDivision,
    /// What a truncation cuts off a stripe stays there and is shown again when the file grows.
    KeepTrimmedBytes,
    /// A file is extended by what clients wrote before it was cut.
    ExtendAfterCut,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AcknowledgeBeforeMirror,
        Self::ReleaseErrorsEarly,
        Self::SkipEpochCheck,
        Self::ForgetLedgerAtFailover,
        Self::ServeAfterLease,
        Self::PromoteWithinPromise,
        Self::AnswerWhileProposing,
        Self::KeepMembershipOverRestart,
        Self::CountBeforeSync,
        Self::ProposeWithoutWaiting,
        Self::CountIncomplete,
        Self::ColdStartWithShortestLog,
        Self::KeepVerifierOverLoss,
        Self::SkipRewind,
        Self::KeepDoubtfulBytes,
        Self::RewindWithoutRefresh,
        Self::DropRecordsWhileCopying,
        Self::StableWithoutMirrors,
        Self::StableWithoutSync,
        Self::ServeBeforeLeveling,
        Self::IgnoreLedger,
        Self::CommitBeforeMirrors,
        Self::GiveUpRunning,
        Self::ShowPrepared,
        Self::ForgetPreparedAtFailover,
        Self::DoSettledAgain,
        Self::DivideBeforeDisk,
        Self::ForgetLedgerAtDivision,
        Self::KeepTrimmedBytes,
        Self::ExtendAfterCut,
    ];
}

impl Bug {
    /// Whether only slices that are divided show it.
    pub fn is_of_division(self) -> bool {
        matches!(self, Self::DivideBeforeDisk | Self::ForgetLedgerAtDivision)
    }

    /// Whether only striped files show it.
    pub fn is_of_stripes(self) -> bool {
        matches!(self, Self::KeepTrimmedBytes | Self::ExtendAfterCut)
    }

    /// Whether only several slices show it.
    pub fn is_across(self) -> bool {
        matches!(
            self,
            Self::CommitBeforeMirrors
                | Self::GiveUpRunning
                | Self::ShowPrepared
                | Self::ForgetPreparedAtFailover
                | Self::DoSettledAgain
        )
    }
}

#[cfg(feature = "simulation")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a fault in everything that this thread runs from now on.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(not(feature = "simulation"))]
mod switch {
    pub(crate) const fn planted(_: super::Bug) -> bool {
        false
    }
}

#[cfg(feature = "simulation")]
pub use switch::plant;
pub(crate) use switch::planted;
