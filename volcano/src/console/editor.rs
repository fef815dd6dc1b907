//! Makes lines of what is typed, with the editing keys that a terminal without cursor addressing has.

use super::telnet::Token;

/// The longest line in bytes: a path of 4,095 bytes, each written as `\xNN`.
pub(super) const MAX_LINE: usize = 16 << 10;

const NUL: u8 = 0;
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BELL: u8 = 7;
const BACKSPACE: u8 = 8;
const TAB: u8 = 9;
const LF: u8 = 10;
const CR: u8 = 13;
const CTRL_U: u8 = 21;
const CTRL_W: u8 = 23;
const ESCAPE: u8 = 27;
const DELETE: u8 = 127;

/// What the typing amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A line was ended.
    Line {
        /// Its bytes, without the end.
        bytes: Vec<u8>,
        /// It ended with a bare LF, as programs other than telnet write it.
        bare_lf: bool,
    },
    /// A line longer than [`MAX_LINE`] was ended. It is lost.
    TooLong,
    /// Stop what is going on; what was typed of the line is dropped.
    Interrupt,
    /// Nothing more will be typed.
    End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keys {
    #[default]
    Plain,
    /// After CR: an LF or NUL belongs to it.
    AfterCr,
    /// After ESC.
    Escape,
    /// In an escape sequence with parameters, such as an arrow key's.
    Sequence,
}

/// One connection's line under construction.
#[derive(Debug, Default)]
pub(super) struct Editor {
    line: Vec<u8>,
    too_long: bool,
    keys: Keys,
}

impl Editor {
    /// Takes a token; with `echo` given, what the terminal should show goes there.
    pub(super) fn feed(&mut self, token: Token, mut echo: Option<&mut Vec<u8>>) -> Option<Event> {
        let mut show = |bytes: &[u8]| {
            if let Some(echo) = &mut echo {
                echo.extend_from_slice(bytes);
            }
        };
        let byte = match token {
            Token::Byte(byte) => byte,
            Token::Interrupt => CTRL_C,
            Token::EraseCharacter => DELETE,
            Token::EraseLine => CTRL_U,
            Token::EndOfFile => CTRL_D,
        };
        match (std::mem::take(&mut self.keys), byte) {
            // A sequence goes on with parameters and intermediate bytes (ECMA-48 §5.4) up to its final byte.
            (Keys::Escape, b'[' | b'O') | (Keys::Sequence, 0x20..=0x3f) => {
                self.keys = Keys::Sequence;
                return None;
            }
            (Keys::AfterCr, LF | NUL) | (Keys::Escape, 0x20..=0x7e) | (Keys::Sequence, 0x40..=0x7e) => {
                return None;
            }
            _ => {}
        }
        match byte {
            CR | LF => {
                if byte == CR {
                    self.keys = Keys::AfterCr;
                }
                show(b"\r\n");
                let bytes = std::mem::take(&mut self.line);
                let too_long = std::mem::take(&mut self.too_long);
                return Some(if too_long {
                    Event::TooLong
                } else {
                    Event::Line { bytes, bare_lf: byte == LF }
                });
            }
            CTRL_C => {
                self.line = Vec::new();
                self.too_long = false;
                show(b"^C\r\n");
                return Some(Event::Interrupt);
            }
            CTRL_D if self.line.is_empty() && !self.too_long => return Some(Event::End),
            BACKSPACE | DELETE => self.erase(|line| usize::from(!line.is_empty()), show),
            CTRL_U => self.erase(<[u8]>::len, show),
            CTRL_W => self.erase(last_word, show),
            ESCAPE => self.keys = Keys::Escape,
            TAB | 0x20..=0x7e | 0x80..=0xff if self.line.len() < MAX_LINE && !self.too_long => {
                self.line.push(byte);
                // A tab moves further than it can be taken back by.
                show(&[if byte == TAB { b' ' } else { byte }]);
            }
            TAB | 0x20..=0x7e | 0x80..=0xff => {
                self.too_long = true;
                show(&[BELL]);
            }
            _ => {}
        }
        None
    }

    /// Takes back as many characters as `count` says for the line.
    fn erase(&mut self, count: impl Fn(&[u8]) -> usize, mut show: impl FnMut(&[u8])) {
        let keep_to = self.line.len().saturating_sub(count(&self.line));
        while self.line.len() > keep_to {
            // The bytes 10xxxxxx continue a character of UTF-8.
            while self.line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            show(b"\x08 \x08");
        }
    }
}

/// The length of the last word in bytes, blanks behind it included.
fn last_word(line: &[u8]) -> usize {
    let blank = |byte: &u8| matches!(*byte, b' ' | TAB);
    let blanks = line.iter().rev().take_while(|byte| blank(byte)).count();
    let word = line.iter().rev().skip(blanks).take_while(|byte| !blank(byte)).count();
    blanks + word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(bytes: &[u8]) -> Vec<Event> {
        let mut editor = Editor::default();
        bytes.iter().filter_map(|&byte| editor.feed(Token::Byte(byte), None)).collect()
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        let line = |event| match event {
            Event::Line { bytes, .. } => String::from_utf8(bytes).unwrap(),
            other => format!("{other:?}"),
        };
        events(bytes).into_iter().map(line).collect()
    }

    fn echoed(bytes: &[u8]) -> Vec<u8> {
        let (mut editor, mut echo) = (Editor::default(), Vec::new());
        for &byte in bytes {
            editor.feed(Token::Byte(byte), Some(&mut echo));
        }
        echo
    }

    #[test]
    fn every_line_end_of_the_world_ends_one_line() {
        assert_eq!(lines(b"a\r\nb\r\0c\nd\re\n\r\n"), ["a", "b", "c", "d", "e", ""]);
        let bare =
            events(b"a\nb\r\n").into_iter().map(|event| matches!(event, Event::Line { bare_lf: true, .. }));
        assert_eq!(bare.collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn keys_take_back_a_character_a_word_or_the_line() {
        assert_eq!(lines(b"lx\x08s\n"), ["ls"]);
        assert_eq!(lines("caf\u{e9}\u{e9}\x7f\n".as_bytes()), ["caf\u{e9}"]);
        assert_eq!(lines(b"ls one two  \x17three\n"), ["ls one three"]);
        assert_eq!(lines(b"erase everything\x15pwd\n"), ["pwd"]);
        assert_eq!(lines(b"\x08\x7f\x15\x17ok\n"), ["ok"]);
    }

    #[test]
    fn what_is_taken_back_disappears_from_the_screen() {
        assert_eq!(echoed(b"ab\x08"), b"ab\x08 \x08");
        assert_eq!(echoed("\u{e9}\x08".as_bytes()), "\u{e9}\x08 \x08".as_bytes());
        assert_eq!(echoed(b"ls\r"), b"ls\r\n");
    }

    #[test]
    fn arrow_keys_and_stray_controls_leave_no_trace() {
        assert_eq!(lines(b"l\x1b[A\x1b[1;5Cs\x1bOP\x0c\x01\x1bx\n"), ["ls"]);
        assert_eq!(lines(b"ls\x1b\n"), ["ls"], "an escape does not swallow the end of the line");
    }

    #[test]
    fn control_c_drops_the_line_and_control_d_ends_an_empty_one() {
        assert_eq!(lines(b"erase\x03ls\x04\n\x04"), ["Interrupt", "ls", "End"]);
    }

    #[test]
    fn a_line_beyond_the_limit_is_reported_and_the_next_one_works() {
        let mut bytes = vec![b'x'; MAX_LINE + 1];
        bytes.extend(b"\nls\n");
        assert_eq!(lines(&bytes), ["TooLong", "ls"]);
        assert_eq!(lines(&[vec![b'x'; MAX_LINE], vec![b'\n']].concat())[0].len(), MAX_LINE);
    }
}
