//! What is said on a connection before it carries requests, and again from time to time: the session, the topology.
//!
//! The session is home's affair. Whichever volcano is at home's other end, it is the primary of the slice that keeps the
//! sessions that answers. Owners are asked for the topology only, so that a slice can be reached while that one is not served.

use std::sync::Arc;
use std::time::Duration;

use super::control;
use super::line::Ready;
use super::network::{Network, Unready};
use super::session::Session;
use crate::error::FlareError;
use crate::proto::operation::{FetchTopology, KeepAlive, OpenSession};
use crate::proto::{Reply, SessionId};
use crate::topology::VolcanoId;
use crate::transport::link::Link;

/// While a primary does not serve it is asked again at this pace.
pub(super) const PULSE: Duration = Duration::from_millis(100);

impl Network {
    /// Makes a new connection ready to be home: the session exists.
    pub(super) async fn greet(&self, link: Arc<Link>, patience: Duration) -> Result<Ready, Unready> {
        link.set_orphan_sink(control::orphan_sink(&self.opens));
        let started = self.surroundings.now();
        loop {
            match self.introduce(&link).await {
                Ok(door) => return Ok(Ready { link, door }),
                Err(Unready::Refused(FlareError::Unavailable)) if self.since(started) < patience => {
                    self.surroundings.sleep(PULSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes a new connection to an owner ready.
    pub(super) async fn greet_owner(&self, link: Arc<Link>, owner: VolcanoId) -> Result<Ready, Unready> {
        link.set_orphan_sink(control::orphan_sink(&self.opens));
        self.fetch_topology(&link).await?;
        Ok(Ready { link, door: owner })
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
        let _only_one = self.opening_session.lock().await;
        if self.session().map(|session| session.id) != ended {
            return Ok(None);
        }
        let ask = OpenSession { client: self.name.clone() };
        let Reply::OpenSession(terms) = control::ask(&*self.surroundings, link, None, ask.into()).await?
        else {
            return Err(Unready::Refused(FlareError::BadRequest));
        };
        let lease = Duration::from_millis(u64::from(terms.lease_ms.max(1000)));
        let session = Session::new(terms.session, lease);
        tracing::debug!(target: "magma::net", session = session.id.0, "session opened");
        self.learn(terms.topology);
        self.begin_session(session);
        Ok(Some(terms.door))
    }

    async fn keep_alive(&self, link: &Arc<Link>, session: &Arc<Session>) -> Result<VolcanoId, Unready> {
        let ask = KeepAlive { acknowledged: session.acknowledged() };
        let Reply::KeepAlive(alive) =
            control::ask(&*self.surroundings, link, Some(session), ask.into()).await?
        else {
            return Err(Unready::Refused(FlareError::BadRequest));
        };
        if alive.topology_version > self.topology().version {
            self.fetch_topology(link).await?;
        }
        Ok(alive.door)
    }

    pub(super) async fn fetch_topology(&self, link: &Arc<Link>) -> Result<(), Unready> {
        let Reply::FetchTopology(topology) =
            control::ask(&*self.surroundings, link, None, FetchTopology.into()).await?
        else {
            return Err(Unready::Refused(FlareError::BadRequest));
        };
        self.learn(topology);
        Ok(())
    }
}
