//! Reading a connection that carries urgent data.
//!
//! A telnet client sends part of its interrupt as urgent data (RFC 854, SYNCH). We want that byte in its place in the
//! stream, so it is received inline; but then a read ends before it although more has arrived (tcp(7)), and
//! a reader that takes a short read for "nothing left", as tokio's does, would wait for ever.

use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The reading half of a connection; asks the system again after every short read.
pub(super) struct InlineReader(OwnedReadHalf);

/// Takes a connection apart, urgent data in its place.
pub(super) fn split(connection: TcpStream) -> std::io::Result<(InlineReader, OwnedWriteHalf)> {
    socket2::SockRef::from(&connection).set_out_of_band_inline(true)?;
    let (reader, writer) = connection.into_split();
    Ok((InlineReader(reader), writer))
}

impl AsyncRead for InlineReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let connection = self.0.as_ref();
        loop {
            ready!(connection.poll_read_ready(cx))?;
            // Unlike a read, this gives up readiness only when the system says that nothing is there.
            match connection.try_read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
