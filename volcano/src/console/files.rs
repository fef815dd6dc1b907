//! The file system as the console's commands see it: through the client library, as root.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use magma_common::attr::{Attr, Kind};
use magma_common::client::{Client, ClientConfig, Context};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::{Name, PATH_MAX};
use magma_common::proto::operation::{Getattr, Lookup, Read, ReadReply, Readlink};
use magma_common::proto::{Credentials, Durability, Failure, Operation};
use tokio::sync::OnceCell;

/// How long the console waits for one answer. An administrator would rather be told than wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most symbolic links on one path (`MAXSYMLINKS` in Linux).
const MAX_LINKS_FOLLOWED: usize = 40;
/// Most components of one path while links are followed.
const MAX_COMPONENTS: usize = 2 * PATH_MAX;

/// Flare operations; implemented by the client library, and by a model in tests.
pub(super) trait Files: Clone + 'static {
    /// Does an operation without payload.
    async fn call<O: Operation>(&self, operation: O) -> Result<O::Reply, Failure>;

    /// Reads.
    async fn read(&self, read: Read) -> Result<(ReadReply, Bytes), Failure>;
}

/// A client that is connected when it is needed first.
#[derive(Clone)]
pub(super) struct LateClient {
    config: Rc<ClientConfig>,
    client: Rc<OnceCell<Client>>,
}

impl LateClient {
    /// A client of these hosts, not connected yet.
    pub(super) fn new(config: ClientConfig) -> Self {
        Self { config: Rc::new(config), client: Rc::default() }
    }

    async fn client(&self) -> Result<&Client, Failure> {
        let connected = self.client.get_or_try_init(|| Client::connect((*self.config).clone())).await;
        connected.map_err(|error| {
            tracing::debug!(target: "magma::network", %error, "the console cannot reach the files");
            FlareError::Unavailable.into()
        })
    }
}

impl Files for LateClient {
    async fn call<O: Operation>(&self, operation: O) -> Result<O::Reply, Failure> {
        self.client().await?.call(&context(), operation).await
    }

    async fn read(&self, read: Read) -> Result<(ReadReply, Bytes), Failure> {
        self.client().await?.read(&context(), read).await
    }
}

fn context() -> Context {
    Context {
        credentials: Arc::new(Credentials::ROOT),
        durability: Durability::Replicated,
        deadline: Instant::now().checked_add(PATIENCE),
        call: None,
    }
}

/// A place in the tree: the way from the root to it, symbolic links resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    steps: Vec<(Name, Handle)>,
}

impl Place {
    /// The flare there.
    pub(super) fn handle(&self) -> Handle {
        self.steps.last().map_or_else(Handle::root, |(_, handle)| *handle)
    }

    /// Its name and directory; `None` for the root.
    pub(super) fn entry(&self) -> Option<(Handle, &Name)> {
        let (last, before) = self.steps.split_last()?;
        Some((before.last().map_or_else(Handle::root, |(_, handle)| *handle), &last.0))
    }

    /// The absolute path in bytes.
    pub(super) fn path(&self) -> Vec<u8> {
        if self.steps.is_empty() {
            return b"/".to_vec();
        }
        self.steps.iter().flat_map(|(name, _)| [b"/", name.as_bytes()].concat()).collect()
    }
}

/// What a path leads to, and what it is.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Where.
    pub(super) place: Place,
    /// What.
    pub(super) attr: Attr,
}

/// Follows a path from a place. Symbolic links on the way are followed, one at the end only with `follow`.
pub(super) async fn walk(
    files: &impl Files,
    from: &Place,
    path: &[u8],
    follow: bool,
) -> Result<Found, FlareError> {
    if path.len() > PATH_MAX {
        return Err(FlareError::NameTooLong);
    }
    let mut steps = if path.starts_with(b"/") { Vec::new() } else { from.steps.clone() };
    let mut pending: VecDeque<Bytes> = components(path).collect();
    let must_be_directory = path.ends_with(b"/") || path.ends_with(b"/.");
    let mut links = 0;
    let mut last: Option<Attr> = None;
    while let Some(component) = pending.pop_front() {
        let here = steps.last().map_or_else(Handle::root, |(_, handle): &(Name, Handle)| *handle);
        match &component[..] {
            b"." => continue,
            b".." => {
                if last.take().is_some_and(|attr| attr.kind != Kind::Directory) {
                    return Err(FlareError::NotDirectory);
                }
                steps.pop();
                continue;
            }
            _ => {}
        }
        let name = Name::new(component)?;
        let attr =
            files.call(Lookup { dir: here, name: name.clone() }).await.map_err(|failure| failure.error)?.attr;
        if attr.kind == Kind::Symlink && (follow || !pending.is_empty() || must_be_directory) {
            links += 1;
            let link = files.call(Readlink { handle: attr.handle }).await.map_err(|failure| failure.error)?;
            if link.target.starts_with(b"/") {
                steps.clear();
            }
            let target: Vec<Bytes> = components(&link.target).collect();
            if links > MAX_LINKS_FOLLOWED || pending.len() + target.len() > MAX_COMPONENTS {
                return Err(FlareError::SymlinkLoop);
            }
            target.into_iter().rev().for_each(|component| pending.push_front(component));
            last = None;
        } else {
            steps.push((name, attr.handle));
            last = Some(attr);
        }
    }
    let place = Place { steps };
    let attr = match last {
        Some(attr) => attr,
        None => files.call(Getattr { handle: place.handle() }).await.map_err(|failure| failure.error)?,
    };
    if must_be_directory && attr.kind != Kind::Directory {
        return Err(FlareError::NotDirectory);
    }
    Ok(Found { place, attr })
}

fn components(path: &[u8]) -> impl Iterator<Item = Bytes> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).map(Bytes::copy_from_slice)
}
