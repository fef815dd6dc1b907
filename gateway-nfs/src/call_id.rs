//! The name of a call, by which a retransmission is recognised at any gateway.

use std::net::IpAddr;

use crate::rpc::connection::Peer;
use crate::rpc::reply_cache::CallId;

/// Keeps this use of the network's key apart from others.
const CONTEXT: &str = "MagmaFS 2026 names of NFS calls, version 1";

/// Computes the names of calls.
///
/// A name is a keyed hash of the client's address without its port (a client that reconnects has another port), the
/// address of ours that it dialled (which tells two mounts through two gateways apart and moves with an address that is
/// taken over), and the whole message: transaction id, credentials and arguments.
#[derive(Clone)]
pub(crate) struct CallNamer {
    key: [u8; 32],
}

impl CallNamer {
    /// `key` is [`Topology::handle_key`](magma_common::topology::Topology::handle_key): all gateways must name alike.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { key: blake3::derive_key(CONTEXT, key) }
    }

    /// The name of a call that came as `message`.
    ///
    /// `twin` is 0 unless a call that looks exactly like it is known to be another one: then it counts them.
    pub(crate) fn name(&self, peer: &Peer, message: &[u8], twin: u8) -> CallId {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[twin]);
        hasher.update(&address(peer.client.ip()));
        hasher.update(&address(peer.dialled.ip()));
        hasher.update(&peer.dialled.port().to_be_bytes());
        hasher.update(message);
        let mut name = [0; 16];
        hasher.finalize_xof().fill(&mut name);
        CallId(u128::from_be_bytes(name))
    }
}

fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(client: &str, dialled: &str, message: &[u8], twin: u8) -> CallId {
        let peer = Peer::new(client.parse().unwrap(), dialled.parse().unwrap());
        CallNamer::new(&[1; 32]).name(&peer, message, twin)
    }

    #[test]
    fn a_retransmission_over_a_new_connection_bears_the_same_name() {
        let first = name("10.0.0.1:700", "10.0.0.9:2049", b"call", 0);
        assert_eq!(first, name("10.0.0.1:701", "10.0.0.9:2049", b"call", 0));
        assert_eq!(first, name("[::ffff:10.0.0.1]:701", "[::ffff:10.0.0.9]:2049", b"call", 0));
    }

    #[test]
    fn another_host_another_gateway_another_message_and_a_twin_bear_other_names() {
        let first = name("10.0.0.1:700", "10.0.0.9:2049", b"call", 0);
        assert_ne!(first, name("10.0.0.2:700", "10.0.0.9:2049", b"call", 0));
        assert_ne!(first, name("10.0.0.1:700", "10.0.0.8:2049", b"call", 0));
        assert_ne!(first, name("10.0.0.1:700", "10.0.0.9:2050", b"call", 0));
        assert_ne!(first, name("10.0.0.1:700", "10.0.0.9:2049", b"cal1", 0));
        assert_ne!(first, name("10.0.0.1:700", "10.0.0.9:2049", b"call", 1));
    }
}
