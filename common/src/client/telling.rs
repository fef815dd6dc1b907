//! Tells slices what we have open, and looks out for those that do not serve.
//!
//! Each slice that needs attention has a task of its own, so that none waits for another. What is told, and why, is said at
//! [`opens`](super::opens).

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::control;
use super::greeting::PULSE;
use super::network::{Network, Unready};
use super::retry::Backoff;
use super::session::Session;
use crate::error::FlareError;
use crate::handle::Handle;
use crate::key::KeyRange;
use crate::proto::limits::MAX_OPENS_PER_MESSAGE;
use crate::proto::operation::ReclaimOpens;
use crate::surroundings::Later;
use crate::topology::{Slice, SliceId};
use crate::transport::link::Link;

/// Attends to slices and flares until the client is gone.
pub(super) async fn run(network: Arc<Network>) {
    let mut attended = BTreeSet::new();
    let mut tasks = FuturesUnordered::<Later<'_, Option<SliceId>>>::new();
    loop {
        for id in network.slices_in_need() {
            if attended.insert(id) {
                let network = Arc::clone(&network);
                tasks.push(Box::pin(async move {
                    network.attend(id).await;
                    Some(id)
                }));
            }
        }
        for handle in network.opens.take_doubtful() {
            let network = Arc::clone(&network);
            tasks.push(Box::pin(async move {
                network.state(handle).await;
                None
            }));
        }
        tokio::select! {
            biased;
            () = network.opens.news.notified() => {}
            Some(done) = tasks.next() => {
                if let Some(id) = done {
                    attended.remove(&id);
                }
            }
        }
    }
}

impl Network {
    fn slices_in_need(&self) -> Vec<SliceId> {
        let mut ids = self.opens.untold(&self.topology());
        ids.extend(self.unserved_slices());
        ids
    }

    /// Tells a slice what is open if it has not been told, and asks one that did not serve until it does.
    async fn attend(self: &Arc<Self>, id: SliceId) {
        loop {
            let (seen, topology) = (self.moves(), self.topology());
            let slice = topology.slices.iter().find(|slice| slice.id == id);
            let (Some(slice), Some(session)) = (slice, self.session()) else { return self.served(id) };
            let done = if !self.opens.has_told(id) {
                self.tell(&session, slice).await
            } else if self.unserved_slices().contains(&id) {
                self.ask_whether_served(&session, slice).await
            } else {
                return;
            };
            match done {
                Ok(()) => {
                    self.served(id);
                    self.moved();
                }
                Err(Unready::Refused(error)) if !is_passing(error) => {
                    tracing::warn!(target: "magma::net", slice = id.0, %error, "a slice does not take what is open");
                    self.surroundings.sleep(session.lease / 3).await;
                }
                Err(error) => {
                    tracing::debug!(target: "magma::net", slice = id.0, %error, "a slice cannot be told yet what is open");
                    self.heed_refusal(&session, &error);
                    self.pause(PULSE, seen).await;
                }
            }
        }
    }

    /// Tells a slice all that is open in its range.
    async fn tell(self: &Arc<Self>, session: &Arc<Session>, slice: &Slice) -> Result<(), Unready> {
        let link = self.route(Some(&slice.range.first_key())).await;
        let mut stating = self.opens.state(slice.range).await;
        let (opens, number) = stating.counts();
        tracing::debug!(target: "magma::net", slice = slice.id.0, opens = opens.len(), "telling what is open");
        let opens: Vec<_> = opens.into_iter().collect();
        let is_all = !self.opens.is_creating(number);
        let mut parts = opens.chunks(MAX_OPENS_PER_MESSAGE).peekable();
        while let Some(part) = parts.next() {
            let is_last = is_all && parts.peek().is_none();
            self.send_opens(&link, session, slice, part.to_vec(), is_last).await?;
        }
        stating.heard();
        if !is_all {
            self.opens.created(number).await;
        }
        if !is_all || opens.is_empty() {
            let link = self.route(Some(&slice.range.first_key())).await;
            self.send_opens(&link, session, slice, Vec::new(), true).await?;
        }
        self.opens.tell(session.id, slice);
        self.opens.heed(&self.topology());
        Ok(())
    }

    /// Nothing is said to be open, and not that this is all.
    async fn ask_whether_served(
        self: &Arc<Self>,
        session: &Arc<Session>,
        slice: &Slice,
    ) -> Result<(), Unready> {
        let link = self.route(Some(&slice.range.first_key())).await;
        self.send_opens(&link, session, slice, Vec::new(), false).await
    }

    /// States how often one flare is open, until the primary of its slice has heard it.
    pub(super) async fn state(self: &Arc<Self>, handle: Handle) {
        let mut backoff = Backoff::new();
        loop {
            let seen = self.moves();
            match self.try_state(handle).await {
                Ok(()) => return,
                Err(Unready::Refused(error)) if !is_passing(error) => {
                    return tracing::warn!(target: "magma::net", ?handle, %error, "a volcano does not take how often a flare is open");
                }
                Err(_) => self.pause(backoff.next(), seen).await,
            }
        }
    }

    async fn try_state(self: &Arc<Self>, handle: Handle) -> Result<(), Unready> {
        let link = self.route(Some(&handle.key)).await;
        let topology = self.topology();
        let (Some(slice), Some(session)) = (topology.slice_of(&handle.key), self.session()) else {
            return Err(Unready::Refused(FlareError::NotOwner));
        };
        let mut stating = self.opens.state(KeyRange::single(handle.key.ino())).await;
        let (mut opens, _) = stating.counts();
        opens.entry(handle).or_default();
        let told = self.send_opens(&link, &session, slice, opens.into_iter().collect(), false).await;
        match told {
            Ok(()) => stating.heard(),
            Err(ref error) => self.heed_refusal(&session, error),
        }
        told
    }

    async fn send_opens(
        &self,
        link: &Arc<Link>,
        session: &Arc<Session>,
        slice: &Slice,
        opens: Vec<(Handle, u32)>,
        last: bool,
    ) -> Result<(), Unready> {
        let (at, number) = (slice.range.first_key(), self.opens.next_statement());
        let request = ReclaimOpens { at, reign: slice.reign, opens, last, number };
        control::ask(&*self.surroundings, link, Some(session), request.into()).await.map(drop)
    }

    /// Why something was refused may be news.
    fn heed_refusal(&self, session: &Session, error: &Unready) {
        match error {
            Unready::Refused(FlareError::SessionEnded) => self.check_session(session),
            // Another reign has begun, perhaps.
            Unready::Refused(FlareError::NotOwner) => self.refresh_topology(),
            Unready::Refused(_) | Unready::Link(_) => {}
        }
    }
}

/// Whether it is worth saying it again.
fn is_passing(error: FlareError) -> bool {
    matches!(error, FlareError::Unavailable | FlareError::NotOwner | FlareError::SessionEnded)
}
