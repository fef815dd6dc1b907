//! STATFS of what this slice's volcano stores.

use magma_common::proto::operation::StatfsReply;

use super::plan::Plan;

/// Space that one more flare is reckoned with, in bytes.
pub(crate) const BYTES_PER_FLARE: u64 = 1024;

pub(super) fn statfs(plan: &Plan<'_>) -> StatfsReply {
    let space = plan.view.space();
    StatfsReply {
        total: space.total,
        free: space.available,
        available: space.available,
        flares: space.flares,
        flares_free: space.available / BYTES_PER_FLARE,
    }
}
