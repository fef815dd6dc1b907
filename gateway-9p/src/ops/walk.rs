//! Twalk, Tclunk, Tremove: fids come and go.

use std::sync::Arc;

use magma_common::attr::{Attr, Kind};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::{Lookup, LookupParent};

use super::{Session, lock, name, qid, to_the_end};
use crate::errno::{Refusal, refusals};
use crate::fid::{Fid, Place, Role, Target};
use crate::user::User;
use crate::wire::Reply;
use crate::wire::codec::Text;
use crate::wire::fid::{Rclunk, Rremove, Rwalk, Tclunk, Tremove, Twalk};

/// Deepest tree, in directories, whose inside is told from its outside when a walk goes up.
const MAX_ANCESTORS: usize = 4096;

impl Session {
    /// A fid may be walked from while it is open. Only a complete walk makes the new fid.
    pub(super) async fn walk(&self, walk: Twalk) -> Result<Reply, Refusal> {
        let from = self.fids.get(walk.fid)?;
        let mut target = from.file()?.clone();
        let in_place = walk.newfid == walk.fid;
        if in_place && from.is_open() {
            return Err(refusals::INVALID);
        }
        if !in_place {
            self.fids.check_free(walk.newfid)?;
        }
        let mut place = from.place();
        let asked = walk.wnames.len();
        let mut wqids = Vec::with_capacity(asked);
        for wname in walk.wnames {
            match self.step(&target, &wname).await {
                Ok((attr, found_by)) => {
                    wqids.push(qid(&attr));
                    (target.handle, target.kind, place) = (attr.handle, attr.kind, found_by);
                }
                Err(refusal) if wqids.is_empty() => return Err(refusal),
                Err(_) => break,
            }
        }
        if wqids.len() == asked {
            let fid = Fid::new(target, place, Role::Path);
            if in_place {
                self.fids.replace(walk.newfid, &from, fid)?;
            } else {
                self.fids.insert(walk.newfid, fid)?;
            }
        }
        Ok(Rwalk { wqids }.into())
    }

    /// One name of a walk.
    async fn step(&self, at: &Target, wname: &Text) -> Result<(Attr, Option<Place>), Refusal> {
        if at.kind != Kind::Directory {
            return Err(refusals::NOT_DIRECTORY);
        }
        match wname.as_bytes() {
            b"." => Ok((self.attributes(&at.user, at.handle).await?, None)),
            b".." => Ok((self.parent(at).await?, None)),
            _ => {
                let place = Place { dir: at.handle, name: name(wname)? };
                let found = Lookup { dir: place.dir, name: place.name.clone() };
                let entry = self.call(&at.user, found).await?;
                Ok((entry.attr, Some(place)))
            }
        }
    }

    /// What `..` is. The root of the attached tree is its own parent.
    pub(super) async fn parent(&self, at: &Target) -> Result<Attr, Refusal> {
        if at.handle == at.root {
            return self.attributes(&at.user, at.handle).await;
        }
        let parent = self.call(&at.user, LookupParent { dir: at.handle }).await?.attr;
        self.check_inside(at, parent.handle).await?;
        Ok(parent)
    }

    /// Fails unless the directory is in the attached tree: it may have been moved out of it.
    async fn check_inside(&self, at: &Target, dir: Handle) -> Result<(), Refusal> {
        if at.root == Handle::root() {
            return Ok(());
        }
        let mut above = dir;
        for _ in 0..MAX_ANCESTORS {
            if above == at.root {
                return Ok(());
            }
            if above == Handle::root() {
                break;
            }
            above = self.call(&at.user, LookupParent { dir: above }).await?.attr.handle;
        }
        Err(refusals::NOT_FOUND)
    }

    /// Fails unless the fid's place still bears the fid's file, and tells the place.
    pub(super) async fn place_of(&self, fid: &Fid) -> Result<Place, Refusal> {
        let target = fid.file()?;
        let place = fid.place().ok_or(refusals::INVALID)?;
        let there = Lookup { dir: place.dir, name: place.name.clone() };
        let entry = self.call(&target.user, there).await?;
        if entry.attr.handle == target.handle { Ok(place) } else { Err(refusals::NOT_FOUND) }
    }

    /// Ends the fid. A value collected for an extended attribute is set now, and its errors are told here.
    pub(super) async fn clunk(&self, clunk: &Tclunk) -> Result<Reply, Refusal> {
        let fid = self.fids.remove(clunk.fid)?;
        self.finish(fid).await?;
        Ok(Rclunk {}.into())
    }

    /// Removes the file; the fid ends in any case.
    pub(super) async fn remove(&self, remove: &Tremove) -> Result<Reply, Refusal> {
        let fid = self.fids.remove(remove.fid)?;
        let removed = self.remove_file(&fid).await;
        self.finish(fid).await?;
        removed.map(|()| Rremove {}.into())
    }

    async fn remove_file(&self, fid: &Fid) -> Result<(), Refusal> {
        self.check_writable()?;
        let target = fid.file()?;
        if target.handle == target.root {
            return Err(FlareError::Busy.into());
        }
        let place = self.place_of(fid).await?;
        self.unlink(&target.user, place, target.kind == Kind::Directory).await
    }

    async fn finish(&self, fid: Arc<Fid>) -> Result<(), Refusal> {
        match &fid.role {
            Role::Path | Role::XattrRead(_) => Ok(()),
            Role::XattrWrite(write) => self.set_xattr(&fid.target, write).await,
            Role::Open(_) if !lock::holds_locks(&fid) => Ok(()),
            Role::Open(_) => {
                let gateway = Arc::clone(&self.gateway);
                to_the_end(async move {
                    lock::give_back(gateway, fid).await;
                    Ok(())
                })
                .await
            }
        }
    }

    /// The attributes of a flare.
    pub(super) async fn attributes(&self, user: &User, handle: Handle) -> Result<Attr, Refusal> {
        Ok(self.call(user, magma_common::proto::operation::Getattr { handle }).await?)
    }
}
