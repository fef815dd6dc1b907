//! Tsymlink, Tmknod, Tmkdir, Tlink: names come into being.
//!
//! The client has applied its creation mask already. The group in the request is that of the caller,
//! or of a directory with the set-group-id bit, which the volcano would choose as well.

use magma_common::attr::{Kind, MODE_MASK, SetAttr};
use magma_common::proto::operation::{Create, CreateHow, Link, Mkdir, Mknod, Symlink};
use rustix::fs::{FileType, makedev};

use super::{Session, name, qid};
use crate::errno::{Refusal, refusals};
use crate::wire::Reply;
use crate::wire::names::{Rlink, Rmkdir, Rmknod, Rsymlink, Tlink, Tmkdir, Tmknod, Tsymlink};

impl Session {
    pub(super) async fn symlink(&self, symlink: Tsymlink) -> Result<Reply, Refusal> {
        let fid = self.fids.get(symlink.dfid)?;
        let dir = fid.dir()?;
        self.check_writable()?;
        let target = symlink.target.into_bytes();
        let make = Symlink { dir: dir.handle, name: name(&symlink.name)?, target, set: SetAttr::default() };
        let made = self.call_making(&dir.user, symlink.gid, make).await?;
        Ok(Rsymlink { qid: qid(&made.attr) }.into())
    }

    /// Linux makes regular files this way too, where it does not open them at once.
    pub(super) async fn mknod(&self, mknod: Tmknod) -> Result<Reply, Refusal> {
        let fid = self.fids.get(mknod.dfid)?;
        let dir = fid.dir()?;
        self.check_writable()?;
        let (dir, user) = (dir.handle, &dir.user);
        let (name, mode, set) = (name(&mknod.name)?, mknod.mode & MODE_MASK, SetAttr::default());
        let kind = match FileType::from_raw_mode(mknod.mode) {
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::RegularFile | FileType::Unknown => Kind::File,
            FileType::Directory | FileType::Symlink => return Err(refusals::INVALID),
        };
        let made = if kind == Kind::File {
            let how = CreateHow::Guarded;
            let create = Create { dir, name, mode, umask: 0, how, set, open: false };
            self.call_making(user, mknod.gid, create).await?
        } else {
            let rdev = match kind {
                Kind::CharDevice | Kind::BlockDevice => makedev(mknod.major, mknod.minor),
                _ => 0,
            };
            let make = Mknod { dir, name, kind, mode, umask: 0, rdev, set };
            self.call_making(user, mknod.gid, make).await?
        };
        Ok(Rmknod { qid: qid(&made.attr) }.into())
    }

    pub(super) async fn mkdir(&self, mkdir: Tmkdir) -> Result<Reply, Refusal> {
        let fid = self.fids.get(mkdir.dfid)?;
        let dir = fid.dir()?;
        self.check_writable()?;
        let make = Mkdir {
            dir: dir.handle,
            name: name(&mkdir.name)?,
            mode: mkdir.mode & MODE_MASK,
            umask: 0,
            set: SetAttr::default(),
        };
        let made = self.call_making(&dir.user, mkdir.gid, make).await?;
        Ok(Rmkdir { qid: qid(&made.attr) }.into())
    }

    pub(super) async fn link(&self, link: Tlink) -> Result<Reply, Refusal> {
        let (dfid, fid) = (self.fids.get(link.dfid)?, self.fids.get(link.fid)?);
        let (dir, file) = (dfid.dir()?, fid.file()?);
        self.check_writable()?;
        let link = Link { handle: file.handle, dir: dir.handle, name: name(&link.name)? };
        self.call(&dir.user, link).await?;
        Ok(Rlink {}.into())
    }
}
