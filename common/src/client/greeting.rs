//! What is said on a connection before it carries requests, and again from time to time: the session, the topology, and what we
//! have open.
//!
//! Whichever volcano is at the other end, it is the primary that answers. When another one answers than before, or another life
//! of it, it must be told what we have open.

use std::sync::Arc;
use std::time::Duration;

use super::control;
use super::line::Ready;
use super::network::{Network, Unready};
use super::session::Session;
use crate::error::FlareError;
use crate::handle::Handle;
use crate::proto::limits::MAX_OPENS_PER_MESSAGE;
use crate::proto::operation::{FetchTopology, KeepAlive, OpenSession, ReclaimOpens};
use crate::proto::{Reply, SessionId};
use crate::topology::{Epoch, VolcanoId};
use crate::transport::link::Link;

/// While a volcano says that the primary does not serve it is asked again at this pace.
pub(super) const PULSE: Duration = Duration::from_millis(100);

impl Network {
    /// Makes a new connection ready: the session exists and the primary knows our opens.
    pub(super) async fn greet(&self, link: Arc<Link>, patience: Duration) -> Result<Ready, Unready> {
        link.set_orphan_sink(control::orphan_sink(&self.opens));
        let started = tokio::time::Instant::now();
        loop {
            match self.introduce(&link).await {
                Ok(door) => return Ok(Ready { link, door }),
                Err(Unready::Refused(FlareError::Unavailable)) if started.elapsed() < patience => {
                    tokio::time::sleep(PULSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the session alive, or opens a new one if it has ended; who is at the other end.
    pub(super) async fn introduce(&self, link: &Arc<Link>) -> Result<VolcanoId, Unready> {
        loop {
            let session = self.session();
            if let Some(session) = &session {
                match self.keep_alive(link, session).await {
                    Err(Unready::Refused(FlareError::SessionEnded)) => {}
                    other => return other,
                }
            }
            let ended = session.map(|session| session.id);
            if let Some(door) = self.open_session(link, ended).await? {
                return Ok(door);
            }
        }
    }

    /// Opens a session in place of the one that has ended; nothing if there is another one meanwhile.
    async fn open_session(
        &self,
        link: &Arc<Link>,
        ended: Option<SessionId>,
    ) -> Result<Option<VolcanoId>, Unready> {
        let mut told = self.told.lock().await;
        if self.session().map(|session| session.id) != ended {
            return Ok(None);
        }
        let ask = OpenSession { client: self.name.clone() };
        let Reply::OpenSession(terms) = control::ask(link, None, ask.into()).await? else {
            return Err(Unready::Refused(FlareError::BadRequest));
        };
        let lease = Duration::from_millis(u64::from(terms.lease_ms.max(1000)));
        let session = Session::new(terms.session, lease);
        self.learn(terms.topology);
        // The new session has nothing open yet, whoever is primary.
        *told = None;
        self.tell_opens(link, &session).await?;
        *told = Some(terms.reign);
        tracing::debug!(target: "magma::net", session = session.id.0, "session opened");
        self.session.send_replace(Some(session));
        Ok(Some(terms.door))
    }

    async fn keep_alive(&self, link: &Arc<Link>, session: &Arc<Session>) -> Result<VolcanoId, Unready> {
        let ask = KeepAlive { acknowledged: session.acknowledged() };
        let Reply::KeepAlive(alive) = control::ask(link, Some(session), ask.into()).await? else {
            return Err(Unready::Refused(FlareError::BadRequest));
        };
        if alive.topology_version > self.topology().version {
            self.fetch_topology(link).await?;
        }
        self.settle_opens(link, session, alive.reign).await?;
        Ok(alive.door)
    }

    pub(super) async fn fetch_topology(&self, link: &Arc<Link>) -> Result<(), Unready> {
        let Reply::FetchTopology(topology) = control::ask(link, None, FetchTopology.into()).await? else {
            return Err(Unready::Refused(FlareError::BadRequest));
        };
        self.learn(topology);
        Ok(())
    }

    /// Tells a primary that has begun to serve since we last told one what we have open.
    async fn settle_opens(
        &self,
        link: &Arc<Link>,
        session: &Arc<Session>,
        reign: Epoch,
    ) -> Result<(), Unready> {
        let mut told = self.told.lock().await;
        if *told == Some(reign) {
            return Ok(());
        }
        self.tell_opens(link, session).await?;
        *told = Some(reign);
        self.moved();
        Ok(())
    }

    async fn tell_opens(&self, link: &Arc<Link>, session: &Arc<Session>) -> Result<(), Unready> {
        // A release that is under way and counted in what we say must not arrive after it.
        let _no_release = self.opens.settling.write().await;
        let opens = self.opens.reclaim();
        tracing::debug!(target: "magma::net", opens = opens.len(), "telling the primary what is open");
        self.send_opens(link, session, opens).await
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
