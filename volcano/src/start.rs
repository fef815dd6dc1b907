//! From the command line to a serving volcano, and back down again.

mod joining;

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use magma_common::auth::{ClientKeys, ClusterKeys, KeyError};
use magma_common::client::{ClientConfig, ConnectError, HostPort};
use magma_common::logging::{Logging, LoggingError};
use magma_common::options::Surroundings;
use magma_common::topology::{CONSOLE_PORT_OFFSET, NODE_PORT_OFFSET, VolcanoId};
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
/// Between two looks at whom the slices wait for. A start in order never waits so long.
const WAIT_PAUSE: Duration = Duration::from_secs(2);
/// A volcano that was forgotten goes on for so long, for its consoles.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// The exit code of a start in a folder that has left its network: trying again is in vain.
const EXIT_LEFT: u8 = 3;

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
    /// The host to join does not go with this volcano.
    #[error("cannot join: {0}")]
    Join(#[from] ConnectError),
    /// The operator has stopped it before it was taken in.
    #[error("stopped by a signal before the network had taken it in; start it again with -r")]
    Interrupted,
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

impl StartError {
    /// The process's exit code: 3 if the folder has left its network, so that no service manager tries again, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Folder(FolderError::Left(_)) | Self::Cli(CliError::Folder(FolderError::Left(_))) => {
                EXIT_LEFT
            }
            _ => 1,
        }
    }
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
    let keys = Keys { client: keys.client().clone(), cluster };
    LocalSet::new().block_on(&runtime, serve(launch, logging, keys, node, clock))
}

/// What the key of the network is stretched to.
struct Keys {
    client: ClientKeys,
    cluster: ClusterKeys,
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
        Beginning::Found { slices, stripes } => Origin::Found { slices: *slices, stripes: *stripes },
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
    keys: Keys,
    node: Node,
    clock: Clock,
) -> Result<(), StartError> {
    let config = &launch.config;
    let Keys { client, cluster } = keys;
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
    let mut signals = Signals::listen()?;
    let time = tokio::task::spawn_local(Rc::clone(&edge).tell_time());
    tokio::select! {
        taken = joining::taken_in(&launch, &edge, &client) => taken?,
        _ = signals.any() => return Err(StartError::Interrupted),
    }
    launch.commit()?;

    let closer = server.closer();
    let served = tokio::task::spawn_local(server.serve(edge.handler()));
    let administration = Administration::new(Rc::clone(&edge), logging);
    let consoles =
        tokio::task::spawn_local(run_console(launch.config.clone(), console, Rc::clone(&administration)));
    ready(&launch, address);
    let waits = tokio::task::spawn_local(say_whom_we_wait_for(Rc::clone(&edge)));

    let outcome = tokio::select! {
        signal = signals.any() => Ok(signal),
        () = administration.shutdown_asked() => Ok("shutdown of this volcano on the console"),
        stopped = edge.stopped() => match stopped {
            Stopped::Shutdown => Ok("the network stops"),
            Stopped::Forgotten => {
                // Who asked for it at this volcano's console is told so.
                tokio::time::sleep(LAST_WORDS).await;
                Ok("the network has forgotten this volcano")
            }
            Stopped::Failed(reason) => Err(StartError::Stopped(reason)),
        },
    };
    if let Ok(why) = &outcome {
        tracing::info!(target: "magma::boot", why, "stopping");
    }
    closer.close();
    for task in [consoles, time, waits] {
        task.abort();
        // A task that was told to end has nothing left to say.
        drop(task.await);
    }
    drop(served.await);
    drop(administration);
    edge.disconnect().await;
    outcome?;
    let is_forgotten = edge.look(Node::is_forgotten);
    close(edge).await?;
    if is_forgotten { retire(&launch) } else { Ok(()) }
}

/// The network has forgotten this volcano.
fn retire(launch: &Launch) -> Result<(), StartError> {
    launch.folder.retire()?;
    println!(
        "{} has left the network, which has all that it had. {} is not needed any more: remove it, or join again with -r, \
         which empties it first.",
        launch.config.nickname,
        launch.folder.path().display()
    );
    Ok(())
}

/// Says for whom slices wait after everybody has started anew, as long as it does.
async fn say_whom_we_wait_for(edge: Rc<Edge>) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(WAIT_PAUSE).await;
        let awaited = edge.look(|node| {
            let nickname = |id| node.topology().member(id).map(|member| member.nickname.clone());
            let awaited: BTreeSet<VolcanoId> =
                node.slices().iter().flat_map(|slice| slice.waits_for()).collect();
            let awaited: Vec<String> = awaited.into_iter().filter_map(nickname).collect();
            awaited.join(" and ")
        });
        if awaited == said {
            continue;
        }
        if awaited.is_empty() {
            println!("nobody is waited for any more");
        } else {
            println!("waiting for {awaited}, which has the other copy; nothing is served until it is back");
        }
        said = awaited;
    }
}

/// The signals that stop a volcano.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, StartError> {
        let listen = |kind| signal(kind).map_err(system("cannot listen for signals"));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn ready(launch: &Launch, address: SocketAddr) {
    if let Some(announcement) = launch.announcement() {
        println!("{announcement}\n");
    }
    let VolcanoConfig { nickname, console_address, port, witness, .. } = &launch.config;
    let console = SocketAddr::new(*console_address, u16::from(*port) + CONSOLE_PORT_OFFSET);
    if *witness {
        println!("{nickname} is a witness: it votes on who serves what, and stores nothing");
    }
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
    let console = ConsoleConfig::new(config.nickname, config.servername, config.key);
    console::serve(listener, console, administration, client).await;
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
