//! From the command line to a serving volcano, and back down again.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use magma_common::auth::{ClusterKeys, KeyError};
use magma_common::client::{Client, ClientConfig, HostPort};
use magma_common::key::KeyRange;
use magma_common::logging::{Logging, LoggingError};
use magma_common::options::Surroundings;
use magma_common::topology::{
    BootId, CONSOLE_PORT_OFFSET, Epoch, Member, Replica, Slice as SliceOfRing, SliceId, Topology, VolcanoId,
};
use magma_common::transport::SetupError;
use magma_common::transport::server::{DEFAULT_MAX_CONNECTIONS, Server, ServerConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

use crate::administration::Administration;
use crate::cli::{Cli, CliError, Launch};
use crate::config::{FolderError, VolcanoConfig};
use crate::console::{self, ConsoleConfig};
use crate::server::{Clock, Edge};
use crate::slice::{Identity, Slice};
use crate::store::{OpenError, OpenOptions, Opened, RealDisk, Store, StoreError};

/// Under this name the store keeps the topology.
const TOPOLOGY: &str = "topology";
/// Names this run of the machine.
const MACHINE_BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Threads that wait for the disk: for reads that are not in memory, and for syncs.
const DISK_THREADS: usize = 64;
/// How long a console's command waits for its volcano.
const CONSOLE_PATIENCE: Duration = Duration::from_secs(30);
/// How often, and how long apart, a stop looks whether the last sync has ended.
const CLOSE_ROUNDS: u32 = 600;
const CLOSE_PAUSE: Duration = Duration::from_millis(50);

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
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
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
    /// The topology in the store does not decode.
    #[error("the topology in the store is damaged; restore the folder from a copy")]
    Topology,
    /// The folder's configuration and its store speak of different volcanos.
    #[error("the store names no slice for this volcano; its folder was mixed up with another one's")]
    NoSlice,
    /// Something of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
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
    let slice = open(&launch, clock)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(DISK_THREADS)
        .build()
        .map_err(system("cannot start a runtime"))?;
    LocalSet::new().block_on(&runtime, serve(launch, logging, cluster, slice, clock))
}

/// Opens the store and makes this start known in its topology: a restart ends membership, so every start is a new
/// boot in a new epoch.
fn open(launch: &Launch, clock: Clock) -> Result<Slice, StartError> {
    let machine_boot =
        std::fs::read_to_string(MACHINE_BOOT).map_err(system("cannot read the machine's boot id"))?;
    let options = OpenOptions {
        create: launch.bootstrap,
        machine_boot: machine_boot.trim().to_owned(),
        ..OpenOptions::default()
    };
    let (mut store, opened) = Store::open(launch.folder.path(), Arc::new(RealDisk), options)?;
    let topology = begin_epoch(&store, &opened, launch)?;
    let encoded = postcard::to_stdvec(&topology).map_err(|_| StartError::Topology)?;
    store.set_meta(TOPOLOGY, &encoded)?;
    let member = topology.members.first().ok_or(StartError::NoSlice)?;
    let own =
        topology.slices.iter().find(|slice| slice.primary == member.replica()).ok_or(StartError::NoSlice)?;
    let identity = Identity { slice: own.id, volcano: member.id, boot: member.boot };
    announce(&opened, launch.folder.path(), &topology);
    let mut slice =
        Slice::new(identity, topology, store, opened, random(), clock.now()).map_err(StoreError::from)?;
    slice.found(clock.now())?;
    Ok(slice)
}

fn announce(opened: &Opened, folder: &Path, topology: &Topology) {
    tracing::info!(
        target: "magma::boot",
        folder = %folder.display(), flares = opened.flares, replayed = opened.replayed, clean = opened.clean,
        topology = topology.version, "the store is open"
    );
    if opened.may_have_lost_unsynced() {
        tracing::warn!(
            target: "magma::boot",
            "the machine stopped without warning: what was written but not synced may be gone; everything synced is here"
        );
    }
}

fn begin_epoch(store: &Store, opened: &Opened, launch: &Launch) -> Result<Topology, StartError> {
    let config = &launch.config;
    let stored = store.meta(TOPOLOGY);
    let mut topology = match &stored {
        Some(bytes) => postcard::from_bytes::<Topology>(bytes).map_err(|_| StartError::Topology)?,
        None => new_network()?,
    };
    topology.version += 1;
    topology.loss_counter += u64::from(opened.may_have_lost_unsynced());
    for member in &mut topology.members {
        member.boot = BootId(getrandom::u64()?);
        member.nickname = config.nickname.to_string();
        member.servername = config.servername.to_string();
        member.address = config.address;
        member.port = u16::from(config.port);
        member.bandwidth = config.bandwidth;
    }
    let epoch = Epoch(topology.version);
    let own = topology.members.first().ok_or(StartError::NoSlice)?.replica();
    for slice in &mut topology.slices {
        slice.epoch = epoch;
        slice.primary = own;
    }
    Ok(topology)
}

/// A network of one: a ring with one slice.
fn new_network() -> Result<Topology, StartError> {
    let id = VolcanoId(getrandom::u64()?);
    let mut handle_key = [0; 32];
    getrandom::fill(&mut handle_key)?;
    Ok(Topology {
        version: 0,
        network: getrandom::u64()?,
        lineage: getrandom::u64()?,
        loss_counter: 0,
        members: vec![Member {
            id,
            boot: BootId(0),
            nickname: String::new(),
            servername: String::new(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            port: 0,
            bandwidth: 0,
            witness: false,
            leaving: false,
        }],
        slices: vec![SliceOfRing {
            id: SliceId(1),
            range: KeyRange::ALL,
            epoch: Epoch(0),
            primary: Replica { volcano: id, boot: BootId(0) },
            mirrors: Vec::new(),
            joining: Vec::new(),
        }],
        handle_key,
        copies: 1,
        voters: vec![id],
    })
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
    slice: Slice,
    clock: Clock,
) -> Result<(), StartError> {
    let config = &launch.config;
    let address = SocketAddr::new(config.address, u16::from(config.port));
    let volcano = slice.identity().volcano.0;
    let max_connections = DEFAULT_MAX_CONNECTIONS;
    let server = Server::bind(ServerConfig { address, keys: cluster, volcano, max_connections })?;
    let console = SocketAddr::new(config.console_address, u16::from(config.port) + CONSOLE_PORT_OFFSET);
    let console = TcpListener::bind(console)
        .await
        .map_err(|source| StartError::Console { address: console, source })?;
    launch.commit()?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;

    let closer = server.closer();
    let edge = Edge::new(slice, clock);
    let served = tokio::task::spawn_local(server.serve(edge.handler()));
    let time = tokio::task::spawn_local(Rc::clone(&edge).tell_time());
    let administration = Administration::new(Rc::clone(&edge), logging);
    let consoles =
        tokio::task::spawn_local(run_console(launch.config.clone(), console, Rc::clone(&administration)));
    ready(&launch, address);

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        () = administration.shutdown_asked() => Ok("shutdown on the console"),
        reason = edge.stopped() => Err(StartError::Stopped(reason)),
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
    outcome?;
    close(edge).await
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
        match Edge::into_slice(edge) {
            Ok(slice) => return Ok(slice.close()?),
            Err(busy) => edge = busy,
        }
        tokio::time::sleep(CLOSE_PAUSE).await;
    }
    Err(StartError::Stopped("a sync did not end; the next start reads the log again".into()))
}
