//! Start and stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use magma_common::client::{Client, ClientConfig, ConnectError};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::call_id::CallNamer;
use crate::export::{Exports, ExportsError};
use crate::gateway::Gateway;
use crate::handle::Signer;
use crate::mount::MountTable;
use crate::options::{Config, ConfigError, Options};
use crate::rpc::connection::Connections;
use crate::rpc::reply_cache::{CacheLimits, ReplyCache};
use crate::rpc::tcp::{KIB_IN_ALL, accept};
use crate::rpc::udp::answer_datagrams;

/// How long a volcano is looked for before the start fails.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two tries.
const CONNECT_PAUSE: Duration = Duration::from_millis(300);
/// Tries to find a port that is free for both TCP and UDP, when any will do.
const PORT_TRIES: usize = 16;

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No volcano could be reached, or it does not take our key.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A volcano took our call and did not answer.
    #[error("no volcano answered within {} s", CONNECT_PATIENCE.as_secs())]
    NoAnswer,
    /// The exports contradict each other.
    #[error(transparent)]
    Exports(#[from] ExportsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {protocol} {address}: {reason}")]
    Listen {
        /// TCP or UDP.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        reason: io::Error,
    },
}

/// Why the program ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The options are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system refused something basic.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A gateway that serves.
pub struct Running {
    gateway: Arc<Gateway>,
    portmap: Vec<SocketAddr>,
    tasks: JoinSet<()>,
}

/// Connects to the network and begins to serve. Must be called inside a tokio runtime.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let exports = Exports::new(config.exports)?;
    let client = connect(config.client).await?;
    let topology = client.topology();

    let mut sockets = Vec::new();
    for address in config.listen {
        sockets.push(bind_both(address).await?);
    }
    let mut portmap = Vec::new();
    for address in config.portmap {
        portmap.push(bind_both(address).await?);
    }
    let (stop, _) = watch::channel(false);
    let gateway = Arc::new(Gateway {
        client,
        exports,
        signer: Signer::new(&topology.handle_key),
        namer: CallNamer::new(&topology.handle_key),
        network: topology.network,
        asynchronous: config.asynchronous,
        replies: ReplyCache::new(CacheLimits::default()),
        connections: Connections::new(config.max_connections),
        mounts: MountTable::default(),
        memory: Arc::new(Semaphore::new(KIB_IN_ALL as usize)),
        addresses: sockets.iter().map(|socket| socket.address).collect(),
        stop,
    });
    let portmap_addresses = portmap.iter().map(|socket| socket.address).collect();
    let mut tasks = JoinSet::new();
    for Bound { address, tcp, udp } in sockets.into_iter().chain(portmap) {
        tasks.spawn(accept(tcp, Arc::clone(&gateway)));
        tasks.spawn(answer_datagrams(udp, address, Arc::clone(&gateway)));
    }
    Ok(Running { gateway, portmap: portmap_addresses, tasks })
}

/// Looks for a volcano, which may be starting at the same time as we are.
async fn connect(config: ClientConfig) -> Result<Client, StartError> {
    let give_up = Instant::now() + CONNECT_PATIENCE;
    loop {
        match tokio::time::timeout_at(give_up, Client::connect(config.clone())).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(ConnectError::Unreachable { .. })) if Instant::now() + CONNECT_PAUSE < give_up => {
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(StartError::NoAnswer),
        }
    }
}

/// One address, over both protocols.
struct Bound {
    address: SocketAddr,
    tcp: TcpListener,
    udp: UdpSocket,
}

async fn bind_both(wanted: SocketAddr) -> Result<Bound, StartError> {
    let failed = |protocol, address| move |reason| StartError::Listen { protocol, address, reason };
    let mut tries = if wanted.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = TcpListener::bind(wanted).await.map_err(failed("TCP", wanted))?;
        let address = tcp.local_addr().map_err(failed("TCP", wanted))?;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok(Bound { address, tcp, udp }),
            // The system gave us a TCP port whose UDP sibling somebody has.
            Err(_) if tries > 0 => {}
            Err(reason) => return Err(failed("UDP", address)(reason)),
        }
    }
}

impl Running {
    /// Where NFS, MOUNT and portmap are served.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.gateway.addresses
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.gateway.connections.len()
    }

    /// What the program says when it is ready.
    pub fn announcement(&self) -> String {
        let list = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let exports: Vec<String> =
            self.gateway.exports.iter().map(|export| export.path.to_string()).collect();
        let portmap = match list(&self.portmap) {
            none if none.is_empty() => none,
            some => format!("; portmap on {some}"),
        };
        format!("magma-nfs ready: nfs on {}{portmap}; exports {}", list(self.addresses()), exports.join(", "))
    }

    /// Stops: takes no more calls, answers those that run, and ends the session with the network.
    pub async fn stop(mut self) {
        self.gateway.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.gateway.client.clone().close().await;
    }
}

/// The program: serves until SIGTERM or SIGINT.
pub fn run(options: &Options) -> Result<(), RunError> {
    let (resolved, _logging) = options.shared.start().map_err(ConfigError::from)?;
    let config = Config::from_options(options, &resolved)?;
    allow_open_files(config.max_connections);
    // One thread: a call is answered by the thread that read it, without waking another.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let running = tokio::select! {
            running = start(config) => running?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        announce(&running)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(target: "magma::nfs", "stopping");
        running.stop().await;
        Ok(())
    })
}

/// Raises the limit on open files, if the system lets us, so that connections are refused by our limit and not by its.
fn allow_open_files(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // A connection that has ended keeps its socket while its last calls run.
    let wanted = 2 * connections as u64 + 256;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if current.is_some_and(|current| current < raised)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum })
    {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
    if raised < connections as u64 + 64 {
        tracing::warn!(
            "only {raised} files may be open, for {connections} connections; raise `ulimit -n` or lower --max-connections"
        );
    }
}

fn announce(running: &Running) -> io::Result<()> {
    use std::io::Write;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", running.announcement())?;
    out.flush()
}
