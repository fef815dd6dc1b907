//! Trename, Trenameat, Tunlinkat, Treadlink: names move and go.

use magma_common::error::FlareError;
use magma_common::proto::operation::{Readlink, Rename, RenameHow, Rmdir, Unlink};

use super::{Session, name};
use crate::errno::{Refusal, refusals};
use crate::fid::Place;
use crate::user::User;
use crate::wire::codec::Text;
use crate::wire::names::{
    AT_REMOVEDIR, Rreadlink, Rrename, Rrenameat, Runlinkat, Treadlink, Trename, Trenameat, Tunlinkat,
};
use crate::wire::{HEADER, Reply};

/// Bytes of a string's length.
const TEXT_LENGTH: usize = 2;

impl Session {
    pub(super) async fn rename(&self, rename: Trename) -> Result<Reply, Refusal> {
        let (fid, dfid) = (self.fids.get(rename.fid)?, self.fids.get(rename.dfid)?);
        let dir = dfid.dir()?;
        self.check_writable()?;
        if fid.target.handle == fid.target.root {
            return Err(FlareError::Busy.into());
        }
        let from = self.place_of(&fid).await?;
        let to = Place { dir: dir.handle, name: name(&rename.name)? };
        self.move_name(&dir.user, from, to).await?;
        Ok(Rrename {}.into())
    }

    pub(super) async fn renameat(&self, rename: Trenameat) -> Result<Reply, Refusal> {
        let (olddir, newdir) = (self.fids.get(rename.olddirfid)?, self.fids.get(rename.newdirfid)?);
        let from = Place { dir: olddir.dir()?.handle, name: name(&rename.oldname)? };
        let to = Place { dir: newdir.dir()?.handle, name: name(&rename.newname)? };
        self.check_writable()?;
        self.move_name(&olddir.target.user, from, to).await?;
        Ok(Rrenameat {}.into())
    }

    async fn move_name(&self, user: &User, from: Place, to: Place) -> Result<(), Refusal> {
        let rename = Rename {
            from_dir: from.dir,
            from_name: from.name.clone(),
            to_dir: to.dir,
            to_name: to.name.clone(),
            how: RenameHow::Replace,
        };
        self.call(user, rename).await?;
        self.fids.moved(&from, &to);
        Ok(())
    }

    /// The directory's fid may be open: that is how `rm -r` removes.
    pub(super) async fn unlinkat(&self, unlink: Tunlinkat) -> Result<Reply, Refusal> {
        let fid = self.fids.get(unlink.dirfid)?;
        let dir = fid.dir()?;
        self.check_writable()?;
        if unlink.flags & !AT_REMOVEDIR != 0 {
            return Err(refusals::INVALID);
        }
        let place = Place { dir: dir.handle, name: name(&unlink.name)? };
        self.unlink(&dir.user, place, unlink.flags & AT_REMOVEDIR != 0).await?;
        Ok(Runlinkat {}.into())
    }

    /// Removes a name.
    pub(super) async fn unlink(&self, user: &User, place: Place, directory: bool) -> Result<(), Refusal> {
        let Place { dir, name } = place;
        if directory {
            self.call(user, Rmdir { dir, name }).await?;
        } else {
            self.call(user, Unlink { dir, name }).await?;
        }
        Ok(())
    }

    pub(super) async fn readlink(&self, readlink: &Treadlink) -> Result<Reply, Refusal> {
        let fid = self.fids.get(readlink.fid)?;
        let target = fid.file()?;
        let link = self.call(&target.user, Readlink { handle: target.handle }).await?;
        let target = Text::new(link.target);
        if target.as_bytes().len() + HEADER + TEXT_LENGTH > self.msize() as usize {
            return Err(refusals::MSIZE_TOO_SMALL);
        }
        Ok(Rreadlink { target }.into())
    }
}
