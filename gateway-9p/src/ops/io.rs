//! Tread, Twrite, Tfsync.

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::client::Context;
use magma_common::proto::Durability;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{Commit, Read, Write, WriteAt};

use super::Session;
use crate::errno::{Refusal, refusals};
use crate::fid::{Fid, Role};
use crate::wire::Reply;
use crate::wire::codec::Data;
use crate::wire::io::{Rfsync, Rread, Rwrite, Tfsync, Tread, Twrite};

impl Session {
    pub(super) async fn read(&self, read: &Tread) -> Result<Reply, Refusal> {
        let fid = self.fids.get(read.fid)?;
        let length = read.count.min(self.largest_payload()).min(MAX_IO);
        let data = match &fid.role {
            Role::XattrRead(xattr) => slice(&xattr.value, read.offset, length),
            Role::Open(opened) if opened.read => self.read_file(&fid, read.offset, length).await?,
            Role::Open(_) | Role::Path | Role::XattrWrite(_) => return Err(refusals::BAD_FID),
        };
        Ok(Rread { data: Data(data) }.into())
    }

    async fn read_file(&self, fid: &Fid, offset: u64, length: u32) -> Result<Bytes, Refusal> {
        let target = &fid.target;
        if target.kind == Kind::Directory {
            return Err(refusals::IS_DIRECTORY);
        }
        let read = Read { handle: target.handle, offset, length, opened: true };
        let (_, data) = self
            .gateway
            .client
            .read(&target.user.context(), read)
            .await
            .map_err(|failure| Refusal::of_open_file(&failure))?;
        Ok(data)
    }

    /// Writes at the offset that the client gives, also where it opened the file for appending: clients work out the
    /// offset themselves, and may write cached pages of other places through the same fid.
    pub(super) async fn write(&self, write: Twrite) -> Result<Reply, Refusal> {
        let fid = self.fids.get(write.fid)?;
        let Data(mut data) = write.data;
        let count = match &fid.role {
            Role::XattrWrite(xattr) => xattr.collect(write.offset, &data)?,
            Role::Open(opened) if opened.write => {
                data.truncate(MAX_IO as usize);
                let mut context = fid.target.user.context();
                if opened.stable {
                    context.durability = Durability::Stable;
                }
                self.write_file(&fid, &context, write.offset, data).await?
            }
            Role::Open(_) | Role::Path | Role::XattrRead(_) => return Err(refusals::BAD_FID),
        };
        Ok(Rwrite { count }.into())
    }

    async fn write_file(
        &self,
        fid: &Fid,
        context: &Context,
        offset: u64,
        data: Bytes,
    ) -> Result<u32, Refusal> {
        let count = data.len() as u32;
        if count == 0 {
            return Ok(0);
        }
        let write = Write { handle: fid.target.handle, at: WriteAt::Offset(offset), opened: true };
        let written = self.gateway.client.write(context, write, data).await;
        written.map_err(|failure| Refusal::of_open_file(&failure))?;
        Ok(count)
    }

    /// Answers when data, attributes and names are on disk, whether or not attributes were asked for.
    pub(super) async fn fsync(&self, fsync: &Tfsync) -> Result<Reply, Refusal> {
        let fid = self.fids.get(fsync.fid)?;
        let target = fid.file()?;
        let committed = self.call(&target.user, Commit { handle: target.handle }).await;
        committed.map_err(|failure| Refusal::of_open_file(&failure))?;
        Ok(Rfsync {}.into())
    }
}

fn slice(value: &Bytes, offset: u64, length: u32) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(value.len());
    let end = start.saturating_add(length as usize).min(value.len());
    value.slice(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_where_the_value_ends() {
        let value = Bytes::from_static(b"abcdef");
        assert_eq!(slice(&value, 0, 3), "abc");
        assert_eq!(slice(&value, 4, u32::MAX), "ef");
        assert_eq!(slice(&value, 6, 1), "");
        assert_eq!(slice(&value, u64::MAX, u32::MAX), "");
    }
}
