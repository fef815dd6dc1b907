//! Cuts a stream into messages.

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;

use super::{LENGTH_LEN, MAX_MESSAGE};

/// Read in one go, in bytes, while no long message is under way.
const CHUNK: usize = 64 << 10;

/// Why a stream yields no more messages.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The peer breaks the protocol.
    #[error("a message of {0} bytes")]
    Length(usize),
    /// The peer ended the stream within a message.
    #[error("the stream ended within a message")]
    Truncated,
    /// The connection or the stream is gone.
    #[error(transparent)]
    Stream(#[from] std::io::Error),
}

pub(super) struct MessageReader {
    stream: quinn::RecvStream,
    buffer: BytesMut,
}

impl MessageReader {
    pub(super) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next message; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            let announced = announced(&self.buffer)?;
            if let Some(length) = announced
                && self.buffer.len() >= LENGTH_LEN + length
            {
                self.buffer.advance(LENGTH_LEN);
                return Ok(Some(self.buffer.split_to(length).freeze()));
            }
            self.make_room(announced.unwrap_or(0));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ReadError::Truncated) };
            }
        }
    }

    /// Room for as much again as has come, so that announcing costs the peer as much as it costs us.
    fn make_room(&mut self, announced: usize) {
        let missing = (LENGTH_LEN + announced).saturating_sub(self.buffer.len());
        let room = missing.min(self.buffer.len()).max(CHUNK);
        // A little room left is used before more is taken.
        if self.buffer.capacity() - self.buffer.len() < missing.clamp(1024, room) {
            self.buffer.reserve(room);
        }
    }
}

/// The length of the message at the front; `None` while it is not there yet.
fn announced(buffer: &[u8]) -> Result<Option<usize>, ReadError> {
    let Some(length) = buffer.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_MESSAGE { Err(ReadError::Length(length)) } else { Ok(Some(length)) }
}
