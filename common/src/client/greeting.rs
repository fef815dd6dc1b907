//! What is said on a new connection before it carries requests: the session, the topology, and what we have open.

use std::sync::Arc;
use std::time::Duration;

use super::control;
use super::network::{Line, Network, Ready, Unready};
use super::retry::Backoff;
use super::session::Session;
use crate::error::FlareError;
use crate::handle::Handle;
use crate::proto::Reply;
use crate::proto::limits::MAX_OPENS_PER_MESSAGE;
use crate::proto::operation::{FetchTopology, KeepAlive, OpenSession, ReclaimOpens};
use crate::topology::BootId;
use crate::transport::link::Link;
use crate::transport::lock;

impl Network {
    /// Makes a new connection ready: the session exists and the volcano knows our opens.
    pub(super) async fn greet(
        &self,
        line: &Line,
        link: Arc<Link>,
        patience: Duration,
    ) -> Result<Ready, Unready> {
        link.set_orphan_sink(control::orphan_sink(&self.opens));
        let mut backoff = Backoff::new();
        let started = tokio::time::Instant::now();
        loop {
            match self.introduce(line, &link).await {
                Ok(boot) => return Ok(Ready { link, boot }),
                Err(Unready::Refused(FlareError::Unavailable)) if started.elapsed() < patience => {
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn introduce(&self, line: &Line, link: &Arc<Link>) -> Result<BootId, Unready> {
        if let Some(session) = self.session() {
            match self.keep_alive(link, &session).await {
                Ok(boot) => {
                    self.settle_opens(line, link, &session, boot).await?;
                    return Ok(boot);
                }
                Err(Unready::Refused(FlareError::SessionEnded)) => {}
                Err(error) => return Err(error),
            }
        }
        self.open_session(line, link).await
    }

    pub(super) async fn open_session(&self, line: &Line, link: &Arc<Link>) -> Result<BootId, Unready> {
        let ask = OpenSession { client: self.name.clone() };
        let Reply::OpenSession(terms) = control::ask(link, None, ask.into()).await? else {
            return Err(Unready::Refused(FlareError::BadRequest));
        };
        let lease = Duration::from_millis(u64::from(terms.lease_ms.max(1000)));
        let session = Session::new(terms.session, lease);
        self.learn(terms.topology);
        // The new session has nothing open yet, in whatever life of the volcano.
        *lock(&line.known_boot) = None;
        let opens = self.opens.reclaim();
        self.send_opens(link, &session, opens).await?;
        *lock(&line.known_boot) = Some(terms.boot);
        tracing::debug!(target: "magma::net", session = session.id.0, "session opened");
        self.session.send_replace(Some(session));
        Ok(terms.boot)
    }

    pub(super) async fn keep_alive(
        &self,
        link: &Arc<Link>,
        session: &Arc<Session>,
    ) -> Result<BootId, Unready> {
        let ask = KeepAlive { acknowledged: session.acknowledged() };
        let Reply::KeepAlive(alive) = control::ask(link, Some(session), ask.into()).await? else {
            return Err(Unready::Refused(FlareError::BadRequest));
        };
        if alive.topology_version > self.topology().version {
            self.fetch_topology(link).await?;
        }
        Ok(alive.boot)
    }

    pub(super) async fn fetch_topology(&self, link: &Arc<Link>) -> Result<(), Unready> {
        let Reply::FetchTopology(topology) = control::ask(link, None, FetchTopology.into()).await? else {
            return Err(Unready::Refused(FlareError::BadRequest));
        };
        self.learn(topology);
        Ok(())
    }

    /// Tells a volcano that has started anew what we have open.
    pub(super) async fn settle_opens(
        &self,
        line: &Line,
        link: &Arc<Link>,
        session: &Arc<Session>,
        boot: BootId,
    ) -> Result<(), Unready> {
        if *lock(&line.known_boot) == Some(boot) {
            return Ok(());
        }
        let opens = self.opens.reclaim();
        tracing::debug!(target: "magma::net", opens = opens.len(), "the volcano has restarted; reclaiming opens");
        self.send_opens(link, session, opens).await?;
        *lock(&line.known_boot) = Some(boot);
        Ok(())
    }

    /// Says how often each of these flares is open, and that this is all.
    pub(super) async fn send_opens(
        &self,
        link: &Arc<Link>,
        session: &Arc<Session>,
        opens: Vec<(Handle, u32)>,
    ) -> Result<(), Unready> {
        let mut parts = opens.chunks(MAX_OPENS_PER_MESSAGE).peekable();
        loop {
            let part = parts.next().unwrap_or_default().to_vec();
            let last = parts.peek().is_none();
            control::ask(link, Some(session), ReclaimOpens { opens: part, last }.into()).await?;
            if last {
                return Ok(());
            }
        }
    }
}
