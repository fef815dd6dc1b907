//! Names: lookup, mknod, mkdir, symlink, link, unlink, rmdir, rename.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use fuser::{Errno, INodeNo, RenameFlags};
use magma_common::attr::{Kind, MODE_MASK, SetAttr};
use magma_common::client::Context;
use magma_common::error::FlareError;
use magma_common::name::Name;
use magma_common::proto::operation::{
    Create, CreateHow, Getattr, Link, Lookup, LookupParent, Mkdir, Mknod, Rename, RenameHow, Rmdir, Symlink,
    Unlink,
};

use crate::core::{Core, believed};
use crate::reply::{Entry, Outcome, errno, failed};

/// A name as the kernel gave it.
pub(crate) fn name_of(text: &OsStr) -> Outcome<Name> {
    Name::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|error| errno(error.into()))
}

/// What a lookup looks for.
pub(crate) enum Sought {
    /// The inode itself; asked for by servers that export this mount.
    Itself,
    /// Its parent; likewise.
    Parent,
    /// A name in it.
    Name(Outcome<Name>),
}

impl Sought {
    /// What the kernel's name means.
    pub(crate) fn of(text: &OsStr) -> Self {
        match text.as_bytes() {
            b"." => Self::Itself,
            b".." => Self::Parent,
            _ => Self::Name(name_of(text)),
        }
    }
}

/// A node to make: what `mknod(2)` says.
pub(crate) struct Node {
    /// Type and permission bits.
    pub(crate) mode: u32,
    /// The caller's mask.
    pub(crate) umask: u32,
    /// Device number.
    pub(crate) rdev: u32,
}

impl Core {
    pub(crate) async fn lookup(&self, context: Context, dir: INodeNo, sought: Sought) -> Outcome<Entry> {
        let dir = self.handle(dir)?;
        match sought {
            Sought::Itself => {
                let attr = self.client.call(&context, Getattr { handle: dir }).await.map_err(failed)?;
                self.entry(&attr, self.inodes.parent(dir))
            }
            Sought::Parent if dir == self.root => {
                let attr = self.client.call(&context, Getattr { handle: dir }).await.map_err(failed)?;
                self.entry(&attr, dir)
            }
            Sought::Parent => {
                let found = self.client.call(&context, LookupParent { dir }).await.map_err(failed)?;
                self.entry(&found.attr, self.inodes.parent(found.attr.handle))
            }
            Sought::Name(name) => match self.client.call(&context, Lookup { dir, name: name? }).await {
                Ok(found) => self.entry(&found.attr, dir),
                Err(failure)
                    if failure.error == FlareError::NotFound && !self.caching.absent_names.is_zero() =>
                {
                    Ok(Entry::absent(believed(dir, self.caching.absent_names)))
                }
                Err(failure) => Err(failed(failure)),
            },
        }
    }

    pub(crate) async fn mknod(
        &self,
        context: Context,
        dir: INodeNo,
        name: Outcome<Name>,
        node: Node,
    ) -> Outcome<Entry> {
        let (dir, name) = (self.handle(dir)?, name?);
        let (mode, umask, set) = (node.mode & MODE_MASK, node.umask, SetAttr::default());
        let kind = match node.mode & libc::S_IFMT {
            libc::S_IFREG | 0 => Kind::File,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFCHR => Kind::CharDevice,
            libc::S_IFBLK => Kind::BlockDevice,
            _ => return Err(Errno::EINVAL),
        };
        let made = if kind == Kind::File {
            let how = CreateHow::Guarded;
            self.client.call(&context, Create { dir, name, mode, umask, how, set, open: false }).await
        } else {
            let rdev = u64::from(node.rdev);
            self.client.call(&context, Mknod { dir, name, kind, mode, umask, rdev, set }).await
        };
        let made = made.map_err(failed)?;
        self.recent.changed(&made.dir);
        self.entry(&made.attr, dir)
    }

    pub(crate) async fn mkdir(
        &self,
        context: Context,
        dir: INodeNo,
        name: Outcome<Name>,
        mode: u32,
        umask: u32,
    ) -> Outcome<Entry> {
        let (dir, name) = (self.handle(dir)?, name?);
        let mkdir = Mkdir { dir, name, mode: mode & MODE_MASK, umask, set: SetAttr::default() };
        let made = self.client.call(&context, mkdir).await.map_err(failed)?;
        self.recent.changed(&made.dir);
        self.entry(&made.attr, dir)
    }

    pub(crate) async fn symlink(
        &self,
        context: Context,
        dir: INodeNo,
        name: Outcome<Name>,
        target: Bytes,
    ) -> Outcome<Entry> {
        let (dir, name) = (self.handle(dir)?, name?);
        let symlink = Symlink { dir, name, target, set: SetAttr::default() };
        let made = self.client.call(&context, symlink).await.map_err(failed)?;
        self.recent.changed(&made.dir);
        self.entry(&made.attr, dir)
    }

    pub(crate) async fn link(
        &self,
        context: Context,
        flare: INodeNo,
        dir: INodeNo,
        name: Outcome<Name>,
    ) -> Outcome<Entry> {
        let (handle, dir, name) = (self.handle(flare)?, self.handle(dir)?, name?);
        let linked = self.client.call(&context, Link { handle, dir, name }).await.map_err(failed)?;
        self.recent.changed(&linked.dir);
        self.entry(&linked.attr, dir)
    }

    pub(crate) async fn unlink(&self, context: Context, dir: INodeNo, name: Outcome<Name>) -> Outcome<()> {
        let (dir, name) = (self.handle(dir)?, name?);
        let removed = self.client.call(&context, Unlink { dir, name }).await.map_err(failed)?;
        self.recent.changed(&removed.dir);
        Ok(())
    }

    pub(crate) async fn rmdir(&self, context: Context, dir: INodeNo, name: Outcome<Name>) -> Outcome<()> {
        let (dir, name) = (self.handle(dir)?, name?);
        let removed = self.client.call(&context, Rmdir { dir, name }).await.map_err(failed)?;
        self.recent.changed(&removed.dir);
        self.recent.forget(removed.attr.handle);
        Ok(())
    }

    pub(crate) async fn rename(
        &self,
        context: Context,
        from: (INodeNo, Outcome<Name>),
        to: (INodeNo, Outcome<Name>),
        flags: RenameFlags,
    ) -> Outcome<()> {
        let (from_dir, from_name) = (self.handle(from.0)?, from.1?);
        let (to_dir, to_name) = (self.handle(to.0)?, to.1?);
        let how = if flags.is_empty() {
            RenameHow::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameHow::NoReplace
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            RenameHow::Exchange
        } else {
            return Err(Errno::EINVAL);
        };
        let rename = Rename { from_dir, from_name, to_dir, to_name, how };
        let done = self.client.call(&context, rename).await.map_err(failed)?;
        self.recent.changed(&done.from_dir);
        self.recent.changed(&done.to_dir);
        for renamed in [Some(&done.moved), done.replaced.as_ref()].into_iter().flatten() {
            self.recent.forget(renamed.handle);
        }
        self.inodes.moved(done.moved.handle, to_dir);
        if let (RenameHow::Exchange, Some(other)) = (how, &done.replaced) {
            self.inodes.moved(other.handle, from_dir);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bytes_and_too_long_ones_are_refused() {
        assert_eq!(name_of(OsStr::from_bytes(b"\xff\x01")).unwrap().as_bytes(), b"\xff\x01");
        let long = [b'x'; 256];
        assert_eq!(name_of(OsStr::from_bytes(&long)).unwrap_err(), Errno::ENAMETOOLONG);
    }

    #[test]
    fn dots_are_looked_up_as_the_inode_and_its_parent() {
        assert!(matches!(Sought::of(OsStr::new(".")), Sought::Itself));
        assert!(matches!(Sought::of(OsStr::new("..")), Sought::Parent));
        assert!(matches!(Sought::of(OsStr::new("...")), Sought::Name(Ok(_))));
    }
}
