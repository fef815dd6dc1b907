//! The store as a view of all that is in it, and what it answers of one slice.

use std::collections::BTreeMap;

use bytes::Bytes;
use magma_common::key::{Ino, Key, KeyRange};
use magma_common::name::Name;
use magma_common::proto::SessionId;
use magma_common::topology::SliceId;

use super::Store;
use crate::rows::{BodyId, EntryRow, FlareRow, LockRow, ReferenceRow, SessionRow};
use crate::transaction::TransactionRow;
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
        self.locked_by_in(KeyRange::ALL, session)
    }

    fn session(&self, id: SessionId) -> Result<Option<SessionRow>, ReadError> {
        self.readable()?;
        for slice in self.db.slices.keys() {
            if let Some(session) = self.db.session(*slice, id)? {
                return Ok(Some(session));
            }
        }
        Ok(None)
    }

    fn sessions(&self) -> Result<Vec<SessionRow>, ReadError> {
        self.readable()?;
        let mut sessions = BTreeMap::new();
        for slice in self.db.slices.keys() {
            for session in self.db.sessions(*slice)? {
                sessions.entry(session.id).or_insert(session);
            }
        }
        Ok(sessions.into_values().collect())
    }

    fn orphans(&self, after: Option<Key>, limit: usize) -> Result<Vec<Key>, ReadError> {
        self.orphans_in(KeyRange::ALL, after, limit)
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
            available: free.saturating_sub(reserve),
            flares: self.db.state.flares,
            bytes: self.db.state.bytes,
        }
    }
}

/// What belongs to one slice only. The rows of its flares are those in its [range](Store::range).
impl Store {
    /// All open sessions with a slice, by their numbers.
    pub fn sessions_of(&self, slice: SliceId) -> Result<Vec<SessionRow>, ReadError> {
        self.readable()?;
        self.db.sessions(slice)
    }

    /// One session with a slice, if it is open.
    pub fn session_of(&self, slice: SliceId, id: SessionId) -> Result<Option<SessionRow>, ReadError> {
        self.readable()?;
        self.db.session(slice, id)
    }

    /// All that a slice keeps of transactions, in the order of their [ids](TransactionRow::id).
    pub fn transactions(&self, slice: SliceId) -> Result<Vec<TransactionRow>, ReadError> {
        self.readable()?;
        self.db.transactions(slice)
    }

    /// How many flares a copy has and how many bytes they are, by what was counted so far; none if that is nothing yet.
    pub fn counted(&self, slice: SliceId) -> Option<(u64, u64)> {
        self.db.counted(slice)
    }

    /// Up to `limit` keys in a range and above `after` of flares without a name, ascending.
    pub fn orphans_in(
        &self,
        range: KeyRange,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<Key>, ReadError> {
        self.readable()?;
        self.db.orphans(range, after, limit)
    }

    /// Up to `limit` keys in a range and above `after` of heads of striped files that have something to shed, ascending.
    pub fn to_shed_in(
        &self,
        range: KeyRange,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<Key>, ReadError> {
        self.readable()?;
        self.db.to_shed(range, after, limit)
    }

    /// The flares in a range on which a session holds locks, ascending.
    pub fn locked_by_in(&self, range: KeyRange, session: SessionId) -> Result<Vec<Key>, ReadError> {
        self.readable()?;
        self.db.locked_by(range, session)
    }
}

/// What is kept free for the log, the database and deletions: 1 % of the file system, at least 64 MiB and at most 1 GiB.
fn default_reserve(total: u64) -> u64 {
    (total / 100).clamp(64 << 20, 1 << 30)
}
