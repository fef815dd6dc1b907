//! Directories: opendir, readdir, readdirplus.
//!
//! Attributes in a listing must not be older than the kernel's request for it: the kernel takes them for newer than
//! what it learnt before, and a size from the past would cut its pages. So each request with attributes asks the
//! volcano; one for names alone is served from a page of names that may be a second old.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fuser::{
    Errno, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus,
};
use magma_common::attr::Attr;
use magma_common::client::Context;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::limits::MAX_STAT_MANY;
use magma_common::proto::operation::{Dirent, Readdir};

use crate::core::{Core, believed};
use crate::reply::{Opened, Outcome, errno, failed, file_attr, file_type, unknown_attr};
use crate::sync::locked;

/// Entries in a page of names.
const NAMES: u32 = 1024;
/// Entries asked for with attributes before it is known how many the kernel's buffer takes; and the least and most after that.
const FIRST_ATTRIBUTES: u32 = 128;
const LEAST_ATTRIBUTES: u32 = 32;
const MOST_ATTRIBUTES: u32 = MAX_STAT_MANY as u32;
/// How long a page of names may be handed out.
const PAGE_TTL: Duration = Duration::from_secs(1);
/// Positions of `.` and `..`; those of entries lie above.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// An open directory.
pub(crate) struct OpenDir {
    handle: Handle,
    /// On whose behalf it was opened; who reads it later may be somebody else.
    opener: Context,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// The volcano has agreed to the opener's reading.
    checked: bool,
    page: Option<Page>,
    /// How many entries with attributes the kernel's buffer took last.
    fitted: Option<u32>,
}

/// Part of a listing: all entries at positions above `after`, up to the last one here.
struct Page {
    after: u64,
    entries: Vec<Dirent>,
    eof: bool,
    fetched: Instant,
}

impl Page {
    fn last(&self) -> u64 {
        self.entries.last().map_or(self.after, |entry| entry.cookie)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.fetched) <= PAGE_TTL
    }

    /// The entries above a position, if this page can tell. A program that rewinds wants to see the directory anew.
    fn from(&self, position: u64, now: Instant) -> Option<&[Dirent]> {
        if position == 0 || position < self.after || position > self.last() || !self.is_fresh(now) {
            return None;
        }
        let index = self.entries.partition_point(|entry| entry.cookie <= position);
        let rest = self.entries.get(index..)?;
        (!rest.is_empty() || self.eof).then_some(rest)
    }

    /// Nothing was above this position when the page was fetched.
    fn ends_at(&self, position: u64, now: Instant) -> bool {
        self.eof && position == self.last() && position != 0 && self.is_fresh(now)
    }
}

/// The kernel's buffer for a listing.
pub(crate) trait Listing: Send + 'static {
    /// Whether it wants attributes, and takes a reference to each entry.
    const ATTRIBUTES: bool;

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
    const ATTRIBUTES: bool = false;

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
    const ATTRIBUTES: bool = true;

    /// The kernel takes neither reference nor attributes from these two.
    fn add_dot(&mut self, ino: u64, position: u64, name: &str) -> bool {
        let attr = unknown_attr(INodeNo(ino), FileType::Directory);
        !self.add(INodeNo(ino), position, name, &Duration::ZERO, &attr, Generation(0))
    }

    fn add_entry(&mut self, core: &Core, entry: &Dirent) -> bool {
        // Entries without attributes were filled up or dropped when they came.
        let Some(attr) = &entry.attr else { return true };
        let ino = INodeNo(entry.handle.ino().0);
        let ttl = believed(entry.handle, core.caching.attributes.min(core.caching.names));
        let name = OsStr::from_bytes(entry.name.as_bytes());
        let generation = Generation(entry.handle.birth.0);
        !self.add(ino, entry.cookie, name, &ttl, &file_attr(attr, ino), generation)
    }

    fn send(self) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Core {
    /// Opens a directory. The kernel has checked the permission to read; the volcano does with the first listing.
    pub(crate) fn opendir(&self, opener: Context, number: INodeNo) -> Outcome<Opened> {
        let handle = self.handle(number)?;
        let number = self.directories.insert(OpenDir { handle, opener, progress: Mutex::default() });
        Ok(Opened { number, flags: FopenFlags::empty() })
    }

    pub(crate) fn releasedir(&self, number: FileHandle) -> Outcome<()> {
        self.directories.remove(number).map(drop).ok_or(Errno::EBADF)
    }

    /// Fills the kernel's buffer with the entries above a position, as far as they fit.
    pub(crate) async fn list<L: Listing>(
        &self,
        open: FileHandle,
        position: u64,
        listing: &mut L,
    ) -> Outcome<()> {
        let dir = self.directories.of(open)?;
        // Positions up to that of `..` lie before every entry.
        let after = if position <= DOT_DOT { 0 } else { position };
        let now = Instant::now();
        let (served, opened, fitted) = {
            let progress = locked(&dir.progress);
            let page = progress.page.as_ref();
            let served = if page.is_some_and(|page| page.ends_at(after, now)) {
                true
            } else if L::ATTRIBUTES {
                false
            } else if let Some(entries) = page.and_then(|page| page.from(after, now)) {
                self.add_names(entries, listing);
                true
            } else {
                false
            };
            (served, progress.checked, progress.fitted)
        };
        if served {
            return Ok(());
        }
        let limit = match (L::ATTRIBUTES, fitted) {
            (false, _) => NAMES,
            (true, None) => FIRST_ATTRIBUTES,
            // A little more, so that shorter names fill the buffer as well.
            (true, Some(fitted)) => (fitted + fitted / 4).clamp(LEAST_ATTRIBUTES, MOST_ATTRIBUTES),
        };
        let page = self.fetch_page::<L>(&dir, after, limit, opened).await?;
        let mut added = 0;
        if self.add_dots(dir.handle, position, listing) {
            added = self.add_all(dir.handle, &page.entries, listing)?;
        }
        let mut progress = locked(&dir.progress);
        progress.checked = true;
        if L::ATTRIBUTES && added < page.entries.len() {
            progress.fitted = Some(u32::try_from(added).unwrap_or(MOST_ATTRIBUTES));
        }
        progress.page = Some(page);
        Ok(())
    }

    fn add_dots(&self, dir: Handle, position: u64, listing: &mut impl Listing) -> bool {
        let parent = self.inodes.parent(dir);
        (position >= DOT || listing.add_dot(dir.ino().0, DOT, "."))
            && (position >= DOT_DOT || listing.add_dot(parent.ino().0, DOT_DOT, ".."))
    }

    fn add_names(&self, entries: &[Dirent], listing: &mut impl Listing) {
        // Stops at the first that does not fit.
        let _all = entries.iter().all(|entry| listing.add_entry(self, entry));
    }

    /// Adds entries while they fit, and counts the references that the kernel gets; yields how many were added.
    fn add_all<L: Listing>(&self, dir: Handle, entries: &[Dirent], listing: &mut L) -> Outcome<usize> {
        for (index, entry) in entries.iter().enumerate() {
            if !listing.add_entry(self, entry) {
                return Ok(index);
            }
            if L::ATTRIBUTES {
                self.inodes.remember(entry.handle, dir)?;
                entry.attr.iter().for_each(|attr| self.inodes.shown(attr));
            }
        }
        Ok(entries.len())
    }

    async fn fetch_page<L: Listing>(
        &self,
        dir: &OpenDir,
        after: u64,
        limit: u32,
        opened: bool,
    ) -> Outcome<Page> {
        let fetched = Instant::now();
        let mut cookie = after;
        loop {
            let readdir = Readdir { dir: dir.handle, cookie, limit, attributes: L::ATTRIBUTES, opened };
            let reply = self.client.call(&dir.opener, readdir).await.map_err(failed)?;
            let (mut entries, eof) = (reply.entries, reply.eof);
            let last = entries.last().map(|entry| entry.cookie);
            if L::ATTRIBUTES {
                self.fill_attributes(&dir.opener, &mut entries).await?;
            }
            match last {
                // Nothing to show would mean the end to the kernel.
                Some(last) if entries.is_empty() && !eof && last > cookie => cookie = last,
                _ => return Ok(Page { after, entries, eof, fetched }),
            }
        }
    }

    /// A directory that may be read but not searched is listed without attributes; flares that another volcano keeps
    /// come without, too. Entries whose flare is gone by now are dropped.
    async fn fill_attributes(&self, context: &Context, entries: &mut Vec<Dirent>) -> Outcome<()> {
        let lacking: Vec<Handle> =
            entries.iter().filter(|entry| entry.attr.is_none()).map(|entry| entry.handle).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let mut found = self.client.stat_many(context, &lacking).await.map_err(failed)?.into_iter();
        for entry in entries.iter_mut().filter(|entry| entry.attr.is_none()) {
            entry.attr = match found.next() {
                Some(Ok(attr)) => Some(attr),
                Some(Err(FlareError::Stale | FlareError::NotFound)) | None => None,
                Some(Err(error)) => return Err(errno(error)),
            };
        }
        entries.retain(|entry| entry.attr.as_ref().is_some_and(|attr: &Attr| attr.handle == entry.handle));
        Ok(())
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
        Page { after: 0, entries: cookies.iter().map(entry).collect(), eof, fetched: Instant::now() }
    }

    #[test]
    fn a_page_serves_positions_between_its_entries() {
        let page = page(&[3, 5, 9], false);
        assert_eq!(page.from(4, page.fetched).map(<[_]>::len), Some(2), "the entry at 4 was removed");
        assert!(page.from(9, page.fetched).is_none(), "what follows the last entry is not known");
    }

    #[test]
    fn the_last_page_knows_that_nothing_follows() {
        let page = page(&[3], true);
        assert!(page.ends_at(3, page.fetched));
        assert!(!page.ends_at(4, page.fetched));
    }

    #[test]
    fn a_program_that_rewinds_sees_the_directory_anew() {
        let page = page(&[3, 5], true);
        assert!(page.from(0, page.fetched).is_none());
    }

    #[test]
    fn an_old_page_is_not_handed_out() {
        let page = page(&[3, 5], true);
        let later = page.fetched + PAGE_TTL * 2;
        assert!(page.from(3, later).is_none() && !page.ends_at(5, later));
    }
}
