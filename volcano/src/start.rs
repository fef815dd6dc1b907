//! From the command line to a serving volcano, and back down again.

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use magma_common::auth::{ClusterKeys, KeyError};
use magma_common::client::{Client, ClientConfig, HostPort};
use magma_common::logging::{Logging, LoggingError};
use magma_common::options::Surroundings;
use magma_common::topology::{CONSOLE_PORT_OFFSET, NODE_PORT_OFFSET};
use magma_common::transport::SetupError;
use magma_common::transport::forward::Forwarder;
use magma_common::transport::node::NodeEndpoint;
use magma_common::transport::server::{DEFAULT_MAX_CONNECTIONS, Server, ServerConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

use crate::administration::Administration;
use crate::cli::{Beginning, Cli, CliError, Launch};
use crate::config::{FolderError, VolcanoConfig};
use crate::console::{self, ConsoleConfig};
use crate::life::{self, LifeError, Origin, Profile};
use crate::node::Node;
use crate::server::{Clock, Edge, Stopped};
use crate::store::{OpenOptions, RealDisk, StoreError};

/// Names this run of the machine.
const MACHINE_BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Threads that wait for the disk: for reads that are not in memory, and for syncs.
const DISK_THREADS: usize = 64;
/// How long a console's command waits for its volcano.
const CONSOLE_PATIENCE: Duration = Duration::from_secs(30);
/// How often, and how long apart, a stop looks whether the last sync has ended.
const CLOSE_ROUNDS: u32 = 600;
const CLOSE_PAUSE: Duration = Duration::from_millis(50);
/// How often a volcano that joins looks whether it was taken in.
const JOIN_PAUSE: Duration = Duration::from_millis(50);

/// Why a volcano does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command line, the configuration or the folder.
    #[error(transparent)]
    Cli(#[from] CliError),
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Logging.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// What is on disk cannot be gone on from.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error("the key cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The flare protocol's socket.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The console's socket.
    #[error(
        "the console cannot listen on TCP {address}: {source}; choose another address with -A or port with -p"
    )]
    Console {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The host to join has no address.
    #[error("{host} cannot be found: {source}")]
    Contact {
        /// Which host.
        host: HostPort,
        /// What the system says.
        source: std::io::Error,
    },
    /// The network does not take this volcano in.
    #[error("the network does not take this volcano in: {0}")]
    NotTaken(String),
    /// Something of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store failed while serving.
    #[error("stopped: {0}")]
    Stopped(String),
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// Runs a volcano until it is told to stop.
pub fn run(cli: &Cli) -> Result<(), StartError> {
    let launch = cli.launch(&Surroundings::of_this_process())?;
    let logging = Logging::start(launch.channels)?;
    for warning in &launch.warnings {
        tracing::warn!(target: "magma::boot", "{warning}");
    }
    let keys = launch.config.key.stretch()?;
    let cluster = keys.cluster().ok_or(CliError::ClientKey)?.clone();
    launch.begin()?;
    let clock = Clock;
    let node = open(&launch, clock)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(DISK_THREADS)
        .build()
        .map_err(system("cannot start a runtime"))?;
    LocalSet::new().block_on(&runtime, serve(launch, logging, cluster, node, clock))
}

/// Opens what is on disk and puts the volcano together.
fn open(launch: &Launch, clock: Clock) -> Result<Node, StartError> {
    let machine_boot =
        std::fs::read_to_string(MACHINE_BOOT).map_err(system("cannot read the machine's boot id"))?;
    let config = &launch.config;
    let profile = Profile {
        nickname: config.nickname.to_string(),
        servername: config.servername.to_string(),
        address: config.address,
        port: u16::from(config.port),
        bandwidth: config.bandwidth,
        witness: config.witness,
    };
    let origin = match &launch.beginning {
        Beginning::Found => Origin::Found,
        Beginning::Join(host) => Origin::Join(contacts(host)?),
        Beginning::Resume => Origin::Resume,
    };
    let folder = launch.folder.path();
    let options = OpenOptions { machine_boot: machine_boot.trim().to_owned(), ..OpenOptions::default() };
    Ok(life::begin(folder, Arc::new(RealDisk), options, origin, profile, random, clock.now())?)
}

/// Where to ask to be taken in.
fn contacts(host: &HostPort) -> Result<Vec<SocketAddr>, StartError> {
    let port = host.port.saturating_add(NODE_PORT_OFFSET);
    let found = (host.host.as_str(), port).to_socket_addrs();
    let found: Vec<_> = found.map_err(|source| StartError::Contact { host: host.clone(), source })?.collect();
    Ok(found)
}

/// Random numbers for births, bodies and sessions, from the system.
fn random() -> Box<dyn FnMut() -> u64> {
    Box::new(|| {
        loop {
            // The system's source was read when the volcano started; it does not dry up.
            if let Ok(number) = getrandom::u64() {
                return number;
            }
        }
    })
}

async fn serve(
    launch: Launch,
    logging: Logging,
    cluster: ClusterKeys,
    node: Node,
    clock: Clock,
) -> Result<(), StartError> {
    let config = &launch.config;
    let address = SocketAddr::new(config.address, u16::from(config.port));
    let volcano = node.replica().volcano;
    let max_connections = DEFAULT_MAX_CONNECTIONS;
    let forwarder = Forwarder::new(&cluster, volcano)?;
    let edge = Edge::new(node, clock, forwarder);
    let peers = SocketAddr::new(config.address, u16::from(config.port) + NODE_PORT_OFFSET);
    edge.connect(NodeEndpoint::bind(peers, &cluster, volcano, edge.node_handler())?);
    let server = Server::bind(ServerConfig { address, keys: cluster, volcano: volcano.0, max_connections })?;
    let console = SocketAddr::new(config.console_address, u16::from(config.port) + CONSOLE_PORT_OFFSET);
    let console = TcpListener::bind(console)
        .await
        .map_err(|source| StartError::Console { address: console, source })?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let time = tokio::task::spawn_local(Rc::clone(&edge).tell_time());
    taken_in(&launch, &edge).await?;
    launch.commit()?;

    let closer = server.closer();
    let served = tokio::task::spawn_local(server.serve(edge.handler()));
    let administration = Administration::new(Rc::clone(&edge), logging);
    let consoles =
        tokio::task::spawn_local(run_console(launch.config.clone(), console, Rc::clone(&administration)));
    ready(&launch, address);

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        () = administration.shutdown_asked() => Ok("shutdown on the console"),
        stopped = edge.stopped() => match stopped {
            Stopped::Shutdown => Ok("the network stops"),
            Stopped::Failed(reason) => Err(StartError::Stopped(reason)),
        },
    };
    if let Ok(why) = &outcome {
        tracing::info!(target: "magma::boot", why, "stopping");
    }
    closer.close();
    for task in [consoles, time] {
        task.abort();
        // A task that was told to end has nothing left to say.
        drop(task.await);
    }
    drop(served.await);
    drop(administration);
    edge.disconnect().await;
    outcome?;
    close(edge).await
}

/// Waits until the volcano is part of a network: one that joins is so when the others say so.
async fn taken_in(launch: &Launch, edge: &Rc<Edge>) -> Result<(), StartError> {
    let Beginning::Join(host) = &launch.beginning else { return Ok(()) };
    let mut told = false;
    loop {
        let (is_member, refusal) =
            edge.look(|node| (node.topology().network != 0, node.not_taken().map(str::to_owned)));
        if is_member {
            return Ok(());
        }
        if let Some(reason) = refusal {
            return Err(StartError::NotTaken(reason));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!(target: "magma::boot", %host, "asking to be taken into the network");
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}

fn listen(kind: SignalKind) -> Result<Signal, StartError> {
    signal(kind).map_err(system("cannot listen for signals"))
}

fn ready(launch: &Launch, address: SocketAddr) {
    if let Some(announcement) = launch.announcement() {
        println!("{announcement}\n");
    }
    let VolcanoConfig { nickname, console_address, port, .. } = &launch.config;
    let console = SocketAddr::new(*console_address, u16::from(*port) + CONSOLE_PORT_OFFSET);
    println!(
        "magmad ready: {nickname} serves the flare protocol on UDP {address}, the console on TCP {console}"
    );
}

/// The console's file commands go through a client of this volcano, like any front end's.
async fn run_console(config: VolcanoConfig, listener: TcpListener, administration: Rc<Administration>) {
    let own = HostPort { host: config.address.to_string(), port: u16::from(config.port) };
    let name = format!("console of {}", config.nickname);
    let client =
        ClientConfig { hosts: vec![own], key: config.key.clone(), name, patience: Some(CONSOLE_PATIENCE) };
    match Client::connect(client).await {
        Ok(client) => {
            let console = ConsoleConfig::new(config.nickname, config.servername, config.key);
            console::serve(listener, console, administration, client).await;
        }
        Err(error) => {
            tracing::error!(target: "magma::boot", %error, "there is no console: it cannot reach its own volcano");
        }
    }
}

/// Everything on disk, and a mark that the stop was in order.
async fn close(edge: Rc<Edge>) -> Result<(), StartError> {
    // Syncs that are under way hold the edge until they have ended.
    let mut edge = edge;
    for _ in 0..CLOSE_ROUNDS {
        match Edge::into_node(edge) {
            Ok(node) => return Ok(node.close()?),
            Err(busy) => edge = busy,
        }
        tokio::time::sleep(CLOSE_PAUSE).await;
    }
    Err(StartError::Stopped("a sync did not end; the next start reads the log again".into()))
}
