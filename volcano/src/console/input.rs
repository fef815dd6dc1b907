//! What comes in at a console: bytes from the network become lines and keys, without a socket.

use std::collections::VecDeque;

use super::editor::{Editor, Event};
use super::telnet::Telnet;

/// Lines typed ahead of the command that runs, before we stop reading.
const MAX_WAITING: usize = 64;
/// Bytes to send back that may wait before we stop reading.
const MAX_REPLIES: usize = 64 << 10;

/// One connection's input.
///
/// [`feed`](Self::feed) takes bytes, [`next`](Self::next) gives events; [`take_replies`](Self::take_replies) are to be sent
/// back at the next opportunity.
#[derive(Debug, Default)]
pub(super) struct Input {
    telnet: Telnet,
    editor: Editor,
    events: VecDeque<Event>,
    replies: Vec<u8>,
}

impl Input {
    /// Takes bytes from the network. Returns whether they contained an interrupt, which drops what was typed ahead.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        let mut interrupted = false;
        for &byte in bytes {
            let Some(token) = self.telnet.feed(byte, &mut self.replies) else { continue };
            let echo = self.telnet.echoes().then_some(&mut self.replies);
            let Some(event) = self.editor.feed(token, echo) else { continue };
            if event == Event::Interrupt {
                self.events.clear();
                interrupted = true;
            }
            self.events.push_back(event);
        }
        interrupted
    }

    /// The next line or key.
    pub(super) fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether enough is waiting for now; the network should not be read until some of it is taken.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= MAX_WAITING || self.replies.len() >= MAX_REPLIES
    }

    /// Negotiations and echo, to be sent as they are.
    pub(super) fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }

    /// Whether what is typed is sent back, ends of lines included.
    pub(super) fn echoes(&self) -> bool {
        self.telnet.echoes()
    }

    /// From now on what is typed is not shown; used while a key is asked for.
    pub(super) fn hide(&mut self) {
        self.telnet.hide(&mut self.replies);
    }

    /// The end of [`hide`](Self::hide).
    pub(super) fn show(&mut self) {
        self.telnet.show(&mut self.replies);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn all(input: &mut Input) -> Vec<Event> {
        std::iter::from_fn(|| input.next()).collect()
    }

    fn typed(text: &str) -> impl Strategy<Value = Vec<u8>> {
        let keys = proptest::sample::select(text.as_bytes().to_vec());
        proptest::collection::vec(keys, 0..200)
    }

    #[test]
    fn an_interrupt_drops_what_was_typed_ahead() {
        let mut input = Input::default();
        assert!(!input.feed(b"cat big\nls\n"));
        assert!(input.feed(b"pw\x03pwd\n"));
        let expected = Event::Line { bytes: b"pwd".to_vec(), bare_lf: true };
        assert_eq!(all(&mut input), [Event::Interrupt, expected]);
    }

    #[test]
    fn reading_stops_when_too_much_waits() {
        let mut input = Input::default();
        input.feed(&b"\n".repeat(MAX_WAITING));
        assert!(input.is_full());
        all(&mut input);
        assert!(!input.is_full());
        input.feed(&[255, 253, 24].repeat(MAX_REPLIES / 3 + 1));
        assert!(input.is_full());
        assert!(input.take_replies().len() >= MAX_REPLIES && !input.is_full());
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_events_however_they_are_cut(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                typed("ab '\\\r\n\0\u{1b}[A\u{3}\u{4}\u{8}\u{15}\u{17}"),
                proptest::collection::vec(proptest::sample::select(vec![255, 254, 253, 251, 250, 240, 244, 1, 3, 31, 10]), 0..200),
            ],
            cut: proptest::sample::Index,
        ) {
            let (mut whole, mut parts) = (Input::default(), Input::default());
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
            let in_whole = whole.feed(&bytes);
            let in_parts = parts.feed(first) | parts.feed(second);
            prop_assert_eq!(in_whole, in_parts);
            prop_assert_eq!(whole.take_replies(), parts.take_replies());
            prop_assert_eq!(all(&mut whole), all(&mut parts));
        }

        #[test]
        fn printable_lines_come_out_as_they_went_in(lines in proptest::collection::vec("[ -~\u{a0}-\u{fff}]{0,40}", 0..20)) {
            let mut input = Input::default();
            for line in &lines {
                input.feed(line.as_bytes());
                input.feed(b"\r\n");
                prop_assert_eq!(all(&mut input), vec![Event::Line { bytes: line.clone().into_bytes(), bare_lf: false }]);
            }
            prop_assert_eq!(input.take_replies(), vec![0_u8; 0]);
        }
    }
}
