//! The inodes that the kernel knows, and what we know of the pages it caches for them.
//!
//! The kernel names an inode by its number alone; the volcano wants the whole handle. The table holds
//! exactly the inodes that the kernel has looked up and not forgotten, so the kernel bounds it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fuser::{Errno, INodeNo};
use magma_common::attr::{Attr, Wcc, WccAttr};
use magma_common::handle::Handle;

use crate::reply::Outcome;
use crate::sync::locked;

/// How long a file made through this mount is known to bear no capability. The kernel itself remembers that for longer.
const NEWBORN: Duration = Duration::from_secs(1);

/// How long the kernel may take to drop pages after it was told to; an open that is answered meanwhile drops them again.
const SETTLING: Duration = Duration::from_millis(100);

/// The inodes that the kernel may name.
pub(crate) struct InodeTable {
    root: Handle,
    inodes: Mutex<HashMap<u64, Inode>>,
}

struct Inode {
    handle: Handle,
    /// The directory it was last seen in, for `..`.
    parent: Handle,
    /// References that the kernel holds; they come back in forgets.
    lookups: u64,
    /// The content that the kernel's pages show, if all of them show the same.
    content: Option<Content>,
    /// When the kernel was last told to drop its pages.
    dropped: Option<Instant>,
    /// The state whose attributes the kernel was last shown.
    shown: Option<u64>,
    /// When it was made through this mount.
    made: Option<Instant>,
}

/// Identifies a state of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    wcc: WccAttr,
    change: u64,
}

impl From<&Attr> for Content {
    fn from(attr: &Attr) -> Self {
        Self { wcc: WccAttr::from(attr), change: attr.change }
    }
}

impl InodeTable {
    /// A table whose root, inode 1 to the kernel, is this directory.
    pub(crate) fn new(root: Handle) -> Self {
        let inode = Inode {
            handle: root,
            parent: root,
            lookups: 1,
            content: None,
            dropped: None,
            shown: None,
            made: None,
        };
        Self { root, inodes: Mutex::new(HashMap::from([(INodeNo::ROOT.0, inode)])) }
    }

    /// The kernel's number for a flare.
    pub(crate) fn number(&self, handle: Handle) -> INodeNo {
        if handle == self.root { INodeNo::ROOT } else { INodeNo(handle.ino().0) }
    }

    /// The flare behind an inode; `ESTALE` makes the kernel look the path up again.
    pub(crate) fn handle(&self, number: INodeNo) -> Outcome<Handle> {
        locked(&self.inodes).get(&number.0).map(|inode| inode.handle).ok_or(Errno::ESTALE)
    }

    /// The directory a directory was last seen in; the root's is itself.
    pub(crate) fn parent(&self, handle: Handle) -> Handle {
        locked(&self.inodes).get(&self.number(handle).0).map_or(self.root, |inode| inode.parent)
    }

    /// Counts one reference that the kernel gets with the reply to a lookup.
    pub(crate) fn remember(&self, handle: Handle, parent: Handle) -> Outcome<INodeNo> {
        let number = self.number(handle);
        if number.0 == 0 || (number == INodeNo::ROOT && handle != self.root) {
            // One path in 2^63 hashes to a number that the kernel reserves.
            tracing::error!(target: "magma::mount", ?handle, "a flare bears a reserved inode number");
            return Err(Errno::EIO);
        }
        let mut inodes = locked(&self.inodes);
        let inode = inodes.entry(number.0).or_insert(Inode {
            handle,
            parent,
            lookups: 0,
            content: None,
            dropped: None,
            shown: None,
            made: None,
        });
        if inode.handle != handle {
            // Another flare was born with the key of one that died; the kernel tells them apart by generation.
            inode.handle = handle;
            inode.content = None;
            inode.shown = None;
            inode.made = None;
        }
        inode.parent = parent;
        inode.lookups = inode.lookups.saturating_add(1);
        Ok(number)
    }

    /// Takes references back.
    pub(crate) fn forget(&self, number: INodeNo, lookups: u64) {
        if number == INodeNo::ROOT {
            return;
        }
        let mut inodes = locked(&self.inodes);
        if let Some(inode) = inodes.get_mut(&number.0) {
            inode.lookups = inode.lookups.saturating_sub(lookups);
            if inode.lookups == 0 {
                inodes.remove(&number.0);
            }
        }
    }

    /// A rename put the flare into another directory.
    pub(crate) fn moved(&self, handle: Handle, parent: Handle) {
        self.with(handle, |inode| inode.parent = parent);
    }

    /// The file was made through this mount just now.
    pub(crate) fn made(&self, handle: Handle) {
        self.with(handle, |inode| inode.made = Some(Instant::now()));
    }

    /// An extended attribute was set through this mount.
    pub(crate) fn attributed(&self, handle: Handle) {
        self.with(handle, |inode| inode.made = None);
    }

    /// Whether the file is too young to have been given a capability.
    pub(crate) fn is_newborn(&self, handle: Handle) -> bool {
        self.with(handle, |inode| inode.made.is_some_and(|at| at.elapsed() < NEWBORN)).unwrap_or(false)
    }

    /// The kernel is being shown these attributes.
    pub(crate) fn shown(&self, attr: &Attr) {
        self.with(attr.handle, |inode| inode.shown = Some(attr.change));
    }

    /// Whether these are the attributes that the kernel was last shown.
    pub(crate) fn shows(&self, attr: &Attr) -> bool {
        self.with(attr.handle, |inode| inode.shown == Some(attr.change)).unwrap_or(false)
    }

    /// The file is being opened and has these attributes now: whether the kernel may keep the pages it has.
    pub(crate) fn keeps_pages(&self, attr: &Attr) -> bool {
        let now = Content::from(attr);
        self.with(attr.handle, |inode| {
            let same = inode.content.replace(now) == Some(now);
            let settled = inode.dropped.is_some_and(|at| at.elapsed() > SETTLING);
            if !same {
                inode.dropped = Some(Instant::now());
            }
            same && settled
        })
        .unwrap_or(false)
    }

    /// Our own write or truncation, which the kernel's pages show. If somebody else's came before it, they do not show that one.
    pub(crate) fn changed(&self, handle: Handle, wcc: &Wcc) {
        self.with(handle, |inode| {
            let known = inode.content.map(|content| content.wcc);
            inode.content = match &wcc.after {
                Some(after) if known.is_some() && known == wcc.before => Some(Content::from(after)),
                _ => None,
            };
        });
    }

    fn with<T>(&self, handle: Handle, act: impl FnOnce(&mut Inode) -> T) -> Option<T> {
        let mut inodes = locked(&self.inodes);
        inodes.get_mut(&self.number(handle).0).filter(|inode| inode.handle == handle).map(act)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::attr::Kind;
    use magma_common::handle::BirthNumber;
    use magma_common::key::BirthString;
    use magma_common::time::Timestamp;

    fn flare(name: &str, birth: u64) -> Handle {
        Handle { key: BirthString::root().child(name.as_bytes()).key(), birth: BirthNumber(birth) }
    }

    impl InodeTable {
        /// Lets the time pass in which the kernel drops pages.
        fn settle(&self, handle: Handle) {
            self.with(handle, |inode| inode.dropped = Instant::now().checked_sub(2 * SETTLING));
        }
    }

    fn file(handle: Handle, change: u64) -> Attr {
        let time = Timestamp::new(change.cast_signed(), 0).unwrap();
        Attr {
            handle,
            kind: Kind::File,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: change,
            used: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            change,
        }
    }

    #[test]
    fn an_inode_is_known_until_the_kernel_has_given_every_reference_back() {
        let table = InodeTable::new(Handle::root());
        let handle = flare("a", 5);
        let number = table.remember(handle, Handle::root()).unwrap();
        table.remember(handle, Handle::root()).unwrap();
        table.forget(number, 1);
        assert_eq!(table.handle(number).ok(), Some(handle));
        table.forget(number, 1);
        assert_eq!(table.handle(number).err(), Some(Errno::ESTALE));
    }

    #[test]
    fn the_root_is_inode_one_and_never_forgotten() {
        let table = InodeTable::new(flare("sub", 9));
        assert_eq!(table.number(flare("sub", 9)), INodeNo::ROOT);
        table.forget(INodeNo::ROOT, 100);
        assert_eq!(table.handle(INodeNo::ROOT).ok(), Some(flare("sub", 9)));
    }

    #[test]
    fn a_flare_born_again_under_the_same_key_replaces_the_dead_one() {
        let table = InodeTable::new(Handle::root());
        let number = table.remember(flare("a", 5), Handle::root()).unwrap();
        assert_eq!(table.remember(flare("a", 6), Handle::root()).unwrap(), number);
        assert_eq!(table.handle(number).ok(), Some(flare("a", 6)));
    }

    #[test]
    fn pages_are_kept_only_while_nobody_else_has_written() {
        let table = InodeTable::new(Handle::root());
        let handle = flare("a", 5);
        table.remember(handle, Handle::root()).unwrap();
        assert!(!table.keeps_pages(&file(handle, 1)), "nothing is known at the first open");
        assert!(!table.keeps_pages(&file(handle, 1)), "the first open may not have dropped its pages yet");
        table.settle(handle);
        assert!(table.keeps_pages(&file(handle, 1)));
        let own = Wcc { before: Some(WccAttr::from(&file(handle, 1))), after: Some(file(handle, 2)) };
        table.changed(handle, &own);
        assert!(table.keeps_pages(&file(handle, 2)), "our own write is in our pages");
        assert!(!table.keeps_pages(&file(handle, 3)), "somebody else's is not");
        let after_other = Wcc { before: Some(WccAttr::from(&file(handle, 4))), after: Some(file(handle, 5)) };
        table.changed(handle, &after_other);
        table.settle(handle);
        assert!(!table.keeps_pages(&file(handle, 5)), "our write came after somebody else's");
    }
}
