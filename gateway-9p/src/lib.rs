//! `magma-9p`: a door to the lava network for clients that speak 9P2000.L, foremost the Linux kernel's in virtual
//! machines and containers.
//!
//! * [`wire`]: the messages, and nothing else;
//! * `framing`, `tags`, `connection`: one connection, requests in parallel, flushes in order;
//! * `fid`, `user`, [`export`]: what a client's numbers stand for, on whose behalf, on which terms;
//! * `ops`: what each message does, one file per group;
//! * [`listen`], [`allow`], `crowd`, `descriptors`, [`gateway`]: who gets in;
//! * [`fuzz`]: the decoders, for fuzzers.
//!
//! It keeps nothing that outlives a connection and checks no permissions: the volcano does.

pub mod allow;
mod connection;
mod crowd;
mod descriptors;
mod errno;
pub mod export;
mod fid;
pub mod flags;
mod framing;
pub mod fuzz;
pub mod gateway;
pub mod limits;
pub mod listen;
mod ops;
pub mod options;
mod tags;
mod user;
pub mod wire;

use std::io::{self, Write};

use tokio::signal::unix::{SignalKind, signal};

pub use gateway::{Running, StartError};
pub use options::{Config, ConfigError, Options};

/// Why the program ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The options make no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The gateway could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The operating system refused something.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Runs the gateway until SIGTERM or SIGINT.
pub fn run(options: &Options) -> Result<(), RunError> {
    let (resolved, _logging) = options.shared.start().map_err(ConfigError::Shared)?;
    let mut config = Config::from_options(options, &resolved)?;
    let room = descriptors::connections();
    if room < config.limits.connections {
        tracing::warn!(
            "the limit of open files leaves room for {room} connections only; raise it (ulimit -n)"
        );
        config.limits.connections = room;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = tokio::select! {
        started = Running::start(config) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let addresses: Vec<String> = running.addresses().iter().map(ToString::to_string).collect();
    let mut out = io::stdout();
    writeln!(out, "magma-9p ready: {}", addresses.join(", "))?;
    out.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}
