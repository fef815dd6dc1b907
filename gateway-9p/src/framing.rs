//! Cuts a byte stream into frames, without believing a word of it.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::wire::{Frame, HEADER};

/// Largest frame before a version has been agreed on, in bytes: enough for any Tversion.
const MAX_FIRST_FRAME: u32 = 4096;
/// The buffer grows by at most so many bytes ahead of what has arrived.
const READ_AHEAD: usize = 64 << 10;

/// Why no more frames come. Each of these ends the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FramingError {
    /// The client closed the connection between two frames.
    #[error("the client closed the connection")]
    Closed,
    /// The client closed the connection in the middle of a frame.
    #[error("the connection ended in the middle of a message")]
    Truncated,
    /// A size that cannot be.
    #[error("a message of {size} bytes, where {limit} are allowed and {HEADER} needed")]
    BadSize {
        /// What the message claims.
        size: u32,
        /// The msize agreed on.
        limit: u32,
    },
    /// The rest of a frame did not come.
    #[error("the rest of a message did not come within {0:?}")]
    Stalled(Duration),
    /// No version was agreed on in time.
    #[error("no version was agreed on within {0:?}")]
    NoVersion(Duration),
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads frames.
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    limit: u32,
    /// By when the first Tversion must have been answered, and the time given for it.
    version_due: Option<(Instant, Duration)>,
    unfinished_frame: Duration,
    unfinished_since: Option<Instant>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Gives the client `handshake` to agree on a version, and later `unfinished_frame` for each frame it began.
    pub(crate) fn new(stream: R, handshake: Duration, unfinished_frame: Duration) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            limit: MAX_FIRST_FRAME,
            version_due: Some((Instant::now() + handshake, handshake)),
            unfinished_frame,
            unfinished_since: None,
        }
    }

    /// From now on frames may have up to `msize` bytes.
    pub(crate) fn agreed(&mut self, msize: u32) {
        self.limit = msize;
        self.version_due = None;
    }

    /// The next frame. Nothing is lost if the future is dropped before it is ready.
    pub(crate) async fn next(&mut self) -> Result<Frame, FramingError> {
        loop {
            let missing = match self.claimed_size()? {
                Some(size) if self.buffer.len() >= size => {
                    self.unfinished_since = None;
                    return Ok(self.cut(size));
                }
                Some(size) => size - self.buffer.len(),
                None => HEADER,
            };
            // Once that much has come, the rest is believed: a large frame is then moved only once.
            let ahead = if self.buffer.len() < READ_AHEAD { READ_AHEAD } else { missing };
            self.buffer.reserve(missing.clamp(4096, ahead.max(4096)));
            if self.read().await? == 0 {
                let between = self.buffer.is_empty();
                return Err(if between { FramingError::Closed } else { FramingError::Truncated });
            }
        }
    }

    /// The size that the frame at the front of the buffer claims, checked.
    fn claimed_size(&self) -> Result<Option<usize>, FramingError> {
        let Ok(size) = (&self.buffer[..]).try_get_u32_le() else { return Ok(None) };
        if (size as usize) < HEADER || size > self.limit {
            return Err(FramingError::BadSize { size, limit: self.limit });
        }
        Ok(Some(size as usize))
    }

    fn cut(&mut self, size: usize) -> Frame {
        let mut bytes: Bytes = self.buffer.split_to(size).freeze();
        bytes.advance(4);
        // The size was checked to have room for both.
        let kind = bytes.try_get_u8().unwrap_or_default();
        let tag = bytes.try_get_u16_le().unwrap_or_default();
        Frame { kind, tag, body: bytes }
    }

    async fn read(&mut self) -> Result<usize, FramingError> {
        let (due, error) = match self.version_due {
            Some((due, given)) => (due, FramingError::NoVersion(given)),
            None if self.buffer.is_empty() => return Ok(self.stream.read_buf(&mut self.buffer).await?),
            None => {
                let since = *self.unfinished_since.get_or_insert_with(Instant::now);
                (since + self.unfinished_frame, FramingError::Stalled(self.unfinished_frame))
            }
        };
        match timeout_at(due, self.stream.read_buf(&mut self.buffer)).await {
            Ok(read) => Ok(read?),
            Err(_) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::io::AsyncWriteExt;

    const SECOND: Duration = Duration::from_secs(1);

    fn frame(kind: u8, tag: u16, body: &[u8]) -> Vec<u8> {
        let mut out = ((HEADER + body.len()) as u32).to_le_bytes().to_vec();
        out.push(kind);
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(body);
        out
    }

    #[tokio::test]
    async fn frames_are_found_however_the_stream_is_cut() {
        let mut bytes = frame(100, 0xffff, b"abc");
        bytes.extend(frame(120, 1, b""));
        for cut in 0..bytes.len() {
            let (mut ours, theirs) = tokio::io::duplex(64);
            let (first, second) = bytes.split_at(cut);
            let (first, second) = (first.to_vec(), second.to_vec());
            let writer = tokio::spawn(async move {
                ours.write_all(&first).await.unwrap();
                tokio::task::yield_now().await;
                ours.write_all(&second).await.unwrap();
            });
            let mut frames = FrameReader::new(theirs, SECOND, SECOND);
            let one = frames.next().await.unwrap();
            assert_eq!((one.kind, one.tag, &one.body[..]), (100, 0xffff, &b"abc"[..]));
            let two = frames.next().await.unwrap();
            assert_eq!((two.kind, two.tag, two.body.len()), (120, 1, 0));
            writer.await.unwrap();
            assert!(matches!(frames.next().await, Err(FramingError::Closed)));
        }
    }

    #[tokio::test]
    async fn a_frame_larger_than_agreed_is_refused_by_its_first_four_bytes() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let mut frames = FrameReader::new(theirs, SECOND, SECOND);
        frames.agreed(8192);
        ours.write_all(&(2_u32 << 30).to_le_bytes()).await.unwrap();
        assert!(matches!(frames.next().await, Err(FramingError::BadSize { limit: 8192, .. })));
        assert!(frames.buffer.capacity() <= READ_AHEAD);
    }

    #[tokio::test]
    async fn a_frame_without_room_for_its_header_is_refused() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let mut frames = FrameReader::new(theirs, SECOND, SECOND);
        ours.write_all(&6_u32.to_le_bytes()).await.unwrap();
        assert!(matches!(frames.next().await, Err(FramingError::BadSize { size: 6, .. })));
    }

    #[tokio::test]
    async fn memory_follows_what_arrived_not_what_was_claimed() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let mut frames = FrameReader::new(theirs, SECOND, Duration::from_millis(20));
        frames.agreed(1 << 20);
        ours.write_all(&(1_u32 << 20).to_le_bytes()).await.unwrap();
        assert!(matches!(frames.next().await, Err(FramingError::Stalled(_))));
        assert!(frames.buffer.capacity() <= 2 * READ_AHEAD);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_allowed_only_between_frames_and_after_the_handshake() {
        let (ours, theirs) = tokio::io::duplex(64);
        let mut frames = FrameReader::new(theirs, SECOND, SECOND);
        assert!(matches!(frames.next().await, Err(FramingError::NoVersion(_))));
        frames.agreed(8192);
        assert!(tokio::time::timeout(100 * SECOND, frames.next()).await.is_err());
        drop(ours);
        assert!(matches!(frames.next().await, Err(FramingError::Closed)));
    }
}
