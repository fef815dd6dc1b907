use bytes::{Buf, Bytes};

use super::padding;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum XdrError {
    /// They end too early.
    #[error("the message ends too early")]
    Truncated,
    /// A length above its limit.
    #[error("a length is above its limit")]
    TooLong,
    /// A number that stands for nothing.
    #[error("a number stands for nothing")]
    BadValue,
    /// Bytes after the end.
    #[error("bytes are left over")]
    LeftOver,
}

/// Reads XDR from the front of a record; opaques are slices of it.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    rest: Bytes,
}

impl Decoder {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &Bytes {
        &self.rest
    }

    pub(crate) fn u32(&mut self) -> Result<u32, XdrError> {
        self.rest.try_get_u32().map_err(|_| XdrError::Truncated)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, XdrError> {
        self.rest.try_get_u64().map_err(|_| XdrError::Truncated)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, XdrError> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(XdrError::BadValue),
        }
    }

    /// A variable-length opaque or string of at most `limit` bytes.
    pub(crate) fn opaque(&mut self, limit: usize) -> Result<Bytes, XdrError> {
        let length = usize::try_from(self.u32()?).map_err(|_| XdrError::TooLong)?;
        if length > limit {
            return Err(XdrError::TooLong);
        }
        self.fixed(length)
    }

    /// A fixed-length opaque.
    pub(crate) fn fixed(&mut self, length: usize) -> Result<Bytes, XdrError> {
        if length > self.rest.len() {
            return Err(XdrError::Truncated);
        }
        let bytes = self.rest.split_to(length);
        let pad = padding(length);
        if pad > self.rest.len() {
            return Err(XdrError::Truncated);
        }
        self.rest.advance(pad);
        Ok(bytes)
    }

    /// Succeeds if everything has been read.
    pub(crate) fn finish(&self) -> Result<(), XdrError> {
        if self.rest.is_empty() { Ok(()) } else { Err(XdrError::LeftOver) }
    }
}
