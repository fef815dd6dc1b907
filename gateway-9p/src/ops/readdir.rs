//! Treaddir. An entry's offset is its cookie at the volcano, which it keeps while the directory changes.

use bytes::{BufMut, BytesMut};
use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::proto::limits::MAX_READDIR_ENTRIES;
use magma_common::proto::operation::Readdir;

use super::{Session, qid_kind};
use crate::errno::{Refusal, refusals};
use crate::fid::Target;
use crate::wire::Reply;
use crate::wire::codec::{Data, Qid, Wire};
use crate::wire::io::{Rreaddir, Treaddir};

/// Bytes of an entry besides its name: qid, offset, type, length of the name.
const ENTRY_OVERHEAD: usize = 13 + 8 + 1 + 2;
/// What an entry takes as a rule, in bytes; a page asks for so many entries as would fill it then.
const USUAL_ENTRY: u32 = 36;
/// Offset of `.`; the volcano's cookies begin at 3.
const DOT: u64 = 1;
/// Offset of `..`.
const DOT_DOT: u64 = 2;

impl Session {
    pub(super) async fn readdir(&self, readdir: &Treaddir) -> Result<Reply, Refusal> {
        let fid = self.fids.get(readdir.fid)?;
        let opened = fid.opened()?;
        let target = fid.dir()?;
        if !opened.read {
            return Err(refusals::BAD_FID);
        }
        let count = readdir.count.min(self.largest_payload());
        let mut page = Page::new(count as usize);
        if readdir.offset < DOT {
            page.add(target.handle, Kind::Directory, DOT, b".");
        }
        if readdir.offset < DOT_DOT {
            // A listing does not fail because of a parent that this user may not look at.
            let parent = self.parent(target).await.map_or(target.handle, |attr| attr.handle);
            page.add(parent, Kind::Directory, DOT_DOT, b"..");
        }
        self.fill(&mut page, target, readdir.offset).await?;
        page.finish()
    }

    async fn fill(&self, page: &mut Page, target: &Target, after: u64) -> Result<(), Refusal> {
        let list = Readdir {
            dir: target.handle,
            cookie: if after <= DOT_DOT { 0 } else { after },
            limit: (page.limit as u32 / USUAL_ENTRY).clamp(1, MAX_READDIR_ENTRIES),
            attributes: false,
            opened: true,
        };
        let listed = self.call(&target.user, list).await;
        let listed = listed.map_err(|failure| Refusal::of_open_file(&failure))?;
        for entry in listed.entries {
            if !page.add(entry.handle, entry.kind, entry.cookie, entry.name.as_bytes()) {
                break;
            }
        }
        Ok(())
    }
}

/// The entries of one reply.
struct Page {
    out: BytesMut,
    limit: usize,
    /// An entry did not fit.
    full: bool,
}

impl Page {
    fn new(limit: usize) -> Self {
        Self { out: BytesMut::with_capacity(limit.min(64 << 10)), limit, full: false }
    }

    /// False, from then on, if there is no room.
    fn add(&mut self, handle: Handle, kind: Kind, offset: u64, name: &[u8]) -> bool {
        self.full |= self.out.len() + ENTRY_OVERHEAD + name.len() > self.limit;
        if self.full {
            return false;
        }
        Qid { kind: qid_kind(kind), version: 0, path: handle.ino().0 }.put(&mut self.out);
        self.out.put_u64_le(offset);
        self.out.put_u8(dirent_type(kind));
        self.out.put_u16_le(name.len() as u16);
        self.out.put_slice(name);
        true
    }

    /// The reply. One without entries would mean the end of the directory, so it must not come of a lack of room.
    fn finish(self) -> Result<Reply, Refusal> {
        if self.full && self.out.is_empty() {
            return Err(refusals::INVALID);
        }
        Ok(Rreaddir { data: Data(self.out.freeze()) }.into())
    }
}

/// The `DT_` number of `readdir(3)`.
fn dirent_type(kind: Kind) -> u8 {
    match kind {
        Kind::Fifo => 1,
        Kind::CharDevice => 2,
        Kind::Directory => 4,
        Kind::BlockDevice => 6,
        Kind::File => 8,
        Kind::Symlink => 10,
        Kind::Socket => 12,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_takes_whole_entries_only_and_stays_full() {
        let mut page = Page::new(ENTRY_OVERHEAD * 2 + 3);
        assert!(page.add(Handle::root(), Kind::File, 3, b"ab"));
        assert!(!page.add(Handle::root(), Kind::File, 4, b"cd"));
        assert!(!page.add(Handle::root(), Kind::File, 5, b"e"), "an entry must not be skipped");
        assert_eq!(page.out.len(), ENTRY_OVERHEAD + 2);
    }

    #[test]
    fn too_little_room_for_one_entry_is_an_error_not_the_end() {
        let mut page = Page::new(10);
        page.add(Handle::root(), Kind::File, 3, b"ab");
        assert_eq!(page.finish(), Err(refusals::INVALID));
        assert!(Page::new(10).finish().is_ok());
    }
}
