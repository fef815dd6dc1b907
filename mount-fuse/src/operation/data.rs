//! Data: read, write, fsync, fallocate, lseek.

use bytes::{Bytes, BytesMut};
use fuser::{Errno, FileHandle, INodeNo};
use magma_common::client::Context;
use magma_common::handle::Handle;
use magma_common::proto::Durability;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{Allocate, AllocateHow, Commit, Read, Seek, SeekWhence, Write, WriteAt};

use super::opening::Flags;
use crate::core::Core;
use crate::reply::{Outcome, errno, failed};

/// What `fallocate(2)` was asked to do.
fn allocation(mode: i32) -> Outcome<AllocateHow> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Ok(AllocateHow::Reserve),
        libc::FALLOC_FL_KEEP_SIZE => Ok(AllocateHow::ReserveKeepSize),
        PUNCH => Ok(AllocateHow::PunchHole),
        libc::FALLOC_FL_ZERO_RANGE => Ok(AllocateHow::Zero),
        ZERO_KEEP => Ok(AllocateHow::ZeroKeepSize),
        _ => Err(errno(magma_common::error::FlareError::NotSupported)),
    }
}

impl Core {
    pub(crate) async fn read(
        &self,
        context: Context,
        open: FileHandle,
        offset: u64,
        size: u32,
    ) -> Outcome<Bytes> {
        let handle = self.files.of(open)?.handle;
        self.read_range(&context, handle, offset, size).await
    }

    /// Reads until the range is full or the file ends: the kernel takes a short read for the end of the file.
    pub(crate) async fn read_range(
        &self,
        context: &Context,
        handle: Handle,
        offset: u64,
        size: u32,
    ) -> Outcome<Bytes> {
        let mut whole: Option<BytesMut> = None;
        let mut at = offset;
        let end = offset.saturating_add(u64::from(size));
        loop {
            let length = u32::try_from(end - at).unwrap_or(u32::MAX).min(MAX_IO);
            let read = Read { handle, offset: at, length, opened: true };
            let (reply, data) = self.client.read(context, read).await.map_err(failed)?;
            at = at.saturating_add(data.len() as u64);
            let done = reply.eof || data.is_empty() || at >= end;
            match &mut whole {
                None if done => return Ok(data),
                None => whole = Some(BytesMut::from(&data[..])),
                Some(whole) => whole.extend_from_slice(&data),
            }
            if done {
                return Ok(whole.unwrap_or_default().freeze());
            }
        }
    }

    pub(crate) async fn write(
        &self,
        mut context: Context,
        open: FileHandle,
        offset: u64,
        data: Bytes,
        flags: Flags,
    ) -> Outcome<u32> {
        let file = self.files.of(open)?;
        let length =
            u32::try_from(data.len()).ok().filter(|&length| length <= MAX_IO).ok_or(Errno::EINVAL)?;
        if file.direct && flags.writes_through() {
            context.durability = Durability::Stable;
        }
        let at = if file.append { WriteAt::End } else { WriteAt::Offset(offset) };
        let write = Write { handle: file.handle, at, opened: true };
        let reply = self.client.write(&context, write, data).await.map_err(failed)?;
        self.inodes.changed(file.handle, &reply.wcc);
        Ok(length)
    }

    /// Answers when the file's data, attributes and names are on disk.
    pub(crate) async fn fsync(&self, context: Context, open: FileHandle) -> Outcome<()> {
        let handle = self.files.of(open)?.handle;
        self.client.call(&context, Commit { handle }).await.map_err(failed)?;
        Ok(())
    }

    pub(crate) async fn fsyncdir(&self, context: Context, number: INodeNo) -> Outcome<()> {
        let handle = self.handle(number)?;
        self.client.call(&context, Commit { handle }).await.map_err(failed)?;
        Ok(())
    }

    pub(crate) async fn fallocate(
        &self,
        context: Context,
        open: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
    ) -> Outcome<()> {
        let (handle, how) = (self.files.of(open)?.handle, allocation(mode)?);
        let wcc =
            self.client.call(&context, Allocate { handle, offset, length, how }).await.map_err(failed)?;
        // The kernel drops the pages of a range that was punched or zeroed itself.
        self.inodes.changed(handle, &wcc);
        Ok(())
    }

    pub(crate) async fn lseek(
        &self,
        context: Context,
        open: FileHandle,
        offset: i64,
        whence: i32,
    ) -> Outcome<i64> {
        let handle = self.files.of(open)?.handle;
        let whence = match whence {
            libc::SEEK_DATA => SeekWhence::Data,
            libc::SEEK_HOLE => SeekWhence::Hole,
            _ => return Err(Errno::EINVAL),
        };
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let found = self.client.call(&context, Seek { handle, offset, whence }).await.map_err(failed)?;
        i64::try_from(found.offset).map_err(|_| Errno::EOVERFLOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocation_modes_that_the_volcano_lacks_are_refused() {
        assert_eq!(allocation(libc::FALLOC_FL_COLLAPSE_RANGE).unwrap_err(), Errno::EOPNOTSUPP);
        assert_eq!(allocation(libc::FALLOC_FL_PUNCH_HOLE).unwrap_err(), Errno::EOPNOTSUPP);
        assert_eq!(
            allocation(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).unwrap(),
            AllocateHow::PunchHole
        );
    }
}
