//! One connection: asks for the key where it must, then runs commands while listening for ^C.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout};
use zeroize::Zeroize;

use super::command;
use super::commands::{Next, Shell};
use super::editor::{Event, MAX_LINE};
use super::files::Files;
use super::gate::{Gate, Verdict};
use super::input::Input;
use super::output::{Gone, Output};

/// Keys that may be typed on one connection.
const MAX_KEYS: u32 = 3;
/// How long we wait for a key.
const KEY_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes read at a time.
const CHUNK: usize = 4 << 10;

/// One connection to the console.
pub(super) struct Session {
    input: Rc<RefCell<Input>>,
    reader: Box<dyn AsyncRead + Unpin>,
    out: Output,
    /// The other side has sent everything.
    ended: bool,
}

/// What waiting for a line came to.
enum Typed {
    Event(Event),
    End,
    Idle,
}

impl Session {
    /// A session on the two halves of a connection. What the other side does not take within `patience` ends it.
    pub(super) fn new(
        reader: impl AsyncRead + Unpin + 'static,
        writer: impl AsyncWrite + Unpin + 'static,
        patience: Duration,
    ) -> Self {
        let input = Rc::new(RefCell::new(Input::default()));
        let out = Output::new(writer, Rc::clone(&input), patience);
        Self { input, reader: Box::new(reader), out, ended: false }
    }

    /// Asks for the key. Whether it came.
    pub(super) async fn ask_key(&mut self, gate: &RefCell<Gate>, host: IpAddr) -> Result<bool, Gone> {
        let mut opened = false;
        self.input.borrow_mut().hide();
        self.out.take_replies();
        for _ in 0..MAX_KEYS {
            self.out.text("Key: ").await?;
            let mut typed = match self.typed(KEY_PATIENCE).await? {
                Typed::Event(Event::Line { bytes, bare_lf }) => {
                    self.out.set_bare_lf(bare_lf);
                    bytes
                }
                Typed::Event(Event::TooLong) => Vec::new(),
                Typed::Event(Event::Interrupt | Event::End) | Typed::End | Typed::Idle => break,
            };
            let verdict = gate.borrow_mut().judge(host, &typed, Instant::now());
            typed.zeroize();
            self.out.text("\n").await?;
            match verdict {
                Verdict::Right => {
                    opened = true;
                    break;
                }
                Verdict::Wrong(_) => {
                    tracing::warn!(target: "magma::network", "wrong key at the console from {host}");
                    self.out.line("This is not the key of this network.").await?;
                }
                Verdict::NotYet(wait) => {
                    let seconds = wait.as_millis().div_ceil(1000);
                    self.out
                        .line(&format!("After a wrong key, wait {seconds} s before the next one."))
                        .await?;
                }
            }
        }
        self.input.borrow_mut().show();
        self.out.flush().await?;
        Ok(opened)
    }

    /// Runs commands until the other side leaves, or types nothing for as long as `idle`.
    pub(super) async fn run<F: Files>(
        &mut self,
        mut shell: Shell<F>,
        banner: &str,
        prompt: &str,
        idle: Duration,
    ) -> Result<(), Gone> {
        self.out.text(banner).await?;
        loop {
            if !self.out.at_line_start() {
                self.out.text("\n").await?;
            }
            self.out.text(&format!("{prompt}{}> ", shell.path())).await?;
            let line = match self.typed(idle).await? {
                Typed::Event(Event::Line { bytes, bare_lf }) => {
                    self.out.set_bare_lf(bare_lf);
                    self.out.set_line_start();
                    bytes
                }
                Typed::Event(Event::TooLong) => {
                    self.out.set_line_start();
                    self.out
                        .line(&format!("the line has more than {MAX_LINE} bytes and was not read"))
                        .await?;
                    continue;
                }
                Typed::Event(Event::Interrupt) => {
                    if self.input.borrow().echoes() {
                        self.out.set_line_start();
                    }
                    continue;
                }
                Typed::Event(Event::End) | Typed::End => return self.out.text("\n").await,
                Typed::Idle => {
                    return self
                        .out
                        .text(&format!("\nclosed after {} minutes without a command\n", idle.as_secs() / 60))
                        .await;
                }
            };
            if is_http(&line) {
                tracing::warn!(target: "magma::network", "a web browser was led to the console; closed its connection");
                return Ok(());
            }
            match command::parse(&line) {
                Err(message) => self.out.line(&message).await?,
                Ok(command) => {
                    let Self { input, reader, out, ended } = self;
                    let next = tokio::select! {
                        biased;
                        next = shell.run(command, out) => Some(next?),
                        () = interrupt(input, reader, ended) => None,
                    };
                    if next.is_none() {
                        // A telnet client throws away what comes before the answer to its timing mark (RFC 860).
                        self.out.take_replies();
                    }
                    match next {
                        Some(Next::Prompt) => {}
                        Some(Next::Leave) => return Ok(()),
                        None if !self.out.at_line_start() => self.out.text("\n-- stopped\n").await?,
                        None => self.out.line("-- stopped").await?,
                    }
                }
            }
        }
    }

    /// Says why, and closes.
    pub(super) async fn turn_away(mut self, reason: &str) -> Result<(), Gone> {
        self.out.text(reason).await?;
        self.close().await
    }

    /// Sends what is left and closes.
    pub(super) async fn close(self) -> Result<(), Gone> {
        self.out.finish().await
    }

    async fn typed(&mut self, patience: Duration) -> Result<Typed, Gone> {
        loop {
            let event = self.input.borrow_mut().next();
            if let Some(event) = event {
                return Ok(Typed::Event(event));
            }
            self.out.flush().await?;
            if self.ended {
                return Ok(Typed::End);
            }
            let mut chunk = [0; CHUNK];
            let Ok(read) = timeout(patience, self.reader.read(&mut chunk)).await else {
                return Ok(Typed::Idle);
            };
            let length = read?;
            self.ended = length == 0;
            self.input.borrow_mut().feed(chunk.get(..length).unwrap_or_default());
            chunk.zeroize();
            // The echo of a command comes before its output.
            self.out.take_replies();
        }
    }
}

/// Reads ahead while a command runs; returns when it must stop. The end of what is sent does not stop it: a script may
/// send its commands and then only listen.
async fn interrupt(input: &RefCell<Input>, reader: &mut (dyn AsyncRead + Unpin), ended: &mut bool) {
    let mut chunk = [0; CHUNK];
    while !*ended && !input.borrow().is_full() {
        // An error shows again when the command's output is sent or the next line is read.
        let length = reader.read(&mut chunk).await.unwrap_or(0);
        *ended = length == 0;
        if input.borrow_mut().feed(chunk.get(..length).unwrap_or_default()) {
            // What follows the interrupt is the user's next command; the event itself has done its work.
            let _interrupt = input.borrow_mut().next();
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Whether a line is the head of a web request: a page in an administrator's browser can make it send one to loopback,
/// with commands in its body.
fn is_http(line: &[u8]) -> bool {
    line.windows(7).any(|window| window == b"HTTP/1.")
        || line.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"host:"))
}
