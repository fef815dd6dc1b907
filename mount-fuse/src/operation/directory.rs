//! Directories: opendir, readdir, readdirplus.
//!
//! Opening a directory fetches the first page of its listing: one message checks the permission to read it and
//! brings what most callers ask for next. Later pages are fetched whole and handed out in the kernel's portions.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use fuser::{
    Errno, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus,
};
use magma_common::client::Context;
use magma_common::handle::Handle;
use magma_common::proto::operation::{Dirent, Readdir};
use tokio::sync::Mutex;

use crate::core::{Core, believed};
use crate::reply::{Opened, Outcome, failed, file_attr, file_type, unknown_attr};

/// Entries fetched when a directory is opened, and with each page after that.
const FIRST_PAGE: u32 = 128;
const NEXT_PAGE: u32 = 1024;
/// How long a fetched page may be handed out; the kernel believes its attributes for as long again.
const PAGE_TTL: Duration = Duration::from_secs(1);
/// Positions of `.` and `..`; those of entries lie above.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// An open directory.
pub(crate) struct OpenDir {
    handle: Handle,
    page: Mutex<Page>,
}

/// Part of a listing: all entries at positions above `after`, up to the last one here.
struct Page {
    after: u64,
    entries: Vec<Dirent>,
    eof: bool,
    fetched: Instant,
    /// The beginning was handed out: a program that rewinds wants to see the directory anew.
    begun: bool,
}

impl Page {
    /// The entries above a position, if this page can tell.
    fn from(&self, position: u64, now: Instant) -> Option<&[Dirent]> {
        let last = self.entries.last().map_or(self.after, |entry| entry.cookie);
        if position < self.after || position > last || now.saturating_duration_since(self.fetched) > PAGE_TTL
        {
            return None;
        }
        let index = self.entries.partition_point(|entry| entry.cookie <= position);
        let rest = self.entries.get(index..)?;
        (!rest.is_empty() || self.eof).then_some(rest)
    }
}

/// The kernel's buffer for a listing: with attributes or without.
pub(crate) trait Listing: Send + 'static {
    /// Whether the kernel takes a reference to each entry.
    const PLUS: bool;

    /// Adds `.` or `..`; false if it does not fit.
    fn add_dot(&mut self, ino: u64, position: u64, name: &str) -> bool;
    /// Adds an entry; false if it does not fit.
    fn add_entry(&mut self, core: &Core, entry: &Dirent) -> bool;
    /// Sends what was added.
    fn send(self);
    /// Sends an error.
    fn fail(self, errno: Errno);
}

impl Listing for ReplyDirectory {
    const PLUS: bool = false;

    fn add_dot(&mut self, ino: u64, position: u64, name: &str) -> bool {
        !self.add(INodeNo(ino), position, FileType::Directory, name)
    }

    fn add_entry(&mut self, _core: &Core, entry: &Dirent) -> bool {
        let name = OsStr::from_bytes(entry.name.as_bytes());
        !self.add(INodeNo(entry.handle.ino().0), entry.cookie, file_type(entry.kind), name)
    }

    fn send(self) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Listing for ReplyDirectoryPlus {
    const PLUS: bool = true;

    fn add_dot(&mut self, ino: u64, position: u64, name: &str) -> bool {
        let attr = unknown_attr(INodeNo(ino), FileType::Directory);
        !self.add(INodeNo(ino), position, name, &Duration::ZERO, &attr, Generation(0))
    }

    fn add_entry(&mut self, core: &Core, entry: &Dirent) -> bool {
        let ino = INodeNo(entry.handle.ino().0);
        let (attr, ttl) = match &entry.attr {
            Some(attr) => (file_attr(attr, ino), core.caching.attributes.min(core.caching.names)),
            // The kernel asks for the attributes before it shows them.
            None => (unknown_attr(ino, file_type(entry.kind)), Duration::ZERO),
        };
        let ttl = believed(entry.handle, ttl);
        let name = OsStr::from_bytes(entry.name.as_bytes());
        !self.add(ino, entry.cookie, name, &ttl, &attr, Generation(entry.handle.birth.0))
    }

    fn send(self) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Core {
    pub(crate) async fn opendir(&self, context: Context, number: INodeNo) -> Outcome<Opened> {
        let handle = self.handle(number)?;
        let page = self.fetch_page(&context, handle, 0, FIRST_PAGE, false).await?;
        let number = self.directories.insert(OpenDir { handle, page: Mutex::new(page) });
        Ok(Opened { number, flags: FopenFlags::empty() })
    }

    pub(crate) fn releasedir(&self, number: FileHandle) -> Outcome<()> {
        self.directories.remove(number).map(drop).ok_or(Errno::EBADF)
    }

    /// Fills the kernel's buffer with the entries above a position, as far as they fit.
    pub(crate) async fn list(
        &self,
        context: &Context,
        open: FileHandle,
        position: u64,
        listing: &mut impl Listing,
    ) -> Outcome<()> {
        let dir = self.directories.of(open)?;
        let mut page = dir.page.lock().await;
        if position == 0 && page.begun {
            *page = self.fetch_page(context, dir.handle, 0, FIRST_PAGE, true).await?;
        }
        page.begun |= position == 0;
        if !self.list_dots(dir.handle, position, listing) {
            return Ok(());
        }
        // Positions up to that of `..` lie before every entry.
        let mut position = if position <= DOT_DOT { 0 } else { position };
        let mut added = false;
        loop {
            if page.from(position, Instant::now()).is_none() {
                // What was added so far goes out rather than be lost to an error.
                match self.fetch_page(context, dir.handle, position, NEXT_PAGE, true).await {
                    Ok(next) => *page = Page { begun: page.begun, ..next },
                    Err(_) if added => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            let rest = page.from(position, Instant::now()).unwrap_or_default();
            for entry in rest {
                if !self.list_entry(dir.handle, entry, listing)? {
                    return Ok(());
                }
                position = entry.cookie;
                added = true;
            }
            if rest.is_empty() || page.eof {
                return Ok(());
            }
        }
    }

    fn list_dots(&self, dir: Handle, position: u64, listing: &mut impl Listing) -> bool {
        let parent = self.inodes.parent(dir);
        (position >= DOT || listing.add_dot(dir.ino().0, DOT, "."))
            && (position >= DOT_DOT || listing.add_dot(parent.ino().0, DOT_DOT, ".."))
    }

    fn list_entry<L: Listing>(&self, dir: Handle, entry: &Dirent, listing: &mut L) -> Outcome<bool> {
        let added = listing.add_entry(self, entry);
        if added && L::PLUS {
            self.inodes.remember(entry.handle, dir)?;
        }
        Ok(added)
    }

    async fn fetch_page(
        &self,
        context: &Context,
        dir: Handle,
        after: u64,
        limit: u32,
        opened: bool,
    ) -> Outcome<Page> {
        let readdir = Readdir { dir, cookie: after, limit, attributes: true, opened };
        let fetched = Instant::now();
        let reply = self.client.call(context, readdir).await.map_err(failed)?;
        Ok(Page { after, entries: reply.entries, eof: reply.eof, fetched, begun: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::attr::Kind;
    use magma_common::name::Name;

    fn page(cookies: &[u64], eof: bool) -> Page {
        let entry = |&cookie: &u64| Dirent {
            name: Name::new(cookie.to_string()).unwrap(),
            handle: Handle::root(),
            kind: Kind::File,
            cookie,
            attr: None,
        };
        let entries = cookies.iter().map(entry).collect();
        Page { after: 0, entries, eof, fetched: Instant::now(), begun: false }
    }

    #[test]
    fn a_page_serves_positions_between_its_entries() {
        let page = page(&[3, 5, 9], false);
        assert_eq!(page.from(0, page.fetched).map(<[_]>::len), Some(3));
        assert_eq!(page.from(4, page.fetched).map(<[_]>::len), Some(2), "the entry at 4 was removed");
        assert!(page.from(9, page.fetched).is_none(), "what follows the last entry is not known");
    }

    #[test]
    fn the_last_page_knows_that_nothing_follows() {
        let page = page(&[3], true);
        assert_eq!(page.from(3, page.fetched).map(<[_]>::len), Some(0));
        assert!(page.from(4, page.fetched).is_none());
    }

    #[test]
    fn an_old_page_is_not_handed_out() {
        let page = page(&[3, 5], true);
        assert!(page.from(0, page.fetched + PAGE_TTL * 2).is_none());
    }
}
