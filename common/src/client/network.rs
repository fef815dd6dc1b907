//! The client's view of the lava network: its connections, its session, its topology.
//!
//! The *home* connection goes to any volcano, opens the session and keeps it alive; it moves to another volcano when
//! its own is gone. Volcanos that own keys and are not home get connections of their own when they are
//! first needed. While one is not reachable its requests go through home, which passes them on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::opens::Opens;
use super::retry::Backoff;
use super::session::Session;
use super::{ConnectError, HostPort};
use crate::error::FlareError;
use crate::handle::Handle;
use crate::key::Key;
use crate::topology::{BootId, Topology, VolcanoId};
use crate::transport::link::{Dialer, Link, LinkError};
use crate::transport::lock;

/// A volcano that is up but does not serve yet is waited for this long by the first connect.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// A handshake may take this long; while QUIC is left alone it asks less and less often.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// It is cut shorter when a connection was lost a moment ago, to notice soon that the volcano is back or another one answers.
const QUICK_DIAL_LIMIT: Duration = Duration::from_secs(1);
/// So many dials are quick.
const QUICK_DIALS: usize = 16;
/// A volcano that does not serve is left for another one after this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// An owner that was not connected yet is waited for this long before home is asked in its place.
const OWNER_PATIENCE: Duration = Duration::from_millis(250);

/// A new session is waited for this long before the operation is tried again.
const RENEW_PATIENCE: Duration = Duration::from_secs(1);

/// A connection that is ready for requests.
#[derive(Clone)]
pub(super) struct Ready {
    pub(super) link: Arc<Link>,
    pub(super) boot: BootId,
}

/// A connection that is kept up by a task.
pub(super) struct Line {
    ready: watch::Sender<Option<Ready>>,
    /// The session must be opened anew.
    renew: Notify,
    /// A newer topology exists.
    refresh: Notify,
    /// The volcano's life that knows our opens.
    pub(super) known_boot: Mutex<Option<BootId>>,
}

impl Line {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ready: watch::Sender::new(None),
            renew: Notify::new(),
            refresh: Notify::new(),
            known_boot: Mutex::new(None),
        })
    }

    fn ready(&self) -> Option<Ready> {
        self.ready.borrow().clone().filter(|ready| ready.link.is_open())
    }
}

/// See the module's documentation.
pub(super) struct Network {
    hosts: Vec<HostPort>,
    pub(super) name: String,
    dialer: Dialer,
    runtime: Runtime,
    home: Arc<Line>,
    owners: Mutex<HashMap<VolcanoId, Arc<Line>>>,
    pub(super) session: watch::Sender<Option<Arc<Session>>>,
    topology: RwLock<Arc<Topology>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    pub(super) opens: Arc<Opens>,
}

/// Why a connection could not be made ready.
pub(super) enum Unready {
    Link(LinkError),
    /// The volcano refuses what no retry can change.
    Refused(FlareError),
}

impl From<LinkError> for Unready {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl Unready {
    fn at(self, host: &HostPort) -> ConnectError {
        let name = format!("{}:{}", host.host, host.port);
        match self {
            Self::Link(LinkError::WrongKey) => ConnectError::WrongKey { host: name },
            Self::Link(LinkError::Version) => ConnectError::Version { host: name },
            Self::Link(LinkError::Lost(reason)) => ConnectError::Unreachable { hosts: name, reason },
            Self::Refused(error) => ConnectError::Unreachable { hosts: name, reason: error.to_string() },
        }
    }
}

impl Network {
    /// Connects to the first host that answers and opens a session.
    pub(super) async fn connect(
        hosts: Vec<HostPort>,
        name: String,
        dialer: Dialer,
    ) -> Result<Arc<Self>, ConnectError> {
        let home = Line::new();
        let network = Arc::new(Self {
            hosts,
            name,
            dialer,
            runtime: Runtime::current(),
            home: Arc::clone(&home),
            owners: Mutex::default(),
            session: watch::Sender::new(None),
            topology: RwLock::default(),
            tasks: Mutex::default(),
            opens: Arc::default(),
        });
        let ready = network.first_connect().await?;
        home.ready.send_replace(Some(ready));
        network.keep(home, None);
        Ok(network)
    }

    async fn first_connect(&self) -> Result<Ready, ConnectError> {
        let mut last = None;
        for host in &self.hosts {
            match self.reach(host, DIAL_LIMIT, FIRST_PATIENCE).await {
                Ok(ready) => return Ok(ready),
                Err(error) => last = Some(error.at(host)),
            }
        }
        let names: Vec<_> = self.hosts.iter().map(|host| format!("{}:{}", host.host, host.port)).collect();
        let none = || ConnectError::Unreachable { hosts: String::new(), reason: "no host was named".into() };
        match last {
            Some(ConnectError::Unreachable { reason, .. }) => {
                Err(ConnectError::Unreachable { hosts: names.join(", "), reason })
            }
            other => Err(other.unwrap_or_else(none)),
        }
    }

    async fn reach(&self, host: &HostPort, limit: Duration, patience: Duration) -> Result<Ready, Unready> {
        let found = tokio::net::lookup_host((host.host.as_str(), host.port)).await;
        let found =
            found.map_err(|error| LinkError::Lost(format!("cannot resolve {}: {error}", host.host)))?;
        let mut last = LinkError::Lost(format!("{} has no address", host.host));
        for address in found {
            match self.dialer.dial(address, limit).await {
                Ok(link) => return self.greet(&self.home, link, patience).await,
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// Starts the task that keeps a connection up; for home without `owner`.
    fn keep(self: &Arc<Self>, line: Arc<Line>, owner: Option<VolcanoId>) {
        let network = Arc::downgrade(self);
        let task = self.runtime.spawn(async move {
            let (mut turn, mut backoff) = (0, Backoff::new());
            while let Some(network) = network.upgrade() {
                if let Some(owner) = owner
                    && network.topology().member(owner).is_none()
                {
                    lock(&network.owners).remove(&owner);
                    return;
                }
                match line.ready() {
                    Some(ready) => network.tend(&line, &ready).await,
                    None => network.restore(&line, owner, &mut turn, &mut backoff).await,
                }
            }
        });
        lock(&self.tasks).push(task);
    }

    /// Waits for one thing to do for a connection that is up, and does it.
    async fn tend(&self, line: &Line, ready: &Ready) {
        let Some(session) = self.session() else { return };
        let done = tokio::select! {
            reason = ready.link.lost() => {
                tracing::info!(target: "magma::net", address = %ready.link.remote_address(), %reason, "connection lost");
                line.ready.send_replace(None);
                return;
            }
            () = line.renew.notified() => self.renew_over(line, ready).await,
            () = line.refresh.notified() => self.fetch_topology(&ready.link).await,
            () = tokio::time::sleep(session.lease / 3) => match self.keep_alive(&ready.link, &session).await {
                Ok(_) => Ok(()),
                Err(Unready::Refused(FlareError::SessionEnded)) => self.renew_over(line, ready).await,
                Err(error) => Err(error),
            },
        };
        match done {
            Ok(()) => {}
            Err(Unready::Refused(FlareError::Unavailable)) => {
                // Nothing is lost by asking again a little later.
                tokio::time::sleep(Backoff::new().next()).await;
                line.renew.notify_one();
            }
            Err(Unready::Refused(error)) => {
                tracing::warn!(target: "magma::net", %error, "the volcano refuses the session");
                ready.link.close();
            }
            Err(Unready::Link(_)) => ready.link.close(),
        }
    }

    /// Opens a new session unless the present one is alive after all.
    async fn renew_over(&self, line: &Line, ready: &Ready) -> Result<(), Unready> {
        self.introduce(line, &ready.link).await.map(drop)
    }

    /// Tries once to bring a connection up; pauses if it fails.
    async fn restore(&self, line: &Line, owner: Option<VolcanoId>, turn: &mut usize, backoff: &mut Backoff) {
        let reached = match owner {
            None => self.reach_any(turn).await,
            Some(owner) => self.reach_owner(line, owner).await,
        };
        let error = match reached {
            Ok(ready) => {
                tracing::info!(target: "magma::net", address = %ready.link.remote_address(), "connected");
                line.ready.send_replace(Some(ready));
                (*turn, *backoff) = (0, Backoff::new());
                return;
            }
            Err(Unready::Link(error)) => error.to_string(),
            Err(Unready::Refused(error)) => error.to_string(),
        };
        tracing::debug!(target: "magma::net", %error, "not connected yet");
        tokio::time::sleep(backoff.next()).await;
    }

    /// Tries the next of all hosts and members.
    async fn reach_any(&self, turn: &mut usize) -> Result<Ready, Unready> {
        let members = self.topology();
        let members = members.members.iter().filter(|member| !member.address.is_unspecified());
        let members = members.map(|member| HostPort { host: member.address.to_string(), port: member.port });
        let mut all = self.hosts.clone();
        for member in members {
            if !all.contains(&member) {
                all.push(member);
            }
        }
        let host = all.get(*turn % all.len().max(1));
        let limit = if *turn < QUICK_DIALS { QUICK_DIAL_LIMIT } else { DIAL_LIMIT };
        *turn += 1;
        match host {
            Some(host) => self.reach(host, limit, PATIENCE).await,
            None => Err(LinkError::Lost("no host was named".into()).into()),
        }
    }

    async fn reach_owner(&self, line: &Line, owner: VolcanoId) -> Result<Ready, Unready> {
        let address: Option<SocketAddr> =
            self.topology().member(owner).map(crate::topology::Member::flare_address);
        let address = address.ok_or_else(|| LinkError::Lost("no longer a member".into()))?;
        let link = self.dialer.dial(address, DIAL_LIMIT).await?;
        self.greet(line, link, PATIENCE).await
    }

    /// The connection for a request about this key. Waits until there is one.
    pub(super) async fn route(self: &Arc<Self>, key: Option<&Key>) -> Arc<Link> {
        let mut home = self.home.ready.subscribe();
        loop {
            if let Some(ready) = self.home.ready() {
                let owner = key.and_then(|key| self.other_owner(key, &ready));
                return match owner {
                    None => ready.link,
                    Some(line) => self.owner_link(&line).await.unwrap_or(ready.link),
                };
            }
            // The sender lives as long as we do.
            if home.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The line to the key's owner, unless that is home.
    fn other_owner(self: &Arc<Self>, key: &Key, home: &Ready) -> Option<Arc<Line>> {
        let topology = self.topology();
        let owner = topology.owner_of(key)?;
        if owner.boot == home.boot || topology.members.len() == 1 || owner.address.is_unspecified() {
            return None;
        }
        let mut owners = lock(&self.owners);
        if let Some(line) = owners.get(&owner.id) {
            return Some(Arc::clone(line));
        }
        let line = Line::new();
        owners.insert(owner.id, Arc::clone(&line));
        self.keep(Arc::clone(&line), Some(owner.id));
        Some(line)
    }

    async fn owner_link(&self, line: &Line) -> Option<Arc<Link>> {
        if let Some(ready) = line.ready() {
            return Some(ready.link);
        }
        let mut watcher = line.ready.subscribe();
        let pause = self.sleep(OWNER_PATIENCE);
        tokio::select! {
            ready = watcher.wait_for(|ready| ready.as_ref().is_some_and(|ready| ready.link.is_open())) => {
                ready.ok().and_then(|ready| ready.as_ref().map(|ready| Arc::clone(&ready.link)))
            }
            () = pause => None,
        }
    }

    /// The present session.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.borrow().clone()
    }

    /// Waits for another session than this one, which has ended.
    pub(super) async fn renew(&self, ended: &Session) {
        let mut watcher = self.session.subscribe();
        self.home.renew.notify_one();
        let other = |session: &Option<Arc<Session>>| session.as_ref().is_some_and(|now| now.id != ended.id);
        let pause = self.sleep(RENEW_PATIENCE);
        tokio::select! {
            _ = watcher.wait_for(other) => {}
            // Home may be another volcano by now, which knows the session; asking again shows.
            () = pause => {}
        }
    }

    /// How often a flare is open has to be said again.
    pub(super) async fn reclaim(&self, link: &Arc<Link>, handle: Handle, count: u32) {
        let Some(session) = self.session() else { return };
        // If the connection is lost the next one reclaims everything.
        let _ = self.send_opens(link, &session, vec![(handle, count)]).await;
    }

    /// A reply mentioned this version of the topology.
    pub(super) fn heard(&self, version: u64) {
        if version > self.topology().version {
            self.home.refresh.notify_one();
        }
    }

    pub(super) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn learn(&self, topology: Topology) {
        let mut known = self.topology.write().unwrap_or_else(PoisonError::into_inner);
        // Another network under the same address starts its versions anew.
        if topology.version > known.version || topology.network != known.network {
            *known = Arc::new(topology);
        }
    }

    pub(super) fn home(&self) -> Option<Arc<Link>> {
        self.home.ready().map(|ready| ready.link)
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// A timer of our runtime, for callers that may be outside of it.
    pub(super) fn sleep(&self, duration: Duration) -> tokio::time::Sleep {
        let _inside = self.runtime.enter();
        tokio::time::sleep(duration)
    }

    /// Runs a task as long as the client lives.
    pub(super) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.tasks).push(self.runtime.spawn(task));
    }

    /// Stops all tasks and connections.
    pub(super) fn stop(&self) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        let owners: Vec<_> = lock(&self.owners).values().cloned().collect();
        for line in owners.iter().chain([&self.home]) {
            if let Some(ready) = line.ready.send_replace(None) {
                ready.link.close();
            }
        }
    }

    pub(super) async fn finish(&self) {
        self.dialer.finish().await;
    }
}
