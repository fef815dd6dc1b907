//! `copy_file_range(2)`, through this client: the volcano has no operation for it.

use fuser::FileHandle;
use magma_common::client::Context;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation::{Write, WriteAt};

use crate::core::Core;
use crate::reply::{Outcome, failed};

/// Most bytes that one call copies; the caller goes on after a short copy.
const MAX_COPY: u64 = 8 * MAX_IO as u64;

/// One end of a copy.
#[derive(Clone, Copy)]
pub(crate) struct CopyEnd {
    /// The open file.
    pub(crate) open: FileHandle,
    /// First byte.
    pub(crate) offset: u64,
}

impl Core {
    pub(crate) async fn copy_file_range(
        &self,
        context: Context,
        from: CopyEnd,
        to: CopyEnd,
        length: u64,
    ) -> Outcome<u32> {
        let (source, target) = (self.files.of(from.open)?.handle, self.files.of(to.open)?.handle);
        let length = length.min(MAX_COPY);
        let mut copied = 0;
        while copied < length {
            let size = u32::try_from(length - copied).unwrap_or(u32::MAX).min(MAX_IO);
            let data = match self.read_range(&context, source, from.offset + copied, size).await {
                Ok(data) => data,
                Err(errno) if copied == 0 => return Err(errno),
                // What was copied counts; the next call meets the error again.
                Err(_) => break,
            };
            if data.is_empty() {
                break;
            }
            let got = data.len() as u64;
            let write = Write { handle: target, at: WriteAt::Offset(to.offset + copied), opened: true };
            match self.client.write(&context, write, data).await {
                Ok(reply) => self.inodes.changed(target, &reply.wcc),
                Err(failure) if copied == 0 => return Err(failed(failure)),
                Err(_) => break,
            }
            copied += got;
        }
        Ok(copied as u32)
    }
}
