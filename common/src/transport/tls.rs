//! The handshake: TLS 1.3 with Ed25519 raw public keys (RFC 7250) that both ends derive from the key they were given.
//!
//! No early data, no tickets, no resumption: a ticket would outlive a rotated key.
//! ALPN carries the protocol and its version.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::SetupError;
use crate::auth::{ClusterKeys, PublicKey, Role};
use crate::proto::header::PROTOCOL_VERSION;

/// The name in the handshake's server name field, the same for all volcanos.
pub(super) const SERVER_NAME: &str = "volcano.magma";
/// TLS alert `no_application_protocol` (RFC 7301 §3.2): the peer speaks another version.
pub(super) const ALERT_NO_PROTOCOL: u64 = 120;

/// Version of the protocol between volcanos.
const NODE_PROTOCOL_VERSION: u8 = 1;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// With clients.
    Flare,
    /// Between volcanos.
    Node,
}

impl Protocol {
    fn alpn(self) -> Vec<Vec<u8>> {
        let name = match self {
            Self::Flare => format!("magma-flare/{PROTOCOL_VERSION}"),
            Self::Node => format!("magma-node/{NODE_PROTOCOL_VERSION}"),
        };
        vec![name.into_bytes()]
    }
}

/// What one connects with who proves `identity` (PKCS #8) and expects `volcano` at the other end.
pub(super) fn client(
    identity: &[u8],
    volcano: PublicKey,
    protocol: Protocol,
) -> Result<Arc<QuicClientConfig>, SetupError> {
    let provider = provider();
    let verifier = KnownKeys { accepted: vec![volcano.spki()], algorithms: algorithms(&provider) };
    let own = certified(identity)?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(handshake)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(own)));
    config.alpn_protocols = protocol.alpn();
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map(Arc::new).map_err(handshake)
}

/// What a volcano answers handshakes with. `accepted` are the keys that a caller may prove.
pub(super) fn server(
    keys: &ClusterKeys,
    accepted: &[(PublicKey, Role)],
    protocol: Protocol,
) -> Result<Arc<QuicServerConfig>, SetupError> {
    let provider = provider();
    let accepted = accepted.iter().map(|(key, _)| key.spki()).collect();
    let verifier = KnownKeys { accepted, algorithms: algorithms(&provider) };
    let own = certified(&keys.volcano())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(handshake)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(rustls::server::AlwaysResolvesServerRawPublicKeys::new(own)));
    config.alpn_protocols = protocol.alpn();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    QuicServerConfig::try_from(config).map(Arc::new).map_err(handshake)
}

/// Which key the peer of an established connection has proved.
pub(super) fn role(connection: &quinn::Connection, accepted: &[(PublicKey, Role)]) -> Option<Role> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let proved = identity.first()?;
    accepted.iter().find(|(key, _)| key.spki() == proved.as_ref()).map(|(_, role)| *role)
}

/// AES-128-GCM first: the cheapest where the processor has AES instructions, and strong enough everywhere.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

fn certified(pkcs8: &[u8]) -> Result<Arc<CertifiedKey>, SetupError> {
    let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).map_err(handshake)?;
    let public = key.public_key().ok_or_else(|| handshake("an Ed25519 key without a public half"))?;
    let public = CertificateDer::from(public.as_ref().to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![public], key)))
}

fn handshake(error: impl std::fmt::Display) -> SetupError {
    SetupError::Handshake(error.to_string())
}

/// Accepts a peer that proves one of these keys.
#[derive(Debug)]
struct KnownKeys {
    accepted: Vec<Vec<u8>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KnownKeys {
    fn check(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        if self.accepted.iter().any(|accepted| accepted == key.as_ref()) {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for KnownKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KnownKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
