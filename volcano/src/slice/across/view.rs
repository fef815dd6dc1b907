//! What an operation may read: the flares of its slice, unless a transaction holds them, and what was told of flares elsewhere.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use magma_common::key::{Ino, Key, KeyRange};
use magma_common::name::Name;
use magma_common::proto::{OpId, SessionId};

use super::facts::{Facts, Known, Wanted, acl_of};
use crate::rows::{BodyId, EntryRow, FlareRow, LockRow, ReferenceRow, SessionRow};
use crate::view::{ReadError, Space, View};

/// Whether a transaction that is prepared holds a flare; then its row, and what hangs on it, is neither shown nor changed.
pub(crate) trait Holding {
    fn holds(&self, key: &Key) -> bool;
    /// Whether a flare with this number may be born by it.
    fn reserves(&self, ino: Ino) -> bool;
}

/// See the module's documentation.
pub(crate) struct AcrossView<'a> {
    here: &'a dyn View,
    range: KeyRange,
    holding: &'a dyn Holding,
    known: &'a Known,
    wanted: RefCell<Wanted>,
    because: RefCell<BTreeMap<Key, OpId>>,
}

impl<'a> AcrossView<'a> {
    pub(crate) fn new(
        here: &'a dyn View,
        range: KeyRange,
        holding: &'a dyn Holding,
        known: &'a Known,
    ) -> Self {
        Self { here, range, holding, known, wanted: RefCell::default(), because: RefCell::default() }
    }

    /// What the operation lacks.
    pub(crate) fn into_wanted(self) -> Wanted {
        self.wanted.into_inner()
    }

    /// Refuses what a transaction holds.
    fn free(&self, key: &Key) -> Result<(), ReadError> {
        if !self.holding.holds(key) {
            return Ok(());
        }
        self.wanted.borrow_mut().held.get_or_insert(*key);
        Err(ReadError::Held)
    }

    /// What is known of a flare elsewhere; notes that it is wanted, if nothing is.
    fn told(&self, key: &Key) -> Result<Option<&'a Facts>, ReadError> {
        let because = self.because.borrow().get(key).copied();
        if let Some(known) = self.known.of(key, because) {
            return Ok(known.facts.as_ref());
        }
        self.want(key, None);
        Err(ReadError::Elsewhere)
    }

    fn want(&self, key: &Key, entry: Option<&Name>) {
        let because = self.because.borrow().get(key).copied();
        let mut wanted = self.wanted.borrow_mut();
        let (want, reasons) = wanted.flares.entry(*key).or_default();
        // Whoever is told anew of what several names lead to must not lack what was asked because of the others.
        reasons.extend(self.known.because(key));
        reasons.extend(because);
        want.entries.extend(self.known.asked(key));
        want.entries.extend(entry.cloned());
    }
}

impl View for AcrossView<'_> {
    fn flare(&self, key: &Key) -> Result<Option<FlareRow>, ReadError> {
        if self.is_here(key) {
            self.free(key)?;
            return self.here.flare(key);
        }
        Ok(self.told(key)?.map(|facts| facts.row.clone()))
    }

    fn ino_taken(&self, ino: Ino) -> Result<bool, ReadError> {
        if self.range.contains_ino(ino) {
            return Ok(self.holding.reserves(ino) || self.here.ino_taken(ino)?);
        }
        Ok(self.known.is_taken(ino))
    }

    fn entry(&self, dir: &Key, name: &Name) -> Result<Option<EntryRow>, ReadError> {
        if self.is_here(dir) {
            self.free(dir)?;
            return self.here.entry(dir, name);
        }
        let Some(facts) = self.told(dir)? else { return Ok(None) };
        if let Some(entry) = facts.entries.get(name) {
            return Ok(entry.clone());
        }
        self.want(dir, Some(name));
        Err(ReadError::Elsewhere)
    }

    fn entries_after(&self, dir: &Key, cookie: u64, limit: usize) -> Result<Vec<EntryRow>, ReadError> {
        self.free(dir)?;
        self.here.entries_after(dir, cookie, limit)
    }

    fn references(&self, flare: &Key) -> Result<Vec<ReferenceRow>, ReadError> {
        if self.is_here(flare) {
            self.free(flare)?;
            return self.here.references(flare);
        }
        Ok(self.told(flare)?.and_then(|facts| facts.parent.clone()).into_iter().collect())
    }

    fn inline(&self, flare: &Key) -> Result<Bytes, ReadError> {
        if self.is_here(flare) { self.here.inline(flare) } else { Ok(Bytes::new()) }
    }

    fn xattr(&self, flare: &Key, name: &Name) -> Result<Option<Bytes>, ReadError> {
        if self.is_here(flare) {
            return self.here.xattr(flare, name);
        }
        Ok(self.told(flare)?.and_then(|facts| acl_of(facts, name)))
    }

    fn xattr_names(&self, flare: &Key) -> Result<Vec<Name>, ReadError> {
        self.here.xattr_names(flare)
    }

    fn locks(&self, flare: &Key) -> Result<Vec<LockRow>, ReadError> {
        self.here.locks(flare)
    }

    fn locked_by(&self, session: SessionId) -> Result<Vec<Key>, ReadError> {
        self.here.locked_by(session)
    }

    fn session(&self, id: SessionId) -> Result<Option<SessionRow>, ReadError> {
        self.here.session(id)
    }

    fn sessions(&self) -> Result<Vec<SessionRow>, ReadError> {
        self.here.sessions()
    }

    fn orphans(&self, after: Option<Key>, limit: usize) -> Result<Vec<Key>, ReadError> {
        self.here.orphans(after, limit)
    }

    fn read_body(&self, body: BodyId, offset: u64, length: usize) -> Result<Bytes, ReadError> {
        self.here.read_body(body, offset, length)
    }

    fn body_data(&self, body: BodyId, offset: u64, end: u64) -> Result<Option<u64>, ReadError> {
        self.here.body_data(body, offset, end)
    }

    fn body_hole(&self, body: BodyId, offset: u64, end: u64) -> Result<u64, ReadError> {
        self.here.body_hole(body, offset, end)
    }

    fn body_used(&self, body: BodyId) -> Result<u64, ReadError> {
        self.here.body_used(body)
    }

    fn space(&self) -> Space {
        self.here.space()
    }

    fn is_here(&self, key: &Key) -> bool {
        self.range.contains(key)
    }

    fn is_alone(&self) -> bool {
        self.range == KeyRange::ALL
    }

    fn led_to(&self, flare: &Key, made_by: OpId) {
        if !self.is_here(flare) {
            self.because.borrow_mut().insert(*flare, made_by);
        }
    }

    fn used_elsewhere(&self, flare: &Key) -> Option<u64> {
        if self.is_here(flare) {
            return None;
        }
        self.known.of(flare, None)?.facts.as_ref().map(|facts| facts.used)
    }
}
