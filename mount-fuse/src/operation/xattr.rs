//! Extended attributes: getxattr, setxattr, listxattr, removexattr. POSIX ACLs are among them.

use bytes::{BufMut, Bytes, BytesMut};
use fuser::{Errno, INodeNo};
use magma_common::client::Context;
use magma_common::error::FlareError;
use magma_common::name::Name;
use magma_common::proto::operation::{GetXattr, ListXattr, RemoveXattr, SetXattr, XattrHow};

use crate::core::Core;
use crate::reply::{Outcome, Xattr, errno, failed};

/// Where file capabilities are kept. The kernel asks for it before the first write to a file.
const CAPABILITY: &[u8] = b"security.capability";

impl Core {
    pub(crate) async fn getxattr(
        &self,
        context: Context,
        number: INodeNo,
        name: Outcome<Name>,
        space: u32,
    ) -> Outcome<Xattr> {
        let (handle, name) = (self.handle(number)?, name?);
        if name.as_bytes() == CAPABILITY && self.inodes.is_newborn(handle) {
            return Err(errno(FlareError::NoAttribute));
        }
        let value = self.client.call(&context, GetXattr { handle, name }).await.map_err(failed)?.value;
        Ok(Xattr { value, space })
    }

    pub(crate) async fn setxattr(
        &self,
        context: Context,
        number: INodeNo,
        name: Outcome<Name>,
        value: Bytes,
        flags: i32,
    ) -> Outcome<()> {
        let (handle, name) = (self.handle(number)?, name?);
        let how = match flags {
            0 => XattrHow::Any,
            libc::XATTR_CREATE => XattrHow::Create,
            libc::XATTR_REPLACE => XattrHow::Replace,
            _ => return Err(Errno::EINVAL),
        };
        self.inodes.attributed(handle);
        // The volcano clears set-group-id only for callers outside the owning group, as the kernel would ask for.
        let set = SetXattr { handle, name, value, how, clear_setgid: true };
        self.recent.forget(handle);
        let wcc = self.client.call(&context, set).await.map_err(failed)?;
        self.recent.changed(&wcc);
        Ok(())
    }

    pub(crate) async fn listxattr(&self, context: Context, number: INodeNo, space: u32) -> Outcome<Xattr> {
        let handle = self.handle(number)?;
        let names = self.client.call(&context, ListXattr { handle }).await.map_err(failed)?;
        Ok(Xattr { value: list(&names), space })
    }

    pub(crate) async fn removexattr(
        &self,
        context: Context,
        number: INodeNo,
        name: Outcome<Name>,
    ) -> Outcome<()> {
        let (handle, name) = (self.handle(number)?, name?);
        self.recent.forget(handle);
        let wcc = self.client.call(&context, RemoveXattr { handle, name }).await.map_err(failed)?;
        self.recent.changed(&wcc);
        Ok(())
    }
}

/// The names, each with a NUL after it (`listxattr(2)`).
fn list(names: &[Name]) -> Bytes {
    let mut list = BytesMut::with_capacity(names.iter().map(|name| name.as_bytes().len() + 1).sum());
    for name in names {
        list.put_slice(name.as_bytes());
        list.put_u8(0);
    }
    list.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_ends_each_with_a_nul() {
        let names = [Name::new("user.a").unwrap(), Name::new("user.b").unwrap()];
        assert_eq!(&list(&names)[..], b"user.a\0user.b\0");
        assert!(list(&[]).is_empty());
    }
}
