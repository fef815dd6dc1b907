//! The cluster key and what is derived from it.
//!
//! A [`Secret`] is what an operator types or keeps in a file: the cluster key, or the
//! client key that was derived from it. It is stretched once per start (argon2id) and
//! then split by HKDF (RFC 5869) into one Ed25519 identity per role: the *volcano* that a
//! server proves, and *client* and *node*, which a caller proves. Both ends prove theirs
//! inside the TLS handshake as raw public keys (RFC 7250).
//!
//! Whoever holds only the client key can prove to be a client and can check a
//! volcano, but cannot pose as one: the client key carries the volcano's public key,
//! not its private one.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// What a generated cluster key starts with; 32 hexadecimal digits follow.
pub const CLUSTER_KEY_PREFIX: &str = "magma-cluster-";
/// What a client key starts with; 128 hexadecimal digits follow.
pub const CLIENT_KEY_PREFIX: &str = "magma-client-";
/// A cluster key estimated below this many bits deserves a loud warning: it can be guessed by who records one handshake.
pub const WEAK_BELOW_BITS: u32 = 60;

/// Fixed, so that a client needs nothing but the key. The cost of one guess lies in the memory below.
const SALT: &[u8] = b"MagmaFS cluster key, version 1";
const STRETCH_MEMORY_KIB: u32 = 64 << 10;
const STRETCH_PASSES: u32 = 1;
const SEED_LEN: usize = 32;

type Seed = Zeroizing<[u8; SEED_LEN]>;

/// A key as it was given: the cluster key, or the client key derived from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// Why a text cannot serve as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing was given.
    #[error("the key is empty")]
    Empty,
    /// It starts like a client key but does not go on like one.
    #[error("this is not a whole client key: `{CLIENT_KEY_PREFIX}` and 128 hexadecimal digits")]
    MalformedClientKey,
    /// Stretching failed; the machine has less than 64 MiB to spare.
    #[error("the key could not be stretched: not enough memory")]
    Stretch,
    /// The system has no randomness to make a key from.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl Secret {
    /// Takes the text of a key file, environment variable or option; white space around it is dropped.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    /// Makes a cluster key of 128 random bits.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bits = Zeroizing::new([0_u8; 16]);
        getrandom::fill(bits.as_mut()).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self(Zeroizing::new(format!("{CLUSTER_KEY_PREFIX}{}", &*hex(bits.as_ref())))))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is a client key, which opens the flare protocol's port and nothing else.
    pub fn is_client_key(&self) -> bool {
        self.0.starts_with(CLIENT_KEY_PREFIX)
    }

    /// Roughly how many bits a guesser has to find, assuming characters drawn at random from the
    /// classes that occur and counting repeated characters little. Compare with [`WEAK_BELOW_BITS`].
    pub fn strength_bits(&self) -> u32 {
        if self.is_client_key() {
            return 256;
        }
        let text = self.0.strip_prefix(CLUSTER_KEY_PREFIX).unwrap_or(&self.0);
        let only_hex = text.len() >= 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        // Half bits per character: log2 of the alphabet, doubled to stay in integers.
        let half_bits = if only_hex {
            8
        } else {
            let has = |class: fn(char) -> bool| text.chars().any(class);
            let alphabet = 26 * u32::from(has(|c| c.is_ascii_lowercase()))
                + 26 * u32::from(has(|c| c.is_ascii_uppercase()))
                + 10 * u32::from(has(|c| c.is_ascii_digit()))
                + 33 * u32::from(has(|c| c.is_ascii() && !c.is_ascii_alphanumeric()))
                + 64 * u32::from(has(|c| !c.is_ascii()));
            (alphabet * alphabet).checked_ilog2().unwrap_or(0)
        };
        let characters = text.chars().count();
        let mut distinct: Vec<char> = text.chars().collect();
        distinct.sort_unstable();
        distinct.dedup();
        // A text may use each of its characters about four times before more length stops counting.
        let counted = u32::try_from(characters.min(distinct.len() * 4)).unwrap_or(u32::MAX);
        counted.saturating_mul(half_bits) / 2
    }

    /// Whether it can be guessed by who records one handshake.
    pub fn is_weak(&self) -> bool {
        self.strength_bits() < WEAK_BELOW_BITS
    }

    /// Derives the identities. Costs 64 MiB and about a tenth of a second for a cluster key: once per start.
    pub fn stretch(&self) -> Result<Keys, KeyError> {
        if self.0.is_empty() {
            return Err(KeyError::Empty);
        }
        if let Some(digits) = self.0.strip_prefix(CLIENT_KEY_PREFIX) {
            return ClientKeys::parse(digits).map(|client| Keys { client, cluster: None });
        }
        let params = Params::new(STRETCH_MEMORY_KIB, STRETCH_PASSES, 1, Some(SEED_LEN));
        let params = params.map_err(|_| KeyError::Stretch)?;
        let mut stretched = Seed::default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(self.0.as_bytes(), SALT, stretched.as_mut())
            .map_err(|_| KeyError::Stretch)?;
        let root = Hkdf::<Sha256>::new(None, stretched.as_ref());
        let volcano = expand(&root, "flare: volcano identity")?;
        let client =
            ClientKeys { identity: expand(&root, "flare: client identity")?, volcano: public_of(&volcano) };
        let cluster = ClusterKeys {
            client_public: public_of(&client.identity),
            volcano,
            node: expand(&root, "node: identity")?,
            reset: expand(&root, "flare: stateless reset")?,
        };
        Ok(Keys { client, cluster: Some(cluster) })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which of the two keys a caller proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A front end or any other client.
    Client,
    /// A volcano, or an administrator with the cluster key.
    Node,
}

/// What was derived from a [`Secret`].
#[derive(Clone)]
pub struct Keys {
    client: ClientKeys,
    cluster: Option<ClusterKeys>,
}

impl Keys {
    /// What a client needs.
    pub fn client(&self) -> &ClientKeys {
        &self.client
    }

    /// What a volcano needs; absent if only the client key was given.
    pub fn cluster(&self) -> Option<&ClusterKeys> {
        self.cluster.as_ref()
    }

    /// The client key in the form that [`Secret::new`] takes, to be handed to clients that should be no more than that.
    pub fn client_key(&self) -> Secret {
        let private = hex(self.client.identity.as_ref());
        let public = hex(&self.client.volcano.0);
        Secret(Zeroizing::new(format!("{CLIENT_KEY_PREFIX}{}{}", &*private, &*public)))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("cluster", &self.cluster.is_some()).finish_non_exhaustive()
    }
}

/// An Ed25519 public key (RFC 8032).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; 32]);

impl PublicKey {
    /// `SubjectPublicKeyInfo` in DER (RFC 8410 §4), as the handshake carries it.
    pub(crate) fn spki(&self) -> Vec<u8> {
        const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        [HEAD.as_slice(), &self.0].concat()
    }
}

/// What a client proves and checks.
#[derive(Clone)]
pub struct ClientKeys {
    identity: Seed,
    volcano: PublicKey,
}

impl ClientKeys {
    fn parse(digits: &str) -> Result<Self, KeyError> {
        let bytes = unhex(digits).ok_or(KeyError::MalformedClientKey)?;
        let (private, public) = bytes.split_at_checked(SEED_LEN).ok_or(KeyError::MalformedClientKey)?;
        let mut identity = Seed::default();
        if private.len() != SEED_LEN {
            return Err(KeyError::MalformedClientKey);
        }
        identity.copy_from_slice(private);
        let volcano = PublicKey(public.try_into().map_err(|_| KeyError::MalformedClientKey)?);
        Ok(Self { identity, volcano })
    }

    pub(crate) fn identity(&self) -> Zeroizing<Vec<u8>> {
        pkcs8(&self.identity)
    }

    pub(crate) fn volcano(&self) -> PublicKey {
        self.volcano
    }
}

/// What a volcano proves and checks.
#[derive(Clone)]
pub struct ClusterKeys {
    volcano: Seed,
    node: Seed,
    client_public: PublicKey,
    reset: Seed,
}

impl ClusterKeys {
    /// The identity that a server of either protocol proves.
    pub(crate) fn volcano(&self) -> Zeroizing<Vec<u8>> {
        pkcs8(&self.volcano)
    }

    /// The identity that a volcano proves when it dials another one.
    pub(crate) fn node(&self) -> Zeroizing<Vec<u8>> {
        pkcs8(&self.node)
    }

    /// What a volcano checks when it dials another one.
    pub(crate) fn volcano_public(&self) -> PublicKey {
        public_of(&self.volcano)
    }

    /// What a server of the flare protocol checks.
    pub(crate) fn accepted(&self) -> [(PublicKey, Role); 2] {
        [(self.client_public, Role::Client), self.accepted_node()]
    }

    /// What a server of the node protocol checks.
    pub(crate) fn accepted_node(&self) -> (PublicKey, Role) {
        (public_of(&self.node), Role::Node)
    }

    /// A key for stateless resets (RFC 9000 §10.3), the same in each life of one volcano and different between volcanos.
    pub(crate) fn reset_key(&self, volcano: u64) -> Result<Seed, KeyError> {
        let root = Hkdf::<Sha256>::new(Some(&volcano.to_be_bytes()), self.reset.as_ref());
        expand(&root, "stateless reset of one volcano")
    }
}

fn expand(root: &Hkdf<Sha256>, label: &str) -> Result<Seed, KeyError> {
    let mut seed = Seed::default();
    root.expand(label.as_bytes(), seed.as_mut()).map_err(|_| KeyError::Stretch)?;
    Ok(seed)
}

fn public_of(seed: &Seed) -> PublicKey {
    PublicKey(SigningKey::from_bytes(seed).verifying_key().to_bytes())
}

/// `PrivateKeyInfo` in DER (RFC 8410 §7).
fn pkcs8(seed: &Seed) -> Zeroizing<Vec<u8>> {
    const HEAD: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    Zeroizing::new([HEAD.as_slice(), seed.as_ref()].concat())
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    use fmt::Write as _;
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for pair in digits.as_bytes().chunks(2) {
        let &[high, low] = pair else { return None };
        bytes.push(nibble(high)? << 4 | nibble(low)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_key_derives_the_same_client_and_no_volcano() {
        let cluster = Secret::new(" m4gm4s3cr3t\n").stretch().unwrap();
        let client = cluster.client_key();
        assert!(client.is_client_key());
        let derived = client.stretch().unwrap();
        assert_eq!(derived.client().identity(), cluster.client().identity());
        assert_eq!(derived.client().volcano(), cluster.cluster().unwrap().volcano_public());
        assert!(derived.cluster().is_none());
        assert_eq!(derived.client_key(), client);
    }

    #[test]
    fn each_role_has_an_identity_of_its_own() {
        let keys = Secret::new("one key").stretch().unwrap();
        let cluster = keys.cluster().unwrap();
        let [(client, _), (node, _)] = cluster.accepted();
        assert!(client != node && client != cluster.volcano_public() && node != cluster.volcano_public());
        assert_ne!(cluster.reset_key(1).unwrap(), cluster.reset_key(2).unwrap());
    }

    #[test]
    fn damaged_keys_are_named_as_such() {
        assert_eq!(Secret::new("  ").stretch().unwrap_err(), KeyError::Empty);
        for damaged in ["magma-client-", "magma-client-12zz", "magma-client-äöü", "magma-client-abc"] {
            assert_eq!(
                Secret::new(damaged).stretch().unwrap_err(),
                KeyError::MalformedClientKey,
                "{damaged}"
            );
        }
    }

    #[test]
    fn generated_keys_differ_and_are_strong() {
        let (one, two) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one, two);
        assert!(!one.is_weak(), "{}", one.strength_bits());
    }

    #[test]
    fn typed_keys_are_weighed() {
        for weak in ["", "magma", "m4gm4s3cr3t", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "12345678901234"] {
            assert!(Secret::new(weak).is_weak(), "{weak}");
        }
        for strong in ["correct horse battery staple", "kX9#mQ2$vL7!pR", "00f1e2d3c4b5a69788796a5b4c3d2e1f"] {
            assert!(!Secret::new(strong).is_weak(), "{strong}");
        }
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert!(!format!("{:?}", Secret::new("m4gm4s3cr3t")).contains("m4gm4"));
    }
}
