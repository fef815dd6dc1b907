//! Handles: a key and a birth number, naming one life of one flare.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key::{BirthString, Ino, Key};

/// 64 random bits chosen in the record that makes a flare; tells apart two flares that bore the same key one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BirthNumber(pub u64);

impl BirthNumber {
    /// The root's birth number, the same in every network.
    pub const ROOT: Self = Self(1);
    /// The birth number of everything under `/.dht`, which is made up when it is read; no flare is ever born with it.
    pub const INTERNAL: Self = Self(0);
}

/// Names one flare for ever: requests whose birth number is not the flare's are answered [`Stale`](crate::error::FlareError::Stale).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Handle {
    /// Where the flare lives.
    pub key: Key,
    /// Which bearer of the key is meant.
    pub birth: BirthNumber,
}

impl Handle {
    /// Length of an encoded handle in bytes.
    pub const LEN: usize = Key::LEN + 8;

    /// The handle of the network's root directory.
    pub fn root() -> Self {
        Self { key: BirthString::root().key(), birth: BirthNumber::ROOT }
    }

    /// The inode number of the flare.
    pub fn ino(&self) -> Ino {
        self.key.ino()
    }

    /// Key, then birth number, most significant byte first.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (key, birth) = bytes.split_at_mut(Key::LEN);
        key.copy_from_slice(self.key.as_bytes());
        birth.copy_from_slice(&self.birth.0.to_be_bytes());
        bytes
    }

    /// The inverse of [`to_bytes`](Self::to_bytes).
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut key = [0; Key::LEN];
        let mut birth = [0; 8];
        let (k, b) = bytes.split_at(Key::LEN);
        key.copy_from_slice(k);
        birth.copy_from_slice(b);
        Self { key: Key::from_bytes(key), birth: BirthNumber(u64::from_be_bytes(birth)) }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:016x}", self.key, self.birth.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn encoding_a_handle_loses_nothing(key: [u8; 20], birth: u64) {
            let handle = Handle { key: Key::from_bytes(key), birth: BirthNumber(birth) };
            prop_assert_eq!(Handle::from_bytes(&handle.to_bytes()), handle);
        }
    }
}
