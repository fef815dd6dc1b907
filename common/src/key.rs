//! Keys: where a flare lives on the ring.
//!
//! A key is the SHA-1 of the flare's *birth string*, chosen once and never
//! changed: renaming a flare moves a directory entry, not the flare.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// Longest birth string of a parent, in bytes, before it is replaced by `//` and the parent's key in hex.
pub const MAX_PARENT_BIRTH_LEN: usize = 4096;

/// The SHA-1 of a flare's birth string: its place on the ring, for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key([u8; 20]);

impl Key {
    /// Length of a key in bytes.
    pub const LEN: usize = 20;
    /// The lowest key.
    pub const MIN: Self = Self([0; 20]);
    /// The highest key.
    pub const MAX: Self = Self([0xff; 20]);

    /// The key with these 20 bytes, most significant first.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The key's 20 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The inode number: the first 64 bits of the key.
    pub const fn ino(&self) -> Ino {
        match self.0.first_chunk() {
            Some(first) => Ino(u64::from_be_bytes(*first)),
            // A key is longer than eight bytes.
            None => Ino(0),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A string that is not 40 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 40 hexadecimal digits")]
pub struct ParseKeyError;

impl std::str::FromStr for Key {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        if text.len() != 40 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseKeyError);
        }
        let mut bytes = [0; 20];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * i..2 * i + 2).ok_or(ParseKeyError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseKeyError)?;
        }
        Ok(Self(bytes))
    }
}

/// An inode number: the first 64 bits of a key, unique among all flares of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

/// What a key is the hash of: the path under which the flare was born.
///
/// The root's is `/`. A child's is its parent's, a slash and its name, so that
/// `printf /docs/a.txt | sha1sum` prints a key. Where that key is taken, a NUL and
/// a number never used before follow, and descendants inherit them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthString(#[serde(with = "serde_bytes")] Vec<u8>);

impl BirthString {
    /// The root's birth string.
    pub fn root() -> Self {
        Self(b"/".to_vec())
    }

    /// The birth string of the child `name` of the directory born as `self`.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        if self.0.len() > MAX_PARENT_BIRTH_LEN {
            bytes.extend_from_slice(format!("//{}", self.key()).as_bytes());
        } else if self.0 != b"/" {
            bytes.extend_from_slice(&self.0);
        }
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// The second try when the plain key is taken; `number` must never have been used before.
    #[must_use]
    pub fn with_generation(mut self, number: u64) -> Self {
        self.0.push(0);
        self.0.extend_from_slice(number.to_string().as_bytes());
        self
    }

    /// A birth string read back from storage.
    pub fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes that are hashed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key: SHA-1 of the birth string.
    pub fn key(&self) -> Key {
        Key(Sha1::digest(&self.0).into())
    }
}

/// A part of the keyspace, both bounds inclusive.
///
/// Bounds lie on multiples of 2^96, so an inode number alone decides which range a flare is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    start: Ino,
    stop: Ino,
}

impl KeyRange {
    /// The whole keyspace.
    pub const ALL: Self = Self { start: Ino(0), stop: Ino(u64::MAX) };

    /// The keys whose inode numbers lie in `start..=stop`; `None` if that is empty.
    pub fn new(start: Ino, stop: Ino) -> Option<Self> {
        (start <= stop).then_some(Self { start, stop })
    }

    /// The keys with this inode number.
    pub const fn single(ino: Ino) -> Self {
        Self { start: ino, stop: ino }
    }

    /// The first inode number of the range.
    pub const fn start(&self) -> Ino {
        self.start
    }

    /// The last inode number of the range.
    pub const fn stop(&self) -> Ino {
        self.stop
    }

    /// The lowest key of the range.
    pub fn first_key(&self) -> Key {
        Self::extend(self.start, 0)
    }

    /// The highest key of the range.
    pub fn last_key(&self) -> Key {
        Self::extend(self.stop, 0xff)
    }

    fn extend(ino: Ino, fill: u8) -> Key {
        let mut bytes = [fill; 20];
        for (to, from) in bytes.iter_mut().zip(ino.0.to_be_bytes()) {
            *to = from;
        }
        Key(bytes)
    }

    /// Whether the key lies in the range.
    pub fn contains(&self, key: &Key) -> bool {
        self.contains_ino(key.ino())
    }

    /// Whether the flare with this inode number lies in the range.
    pub fn contains_ino(&self, ino: Ino) -> bool {
        self.start <= ino && ino <= self.stop
    }

    /// The keys that lie in both ranges, if there are any.
    pub fn common(&self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.stop.min(other.stop))
    }

    /// The keys below `at` and those from there on; `None` if one of the two would be empty.
    pub fn cut(&self, at: Ino) -> Option<(Self, Self)> {
        let below = at.0.checked_sub(1).and_then(|last| Self::new(self.start, Ino(last)))?;
        Some((below, Self::new(at, self.stop)?))
    }

    /// Whether all keys of the other range lie in this one.
    pub fn covers(&self, other: Self) -> bool {
        self.start <= other.start && other.stop <= self.stop
    }

    /// The part of the whole keyspace that the range covers, 0 to 1.
    pub fn share(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a share for people to read")]
        let width = (self.stop.0 - self.start.0) as f64 + 1.0;
        width / 2f64.powi(64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn key_is_what_sha1sum_prints_for_the_path() {
        // printf /docs/a.txt | sha1sum
        let key = BirthString::root().child(b"docs").child(b"a.txt").key();
        assert_eq!(key.to_string(), "17436322e8761b0c98727026f9cf45d35f69669f");
        assert_eq!(BirthString::root().key().to_string(), "42099b4af021e53fd8fd4e056c2568d7c2e3ffa8");
    }

    #[test]
    fn generation_is_inherited_by_children() {
        let second = BirthString::root().child(b"a").with_generation(7);
        assert_eq!(second.child(b"x").as_bytes(), b"/a\x007/x");
    }

    proptest! {
        #[test]
        fn birth_strings_do_not_grow_without_bound(depth in 1usize..80) {
            let mut birth = BirthString::root();
            for _ in 0..depth {
                birth = birth.child(&[b'n'; 255]);
            }
            prop_assert!(birth.as_bytes().len() <= MAX_PARENT_BIRTH_LEN + 256 + 256);
        }

        #[test]
        fn parsing_gives_back_what_was_printed(bytes: [u8; 20]) {
            let key = Key::from_bytes(bytes);
            prop_assert_eq!(key.to_string().parse::<Key>(), Ok(key));
        }

        #[test]
        fn a_range_agrees_for_key_and_inode_number(bytes: [u8; 20], a: u64, b: u64) {
            let range = KeyRange::new(Ino(a.min(b)), Ino(a.max(b))).unwrap();
            let key = Key::from_bytes(bytes);
            prop_assert_eq!(range.contains(&key), range.contains_ino(key.ino()));
            prop_assert_eq!(range.contains(&key), range.first_key() <= key && key <= range.last_key());
        }

        #[test]
        fn a_cut_range_is_two_that_cover_it(a in 0u64..20, b in 0u64..20, at in 0u64..20) {
            let range = KeyRange::new(Ino(a.min(b)), Ino(a.max(b))).unwrap();
            match range.cut(Ino(at)) {
                Some((below, above)) => {
                    prop_assert_eq!((below.start(), above.stop()), (range.start(), range.stop()));
                    prop_assert_eq!((below.stop().0 + 1, above.start().0), (at, at));
                    prop_assert_eq!((below.common(above), range.common(above)), (None, Some(above)));
                }
                None => prop_assert!(at <= range.start().0 || range.stop().0 < at),
            }
        }

        #[test]
        fn names_with_and_without_generation_never_share_a_birth_string(
            name in proptest::collection::vec(1u8..=255, 1..20), number: u64
        ) {
            let plain = BirthString::root().child(&name);
            prop_assert_ne!(plain.clone().with_generation(number), plain);
        }
    }
}
