//! The client's view of the lava network: its connections, its session, its topology.
//!
//! The *home* connection goes to any volcano, opens the session and keeps it alive; it moves to another volcano when
//! its own is gone. Volcanos that own keys and are not home get connections of their own when they are
//! first needed. While one is not reachable its requests go through home, which passes them on, as it does with what
//! concerns the session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::greeting::PULSE;
use super::line::{Line, Ready};
use super::opens::Opens;
use super::reach::PATIENCE;
use super::retry::Backoff;
use super::session::Session;
use super::{ConnectError, HostPort};
use crate::error::FlareError;
use crate::handle::Handle;
use crate::key::Key;
use crate::surroundings::{Running, Surroundings};
use crate::topology::{Replica, SliceId, Topology, VolcanoId};
use crate::transport::link::{Link, LinkError};
use crate::transport::lock;
use crate::watched::Watched;

/// A new session is waited for this long before the operation is tried again.
const RENEW_PATIENCE: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Network {
    pub(super) hosts: Vec<HostPort>,
    pub(super) name: String,
    pub(super) surroundings: Arc<dyn Surroundings>,
    home: Arc<Line>,
    owners: Mutex<BTreeMap<VolcanoId, Arc<Line>>>,
    pub(super) session: Watched<Option<Arc<Session>>>,
    topology: RwLock<Arc<Topology>>,
    tasks: Mutex<Vec<Running>>,
    pub(super) opens: Arc<Opens>,
    /// Held while a session is opened.
    pub(super) opening_session: tokio::sync::Mutex<()>,
    /// Slices that requests were told not to be served.
    unserved: Mutex<BTreeSet<SliceId>>,
    /// Counts changes after which it is worth trying again at once.
    moves: Watched<()>,
    /// When requests last made home ask whether the primary serves.
    asked: Mutex<Option<Instant>>,
}

/// Why a connection could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unready {
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The volcano refuses what no retry can change, or cannot do it now.
    #[error(transparent)]
    Refused(FlareError),
}

impl Unready {
    /// Whether trying again is in vain.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Link(LinkError::WrongKey | LinkError::Version))
    }

    pub(super) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Refused(FlareError::Unavailable))
    }
}

/// How a line fares over time.
#[derive(Default)]
struct Fortune {
    /// Rounds of dials in vain.
    round: u32,
    backoff: Backoff,
    /// Since when the volcano has said that the primary does not serve.
    unserved: Option<Instant>,
    /// Who was at the other end.
    door: Option<VolcanoId>,
}

impl Network {
    /// Connects to the first host that answers and opens a session.
    pub(super) async fn connect(
        hosts: Vec<HostPort>,
        name: String,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<Arc<Self>, ConnectError> {
        let home = Line::new(surroundings.now());
        let network = Arc::new(Self {
            hosts,
            name,
            surroundings,
            home: Arc::clone(&home),
            owners: Mutex::default(),
            session: Watched::new(None),
            topology: RwLock::default(),
            tasks: Mutex::default(),
            opens: Arc::default(),
            opening_session: tokio::sync::Mutex::default(),
            unserved: Mutex::default(),
            moves: Watched::new(()),
            asked: Mutex::default(),
        });
        let ready = network.first_connect().await?;
        home.ready.replace(Some(ready));
        network.keep(home, None);
        Ok(network)
    }

    /// Starts the task that keeps a connection up; for home without `owner`.
    fn keep(self: &Arc<Self>, line: Arc<Line>, owner: Option<VolcanoId>) {
        let network = Arc::downgrade(self);
        self.run(async move {
            let mut fortune = Fortune::default();
            while let Some(network) = network.upgrade() {
                if let Some(owner) = owner
                    && !network.topology().slices.iter().any(|slice| slice.primary.volcano == owner)
                {
                    lock(&network.owners).remove(&owner);
                    if let Some(ready) = line.ready.replace(None) {
                        ready.link.close();
                    }
                    return;
                }
                match (line.ready(), owner) {
                    (Some(ready), None) => network.tend_home(&line, &ready, &mut fortune).await,
                    (Some(ready), Some(_)) => network.tend_owner(&line, &ready).await,
                    (None, owner) => network.restore(&line, owner, &mut fortune).await,
                }
            }
        });
    }

    /// Waits for one thing to do for the connection to an owner, and does it.
    async fn tend_owner(&self, line: &Line, ready: &Ready) {
        let Some(session) = self.session() else { return };
        tokio::select! {
            biased;
            reason = ready.link.lost() => return line.is_lost(self.surroundings.now(), ready, &reason),
            () = line.refresh.notified() => {}
            // Shows that it answers.
            () = self.surroundings.sleep(session.lease / 3) => {}
        }
        if let Err(Unready::Link(_)) = self.refresh(&ready.link).await {
            ready.link.close();
        }
    }

    /// Waits for one thing to do for home, and does it.
    async fn tend_home(&self, line: &Line, ready: &Ready, fortune: &mut Fortune) {
        let Some(session) = self.session() else { return };
        fortune.door = Some(ready.door);
        let done = tokio::select! {
            biased;
            reason = ready.link.lost() => return line.is_lost(self.surroundings.now(), ready, &reason),
            () = line.refresh.notified() => return drop(self.refresh(&ready.link).await),
            () = line.check.notified() => self.introduce(&ready.link).await,
            () = self.surroundings.sleep(session.lease / 3) => self.introduce(&ready.link).await,
        };
        match done {
            Ok(_) => {
                if fortune.unserved.take().is_some() {
                    self.moved();
                }
            }
            Err(error) if error.is_unavailable() => {
                let since = *fortune.unserved.get_or_insert_with(|| self.surroundings.now());
                if self.since(since) >= PATIENCE && self.has_others(ready.door) {
                    tracing::info!(target: "magma::net", "the volcano says that nobody serves; asking another one");
                    fortune.unserved = None;
                    return ready.link.close();
                }
                // Nothing is lost by asking again a little later.
                self.surroundings.sleep(PULSE).await;
                line.check.notify_one();
            }
            Err(Unready::Refused(error)) => {
                tracing::warn!(target: "magma::net", %error, "the volcano refuses the session");
                ready.link.close();
            }
            Err(Unready::Link(_)) => ready.link.close(),
        }
    }

    /// Fetches the topology; if that fails another reply will tell of it.
    async fn refresh(&self, link: &Arc<Link>) -> Result<(), Unready> {
        let fetched = self.fetch_topology(link).await;
        if let Err(error) = &fetched {
            tracing::debug!(target: "magma::net", %error, "the topology cannot be fetched");
        }
        fetched
    }

    /// Tries once to bring a connection up; pauses if it fails.
    async fn restore(&self, line: &Line, owner: Option<VolcanoId>, fortune: &mut Fortune) {
        let reached = match owner {
            None => self.reach_any(fortune.door, fortune.round).await,
            Some(owner) => self.reach_owner(owner, fortune.round).await,
        };
        match reached {
            Ok(ready) => {
                tracing::info!(target: "magma::net", address = %ready.link.remote_address(), "connected");
                line.ready.replace(Some(ready));
                *fortune = Fortune::default();
                self.moved();
            }
            Err(error) => {
                tracing::debug!(target: "magma::net", %error, "not connected yet");
                fortune.round = fortune.round.saturating_add(1);
                self.surroundings.sleep(fortune.backoff.next()).await;
            }
        }
    }

    /// The connection for a request about this key. Waits until there is one.
    pub(super) async fn route(self: &Arc<Self>, key: Option<&Key>) -> Arc<Link> {
        loop {
            let seen = self.home.ready.version();
            let ready = self.home.ready();
            let owner = key.and_then(|key| self.other_owner(key, ready.as_ref()));
            let Some(line) = owner else {
                match ready {
                    Some(ready) => return ready.link,
                    None => self.home.ready.changed(seen).await,
                }
                continue;
            };
            if let Some(ready) = ready {
                return self.owner_link(&line).await.unwrap_or(ready.link);
            }
            let seen_of_owner = line.ready.version();
            if let Some(ready) = line.ready() {
                return ready.link;
            }
            // The one that comes first will do; if the owner owns nothing any more, there is another one to look for.
            tokio::select! {
                biased;
                () = self.home.ready.changed(seen) => {}
                () = line.ready.changed(seen_of_owner) => {}
            }
        }
    }

    /// The line to the key's owner, unless that is home.
    fn other_owner(self: &Arc<Self>, key: &Key, home: Option<&Ready>) -> Option<Arc<Line>> {
        let topology = self.topology();
        let owner = topology.owner_of(key)?;
        let is_home = home.is_some_and(|home| home.door == owner.id);
        if is_home || topology.members.len() == 1 || owner.address.is_unspecified() {
            return None;
        }
        let mut owners = lock(&self.owners);
        if let Some(line) = owners.get(&owner.id) {
            return Some(Arc::clone(line));
        }
        let line = Line::new(self.surroundings.now());
        owners.insert(owner.id, Arc::clone(&line));
        self.keep(Arc::clone(&line), Some(owner.id));
        Some(line)
    }

    async fn owner_link(&self, line: &Line) -> Option<Arc<Link>> {
        if let Some(ready) = line.ready() {
            return Some(ready.link);
        }
        let pause = self.surroundings.sleep(line.patience(self.surroundings.now())?);
        let is_ready = |ready: &Option<Ready>| ready.as_ref().is_some_and(|ready| ready.link.is_open());
        tokio::select! {
            biased;
            ready = line.ready.until(is_ready) => ready.map(|ready| ready.link),
            () = pause => None,
        }
    }

    /// The present session.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.get()
    }

    /// Waits for another session than this one, which has ended.
    pub(super) async fn renew(&self, ended: &Session) {
        self.home.check.notify_one();
        let other = |session: &Option<Arc<Session>>| session.as_ref().is_some_and(|now| now.id != ended.id);
        let pause = self.surroundings.sleep(RENEW_PATIENCE);
        tokio::select! {
            biased;
            _ = self.session.until(other) => {}
            // Home may be another volcano by now, which knows the session; asking again shows.
            () = pause => {}
        }
    }

    /// Somebody says that this session has ended.
    pub(super) fn check_session(&self, session: &Session) {
        if self.session().is_some_and(|now| now.id == session.id) {
            self.home.check.notify_one();
        }
    }

    /// Goes on with a new session, in which nobody has been told what is open.
    pub(super) fn begin_session(&self, session: Arc<Session>) {
        self.opens.begin_session(session.id);
        self.session.replace(Some(session));
        self.opens.news.notify_one();
    }

    /// A reply mentioned this version of the topology.
    pub(super) fn heard(&self, version: u64) {
        if version > self.topology().version {
            self.refresh_topology();
        }
    }

    /// There may be a newer topology.
    pub(super) fn refresh_topology(&self) {
        self.lines().iter().for_each(|line| line.refresh.notify_one());
    }

    /// A request about this key was told that nobody serves. Home asks until somebody does, and for another slice than the one
    /// that keeps the session a task of its own, so that not all requests have to ask often.
    pub(super) fn unserved(&self, key: Option<&Key>) {
        let topology = self.topology();
        let slice = key.and_then(|key| topology.slice_of(key));
        if let Some(slice) = slice.filter(|slice| !slice.range.contains(&Handle::root().key))
            && lock(&self.unserved).insert(slice.id)
        {
            self.opens.news.notify_one();
        }
        let mut asked = lock(&self.asked);
        if asked.is_none_or(|asked| self.since(asked) >= PULSE) {
            *asked = Some(self.surroundings.now());
            self.home.check.notify_one();
        }
    }

    /// Slices that did not serve, and are asked until they do.
    pub(super) fn unserved_slices(&self) -> Vec<SliceId> {
        lock(&self.unserved).iter().copied().collect()
    }

    /// This slice serves again, or exists no more.
    pub(super) fn served(&self, slice: SliceId) {
        lock(&self.unserved).remove(&slice);
    }

    /// The number of the last change after which it was worth trying again.
    pub(super) fn moves(&self) -> u64 {
        self.moves.version()
    }

    /// It is worth trying again.
    pub(super) fn moved(&self) {
        self.moves.replace(());
    }

    /// Pauses between two tries, at most until something has changed since `seen`.
    pub(super) async fn pause(&self, pause: Duration, seen: u64) {
        let pause = self.surroundings.sleep(pause);
        tokio::select! {
            biased;
            () = pause => {}
            () = self.moves.changed(seen) => {}
        }
    }

    pub(super) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn learn(&self, topology: Topology) {
        let before = {
            let mut known = self.topology.write().unwrap_or_else(PoisonError::into_inner);
            // Another network under the same address starts its versions anew.
            if topology.version <= known.version && topology.network == known.network {
                return;
            }
            std::mem::replace(&mut *known, Arc::new(topology))
        };
        let now = self.topology();
        self.opens.heed(&now);
        if before.version > 0 && primaries(&before) != primaries(&now) {
            tracing::info!(target: "magma::net", version = now.version, "another primary");
            self.turn_to_primaries(&now);
        }
    }

    /// Requests that wait for a volcano which owns nothing any more are tried again elsewhere.
    fn turn_to_primaries(&self, topology: &Topology) {
        let owns = |id: &VolcanoId| topology.slices.iter().any(|slice| slice.primary.volcano == *id);
        let idle: Vec<_> =
            lock(&self.owners).iter().filter(|(id, _)| !owns(id)).map(|(_, line)| Arc::clone(line)).collect();
        for ready in idle.iter().filter_map(|line| line.ready()) {
            ready.link.close();
        }
        self.moved();
    }

    fn lines(&self) -> Vec<Arc<Line>> {
        let mut lines: Vec<_> = lock(&self.owners).values().cloned().collect();
        lines.push(Arc::clone(&self.home));
        lines
    }

    pub(super) fn home(&self) -> Option<Arc<Link>> {
        self.home.ready().map(|ready| ready.link)
    }

    /// How long ago this was.
    pub(super) fn since(&self, moment: Instant) -> Duration {
        self.surroundings.now().saturating_duration_since(moment)
    }

    /// Runs a task as long as the client lives.
    pub(super) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.surroundings.spawn(Box::pin(task));
        lock(&self.tasks).push(running);
    }

    /// Stops all tasks and connections.
    pub(super) fn stop(&self) {
        lock(&self.tasks).clear();
        for line in self.lines() {
            if let Some(ready) = line.ready.replace(None) {
                ready.link.close();
            }
        }
    }

    pub(super) async fn finish(&self) {
        self.surroundings.finish().await;
    }
}

fn primaries(topology: &Topology) -> Vec<(SliceId, Replica)> {
    topology.slices.iter().map(|slice| (slice.id, slice.primary)).collect()
}
