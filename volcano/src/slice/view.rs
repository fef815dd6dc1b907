//! What is in the store of one slice.

use bytes::Bytes;
use magma_common::key::{Ino, Key, KeyRange};
use magma_common::name::Name;
use magma_common::proto::SessionId;
use magma_common::topology::SliceId;

use crate::rows::{BodyId, EntryRow, FlareRow, LockRow, ReferenceRow, SessionRow};
use crate::store::Store;
use crate::view::{ReadError, Space, View};

/// The store as one slice sees it: what is counted or listed is this slice's alone. What is named by a key is found wherever it belongs.
#[derive(Clone, Copy)]
pub struct SliceView<'a> {
    store: &'a Store,
    slice: SliceId,
    range: KeyRange,
    space_elsewhere: u64,
}

impl<'a> SliceView<'a> {
    /// The slice of these keys, whose other copies can still take so many bytes.
    pub fn new(store: &'a Store, slice: SliceId, range: KeyRange, space_elsewhere: u64) -> Self {
        Self { store, slice, range, space_elsewhere }
    }
}

impl View for SliceView<'_> {
    fn flare(&self, key: &Key) -> Result<Option<FlareRow>, ReadError> {
        self.store.flare(key)
    }

    fn ino_taken(&self, ino: Ino) -> Result<bool, ReadError> {
        self.store.ino_taken(ino)
    }

    fn entry(&self, dir: &Key, name: &Name) -> Result<Option<EntryRow>, ReadError> {
        self.store.entry(dir, name)
    }

    fn entries_after(&self, dir: &Key, cookie: u64, limit: usize) -> Result<Vec<EntryRow>, ReadError> {
        self.store.entries_after(dir, cookie, limit)
    }

    fn references(&self, flare: &Key) -> Result<Vec<ReferenceRow>, ReadError> {
        self.store.references(flare)
    }

    fn inline(&self, flare: &Key) -> Result<Bytes, ReadError> {
        self.store.inline(flare)
    }

    fn xattr(&self, flare: &Key, name: &Name) -> Result<Option<Bytes>, ReadError> {
        self.store.xattr(flare, name)
    }

    fn xattr_names(&self, flare: &Key) -> Result<Vec<Name>, ReadError> {
        self.store.xattr_names(flare)
    }

    fn locks(&self, flare: &Key) -> Result<Vec<LockRow>, ReadError> {
        self.store.locks(flare)
    }

    fn locked_by(&self, session: SessionId) -> Result<Vec<Key>, ReadError> {
        self.store.locked_by_in(self.range, session)
    }

    fn session(&self, id: SessionId) -> Result<Option<SessionRow>, ReadError> {
        self.store.session_of(self.slice, id)
    }

    fn sessions(&self) -> Result<Vec<SessionRow>, ReadError> {
        self.store.sessions_of(self.slice)
    }

    fn orphans(&self, after: Option<Key>, limit: usize) -> Result<Vec<Key>, ReadError> {
        self.store.orphans_in(self.range, after, limit)
    }

    fn read_body(&self, body: BodyId, offset: u64, length: usize) -> Result<Bytes, ReadError> {
        self.store.read_body(body, offset, length)
    }

    fn body_data(&self, body: BodyId, offset: u64, end: u64) -> Result<Option<u64>, ReadError> {
        self.store.body_data(body, offset, end)
    }

    fn body_hole(&self, body: BodyId, offset: u64, end: u64) -> Result<u64, ReadError> {
        self.store.body_hole(body, offset, end)
    }

    fn body_used(&self, body: BodyId) -> Result<u64, ReadError> {
        self.store.body_used(body)
    }

    /// No more is promised than the slice's other copies can take, too.
    fn space(&self) -> Space {
        let space = self.store.space();
        Space { available: space.available.min(self.space_elsewhere), ..space }
    }
}
