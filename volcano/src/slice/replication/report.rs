//! What a copy says about itself and, as primary, about the others.

use magma_common::topology::Replica;

use super::Role;
use super::primary::Phase;
use super::progress::Progress;
use crate::coordinator::Load;
use crate::slice::report::{CopyReport, Doing, OtherCopy};
use crate::slice::{Now, Slice};

impl Slice<'_> {
    /// What this copy does.
    pub(in crate::slice) fn copy_report(&mut self, now: Now) -> CopyReport {
        self.note_degradation(now);
        let awaited = self.replication.waits_for(self.identity.replica());
        let doing = match &self.replication.role {
            Role::Outside(_) if awaited.is_empty() => Doing::Nothing,
            Role::Outside(_) => Doing::Waiting(awaited),
            Role::Follower(follower) if follower.is_mirror() => Doing::Mirroring,
            Role::Follower(_) => Doing::Joining,
            Role::Primary(primary) if matches!(primary.phase, Phase::Comparing | Phase::Leveling(_)) => {
                Doing::Preparing
            }
            Role::Primary(primary) => {
                let others =
                    primary.copies.iter().map(|(&copy, progress)| self.other(now, copy, progress)).collect();
                Doing::Serving { degraded: self.replication.degraded, others }
            }
        };
        let slice = self.identity.slice;
        let load = self.store.counted(slice).map(|(keys, bytes)| Load { keys, bytes });
        CopyReport { slice, epoch: self.replication.epoch(), load, doing }
    }

    fn other(&self, now: Now, copy: Replica, progress: &Progress) -> OtherCopy {
        let share: f64 = progress.missing.ranges().iter().map(magma_common::key::KeyRange::share).sum();
        let left = share / self.range().share();
        // Keys are hashes, so the share of the keyspace is the share of the flares.
        #[allow(clippy::cast_sign_loss, reason = "a share is not negative")]
        let missing_millionths = (left * 1e6).ceil() as u32;
        let elapsed = now.monotonic.saturating_sub(progress.since);
        let done = 1.0 - left;
        let eta = (done > 0.001 && left > 0.0).then(|| elapsed.as_secs_f64() * left / done);
        #[allow(clippy::cast_sign_loss, reason = "a time to come is not negative")]
        let eta_seconds = eta.map(|eta| eta as u64);
        OtherCopy {
            copy,
            in_sync: progress.is_mirror,
            behind: self.position().seq.0.saturating_sub(progress.acked.0),
            missing_millionths,
            eta_seconds,
            silent_ms: u64::try_from(now.monotonic.saturating_sub(progress.heard).as_millis())
                .unwrap_or(u64::MAX),
        }
    }

    /// Notes since when there are too few in-sync copies.
    fn note_degradation(&mut self, now: Now) {
        let (Role::Primary(_), Some(config)) = (&self.replication.role, &self.replication.config) else {
            self.replication.degraded = None;
            return;
        };
        let is_degraded = config.mirrors.len() + 1 < usize::from(self.topology.copies);
        self.replication.degraded = is_degraded.then(|| self.replication.degraded.unwrap_or(now.wall));
    }
}
