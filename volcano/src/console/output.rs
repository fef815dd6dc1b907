//! What goes out at a console: buffered, at the pace of whoever reads it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::input::Input;

/// Bytes that are collected before they are sent.
const BUFFER: usize = 16 << 10;

/// One connection's output. A command that is cancelled while it writes leaves no half line end behind.
pub(super) struct Output {
    writer: Box<dyn AsyncWrite + Unpin>,
    input: Rc<RefCell<Input>>,
    buffer: Vec<u8>,
    sent: usize,
    /// How long the other side may take nothing.
    patience: Duration,
    /// Lines end with LF alone.
    bare_lf: bool,
    /// The last byte of text ended a line.
    at_line_start: bool,
}

/// The other side is gone, or took nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the console's connection is gone: {0}")]
pub(super) struct Gone(#[from] std::io::Error);

impl Output {
    /// Writes to `writer`, with what `input` wants sent back in between; gives up when nothing is taken for as long as `patience`.
    pub(super) fn new(
        writer: impl AsyncWrite + Unpin + 'static,
        input: Rc<RefCell<Input>>,
        patience: Duration,
    ) -> Self {
        let (writer, buffer) = (Box::new(writer), Vec::with_capacity(BUFFER));
        Self { writer, input, buffer, sent: 0, patience, bare_lf: false, at_line_start: true }
    }

    /// Ends lines with LF alone from now on, or with CR LF (RFC 854).
    pub(super) fn set_bare_lf(&mut self, bare_lf: bool) {
        self.bare_lf = bare_lf;
    }

    /// Whether the text so far ends with a line end.
    pub(super) fn at_line_start(&self) -> bool {
        self.at_line_start
    }

    /// Says that the terminal is at the start of a line, because the end of a typed line was shown there.
    pub(super) fn set_line_start(&mut self) {
        self.at_line_start = true;
    }

    /// Writes text; `\n` ends a line.
    pub(super) async fn text(&mut self, text: &str) -> Result<(), Gone> {
        for byte in text.bytes() {
            if byte == b'\n' && !self.bare_lf {
                self.buffer.push(b'\r');
            }
            self.buffer.push(byte);
        }
        if let Some(last) = text.bytes().last() {
            self.at_line_start = last == b'\n';
        }
        if self.buffer.len() - self.sent >= BUFFER { self.flush().await } else { Ok(()) }
    }

    /// Writes a line.
    pub(super) async fn line(&mut self, line: &str) -> Result<(), Gone> {
        self.text(line).await?;
        self.text("\n").await
    }

    /// Puts what the input wants sent back behind the text so far.
    pub(super) fn take_replies(&mut self) {
        self.buffer.append(&mut self.input.borrow_mut().take_replies());
    }

    /// Sends everything, replies to negotiations included. May be cancelled at any point and called again.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        self.take_replies();
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let written = tokio::time::timeout(self.patience, self.writer.write(rest)).await;
            match written.map_err(std::io::Error::from)?? {
                0 => return Err(Gone(std::io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.buffer.clear();
        self.sent = 0;
        self.writer.flush().await?;
        Ok(())
    }

    /// Sends everything and says that nothing follows.
    pub(super) async fn finish(mut self) -> Result<(), Gone> {
        self.flush().await?;
        // Nothing is left in the buffer, so this does not wait for the other side.
        self.writer.shutdown().await?;
        Ok(())
    }
}
