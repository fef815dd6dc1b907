//! The store as a view of the slice.

use bytes::Bytes;
use magma_common::key::{Ino, Key};
use magma_common::name::Name;
use magma_common::proto::SessionId;

use super::Store;
use crate::rows::{BodyId, EntryRow, FlareRow, LockRow, ReferenceRow, SessionRow};
use crate::view::{ReadError, Space, View};

impl View for Store {
    fn flare(&self, key: &Key) -> Result<Option<FlareRow>, ReadError> {
        self.readable()?;
        Ok(self.db.flare(key)?.map(|flare| flare.row.clone()))
    }

    fn ino_taken(&self, ino: Ino) -> Result<bool, ReadError> {
        self.readable()?;
        Ok(self.db.flare_by_ino(ino)?.is_some())
    }

    fn entry(&self, dir: &Key, name: &Name) -> Result<Option<EntryRow>, ReadError> {
        self.readable()?;
        self.db.entry(dir, name)
    }

    fn entries_after(&self, dir: &Key, cookie: u64, limit: usize) -> Result<Vec<EntryRow>, ReadError> {
        self.readable()?;
        self.db.entries_after(dir, cookie, limit)
    }

    fn references(&self, flare: &Key) -> Result<Vec<ReferenceRow>, ReadError> {
        self.readable()?;
        self.db.references(flare)
    }

    fn inline(&self, flare: &Key) -> Result<Bytes, ReadError> {
        self.readable()?;
        self.db.inline(flare)
    }

    fn xattr(&self, flare: &Key, name: &Name) -> Result<Option<Bytes>, ReadError> {
        self.readable()?;
        self.db.xattr(flare, name)
    }

    fn xattr_names(&self, flare: &Key) -> Result<Vec<Name>, ReadError> {
        self.readable()?;
        self.db.xattr_names(flare)
    }

    fn locks(&self, flare: &Key) -> Result<Vec<LockRow>, ReadError> {
        self.readable()?;
        self.db.locks(flare)
    }

    fn locked_by(&self, session: SessionId) -> Result<Vec<Key>, ReadError> {
        self.readable()?;
        self.db.locked_by(session)
    }

    fn session(&self, id: SessionId) -> Result<Option<SessionRow>, ReadError> {
        self.readable()?;
        self.db.session(id)
    }

    fn sessions(&self) -> Result<Vec<SessionRow>, ReadError> {
        self.readable()?;
        self.db.sessions()
    }

    fn orphans(&self, after: Option<Key>, limit: usize) -> Result<Vec<Key>, ReadError> {
        self.readable()?;
        self.db.orphans(after, limit)
    }

    fn read_body(&self, body: BodyId, offset: u64, length: usize) -> Result<Bytes, ReadError> {
        self.readable()?;
        self.bodies.borrow_mut().read(&self.db, body, offset, length)
    }

    fn body_data(&self, body: BodyId, offset: u64, end: u64) -> Result<Option<u64>, ReadError> {
        self.readable()?;
        self.bodies.borrow_mut().data(&self.db, body, offset, end)
    }

    fn body_hole(&self, body: BodyId, offset: u64, end: u64) -> Result<u64, ReadError> {
        self.readable()?;
        self.bodies.borrow_mut().hole(&self.db, body, offset, end)
    }

    fn body_used(&self, body: BodyId) -> Result<u64, ReadError> {
        self.readable()?;
        self.bodies.borrow_mut().used(&self.db, body)
    }

    fn space(&self) -> Space {
        let (total, free) = self.disk.space(&self.dir).unwrap_or_else(|error| {
            // no space at all is the careful answer: nothing new is taken
            tracing::warn!(target: "volcano", %error, "the file system does not say how much space it has");
            (0, 0)
        });
        let reserve = self.upkeep.options.reserve.unwrap_or_else(|| default_reserve(total));
        Space {
            total,
            available: free.saturating_sub(reserve).min(self.space_elsewhere),
            flares: self.db.state.flares,
            bytes: self.db.state.bytes,
        }
    }
}

/// What is kept free for the log, the database and deletions: 1 % of the file system, at least 64 MiB and at most 1 GiB.
fn default_reserve(total: u64) -> u64 {
    (total / 100).clamp(64 << 20, 1 << 30)
}
