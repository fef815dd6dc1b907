//! The administrator's console: `telnet volcano 12002`.
//!
//! Bytes from a connection become lines in [`input`] (telnet, line editing), lines become commands in [`command`], and
//! [`commands`] does them: files through the client library as root, everything else through [`Admin`]. On an address
//! beyond this machine the console asks for the cluster key first ([`gate`]).

mod admin;
mod command;
mod commands;
mod editor;
mod files;
mod gate;
mod health;
mod input;
mod output;
mod session;
mod socket;
mod telnet;
mod text;
mod words;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use magma_common::auth::Secret;
use magma_common::client::ClientConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

pub use admin::{AclRule, Admin, CacheFigures, Inspection, Lava, SliceFigures};

use commands::Shell;
use files::{Files, LateClient};
use gate::Gate;
use output::Gone;
use session::Session;

/// Connections that may be in the middle of typing the key. They do not count against the sessions.
const MAX_AT_GATE: usize = 16;
/// How long accepting pauses when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the console is told about its volcano and its limits.
#[derive(Clone, Debug)]
pub struct ConsoleConfig {
    /// The volcano's nickname, for banner and prompt.
    pub nickname: String,
    /// Its host name, for the banner.
    pub servername: String,
    /// The cluster key, asked for where the listener is not on a loopback address.
    pub key: Secret,
    /// Most sessions at a time.
    pub max_sessions: usize,
    /// A session ends when nothing was typed for so long.
    pub idle: Duration,
}

impl ConsoleConfig {
    /// The usual limits: 32 sessions, 15 minutes.
    pub fn new(nickname: impl Into<String>, servername: impl Into<String>, key: Secret) -> Self {
        let (nickname, servername) = (nickname.into(), servername.into());
        Self { nickname, servername, key, max_sessions: 32, idle: Duration::from_secs(15 * 60) }
    }
}

/// Serves the console until it is dropped, which ends all its sessions. Must run in a `LocalSet`. The client is connected when a
/// command needs it first: an administrator wants the console most when nothing is served.
pub async fn serve(listener: TcpListener, config: ConsoleConfig, admin: Rc<dyn Admin>, client: ClientConfig) {
    // If the address cannot be had, the careful answer is the right one.
    let remote = !listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    serve_files(listener, config, admin, LateClient::new(client), remote).await;
}

/// What the sessions of a console share.
struct Console<F> {
    config: ConsoleConfig,
    admin: Rc<dyn Admin>,
    files: F,
    gate: RefCell<Gate>,
    /// The listener is not on a loopback address.
    remote: bool,
    sessions: Arc<Semaphore>,
    at_gate: Arc<Semaphore>,
}

async fn serve_files<F: Files>(
    listener: TcpListener,
    config: ConsoleConfig,
    admin: Rc<dyn Admin>,
    files: F,
    remote: bool,
) {
    let console = Rc::new(Console {
        gate: RefCell::new(Gate::new(&config.key)),
        remote,
        sessions: Arc::new(Semaphore::new(config.max_sessions)),
        at_gate: Arc::new(Semaphore::new(MAX_AT_GATE)),
        config,
        admin,
        files,
    });
    let mut running = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = running.join_next() => continue,
        };
        match accepted {
            Ok((connection, peer)) => {
                let queue = if console.remote { &console.at_gate } else { &console.sessions };
                if let Ok(permit) = Arc::clone(queue).try_acquire_owned() {
                    running.spawn_local(Rc::clone(&console).session(connection, peer, permit));
                } else {
                    refuse(&connection);
                }
            }
            Err(error) => {
                tracing::warn!(target: "magma::network", "the console cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tells why, if that can be done without waiting.
fn refuse(connection: &TcpStream) {
    let told = connection.try_write(b"too many console sessions; try again later\r\n");
    tracing::debug!(target: "magma::network", "refused a console session: too many ({told:?})");
}

impl<F: Files> Console<F> {
    async fn session(self: Rc<Self>, connection: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        tracing::info!(target: "magma::network", "console session from {peer}");
        match self.converse(connection, peer, permit).await {
            Ok(()) => tracing::info!(target: "magma::network", "console session from {peer} ended"),
            Err(gone) => {
                tracing::info!(target: "magma::network", "console session from {peer} broke off: {gone}");
            }
        }
    }

    async fn converse(
        &self,
        connection: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), Gone> {
        connection.set_nodelay(true)?;
        let (reader, writer) = socket::split(connection)?;
        let mut session = Session::new(reader, writer, self.config.idle);
        let mut permit = Some(permit);
        if self.remote {
            if !session.ask_key(&self.gate, peer.ip()).await? {
                return session.close().await;
            }
            let Ok(inside) = Arc::clone(&self.sessions).try_acquire_owned() else {
                return session.turn_away("too many console sessions; try again later\n").await;
            };
            permit = Some(inside);
        }
        let ConsoleConfig { nickname, servername, idle, .. } = &self.config;
        let banner = format!(
            "MagmaFS {} console of {nickname} ({servername})\n`help` lists the commands.\n",
            env!("CARGO_PKG_VERSION")
        );
        let shell = Shell::new(self.files.clone(), Rc::clone(&self.admin));
        let ran = session.run(shell, &banner, &format!("MAGMA [{nickname}]:"), *idle).await;
        drop(permit);
        ran?;
        session.close().await
    }
}

/// Entry point for fuzzing: any bytes from a connection.
pub fn fuzz_input(bytes: &[u8]) {
    let mut input = input::Input::default();
    for chunk in bytes.chunks(7) {
        input.feed(chunk);
        while let Some(event) = input.next() {
            if let editor::Event::Line { bytes, .. } = event {
                fuzz_line(&bytes);
            }
        }
    }
}

/// Entry point for fuzzing: any bytes as a command line.
///
/// # Panics
///
/// If the line is misunderstood in a way that a test can tell.
pub fn fuzz_line(bytes: &[u8]) {
    match command::parse(bytes) {
        Ok(command) => {
            assert!(!bytes.is_empty() || command == command::Command::Nothing, "nothing is done for nothing");
        }
        Err(message) => assert!(!message.contains(['\n', '\x1b']), "messages do not harm the terminal"),
    }
}

#[cfg(test)]
mod tests;
