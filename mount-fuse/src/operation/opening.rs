//! Opening and closing files: open, create, release.

use fuser::{Errno, FileHandle, FopenFlags, INodeNo};
use magma_common::attr::{Attr, Kind, MODE_MASK, SetAttr};
use magma_common::client::Context;
use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::name::Name;
use magma_common::proto::operation::{Create, CreateHow, Lookup, Open};

use crate::core::Core;
use crate::open::OpenFile;
use crate::reply::{Created, Entry, Opened, Outcome, failed};

/// The kernel's mark, among the open flags, of an open for execution (`__FMODE_EXEC`).
const FOR_EXECUTION: i32 = 0o40;
/// Tries of an open that makes the file if need be, while others make and remove it.
const CREATE_TRIES: usize = 8;

/// The flags of an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) i32);

impl Flags {
    const fn has(self, flag: i32) -> bool {
        self.0 & flag != 0
    }

    const fn writes(self) -> bool {
        self.0 & libc::O_ACCMODE != libc::O_RDONLY
    }

    fn open(self, handle: Handle) -> Open {
        let execute = self.has(FOR_EXECUTION);
        Open {
            handle,
            read: self.0 & libc::O_ACCMODE != libc::O_WRONLY && !execute,
            write: self.writes(),
            execute,
            truncate: self.has(libc::O_TRUNC),
        }
    }

    /// Whether a write must be on disk before it is answered. The kernel adds an fsync itself where pages are cached.
    pub(crate) const fn writes_through(self) -> bool {
        self.has(libc::O_DSYNC)
    }
}

impl Core {
    pub(crate) async fn open(&self, context: Context, number: INodeNo, flags: Flags) -> Outcome<Opened> {
        let handle = self.handle(number)?;
        let attr = self.client.call(&context, flags.open(handle)).await.map_err(failed)?;
        self.refresh(&attr);
        Ok(self.opened(&attr, flags))
    }

    /// Opens a name that the kernel found absent, making the file.
    ///
    /// Others may make or remove the name meanwhile. A file found in the way is opened like any other, with the
    /// permission checks of an open.
    pub(crate) async fn create(
        &self,
        context: Context,
        dir: INodeNo,
        name: Outcome<Name>,
        mode: u32,
        umask: u32,
        flags: Flags,
    ) -> Outcome<Created> {
        let (dir, name) = (self.handle(dir)?, name?);
        for _ in 0..CREATE_TRIES {
            let create = Create {
                dir,
                name: name.clone(),
                mode: mode & MODE_MASK,
                umask,
                how: CreateHow::Guarded,
                set: SetAttr::default(),
                open: true,
            };
            match self.client.call(&context, create).await {
                Ok(made) => {
                    self.recent.changed(&made.dir);
                    let entry = self.entry(&made.attr, dir);
                    let created = self.created(&made.attr, entry, flags)?;
                    self.inodes.made(made.attr.handle);
                    return Ok(created);
                }
                Err(failure) if failure.error == FlareError::Exists && !flags.has(libc::O_EXCL) => {}
                Err(failure) => return Err(failed(failure)),
            }
            match self.open_existing(&context, dir, &name, flags).await {
                Err(Errno::ENOENT | Errno::ESTALE) => {}
                outcome => return outcome,
            }
        }
        // Makes the kernel resolve the whole path once more.
        Err(Errno::ESTALE)
    }

    async fn open_existing(
        &self,
        context: &Context,
        dir: Handle,
        name: &Name,
        flags: Flags,
    ) -> Outcome<Created> {
        let lookup = Lookup { dir, name: name.clone() };
        let found = self.client.call(context, lookup).await.map_err(failed)?.attr;
        if found.kind != Kind::File {
            return Err(Errno::ESTALE);
        }
        let attr = self.client.call(context, flags.open(found.handle)).await.map_err(failed)?;
        let entry = self.entry(&attr, dir);
        self.created(&attr, entry, flags)
    }

    fn created(&self, attr: &Attr, entry: Outcome<Entry>, flags: Flags) -> Outcome<Created> {
        match entry {
            Ok(entry) => Ok(Created { entry, opened: self.opened(attr, flags) }),
            Err(errno) => {
                self.client.release(attr.handle);
                Err(errno)
            }
        }
    }

    fn opened(&self, attr: &Attr, flags: Flags) -> Opened {
        let keeps_pages = self.inodes.keeps_pages(attr);
        let append = flags.has(libc::O_APPEND);
        // The kernel would put appended bytes into the page where it believes the end to be. Other mounts append too.
        // What lies under /.dht has no size before it is read.
        let direct = self.caching.direct_io || append || attr.handle.birth == BirthNumber::INTERNAL;
        let mut fopen = FopenFlags::empty();
        fopen.set(FopenFlags::FOPEN_DIRECT_IO, direct);
        fopen.set(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES, direct && !append);
        fopen.set(FopenFlags::FOPEN_KEEP_CACHE, keeps_pages && !direct);
        let number =
            self.files.insert(OpenFile { handle: attr.handle, writable: flags.writes(), append, direct });
        Opened { number, flags: fopen }
    }

    /// Gives an open back, and the locks that were taken through it.
    pub(crate) async fn unlock_and_release(&self, context: Context, number: FileHandle) -> Outcome<()> {
        let handle = self.files.of(number)?.handle;
        let unlocked = self.unlock_ended(&context, handle, number).await;
        self.release(number).and(unlocked)
    }

    /// Gives an open back through which no locks were taken. Does not wait for the network.
    pub(crate) fn release(&self, number: FileHandle) -> Outcome<()> {
        let file = self.files.remove(number).ok_or(Errno::EBADF)?;
        self.client.release(file.handle);
        Ok(())
    }

    /// Gives an open back that its caller did not live to know.
    pub(crate) fn abandon(&self, opened: &Opened) {
        if self.release(opened.number).is_err() {
            tracing::debug!(target: "magma::mount", ?opened, "abandoned twice");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_for_execution_needs_no_read_permission() {
        let open = Flags(libc::O_RDONLY | FOR_EXECUTION).open(Handle::root());
        assert!(open.execute && !open.read && !open.write);
    }

    #[test]
    fn access_modes_and_truncation_reach_the_volcano() {
        let open = Flags(libc::O_RDWR | libc::O_TRUNC).open(Handle::root());
        assert!(open.read && open.write && open.truncate);
        let open = Flags(libc::O_WRONLY).open(Handle::root());
        assert!(!open.read && open.write && !open.truncate);
    }
}
