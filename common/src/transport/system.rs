//! The surroundings in use: the system's clock, tokio's tasks, QUIC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle as Runtime;

use super::link::LinkError;
use super::quic::QuicWire;
use super::{SetupError, lock, tls, tuning};
use crate::auth::{ClientKeys, ClusterKeys};
use crate::client::HostPort;
use crate::surroundings::{Later, Running, Surroundings, Wire};

/// Makes connections from one socket per address family.
pub struct System {
    runtime: Runtime,
    keys: Arc<quinn::crypto::rustls::QuicClientConfig>,
    endpoints: Mutex<[Option<quinn::Endpoint>; 2]>,
}

impl System {
    /// For a client. Must be called inside a tokio runtime, on which tasks run.
    pub fn new(keys: &ClientKeys) -> Result<Self, SetupError> {
        let keys = tls::client(&keys.identity(), keys.volcano(), tls::Protocol::Flare)?;
        Ok(Self { runtime: Runtime::current(), keys, endpoints: Mutex::default() })
    }

    /// For a volcano that asks another one as a client does. Must be called inside a tokio runtime, on which tasks run.
    pub(crate) fn of_node(keys: &ClusterKeys) -> Result<Self, SetupError> {
        let keys = tls::client(&keys.node(), keys.volcano_public(), tls::Protocol::Flare)?;
        Ok(Self { runtime: Runtime::current(), keys, endpoints: Mutex::default() })
    }

    fn endpoint(&self, to: SocketAddr) -> Result<quinn::Endpoint, SetupError> {
        let any = match to {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let mut endpoints = lock(&self.endpoints);
        let [four, six] = &mut *endpoints;
        let slot = if to.is_ipv4() { four } else { six };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let address = SocketAddr::new(any, 0);
        let failed = |source| SetupError::Bind { address, source };
        let socket = tuning::socket(address).map_err(failed)?;
        let parameters = tuning::endpoint(None)?;
        let endpoint = quinn::Endpoint::new(parameters, None, socket, Arc::new(quinn::TokioRuntime));
        Ok(slot.insert(endpoint.map_err(failed)?).clone())
    }

    /// An authenticated connection without streams.
    pub(super) async fn handshake(
        &self,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<quinn::Connection, LinkError> {
        let lost = |error: &dyn std::fmt::Display| LinkError::Lost(error.to_string());
        let endpoint = self.endpoint(address).map_err(|error| lost(&error))?;
        let keys: Arc<dyn quinn::crypto::ClientConfig> = Arc::clone(&self.keys) as _;
        let mut config = quinn::ClientConfig::new(keys);
        config.transport_config(tuning::transport());
        let connecting =
            endpoint.connect_with(config, address, tls::SERVER_NAME).map_err(|error| lost(&error))?;
        match tokio::time::timeout(limit, connecting).await {
            Ok(done) => done.map_err(|error| LinkError::from(&error)),
            Err(_) => Err(LinkError::Lost(format!("no answer within {} s", limit.as_secs()))),
        }
    }
}

impl Surroundings for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) -> Later<'static, ()> {
        let _inside = self.runtime.enter();
        Box::pin(tokio::time::sleep(time))
    }

    fn random(&self) -> Option<u128> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        Some(u128::from_be_bytes(bytes))
    }

    fn spawn(&self, task: Later<'static, ()>) -> Running {
        let task = self.runtime.spawn(task);
        Running::new(move || task.abort())
    }

    fn resolve(&self, host: &HostPort) -> Later<'_, std::io::Result<Vec<SocketAddr>>> {
        let (name, port) = (host.host.clone(), host.port);
        Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), port)).await?.collect()) })
    }

    fn connect(&self, address: SocketAddr, limit: Duration) -> Later<'_, Result<Arc<dyn Wire>, LinkError>> {
        Box::pin(async move {
            let connection = self.handshake(address, limit).await?;
            let wire: Arc<dyn Wire> = Arc::new(QuicWire::open(connection).await?);
            Ok(wire)
        })
    }

    fn finish(&self) -> Later<'_, ()> {
        Box::pin(async {
            let endpoints = lock(&self.endpoints).clone();
            for endpoint in endpoints.into_iter().flatten() {
                // A peer that is gone need not keep us.
                let _ = tokio::time::timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
            }
        })
    }
}
