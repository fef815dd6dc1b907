//! Attributes: getattr, setattr, readlink, statfs.

use bytes::Bytes;
use fuser::{FileHandle, INodeNo, TimeOrNow};
use magma_common::attr::{MODE_MASK, SetAttr, SetTime};
use magma_common::client::Context;
use magma_common::handle::Handle;
use magma_common::proto::operation::{Getattr, Readlink, Setattr, Statfs, StatfsReply};

use crate::core::Core;
use crate::reply::{Attributes, Outcome, failed};

/// A time to set, in the volcano's words.
pub(crate) fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Keep,
        Some(TimeOrNow::Now) => SetTime::Server,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::Client(time.into()),
    }
}

impl Core {
    /// The file behind an open and whether that open may write, else the flare behind the inode.
    fn target(&self, number: INodeNo, open: Option<FileHandle>) -> Outcome<(Handle, bool)> {
        match open.map(|open| self.files.of(open)) {
            Some(Ok(file)) => Ok((file.handle, file.writable)),
            // A directory's open, or none.
            _ => Ok((self.handle(number)?, false)),
        }
    }

    pub(crate) async fn getattr(
        &self,
        context: Context,
        number: INodeNo,
        open: Option<FileHandle>,
    ) -> Outcome<Attributes> {
        let (handle, _) = self.target(number, open)?;
        if let Some((attr, ttl)) = self.recent.attributes(handle, self.caching.attributes) {
            return Ok(Attributes { ttl, ..self.attributes(&attr) });
        }
        let attr = self.client.call(&context, Getattr { handle }).await.map_err(failed)?;
        Ok(self.attributes(&attr))
    }

    pub(crate) async fn setattr(
        &self,
        context: Context,
        number: INodeNo,
        open: Option<FileHandle>,
        mut set: SetAttr,
    ) -> Outcome<Attributes> {
        let (handle, opened) = self.target(number, open)?;
        set.mode = set.mode.map(|mode| mode & MODE_MASK);
        let resized = set.size.is_some();
        let setattr = Setattr { handle, set, guard: None, opened };
        let wcc = self.client.call(&context, setattr).await.map_err(failed)?;
        self.recent.changed(&wcc);
        if resized {
            self.inodes.changed(handle, &wcc);
        }
        let attr = match wcc.after {
            Some(attr) => attr,
            None => self.client.call(&context, Getattr { handle }).await.map_err(failed)?,
        };
        Ok(self.attributes(&attr))
    }

    pub(crate) async fn readlink(&self, context: Context, number: INodeNo) -> Outcome<Bytes> {
        let handle = self.handle(number)?;
        Ok(self.client.call(&context, Readlink { handle }).await.map_err(failed)?.target)
    }

    pub(crate) async fn statfs(&self, context: Context) -> Outcome<StatfsReply> {
        self.client.call(&context, Statfs).await.map_err(failed)
    }
}
