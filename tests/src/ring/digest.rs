//! A hash over everything that happens: the same seed comes to the same one.

use super::clock::Time;

/// The hash so far.
#[derive(Clone, Debug, Default)]
pub struct Digest(blake3::Hasher);

impl Digest {
    /// Something has happened.
    pub fn note(&mut self, now: Time, kind: &str, who: usize, bytes: &[u8]) {
        self.0.update(&now.to_le_bytes());
        self.0.update(kind.as_bytes());
        self.0.update(&(who as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The hash over all that happened.
    pub fn value(&self) -> String {
        self.0.finalize().to_hex()[..16].to_string()
    }
}
