use std::fmt;
use std::str::FromStr;

use magma_common::name::Name;

/// Longest path in MOUNT in bytes (`MNTPATHLEN`, RFC 1813 §5.1.1).
pub(crate) const MAX_MOUNT_PATH: usize = 1024;

/// An absolute path without superfluous slashes, `.` and `..`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ExportPath(Vec<u8>);

/// Why some bytes are no path to export or mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParsePathError {
    /// Does not begin with a slash.
    #[error("the path must begin with /")]
    Relative,
    /// Above its limit.
    #[error("the path has more than {MAX_MOUNT_PATH} bytes, or a name in it more than 255")]
    TooLong,
    /// `.`, `..` or a NUL in it.
    #[error("the path must not contain `.`, `..` or NUL")]
    BadName,
}

impl ExportPath {
    /// Takes the bytes of a path, dropping slashes that say nothing.
    pub fn new(bytes: &[u8]) -> Result<Self, ParsePathError> {
        if bytes.first() != Some(&b'/') {
            return Err(ParsePathError::Relative);
        }
        if bytes.len() > MAX_MOUNT_PATH {
            return Err(ParsePathError::TooLong);
        }
        let mut path = Vec::with_capacity(bytes.len());
        for name in bytes.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            match Name::new(name.to_vec()) {
                Ok(_) => {}
                Err(magma_common::name::NameError::TooLong) => return Err(ParsePathError::TooLong),
                Err(_) => return Err(ParsePathError::BadName),
            }
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(Self(path))
    }

    /// The root of the network.
    pub fn root() -> Self {
        Self(b"/".to_vec())
    }

    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root of the network.
    pub fn is_root(&self) -> bool {
        self.0 == b"/"
    }

    /// Whether it is `other` or lies below it.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(&other.0[..]).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    }
}

impl FromStr for ExportPath {
    type Err = ParsePathError;

    fn from_str(text: &str) -> Result<Self, ParsePathError> {
        Self::new(text.as_bytes())
    }
}

impl fmt::Display for ExportPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for ExportPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_that_say_nothing_are_dropped() {
        assert_eq!(ExportPath::new(b"//a///b/").unwrap().as_bytes(), b"/a/b");
        assert_eq!(ExportPath::new(b"///").unwrap().as_bytes(), b"/");
    }

    #[test]
    fn paths_that_climb_or_are_relative_are_refused() {
        assert_eq!(ExportPath::new(b"a"), Err(ParsePathError::Relative));
        assert_eq!(ExportPath::new(b""), Err(ParsePathError::Relative));
        assert_eq!(ExportPath::new(b"/a/../b"), Err(ParsePathError::BadName));
        assert_eq!(ExportPath::new(b"/a\0b"), Err(ParsePathError::BadName));
        assert_eq!(ExportPath::new(&[b'/'; 1025]), Err(ParsePathError::TooLong));
    }
}
