//! What the tests share: a volcano that does as it is told, a client that speaks RPC by the byte, and a gateway between them.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(missing_docs, reason = "for tests only")]

pub(crate) mod fake;
pub(crate) mod nfs;
pub(crate) mod rpc;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use magma_common::client::ClientConfig;
use magma_gateway_nfs::{Config, Export, Running, start};

/// Limit of every wait.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A gateway for these exports.
pub(crate) async fn gateway(client: ClientConfig, exports: &[&str]) -> Running {
    gateway_with(client, exports, |_| {}).await
}

/// The same with further settings.
pub(crate) async fn gateway_with(
    client: ClientConfig,
    exports: &[&str],
    set: impl FnOnce(&mut Config),
) -> Running {
    let mut config = Config::new(client);
    config.exports = exports.iter().map(|text| text.parse::<Export>().unwrap()).collect();
    set(&mut config);
    start(config).await.unwrap()
}

pub(crate) fn address(gateway: &Running) -> SocketAddr {
    gateway.addresses()[0]
}

/// Waits until something is so.
pub(crate) async fn until(mut so: impl FnMut() -> bool) {
    let give_up = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < give_up, "waited in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
