//! The running gateway: accepts connections and serves each in a task of its own.

use std::hash::RandomState;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use magma_common::client::{Client, ConnectError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::allow::{Network, may_connect};
use crate::connection;
use crate::crowd::{Admitted, Crowd};
use crate::listen::{Accepted, Address, ListenError, Listener};
use crate::ops::{Gateway, Session};
use crate::options::Config;
use crate::user::Database;

/// After an accept that failed for want of means the next is tried so much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refusals are told at most this often.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The lava network cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It cannot listen somewhere.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// A gateway that serves until it is stopped.
pub struct Running {
    client: Client,
    addresses: Vec<Address>,
    stop: watch::Sender<bool>,
    listening: JoinSet<()>,
    crowd: Arc<Crowd>,
    patience: Duration,
}

impl Running {
    /// Connects to the lava network and listens. Must be called inside a tokio runtime.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let listeners = bind(&config)?;
        let client = Client::connect(config.client.clone()).await?;
        Ok(Self::serve(config, client, listeners))
    }

    fn serve(config: Config, client: Client, listeners: Vec<Listener>) -> Self {
        let addresses = listeners.iter().map(Listener::address).collect();
        let Config { allow, export, limits, .. } = config;
        let gateway = Arc::new(Gateway {
            client: client.clone(),
            export,
            limits,
            database: Database::of_this_host(),
            owner_hash: RandomState::new(),
        });
        let crowd = Crowd::new(limits.connections);
        let (stop, stopped) = watch::channel(false);
        let allow: Arc<[Network]> = allow.into();
        let mut listening = JoinSet::new();
        for listener in listeners {
            let door = Door {
                gateway: Arc::clone(&gateway),
                crowd: Arc::clone(&crowd),
                allow: Arc::clone(&allow),
                refusal_told: None,
            };
            listening.spawn(door.serve(listener, stopped.clone()));
        }
        let patience = limits.drain + 2 * ACCEPT_PAUSE + Duration::from_secs(1);
        Self { client, addresses, stop, listening, crowd, patience }
    }

    /// Where it listens; port 0 has become a real one.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Accepts nobody any more, lets running requests end, gives back what clients held, and ends the session.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.crowd.close_all();
        let ended = async { while self.listening.join_next().await.is_some() {} };
        if timeout(self.patience, ended).await.is_err() {
            warn!("some connections did not end in time");
        }
        self.client.close().await;
    }
}

fn bind(config: &Config) -> Result<Vec<Listener>, ListenError> {
    let listeners = config.listen.iter().map(Listener::bind).collect::<Result<Vec<_>, _>>()?;
    let open = |address: &Address| matches!(address, Address::Tcp(address) if !address.ip().is_loopback());
    if config.allow.is_empty() && listeners.iter().any(|listener| open(&listener.address())) {
        warn!("only this machine may connect over TCP; name others with --allow NETWORK");
    }
    Ok(listeners)
}

/// One listener and what its clients get.
struct Door {
    gateway: Arc<Gateway>,
    crowd: Arc<Crowd>,
    allow: Arc<[Network]>,
    refusal_told: Option<Instant>,
}

impl Door {
    async fn serve(mut self, listener: Listener, mut stopped: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                // An error means that the gateway is gone, which is a stop as well.
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            match accepted {
                Ok(accepted) => {
                    if let Some(admitted) = self.admit(&accepted) {
                        connections.spawn(serve_client(Arc::clone(&self.gateway), admitted, accepted));
                    }
                }
                Err(error) => self.after_failed_accept(&error).await,
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    fn admit(&mut self, accepted: &Accepted) -> Option<Admitted> {
        let peer = &accepted.peer;
        if accepted.address.is_some_and(|address| !may_connect(&self.allow, address)) {
            self.tell(|| warn!("{peer} may not connect; let it with --allow"));
            return None;
        }
        let admitted = self.crowd.admit();
        if admitted.is_none() {
            self.tell(|| warn!("{peer} was refused: too many connections; see --max-connections"));
        }
        admitted
    }

    async fn after_failed_accept(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
        // Errors of the one client that has gone already; others, such as too many open files, last for a while.
        if !matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected) {
            self.tell(|| warn!("a connection could not be accepted: {error}"));
            sleep(ACCEPT_PAUSE).await;
        }
    }

    /// Tells the operator, but not too often.
    fn tell(&mut self, message: impl FnOnce()) {
        let now = Instant::now();
        if self.refusal_told.is_none_or(|told| now.duration_since(told) >= REFUSAL_LOG_INTERVAL) {
            self.refusal_told = Some(now);
            message();
        }
    }
}

async fn serve_client(gateway: Arc<Gateway>, admitted: Admitted, accepted: Accepted) {
    let Accepted { reader, writer, peer, .. } = accepted;
    let limits = gateway.limits;
    let attached = Arc::clone(&admitted.attached);
    let session = Arc::new(Session::new(gateway, admitted.number, attached));
    debug!(target: "magma::9p", peer, number = admitted.number, "connected");
    let ended = connection::run(reader, writer, Arc::clone(&session), limits, admitted.closed()).await;
    session.end();
    info!(target: "magma::9p", peer, number = admitted.number, "connection ended: {ended}");
}
