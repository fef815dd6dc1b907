//! Cuts a stream into frames.

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;

use crate::proto::frame::{Frame, FrameError};

/// Read in one go, in bytes, while no long frame is under way.
const CHUNK: usize = 64 << 10;

/// Why a stream yields no more frames.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The peer broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection or the stream is gone.
    #[error(transparent)]
    Stream(#[from] std::io::Error),
}

pub(crate) struct FrameReader {
    stream: quinn::RecvStream,
    buffer: BytesMut,
}

impl FrameReader {
    pub(crate) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame; `None` at the end of the stream. Cancel-safe: what was read stays in the buffer.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            self.make_room()?;
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated.into()) };
            }
        }
    }

    /// A frame's announced length is believed only after its first chunk has arrived, so that announcing costs the
    /// peer as much as it costs us.
    fn make_room(&mut self) -> Result<(), FrameError> {
        let announced = Frame::length(&self.buffer)?.unwrap_or(0);
        let missing = announced.saturating_sub(self.buffer.len());
        let room = if self.buffer.len() >= CHUNK { missing.max(CHUNK) } else { CHUNK };
        // A little room left is used before more is taken.
        if self.buffer.capacity() - self.buffer.len() < missing.clamp(1024, room) {
            self.buffer.reserve(room);
        }
        Ok(())
    }
}
