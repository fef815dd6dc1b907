use bytes::{BufMut, Bytes, BytesMut};

use super::padding;

/// Bytes that most replies fit in.
const USUAL_REPLY: usize = 256;

/// Writes XDR.
#[derive(Debug)]
pub(crate) struct Encoder {
    bytes: BytesMut,
    payload: Bytes,
}

/// A finished message: encoded fields, and bulk data behind them that was never copied.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    /// The fields, up to and including the payload's length.
    pub(crate) head: Bytes,
    /// Bulk data, followed on the wire by its [`padding`].
    pub(crate) payload: Bytes,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self::with_capacity(USUAL_REPLY)
    }

    /// `capacity` is a guess of the size in bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: BytesMut::with_capacity(capacity), payload: Bytes::new() }
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets what was written after the first `length` bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.payload = Bytes::new();
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.put_u32(value);
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.put_u64(value);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.bytes.put_u32(u32::from(value));
    }

    /// A variable-length opaque or string. Everything written here comes from this process and is far below 4 GiB.
    pub(crate) fn opaque(&mut self, bytes: &[u8]) {
        self.bytes.put_u32(bytes.len() as u32);
        self.bytes.put_slice(bytes);
        self.bytes.put_bytes(0, padding(bytes.len()));
    }

    /// A variable-length opaque that is the last field, without copying it.
    pub(crate) fn last_opaque(&mut self, payload: Bytes) {
        self.bytes.put_u32(payload.len() as u32);
        self.payload = payload;
    }

    pub(crate) fn finish(self) -> Body {
        Body { head: self.bytes.freeze(), payload: self.payload }
    }
}

impl Body {
    /// Length on the wire, padding included.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.payload.len() + padding(self.payload.len())
    }

    /// The message in one piece.
    pub(crate) fn to_bytes(&self) -> Bytes {
        if self.payload.is_empty() {
            return self.head.clone();
        }
        let mut all = BytesMut::with_capacity(self.len());
        all.put_slice(&self.head);
        all.put_slice(&self.payload);
        all.put_bytes(0, padding(self.payload.len()));
        all.freeze()
    }
}
