//! Txattrwalk and Txattrcreate: extended attributes are read and written through fids of their own.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::proto::limits::MAX_XATTR_VALUE;
use magma_common::proto::operation::{GetXattr, ListXattr, RemoveXattr, SetXattr, XattrHow};
use tokio::sync::OwnedSemaphorePermit;

use super::{Session, name};
use crate::errno::{Refusal, refusals};
use crate::fid::{Role, Target, XattrChange, XattrRead, XattrWrite, lock};
use crate::wire::Reply;
use crate::wire::attr::{Rxattrcreate, Rxattrwalk, Txattrcreate, Txattrwalk};

/// `XATTR_CREATE` of `setxattr(2)`.
const XATTR_CREATE: u32 = 1;
/// `XATTR_REPLACE` of `setxattr(2)`.
const XATTR_REPLACE: u32 = 2;

impl Session {
    /// The new fid holds the value as it is now; later changes do not tear it.
    pub(super) async fn xattrwalk(&self, walk: Txattrwalk) -> Result<Reply, Refusal> {
        let fid = self.fids.get(walk.fid)?;
        let target = fid.file()?;
        self.fids.check_free(walk.newfid)?;
        let value = if walk.name.as_bytes().is_empty() {
            self.list_xattrs(target).await?
        } else {
            let get = GetXattr { handle: target.handle, name: name(&walk.name)? };
            self.call(&target.user, get).await?.value
        };
        let size = value.len() as u64;
        let permit = self.xattr_permit(value.len())?;
        let role = Role::XattrRead(XattrRead { value, _permit: permit });
        self.fids.insert(walk.newfid, fid.with_role(role))?;
        Ok(Rxattrwalk { size }.into())
    }

    /// All names, each ended by a NUL.
    async fn list_xattrs(&self, target: &Target) -> Result<Bytes, Refusal> {
        let names = self.call(&target.user, ListXattr { handle: target.handle }).await?;
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(name.as_bytes());
            list.push(0);
        }
        Ok(list.into())
    }

    pub(super) fn xattrcreate(&self, create: &Txattrcreate) -> Result<Reply, Refusal> {
        let fid = self.fids.get(create.fid)?;
        self.check_writable()?;
        if !matches!(fid.role, Role::Path) {
            return Err(refusals::BAD_FID);
        }
        let size = usize::try_from(create.attr_size).unwrap_or(usize::MAX);
        if size > MAX_XATTR_VALUE {
            return Err(FlareError::TooBig.into());
        }
        let write = XattrWrite {
            name: name(&create.name)?,
            change: change(size, create.flags)?,
            size,
            value: Mutex::default(),
            _permit: self.xattr_permit(size)?,
        };
        self.fids.replace(create.fid, &fid, fid.with_role(Role::XattrWrite(write)))?;
        Ok(Rxattrcreate {}.into())
    }

    /// Sets the attribute when its fid ends. A value that did not come whole is not set.
    pub(super) async fn set_xattr(&self, target: &Target, write: &XattrWrite) -> Result<(), Refusal> {
        let value = std::mem::take(&mut *lock(&write.value));
        if value.len() != write.size {
            return Err(refusals::INVALID);
        }
        let (handle, name) = (target.handle, write.name.clone());
        match write.change {
            XattrChange::Remove => {
                self.call(&target.user, RemoveXattr { handle, name }).await?;
            }
            XattrChange::Set(how) => {
                let clear_setgid = target.user.groups_known();
                let set = SetXattr { handle, name, value: value.into(), how, clear_setgid };
                self.call(&target.user, set).await?;
            }
        }
        Ok(())
    }

    fn xattr_permit(&self, size: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let size = u32::try_from(size).map_err(|_| refusals::TOO_MANY_XATTR_BYTES)?;
        let permit = Arc::clone(&self.xattr_bytes).try_acquire_many_owned(size);
        permit.map_err(|_| refusals::TOO_MANY_XATTR_BYTES)
    }
}

impl XattrWrite {
    /// Takes a part of the value. Parts come in order, without gaps.
    pub(crate) fn collect(&self, offset: u64, data: &[u8]) -> Result<u32, Refusal> {
        let mut value = lock(&self.value);
        if offset != value.len() as u64 {
            return Err(refusals::INVALID);
        }
        if data.len() > self.size - value.len() {
            return Err(FlareError::NoSpace.into());
        }
        value.extend_from_slice(data);
        Ok(data.len() as u32)
    }
}

/// What becomes of the attribute. Linux removes one by replacing it with nothing; an attribute that exists can
/// therefore be given an empty value, but not with `XATTR_REPLACE`.
fn change(size: usize, flags: u32) -> Result<XattrChange, Refusal> {
    match (flags, size) {
        (0, _) => Ok(XattrChange::Set(XattrHow::Any)),
        (XATTR_CREATE, _) => Ok(XattrChange::Set(XattrHow::Create)),
        (XATTR_REPLACE, 0) => Ok(XattrChange::Remove),
        (XATTR_REPLACE, _) => Ok(XattrChange::Set(XattrHow::Replace)),
        _ => Err(refusals::INVALID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::name::Name;
    use tokio::sync::Semaphore;

    fn write(size: usize) -> XattrWrite {
        XattrWrite {
            name: Name::new(&b"user.x"[..]).unwrap(),
            change: XattrChange::Set(XattrHow::Any),
            size,
            value: Mutex::default(),
            _permit: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
        }
    }

    #[test]
    fn a_value_is_collected_in_order_and_never_grows_beyond_its_size() {
        let xattr = write(5);
        assert_eq!(xattr.collect(0, b"abc"), Ok(3));
        assert_eq!(xattr.collect(4, b"e"), Err(refusals::INVALID));
        assert_eq!(xattr.collect(0, b"abc"), Err(refusals::INVALID));
        assert_eq!(xattr.collect(3, b"def"), Err(FlareError::NoSpace.into()));
        assert_eq!(xattr.collect(3, b"de"), Ok(2));
        assert_eq!(*lock(&xattr.value), b"abcde");
    }

    #[test]
    fn replacing_by_nothing_removes() {
        assert_eq!(change(0, XATTR_REPLACE), Ok(XattrChange::Remove));
        assert_eq!(change(0, 0), Ok(XattrChange::Set(XattrHow::Any)));
        assert_eq!(change(0, XATTR_CREATE), Ok(XattrChange::Set(XattrHow::Create)));
        assert_eq!(change(1, XATTR_REPLACE), Ok(XattrChange::Set(XattrHow::Replace)));
        assert_eq!(change(1, 3), Err(refusals::INVALID));
    }
}
