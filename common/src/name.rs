//! Names of directory entries and extended attributes: bytes, not text.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name in bytes (`NAME_MAX`, `XATTR_NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Longest path and symbolic-link target in bytes, the terminating NUL not counted.
pub const PATH_MAX: usize = 4095;

/// Why some bytes cannot name a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No byte at all.
    #[error("a name has at least one byte")]
    Empty,
    /// More than [`NAME_MAX`] bytes.
    #[error("a name has at most {NAME_MAX} bytes")]
    TooLong,
    /// A slash or a NUL inside.
    #[error("a name contains no slash and no NUL")]
    BadByte,
    /// `.` or `..`, which every directory has already.
    #[error("`.` and `..` cannot be made, removed or renamed")]
    Dot,
}

/// The name of a directory entry: 1 to 255 bytes without slash and NUL, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Bytes);

impl Name {
    /// Checks the bytes and takes them as a name.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        match &bytes[..] {
            b"" => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dot),
            long if long.len() > NAME_MAX => Err(NameError::TooLong),
            odd if odd.iter().any(|&b| b == 0 || b == b'/') => Err(NameError::BadByte),
            _ => Ok(Self(bytes)),
        }
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name's bytes, sharing memory with it.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        Self::new(bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_any_bytes_but_slash_and_nul() {
        assert!(Name::new(vec![0xff, 0x01, b'\n']).is_ok());
        assert_eq!(Name::new(&b"a/b"[..]), Err(NameError::BadByte));
        assert_eq!(Name::new(&b"a\0"[..]), Err(NameError::BadByte));
        assert_eq!(Name::new(&b""[..]), Err(NameError::Empty));
        assert_eq!(Name::new(&b".."[..]), Err(NameError::Dot));
        assert!(Name::new(vec![b'x'; 255]).is_ok());
        assert_eq!(Name::new(vec![b'x'; 256]), Err(NameError::TooLong));
    }

    #[test]
    fn a_bad_name_from_the_network_is_refused_while_decoding() {
        let hostile = postcard::to_stdvec(&Bytes::from_static(b"../x")).unwrap();
        assert!(postcard::from_bytes::<Name>(&hostile).is_err());
    }
}
