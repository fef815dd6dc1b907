//! Which flare a request is about, and so which slice, and so which volcano.

use super::frame::StreamClass;
use super::limits::MAX_IO;
use super::operation::Request;
use crate::handle::Handle;
use crate::key::Key;

/// Data above this size goes over a stream for bulk, in bytes.
const BULK_ABOVE: u32 = 16 << 10;
/// Listings of more entries than this do, too.
const BULK_ABOVE_ENTRIES: usize = 64;

impl Request {
    /// The flare that routes the request: the directory for operations on names (rename: the
    /// destination, which drives it), the flare itself otherwise. `None` for what is about none.
    pub fn handle(&self) -> Option<Handle> {
        let handle = match self {
            Self::OpenSession(_)
            | Self::KeepAlive(_)
            | Self::EndSession(_)
            | Self::ReclaimOpens(_)
            | Self::FetchTopology(_)
            | Self::Statfs(_) => return None,
            Self::StatMany(op) => return op.handles.first().copied(),
            Self::Lookup(op) => op.dir,
            Self::LookupParent(op) => op.dir,
            Self::Create(op) => op.dir,
            Self::Mkdir(op) => op.dir,
            Self::Symlink(op) => op.dir,
            Self::Mknod(op) => op.dir,
            Self::Link(op) => op.dir,
            Self::Unlink(op) => op.dir,
            Self::Rmdir(op) => op.dir,
            Self::Rename(op) => op.to_dir,
            Self::Readdir(op) => op.dir,
            Self::Getattr(op) => op.handle,
            Self::Setattr(op) => op.handle,
            Self::Access(op) => op.handle,
            Self::Readlink(op) => op.handle,
            Self::Open(op) => op.handle,
            Self::Release(op) => op.handle,
            Self::Read(op) => op.handle,
            Self::Write(op) => op.handle,
            Self::Commit(op) => op.handle,
            Self::Allocate(op) => op.handle,
            Self::Seek(op) => op.handle,
            Self::GetXattr(op) => op.handle,
            Self::SetXattr(op) => op.handle,
            Self::ListXattr(op) => op.handle,
            Self::RemoveXattr(op) => op.handle,
            Self::Lock(op) => op.handle,
            Self::TestLock(op) => op.handle,
            Self::Layout(op) => op.handle,
            Self::ReadStripe(op) => op.stripe,
            Self::WriteStripe(op) => op.stripe,
            Self::WriteDone(op) => op.handle,
            Self::CommitPart(op) => op.part,
            Self::Shed(op) => op.handle,
            Self::MakeStripes(op) => op.handle,
        };
        Some(handle)
    }

    /// The key that routes the request; `None` for what concerns no slice in particular.
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::ReclaimOpens(reclaim) => Some(reclaim.at),
            _ => self.handle().map(|handle| handle.key),
        }
    }

    /// Whether success gives the session one more open of the flare in the reply.
    pub fn opens(&self) -> bool {
        match self {
            Self::Open(_) => true,
            Self::Create(create) => create.open,
            _ => false,
        }
    }

    /// The kind of stream that it goes on, so that data never stands in the way of a stat.
    pub fn stream_class(&self, payload: usize) -> StreamClass {
        let bulk = match self {
            Self::Write(_) | Self::WriteStripe(_) => payload > BULK_ABOVE as usize,
            Self::Read(read) => read.length > BULK_ABOVE,
            Self::ReadStripe(read) => read.length > BULK_ABOVE,
            Self::Layout(layout) => layout.length > u64::from(MAX_IO),
            Self::StatMany(many) => many.handles.len() > BULK_ABOVE_ENTRIES,
            Self::Readdir(readdir) => readdir.limit as usize > BULK_ABOVE_ENTRIES,
            _ => false,
        };
        if bulk { StreamClass::Bulk } else { StreamClass::Metadata }
    }

    /// Whether it may wait for another client as long as its deadline allows.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Lock(lock) if lock.wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::handle::BirthNumber;
    use crate::name::Name;
    use crate::proto::operation::{FetchTopology, ReclaimOpens, Rename, RenameHow, StatMany};
    use crate::topology::Epoch;

    #[test]
    fn a_rename_goes_to_the_directory_that_gains_the_name() {
        let here = Handle { key: Key::from_bytes([1; 20]), birth: BirthNumber(1) };
        let there = Handle { key: Key::from_bytes([2; 20]), birth: BirthNumber(2) };
        let name = Name::new(&b"x"[..]).unwrap();
        let rename = Rename {
            from_dir: here,
            from_name: name.clone(),
            to_dir: there,
            to_name: name,
            how: RenameHow::Replace,
        };
        assert_eq!(Request::from(rename).key(), Some(there.key));
    }

    #[test]
    fn what_is_open_is_said_to_the_slice_that_is_meant() {
        let at = Key::from_bytes([3; 20]);
        let (reign, opens) = (Epoch(1), vec![(Handle::root(), 1)]);
        let reclaim = Request::from(ReclaimOpens { at, reign, opens, last: true, number: 1 });
        assert_eq!((reclaim.key(), reclaim.handle()), (Some(at), None));
    }

    #[test]
    fn what_names_no_flare_goes_anywhere() {
        assert_eq!(Request::from(FetchTopology).key(), None);
        assert_eq!(Request::from(StatMany { handles: Vec::new() }).key(), None);
    }
}
