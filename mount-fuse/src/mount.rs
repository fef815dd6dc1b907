//! One mount from beginning to end.

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::BackgroundSession;
use magma_common::attr::Kind;
use magma_common::client::{Client, ClientConfig, ConnectError, Context};
use magma_common::handle::Handle;
use magma_common::proto::{Credentials, Durability, Failure};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::core::Core;
use crate::filesystem::MagmaFs;
use crate::kernel_mount::{AttachError, attach, raise_read_ahead, unmount};
use crate::options::MountOptions;
use crate::source::Source;

/// How long the end of the session with the volcano may take; it ends by itself when nothing is heard from us.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// How long the directory to mount is looked for.
const WALK_LIMIT: Duration = Duration::from_secs(30);

/// What to mount, where and how.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// How to reach the network.
    pub client: ClientConfig,
    /// The directory of the network to mount; empty for its root.
    pub path: String,
    /// Where.
    pub mountpoint: PathBuf,
    /// How.
    pub options: MountOptions,
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is not there.
    #[error("cannot mount on {}: {reason}", mountpoint.display())]
    MountPoint {
        /// Where.
        mountpoint: PathBuf,
        /// Why not.
        #[source]
        reason: io::Error,
    },
    /// No volcano.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The directory to mount is not there.
    #[error("cannot mount /{path} of the network: {reason}")]
    Path {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        reason: Box<Failure>,
    },
    /// What is to be mounted is a file.
    #[error("cannot mount /{0} of the network: it is not a directory")]
    NotDirectory(String),
    /// The kernel refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// No thread, no runtime.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// A mount that stands. Dropping it unmounts.
pub struct MountHandle {
    mountpoint: PathBuf,
    session: Option<BackgroundSession>,
    client: Option<ClientThread>,
}

/// Connects, mounts, and returns when the mount can be used.
pub fn run_mount(config: &MountConfig) -> Result<MountHandle, MountError> {
    let mountpoint = config
        .mountpoint
        .canonicalize()
        .map_err(|reason| MountError::MountPoint { mountpoint: config.mountpoint.clone(), reason })?;
    let (thread, client, root) = ClientThread::start(config)?;
    let core = Arc::new(Core::new(client, root, config.options.caching));
    let filesystem = MagmaFs::new(Arc::clone(&core), thread.runtime.clone());
    let source = match &config.options.source_name {
        Some(name) => name.clone(),
        None => Source::display(&config.client.hosts, &config.path),
    };
    let session = attach(filesystem, &mountpoint, &source, &config.options)?;
    core.tell(session.notifier());
    let session = session.spawn()?;
    let handle = MountHandle { mountpoint, session: Some(session), client: Some(thread) };
    if let Err(error) = raise_read_ahead(&handle.mountpoint, config.options.read_ahead_kib) {
        tracing::warn!(target: "magma::mount", %error, "the kernel's read-ahead stays as it is");
    }
    Ok(handle)
}

impl MountHandle {
    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Unmounts and ends the session with the volcano. Fails while files are open.
    pub fn unmount(mut self) -> io::Result<()> {
        unmount(&self.mountpoint, false)?;
        self.finish()
    }

    /// Waits until it is unmounted, or until a signal to end comes; then it unmounts, whether files are open or not.
    pub fn wait(mut self) -> io::Result<()> {
        tracing::info!(target: "magma::mount", mountpoint = %self.mountpoint.display(), "mounted");
        let (told, events) = mpsc::channel();
        if let Some(client) = &self.client {
            client.tell_of_signals(told.clone())?;
        }
        let session = self.session.take().map(|session| {
            std::thread::Builder::new().name("magma-session".to_owned()).spawn(move || {
                let outcome = session.join();
                // Nobody listens any more when a signal came first.
                drop(told.send(Event::Unmounted));
                outcome
            })
        });
        let session = session.transpose()?;
        while let Ok(Event::Signal) = events.recv() {
            match unmount(&self.mountpoint, false) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    tracing::warn!(target: "magma::mount", "programs have files open here; they will get errors");
                    unmount(&self.mountpoint, true)?;
                    return self.finish();
                }
                outcome => outcome?,
            }
        }
        let outcome = session.map_or(Ok(()), join_thread);
        tracing::info!(target: "magma::mount", mountpoint = %self.mountpoint.display(), "unmounted");
        self.finish().and(outcome)
    }

    /// Waits for the kernel to let go, then ends the client.
    fn finish(&mut self) -> io::Result<()> {
        let outcome = self.session.take().map_or(Ok(()), BackgroundSession::join);
        if let Some(client) = self.client.take() {
            client.stop();
        }
        outcome
    }
}

impl Drop for MountHandle {
    fn drop(&mut self) {
        if self.session.is_none() {
            return;
        }
        if let Err(error) = unmount(&self.mountpoint, true) {
            tracing::warn!(target: "magma::mount", %error, mountpoint = %self.mountpoint.display(), "cannot unmount");
        }
        // The session's threads end with the last open file; nothing waits for them here.
        self.session = None;
        if let Some(client) = self.client.take() {
            client.stop();
        }
    }
}

enum Event {
    Signal,
    Unmounted,
}

fn join_thread(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_panic| Err(io::Error::other("a thread of the mount panicked")))
}

/// The thread that the client and all operations run on: one runtime, which never blocks.
struct ClientThread {
    runtime: tokio::runtime::Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ClientThread {
    fn start(config: &MountConfig) -> Result<(Self, Client, Handle), MountError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, connected) = mpsc::channel();
        let config = config.clone();
        let thread = std::thread::Builder::new().name("magma-client".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let outcome = connect(&config).await;
                let client = outcome.as_ref().ok().map(|(client, _)| client.clone());
                if ready.send(outcome).is_err() {
                    return;
                }
                // A dropped sender means the same as a message.
                stopped.await.unwrap_or(());
                if let Some(client) = client
                    && timeout(CLOSE_LIMIT, client.close()).await.is_err()
                {
                    tracing::warn!(target: "magma::mount", "the volcano does not answer; our session there will run out");
                }
            });
        })?;
        let lost = || io::Error::other("the client's thread ended before it was connected");
        let (client, root) = connected.recv().map_err(|_| lost())??;
        Ok((Self { runtime: handle, stop, thread }, client, root))
    }

    /// Sends an event when the process is asked to end.
    fn tell_of_signals(&self, told: mpsc::Sender<Event>) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = self.runtime.enter();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        self.runtime.spawn(async move {
            loop {
                tokio::select! {
                    Some(()) = terminate.recv() => {}
                    Some(()) = interrupt.recv() => {}
                    else => pending().await,
                }
                if told.send(Event::Signal).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    fn stop(self) {
        if self.stop.send(()).is_err() {
            tracing::debug!(target: "magma::mount", "the client's thread has ended already");
        }
        if self.thread.join().is_err() {
            tracing::error!(target: "magma::mount", "the client's thread panicked");
        }
    }
}

/// Connects and finds the directory to mount.
async fn connect(config: &MountConfig) -> Result<(Client, Handle), MountError> {
    let client = Client::connect(config.client.clone()).await?;
    if config.path.is_empty() {
        return Ok((client, Handle::root()));
    }
    let context = Context {
        credentials: Arc::new(Credentials::ROOT),
        durability: Durability::Replicated,
        deadline: Some(std::time::Instant::now() + WALK_LIMIT),
        call: None,
    };
    let failed = |reason| MountError::Path { path: config.path.clone(), reason: Box::new(reason) };
    let attr = client.walk(&context, config.path.as_bytes()).await.map_err(failed)?;
    if attr.kind != Kind::Directory {
        return Err(MountError::NotDirectory(config.path.clone()));
    }
    Ok((client, attr.handle))
}
