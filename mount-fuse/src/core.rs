//! What all operations of one mount share.

use std::sync::OnceLock;
use std::time::Duration;

use fuser::{Generation, INodeNo, Notifier};
use magma_common::attr::Attr;
use magma_common::client::Client;
use magma_common::handle::{BirthNumber, Handle};

use crate::held::HeldLocks;
use crate::inode::InodeTable;
use crate::open::{OpenFile, OpenTable};
use crate::operation::directory::OpenDir;
use crate::recent::RecentDirectories;
use crate::reply::{Attributes, Entry, Outcome, file_attr};

/// How long the kernel may believe what it was told, and how it reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caching {
    /// How long attributes are believed.
    pub attributes: Duration,
    /// How long names are believed.
    pub names: Duration,
    /// How long absent names are believed to be absent; zero for not at all.
    pub absent_names: Duration,
    /// No file's pages are cached: each read and write goes to the volcano.
    pub direct_io: bool,
}

/// The offset that invalidates attributes and no pages.
const ATTRIBUTES_ONLY: i64 = -1;

/// The longest that attributes and names may be believed: the client library's own grants are not longer.
pub const MAX_TTL: Duration = Duration::from_secs(1);

impl Default for Caching {
    fn default() -> Self {
        Self { attributes: MAX_TTL, names: MAX_TTL, absent_names: Duration::ZERO, direct_io: false }
    }
}

/// One mount: the client, and what the kernel knows and holds.
pub(crate) struct Core {
    pub(crate) client: Client,
    pub(crate) root: Handle,
    pub(crate) caching: Caching,
    pub(crate) inodes: InodeTable,
    pub(crate) files: OpenTable<OpenFile>,
    pub(crate) directories: OpenTable<OpenDir>,
    pub(crate) locks: HeldLocks,
    pub(crate) recent: RecentDirectories,
    kernel: OnceLock<Notifier>,
}

impl Core {
    /// A mount of the tree below `root`.
    pub(crate) fn new(client: Client, root: Handle, caching: Caching) -> Self {
        Self {
            client,
            root,
            caching,
            inodes: InodeTable::new(root),
            files: OpenTable::default(),
            directories: OpenTable::default(),
            locks: HeldLocks::default(),
            recent: RecentDirectories::default(),
            kernel: OnceLock::new(),
        }
    }

    /// From now on the kernel can be told that it is out of date.
    pub(crate) fn tell(&self, kernel: Notifier) {
        if self.kernel.set(kernel).is_err() {
            tracing::error!(target: "magma::mount", "a mount was attached twice");
        }
    }

    /// Makes the kernel ask for a file's attributes before it uses them again, if it was shown others.
    ///
    /// An open is answered without attributes, and reads are cut at the size that the kernel believes: without this, who opens
    /// a file could read the old length of new content. This notification takes no lock that an operation may
    /// hold (it touches no pages and no names), so it is sent from here.
    pub(crate) fn refresh(&self, attr: &Attr) {
        if !self.inodes.shows(attr) {
            self.forget_attributes(attr.handle);
        }
    }

    /// Makes the kernel ask for a file's attributes before it uses them again. If others have written, it lets its pages go, too.
    pub(crate) fn forget_attributes(&self, handle: Handle) {
        let Some(kernel) = self.kernel.get() else { return };
        match kernel.inval_inode(self.inodes.number(handle), ATTRIBUTES_ONLY, 0) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                tracing::debug!(target: "magma::mount", %error, "the kernel was not told of new attributes");
            }
            _ => {}
        }
    }

    /// The flare behind an inode.
    pub(crate) fn handle(&self, number: INodeNo) -> Outcome<Handle> {
        self.inodes.handle(number)
    }

    /// The reply that shows attributes. Every door shows the same number for a flare, the mount's root included.
    pub(crate) fn attributes(&self, attr: &Attr) -> Attributes {
        self.inodes.shown(attr);
        Attributes {
            attr: file_attr(attr, INodeNo(attr.handle.ino().0)),
            ttl: believed(attr.handle, self.caching.attributes),
        }
    }

    /// The reply that hands a flare out by name; counts the reference that the kernel gets with it.
    pub(crate) fn entry(&self, attr: &Attr, parent: Handle) -> Outcome<Entry> {
        let number = self.inodes.remember(attr.handle, parent)?;
        self.inodes.shown(attr);
        Ok(Entry {
            attr: file_attr(attr, number),
            generation: Generation(attr.handle.birth.0),
            attributes_ttl: believed(attr.handle, self.caching.attributes),
            name_ttl: believed(attr.handle, self.caching.names),
        })
    }
}

/// What lies under `/.dht` is made when it is read, so nothing of it is believed for any time.
pub(crate) fn believed(handle: Handle, ttl: Duration) -> Duration {
    if handle.birth == BirthNumber::INTERNAL { Duration::ZERO } else { ttl }
}
