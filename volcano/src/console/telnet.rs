//! The telnet layer under a console line (RFC 854): takes commands and negotiations out of the stream of bytes.
//!
//! We never start a negotiation, except to hide the typing of a key, so that `nc` and scripts see nothing but text. Of
//! what a client asks for we do two things: echo (RFC 857) and suppress go-ahead (RFC 858), which together are
//! the character mode of telnet clients. Everything else is refused.

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SUBNEGOTIATION: u8 = 250;
const ERASE_LINE: u8 = 248;
const ERASE_CHARACTER: u8 = 247;
const ARE_YOU_THERE: u8 = 246;
const ABORT_OUTPUT: u8 = 245;
const INTERRUPT_PROCESS: u8 = 244;
const BREAK: u8 = 243;
const SUBNEGOTIATION_END: u8 = 240;
/// RFC 1184 §2.5: the linemode client's ^\ and ^D.
const ABORT: u8 = 238;
const END_OF_FILE: u8 = 236;

const OPTION_ECHO: u8 = 1;
const OPTION_SUPPRESS_GO_AHEAD: u8 = 3;

/// What a byte from the network means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A byte of text.
    Byte(u8),
    /// Stop what is going on.
    Interrupt,
    /// Take back the last character.
    EraseCharacter,
    /// Take back the line.
    EraseLine,
    /// Nothing more will be typed.
    EndOfFile,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After IAC.
    Command,
    /// After IAC and WILL, WONT, DO or DONT.
    Option(u8),
    /// Between IAC SB and IAC SE.
    Subnegotiation,
    /// After an IAC in there.
    SubnegotiationCommand,
}

/// One connection's telnet state.
#[derive(Debug, Default)]
pub(super) struct Telnet {
    state: State,
    /// The client asked us to echo.
    echo: bool,
    /// We asked the client not to echo, because a key is typed.
    hidden: bool,
    suppress_go_ahead: bool,
    /// The client suppresses go-aheads towards us.
    client_suppresses: bool,
}

impl Telnet {
    /// Whether what is typed must be sent back.
    pub(super) fn echoes(&self) -> bool {
        self.echo && !self.hidden
    }

    /// From now on what is typed is not shown.
    pub(super) fn hide(&mut self, replies: &mut Vec<u8>) {
        if !self.hidden && !self.echo {
            replies.extend([IAC, WILL, OPTION_ECHO]);
        }
        self.hidden = true;
    }

    /// The end of [`hide`](Self::hide).
    pub(super) fn show(&mut self, replies: &mut Vec<u8>) {
        if self.hidden && !self.echo {
            replies.extend([IAC, WONT, OPTION_ECHO]);
        }
        self.hidden = false;
    }

    /// Takes one byte from the network.
    pub(super) fn feed(&mut self, byte: u8, replies: &mut Vec<u8>) -> Option<Token> {
        let (state, token) = match (self.state, byte) {
            (State::Text, IAC) => (State::Command, None),
            (State::Text, _) => (State::Text, Some(Token::Byte(byte))),
            (State::Command, WILL | WONT | DO | DONT) => (State::Option(byte), None),
            (State::Command, SUBNEGOTIATION) => (State::Subnegotiation, None),
            (State::Command, _) => (State::Text, command(byte, replies)),
            (State::Option(verb), option) => {
                self.negotiate(verb, option, replies);
                (State::Text, None)
            }
            (State::Subnegotiation, IAC) => (State::SubnegotiationCommand, None),
            (State::SubnegotiationCommand, SUBNEGOTIATION_END) => (State::Text, None),
            (State::Subnegotiation | State::SubnegotiationCommand, _) => (State::Subnegotiation, None),
        };
        self.state = state;
        token
    }

    /// Answers changes only, so that two sides that confirm each other come to an end (RFC 854, rule 1 of negotiation).
    fn negotiate(&mut self, verb: u8, option: u8, replies: &mut Vec<u8>) {
        let answer = match (verb, option) {
            // The answer to our own WILL.
            (DO, OPTION_ECHO) if self.hidden => None,
            (DO, OPTION_ECHO) => (!std::mem::replace(&mut self.echo, true)).then_some(WILL),
            (DONT, OPTION_ECHO) => std::mem::take(&mut self.echo).then_some(WONT),
            (DO, OPTION_SUPPRESS_GO_AHEAD) => {
                (!std::mem::replace(&mut self.suppress_go_ahead, true)).then_some(WILL)
            }
            (DONT, OPTION_SUPPRESS_GO_AHEAD) => std::mem::take(&mut self.suppress_go_ahead).then_some(WONT),
            (WILL, OPTION_SUPPRESS_GO_AHEAD) => {
                (!std::mem::replace(&mut self.client_suppresses, true)).then_some(DO)
            }
            (WONT, OPTION_SUPPRESS_GO_AHEAD) => std::mem::take(&mut self.client_suppresses).then_some(DONT),
            (DO, _) => Some(WONT),
            (WILL, _) => Some(DONT),
            _ => None,
        };
        if let Some(answer) = answer {
            replies.extend([IAC, answer, option]);
        }
    }
}

fn command(byte: u8, replies: &mut Vec<u8>) -> Option<Token> {
    match byte {
        IAC => Some(Token::Byte(IAC)),
        INTERRUPT_PROCESS | BREAK | ABORT | ABORT_OUTPUT => Some(Token::Interrupt),
        ERASE_CHARACTER => Some(Token::EraseCharacter),
        ERASE_LINE => Some(Token::EraseLine),
        END_OF_FILE => Some(Token::EndOfFile),
        ARE_YOU_THERE => {
            replies.extend(b"\r\n[yes]\r\n");
            None
        }
        // Go-ahead, data mark, no operation, and what nobody defined.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(telnet: &mut Telnet, bytes: &[u8]) -> (Vec<Token>, Vec<u8>) {
        let mut replies = Vec::new();
        let tokens = bytes.iter().filter_map(|&byte| telnet.feed(byte, &mut replies)).collect();
        (tokens, replies)
    }

    fn text(bytes: &[u8]) -> Vec<Token> {
        bytes.iter().map(|&byte| Token::Byte(byte)).collect()
    }

    #[test]
    fn plain_text_passes_and_nothing_is_sent_back() {
        assert_eq!(feed(&mut Telnet::default(), b"ls /\r\n"), (text(b"ls /\r\n"), vec![]));
    }

    #[test]
    fn unknown_options_are_refused_and_subnegotiations_skipped() {
        // WILL NAWS, DO TERMINAL-TYPE, SB NAWS with an escaped 255 in it, then text.
        let bytes = [IAC, WILL, 31, IAC, DO, 24, IAC, 250, 31, 0, IAC, IAC, 0, 24, IAC, 240, b'x'];
        let (tokens, replies) = feed(&mut Telnet::default(), &bytes);
        assert_eq!(tokens, text(b"x"));
        assert_eq!(replies, [IAC, DONT, 31, IAC, WONT, 24]);
    }

    #[test]
    fn character_mode_is_granted_once_and_can_be_left() {
        let mut telnet = Telnet::default();
        let ask = [IAC, DO, OPTION_ECHO, IAC, DO, OPTION_SUPPRESS_GO_AHEAD];
        assert_eq!(feed(&mut telnet, &ask).1, [IAC, WILL, OPTION_ECHO, IAC, WILL, OPTION_SUPPRESS_GO_AHEAD]);
        assert!(telnet.echoes());
        assert_eq!(feed(&mut telnet, &ask).1, [0_u8; 0], "a confirmation is not answered");
        assert_eq!(feed(&mut telnet, &[IAC, DONT, OPTION_ECHO]).1, [IAC, WONT, OPTION_ECHO]);
        assert!(!telnet.echoes());
    }

    #[test]
    fn the_interrupt_key_of_a_telnet_client_is_understood() {
        // What clients send for ^C: IP, data mark, DO TIMING-MARK; they discard all output until that is answered.
        let (tokens, replies) = feed(&mut Telnet::default(), &[IAC, INTERRUPT_PROCESS, IAC, 242, IAC, DO, 6]);
        assert_eq!((tokens, replies), (vec![Token::Interrupt], vec![IAC, WONT, 6]));
    }

    #[test]
    fn typing_is_hidden_while_a_key_is_asked_for() {
        let mut telnet = Telnet::default();
        let mut replies = Vec::new();
        telnet.hide(&mut replies);
        assert_eq!(feed(&mut telnet, &[IAC, DO, OPTION_ECHO]).1, [0_u8; 0]);
        assert!(!telnet.echoes());
        telnet.show(&mut replies);
        assert_eq!(replies, [IAC, WILL, OPTION_ECHO, IAC, WONT, OPTION_ECHO]);
        assert_eq!(feed(&mut telnet, &[IAC, DONT, OPTION_ECHO]).1, [0_u8; 0]);
        assert!(!telnet.echoes());
    }

    #[test]
    fn a_doubled_255_is_a_byte_of_text() {
        assert_eq!(feed(&mut Telnet::default(), &[IAC, IAC]).0, [Token::Byte(255)]);
    }
}
