//! A connection to a volcano that is kept up by a task.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::topology::VolcanoId;
use crate::transport::link::{Link, LinkError};
use crate::transport::lock;
use crate::watched::Watched;

/// A connection that has just been begun or lost is waited for this long before home is asked in its place.
const PATIENCE: Duration = Duration::from_millis(250);

/// A connection that is ready for requests.
#[derive(Clone)]
pub(super) struct Ready {
    pub(super) link: Arc<Link>,
    /// Who is at its other end.
    pub(super) door: VolcanoId,
}

/// See the module's documentation.
pub(super) struct Line {
    pub(super) ready: Watched<Option<Ready>>,
    /// It should be asked whether the session lives; home only.
    pub(super) check: Notify,
    /// A newer topology exists.
    pub(super) refresh: Notify,
    /// Until when it is worth waiting for.
    patience: Mutex<Instant>,
}

impl Line {
    pub(super) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            ready: Watched::new(None),
            check: Notify::new(),
            refresh: Notify::new(),
            patience: Mutex::new(now + PATIENCE),
        })
    }

    pub(super) fn ready(&self) -> Option<Ready> {
        self.ready.get().filter(|ready| ready.link.is_open())
    }

    /// The connection is gone.
    pub(super) fn is_lost(&self, now: Instant, ready: &Ready, reason: &LinkError) {
        tracing::info!(target: "magma::net", address = %ready.link.remote_address(), %reason, "connection lost");
        self.ready.replace(None);
        *lock(&self.patience) = now + PATIENCE;
    }

    /// How long it is worth waiting for.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        let left = lock(&self.patience).saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}
