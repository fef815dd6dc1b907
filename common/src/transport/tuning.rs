//! The parameters of QUIC here, and the sockets under it.
//!
//! They are set for a LAN and for loopback, where the library's defaults for the open internet cost a factor of two.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{ConnectionId, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use super::acknowledged::Counting;
use crate::proto::limits::MAX_IO;

/// Streams for bulk data that a client opens beside the one for metadata.
pub(super) const BULK_STREAMS: usize = 2;
/// Streams that a server lets a client open.
const MAX_STREAMS: u32 = 8;

/// Largest datagram: segmentation offload sends ten of them in one call, which must stay below 65,507 bytes.
const MAX_DATAGRAM: u16 = 6500;
/// What one stream may have on its way. Together the streams stay below the connection's windows, so that bulk
/// data that is not taken off in time never keeps a metadata frame from being sent.
const STREAM_WINDOW: u32 = 4 * MAX_IO;
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// Bytes in flight before the first acknowledgement; the default of 14 KB makes every new connection slow.
const INITIAL_WINDOW: u64 = 1 << 20;
/// First guess at the round trip: a lost first packet is sent again after three times this.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// A peer that has been silent for this long is gone, even if nothing is expected of it.
const IDLE_TIMEOUT_MS: u32 = 10_000;
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Volcanos wait for each other; a dead one is to be noticed soon. There are few of them, so that keeping alive costs little.
const NODE_IDLE_TIMEOUT_MS: u32 = 3000;
const NODE_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// One for urgent messages, one for bulk.
const NODE_STREAMS: u32 = 2;
/// Kernel buffers for datagrams; the default of 208 KiB drops packets in bulk transfers.
const SOCKET_BUFFER: usize = 4 << 20;
/// In bytes.
const CONNECTION_ID_LEN: usize = 8;

/// For the flare protocol.
pub(super) fn transport() -> Arc<TransportConfig> {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(config)
}

/// For the node protocol: a connection carries messages one way only, on one stream per class.
pub(super) fn node_transport() -> Arc<TransportConfig> {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(NODE_STREAMS))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(NODE_IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(NODE_KEEP_ALIVE));
    Arc::new(config)
}

fn common() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_DATAGRAM);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let mut config = TransportConfig::default();
    config
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(Counting(Arc::new(congestion))));
    config
}

/// The parameters of an endpoint. With a `reset_key` that outlives the process, a restarted volcano can tell the clients
/// of its former life at once that their connections are gone (RFC 9000 §10.3).
pub(super) fn endpoint(reset_key: Option<[u8; 32]>) -> Result<EndpointConfig, super::SetupError> {
    let mut config = match reset_key {
        None => EndpointConfig::default(),
        Some(key) => {
            let mut config = EndpointConfig::new(Arc::new(ResetKey(key)));
            config.cid_generator(|| Box::new(RandomIds));
            config
        }
    };
    config
        .max_udp_payload_size(MAX_DATAGRAM)
        .map_err(|error| super::SetupError::Handshake(error.to_string()))?;
    Ok(config)
}

pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may grant less than asked for: slower in bulk, but nothing fails.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    if let Ok(granted) = socket.recv_buffer_size()
        && granted < SOCKET_BUFFER
    {
        tracing::debug!(target: "magma::net", granted, wanted = SOCKET_BUFFER, "small socket buffer; raise net.core.rmem_max");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Connection ids without a mark of the process that made them: the library's own would not be recognised,
/// and so not be reset, by the next life of the same volcano.
struct RandomIds;

impl quinn::ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_LEN];
        // Without randomness there would be no handshake either. An id that is not random is only easier to guess.
        if getrandom::fill(&mut id).is_err() {
            tracing::warn!(target: "magma::net", "the system gives no random numbers");
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

struct ResetKey([u8; 32]);

impl ResetKey {
    fn mac(&self, data: &[u8]) -> [u8; 32] {
        use hmac::Mac as _;
        // HMAC takes keys of any length.
        let Ok(mut mac) = hmac::Hmac::<sha2::Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        mac.update(data);
        mac.finalize().into_bytes().into()
    }
}

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        for (out, byte) in signature_out.iter_mut().zip(self.mac(data)) {
            *out = byte;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        use subtle::ConstantTimeEq as _;
        let same: bool = self.mac(data).ct_eq(signature).into();
        if same { Ok(()) } else { Err(quinn::crypto::CryptoError) }
    }
}
