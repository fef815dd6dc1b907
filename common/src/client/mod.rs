//! The client library: one cloneable handle through which every front end talks to the lava network.
//!
//! It keeps connections and a session, sends each operation to the owner of the flare it names, and sends it again
//! under the same operation id until it is answered. It decides nothing about files, but knows that some are in several parts.

pub mod cache;
mod control;
mod greeting;
mod line;
mod network;
mod opens;
mod operation;
mod reach;
mod releases;
mod retry;
mod session;
mod stripes;
mod telling;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::cache::Cache;
use self::network::Network;
use self::operation::Limits;
use self::stripes::Striped;
use crate::attr::Attr;
use crate::error::FlareError;
use crate::handle::Handle;
use crate::name::Name;
use crate::proto::limits::MAX_STAT_MANY;
use crate::proto::operation::{
    EndSession, Getattr, Lookup, LookupParent, Read, ReadReply, StatMany, Write, WriteReply,
};
use crate::proto::{Credentials, Durability, Failure, Operation, Reply, Request, SessionId};
use crate::surroundings::{Surroundings, System, within};
use crate::topology::Topology;

/// A host that a client was told to contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// The flare protocol's port.
    pub port: u16,
}

/// What a client needs to know to start.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Volcanos to contact first, any of the network; the first that answers will do.
    pub hosts: Vec<HostPort>,
    /// Proves that we may.
    pub key: crate::auth::Secret,
    /// Who we are, for people: door, host, process.
    pub name: String,
    /// How long an operation is retried when its context sets no deadline; `None` for ever, like an NFS hard mount.
    pub patience: Option<Duration>,
}

/// On whose behalf and under which conditions an operation is done.
#[derive(Clone, Debug)]
pub struct Context {
    /// The end user.
    pub credentials: Arc<Credentials>,
    /// How safe it must be when it is answered.
    pub durability: Durability,
    /// Give up then, with [`TimedOut`](crate::error::FlareError::TimedOut).
    pub deadline: Option<Instant>,
    /// The operation id of a call that any gateway recognises; without it the session numbers the operation.
    pub call: Option<u128>,
}

/// Why a client could not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No host answered.
    #[error("no volcano answers at {hosts}: {reason}")]
    Unreachable {
        /// The hosts tried.
        hosts: String,
        /// What the last one failed with.
        reason: String,
    },
    /// The volcano does not know our key, or we do not accept its.
    #[error(
        "the volcano at {host} and we do not have the same key; check --key-file, MAGMA_KEY or /etc/magma/key"
    )]
    WrongKey {
        /// Which host.
        host: String,
    },
    /// The key's text cannot be used at all.
    #[error("{0}")]
    Key(#[from] crate::auth::KeyError),
    /// The volcano speaks another version of the protocol.
    #[error("the volcano at {host} speaks another version of the flare protocol")]
    Version {
        /// Which host.
        host: String,
    },
}

/// Whether a volcano answers at this host and has the same key. Opens no session; takes up to some seconds. Must be called
/// inside a tokio runtime.
pub async fn probe(host: &HostPort, keys: &crate::auth::ClientKeys) -> Result<(), ConnectError> {
    let unreachable = |reason: String| ConnectError::Unreachable { hosts: host.to_string(), reason };
    let system = System::new(keys).map_err(|error| unreachable(error.to_string()))?;
    reach::probe(&(Arc::new(system) as _), host).await
}

/// How long [`Client::close`] waits for the volcano to hear of it.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How much of that it waits for releases.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// A connected client. Clones share its connections, session and caches.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    network: Arc<Network>,
    limits: Limits,
    cache: Cache,
    striped: Striped,
    patience: Option<Duration>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.network.stop();
    }
}

impl Client {
    /// Connects to the first host that answers and opens a session. Must be called inside a tokio runtime, on which the
    /// client's tasks stay; its methods may be called from any thread and without a runtime.
    ///
    /// Fails after a few seconds if no host can be reached. From then on the client is patient.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        let key = config.key;
        // Stretching keeps a processor busy for a tenth of a second.
        let keys = tokio::task::spawn_blocking(move || key.stretch()).await;
        let keys = keys.unwrap_or(Err(crate::auth::KeyError::Stretch))?;
        let system = System::new(keys.client())
            .map_err(|error| ConnectError::Unreachable { hosts: String::new(), reason: error.to_string() })?;
        let ClientConfig { hosts, name, patience, .. } = config;
        Self::connect_in(Arc::new(system), hosts, name, patience).await
    }

    /// The same, in these surroundings, and without a key.
    pub async fn connect_in(
        surroundings: Arc<dyn Surroundings>,
        hosts: Vec<HostPort>,
        name: String,
        patience: Option<Duration>,
    ) -> Result<Self, ConnectError> {
        let network = Network::connect(hosts, name, surroundings).await?;
        network.run(releases::run(Arc::clone(&network)));
        network.run(telling::run(Arc::clone(&network)));
        let (cache, striped) = (Cache::new(), Striped::new());
        let inner = Inner { network, limits: Limits::new(), cache, striped, patience };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn now(&self) -> Instant {
        self.inner.network.surroundings.now()
    }

    /// Does any operation; its bytes, if it has some, beside it.
    pub async fn request(
        &self,
        context: &Context,
        request: Request,
        payload: Bytes,
    ) -> Result<(Reply, Bytes), Failure> {
        if stripes::may_concern(&request) {
            return stripes::perform(self, context, request, payload).await;
        }
        self.perform(context, request, payload).await
    }

    /// Does one operation of the protocol.
    async fn perform(
        &self,
        context: &Context,
        request: Request,
        payload: Bytes,
    ) -> Result<(Reply, Bytes), Failure> {
        let Inner { network, limits, cache, patience, .. } = &*self.inner;
        operation::perform(network, limits, cache, context, *patience, request, payload).await
    }

    /// Does an operation without payload: goes to the owner of the flare it names and retries under the same operation id until the deadline.
    pub async fn call<O: Operation>(&self, context: &Context, operation: O) -> Result<O::Reply, Failure> {
        let (reply, _) = self.request(context, operation.into(), Bytes::new()).await?;
        O::reply(reply).ok_or_else(|| FlareError::Io.into())
    }

    /// Reads; the bytes come beside the reply.
    pub async fn read(&self, context: &Context, read: Read) -> Result<(ReadReply, Bytes), Failure> {
        let (reply, payload) = self.request(context, read.into(), Bytes::new()).await?;
        let reply = Read::reply(reply).ok_or(FlareError::Io)?;
        Ok((reply, payload))
    }

    /// Writes all of `data`, at most [`MAX_IO`](crate::proto::limits::MAX_IO) bytes.
    pub async fn write(&self, context: &Context, write: Write, data: Bytes) -> Result<WriteReply, Failure> {
        let (reply, _) = self.request(context, write.into(), data).await?;
        Write::reply(reply).ok_or_else(|| FlareError::Io.into())
    }

    /// Walks an absolute or relative path of slash-separated names from the root, without following symbolic links.
    pub async fn walk(&self, context: &Context, path: &[u8]) -> Result<Attr, Failure> {
        let mut at = self.call(context, Getattr { handle: Handle::root() }).await?;
        for part in path.split(|byte| *byte == b'/') {
            let dir = at.handle;
            at = match part {
                b"" | b"." => continue,
                b".." => self.call(context, LookupParent { dir }).await?.attr,
                name => {
                    let name = Name::new(Bytes::copy_from_slice(name)).map_err(FlareError::from)?;
                    self.call(context, Lookup { dir, name }).await?.attr
                }
            };
        }
        Ok(at)
    }

    /// Attributes that were true at most [`cache::LIFETIME`] ago, and not before this client's last change.
    pub async fn cached_getattr(&self, context: &Context, handle: Handle) -> Result<Attr, Failure> {
        if let Some(attr) = self.inner.cache.attributes(self.now(), &handle) {
            return Ok(attr);
        }
        let asked = self.inner.cache.ask(self.now(), &handle);
        let attr = self.call(context, Getattr { handle }).await?;
        self.inner.cache.keep_attributes(asked, &attr);
        Ok(attr)
    }

    /// A lookup whose answer was true at most [`cache::LIFETIME`] ago, and not before this client's last change.
    pub async fn cached_lookup(&self, context: &Context, dir: Handle, name: Name) -> Result<Attr, Failure> {
        let cache = &self.inner.cache;
        if let Some(attr) = cache.name(self.now(), &dir, &name, &context.credentials) {
            return Ok(attr);
        }
        let asked = cache.ask(self.now(), &dir);
        let found = self.call(context, Lookup { dir, name: name.clone() }).await?;
        cache.keep_name(asked, &dir, &name, &context.credentials, &found.attr);
        Ok(found.attr)
    }

    /// Attributes of many flares, one result each in the same order; every owner is asked once per
    /// [`MAX_STAT_MANY`] flares, all of them at the same time.
    pub async fn stat_many(
        &self,
        context: &Context,
        handles: &[Handle],
    ) -> Result<Vec<Result<Attr, FlareError>>, Failure> {
        let topology = self.topology();
        let mut by_owner: Vec<(Option<crate::topology::VolcanoId>, Vec<usize>)> = Vec::new();
        for (place, handle) in handles.iter().enumerate() {
            let owner = topology.owner_of(&handle.key).map(|member| member.id);
            match by_owner.iter_mut().rev().find(|(of, places)| *of == owner && places.len() < MAX_STAT_MANY)
            {
                Some((_, places)) => places.push(place),
                None => by_owner.push((owner, vec![place])),
            }
        }
        let asked = by_owner.iter().map(|(_, places)| {
            let part: Vec<_> = places.iter().filter_map(|place| handles.get(*place).copied()).collect();
            self.call(context, StatMany { handles: part })
        });
        let mut results = vec![Err(FlareError::Io); handles.len()];
        let answered = futures_util::future::join_all(asked).await;
        for ((_, places), part) in by_owner.into_iter().zip(answered) {
            for (place, result) in places.into_iter().zip(part?) {
                if let Some(slot) = results.get_mut(place) {
                    *slot = result;
                }
            }
        }
        Ok(results)
    }

    /// Gives one open back, without waiting: releases travel in batches.
    pub fn release(&self, handle: Handle) {
        if !self.inner.network.opens.release(handle) {
            tracing::debug!(target: "magma::net", ?handle, "released, but not open");
        }
    }

    /// The present session. When it is another one than before, locks taken under the former are gone.
    pub fn session(&self) -> SessionId {
        self.inner.network.session().map_or(SessionId::NONE, |session| session.id)
    }

    /// The topology as we know it.
    pub fn topology(&self) -> Arc<Topology> {
        self.inner.network.topology()
    }

    /// Ends the session in order: waits, but not for long, until the volcano has heard of it.
    pub async fn close(self) {
        let network = Arc::clone(&self.inner.network);
        let farewell = async {
            // A slice that does not answer keeps nobody. The end of the session settles the rest.
            within(&*network.surroundings, RELEASE_LIMIT, network.opens.released()).await;
            if let (Some(link), Some(session)) = (network.home(), network.session()) {
                // A session that is not ended now ends by its lease.
                let _ = control::ask(&*network.surroundings, &link, Some(&session), EndSession.into()).await;
            }
        };
        within(&*network.surroundings, CLOSE_LIMIT, farewell).await;
        network.stop();
        network.finish().await;
    }

    /// The address of ours that the volcano sees, for the log.
    pub fn local_address(&self) -> Option<IpAddr> {
        self.inner.network.home()?.local_ip()
    }
}

#[cfg(test)]
mod tests;
