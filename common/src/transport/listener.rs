//! A socket that takes connections, and who gets in: handshakes are limited in number and in time, connections in number.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{TransportConfig, VarInt};

use super::limiter::LogLimiter;
use super::tls::Protocol;
use super::{SetupError, close, tls, tuning};
use crate::auth::{ClusterKeys, PublicKey, Role};

/// A handshake that takes longer is given up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// With more handshakes under way than this, newcomers must show that their address is theirs (Retry, RFC 9000 §8.1.2).
const RETRY_ABOVE: usize = 64;
/// With more handshakes under way than this, newcomers are left without an answer and will try again.
const MAX_HANDSHAKES: usize = 1024;
/// At most one line in the log for so long, about peers that fail to connect.
const LOG_PERIOD: Duration = Duration::from_secs(5);

/// Binds a socket for a protocol. Must be called inside a tokio runtime.
///
/// `volcano` makes the stateless resets of this volcano its own.
pub(super) fn listen(
    address: SocketAddr,
    keys: &ClusterKeys,
    volcano: u64,
    accepted: &[(PublicKey, Role)],
    protocol: Protocol,
    parameters: Arc<TransportConfig>,
) -> Result<(quinn::Endpoint, SocketAddr), SetupError> {
    let failed = |source| SetupError::Bind { address, source };
    let reset = keys.reset_key(volcano);
    let reset = reset.map_err(|error| SetupError::Handshake(error.to_string()))?;
    let mut crypto = quinn::ServerConfig::with_crypto(tls::server(keys, accepted, protocol)?);
    crypto.transport_config(parameters).max_incoming(2 * MAX_HANDSHAKES).migration(false);
    let socket = tuning::socket(address).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    let parameters = tuning::endpoint(Some(*reset))?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(parameters, Some(crypto), socket, runtime).map_err(failed)?;
    Ok((endpoint, bound))
}

/// Counts the connections and handshakes of a socket and keeps them within their limits.
pub(super) struct Admission {
    accepted: Vec<(PublicKey, Role)>,
    max_connections: usize,
    connections: Cell<usize>,
    handshakes: Cell<usize>,
    rejected: LogLimiter,
}

/// Counts something as long as it lives.
pub(super) struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(cell: &'a Cell<usize>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Admission {
    pub(super) fn new(accepted: Vec<(PublicKey, Role)>, max_connections: usize) -> Self {
        Self {
            accepted,
            max_connections,
            connections: Cell::new(0),
            handshakes: Cell::new(0),
            rejected: LogLimiter::new(LOG_PERIOD),
        }
    }

    /// Lets a newcomer go on to its handshake, or turns it away.
    pub(super) fn sift(&self, incoming: quinn::Incoming) -> Option<quinn::Incoming> {
        if self.connections.get() >= self.max_connections {
            incoming.refuse();
        } else if self.handshakes.get() >= MAX_HANDSHAKES {
            incoming.ignore();
        } else if self.handshakes.get() >= RETRY_ABOVE && !incoming.remote_address_validated() {
            if let Err(cannot) = incoming.retry() {
                cannot.into_incoming().ignore();
            }
        } else {
            return Some(incoming);
        }
        None
    }

    /// Counts a connection, from before its handshake.
    pub(super) fn count(&self) -> Counted<'_> {
        Counted::new(&self.connections)
    }

    /// Completes a handshake; what the peer has proved.
    pub(super) async fn shake(&self, incoming: quinn::Incoming) -> Option<(quinn::Connection, Role)> {
        let address = incoming.remote_address();
        let shaking = Counted::new(&self.handshakes);
        let done = tokio::time::timeout(HANDSHAKE_LIMIT, async { incoming.accept()?.await }).await;
        drop(shaking);
        let connection = match done {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                self.rejected(address, &error.to_string());
                return None;
            }
            Err(_) => {
                self.rejected(address, "the handshake took too long");
                return None;
            }
        };
        // The handshake has checked the key against the same list.
        let Some(role) = tls::role(&connection, &self.accepted) else {
            connection.close(VarInt::from_u32(close::PROTOCOL), b"unknown key");
            return None;
        };
        Some((connection, role))
    }

    fn rejected(&self, address: SocketAddr, reason: &str) {
        if let Some(suppressed) = self.rejected.allow() {
            tracing::warn!(
                target: "magma::net",
                %address, reason, suppressed,
                "a peer could not connect; if it is one of ours, its key is not the key of this network"
            );
        }
    }
}
