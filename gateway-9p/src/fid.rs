//! Fids: a client's numbers for files, and what each may be used for.
//!
//! A [`Fid`] does not change what it is: opening one puts another in its place in the table. An
//! operation works on the fid that it found there; if the client clunks the number meanwhile, the
//! operation ends on its own copy, and what the fid held (an open, bytes of an attribute) goes with the
//! last of them. The table's lock is never held over an operation.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::client::Client;
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::operation::{LockOwner, XattrHow};
use tokio::sync::OwnedSemaphorePermit;

use crate::errno::{Refusal, refusals};
use crate::user::User;

/// Most owners of locks that one fid remembers.
const MAX_LOCK_OWNERS: usize = 1024;

/// The file of a fid and on whose behalf it is used.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) handle: Handle,
    pub(crate) kind: Kind,
    pub(crate) user: Arc<User>,
    /// Where the user attached; a walk does not lead out of it.
    pub(crate) root: Handle,
}

/// The name that a walk found a file by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) dir: Handle,
    pub(crate) name: Name,
}

/// What a fid may be used for.
pub(crate) enum Role {
    /// Names a file.
    Path,
    /// Reads and writes an open file or lists an open directory.
    Open(Opened),
    /// Reads the value of an extended attribute, or the list of their names.
    XattrRead(XattrRead),
    /// Collects the value of an extended attribute.
    XattrWrite(XattrWrite),
}

/// An open file or directory.
pub(crate) struct Opened {
    _guard: OpenGuard,
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Writes are answered when they are on disk.
    pub(crate) stable: bool,
    /// Whose locks were taken through this fid.
    pub(crate) lock_owners: Mutex<HashSet<LockOwner>>,
}

impl Opened {
    pub(crate) fn new(guard: OpenGuard, read: bool, write: bool, stable: bool) -> Self {
        Self { _guard: guard, read, write, stable, lock_owners: Mutex::default() }
    }

    /// Remembers that this owner takes locks through this fid.
    pub(crate) fn remember(&self, owner: LockOwner) -> Result<(), TooManyOwners> {
        let mut owners = lock(&self.lock_owners);
        if owners.len() >= MAX_LOCK_OWNERS && !owners.contains(&owner) {
            return Err(TooManyOwners);
        }
        owners.insert(owner);
        Ok(())
    }
}

/// The fid has as many owners of locks as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyOwners;

/// Keeps a file open at the volcano for as long as it lives.
pub(crate) struct OpenGuard {
    client: Client,
    handle: Handle,
}

impl OpenGuard {
    /// Takes charge of an open that the volcano has granted.
    pub(crate) fn new(client: Client, handle: Handle) -> Self {
        Self { client, handle }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.client.release(self.handle);
    }
}

/// Bytes of an extended attribute to be read.
pub(crate) struct XattrRead {
    pub(crate) value: Bytes,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// Bytes of an extended attribute to be set.
pub(crate) struct XattrWrite {
    pub(crate) name: Name,
    pub(crate) change: XattrChange,
    /// How long the value will be.
    pub(crate) size: usize,
    pub(crate) value: Mutex<Vec<u8>>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// What becomes of the attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum XattrChange {
    Set(XattrHow),
    Remove,
}

/// What a client's number stands for.
pub(crate) struct Fid {
    pub(crate) target: Target,
    place: Mutex<Option<Place>>,
    pub(crate) role: Role,
}

impl Fid {
    pub(crate) fn new(target: Target, place: Option<Place>, role: Role) -> Self {
        Self { target, place: Mutex::new(place), role }
    }

    /// Another fid of the same file and place.
    pub(crate) fn with_role(&self, role: Role) -> Self {
        Self::new(self.target.clone(), self.place(), role)
    }

    /// The name it was found by, as far as this connection knows.
    pub(crate) fn place(&self) -> Option<Place> {
        lock(&self.place).clone()
    }

    /// The open file of this fid.
    pub(crate) fn opened(&self) -> Result<&Opened, Refusal> {
        match &self.role {
            Role::Open(opened) => Ok(opened),
            Role::Path | Role::XattrRead(_) | Role::XattrWrite(_) => Err(refusals::BAD_FID),
        }
    }

    /// Whether reads and the like go without permission checks, because an open has passed them.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.role, Role::Open(_))
    }

    /// Fails unless the fid stands for a file, not for an extended attribute.
    pub(crate) fn file(&self) -> Result<&Target, Refusal> {
        match &self.role {
            Role::Path | Role::Open(_) => Ok(&self.target),
            Role::XattrRead(_) | Role::XattrWrite(_) => Err(refusals::BAD_FID),
        }
    }

    /// Fails unless the fid stands for a directory.
    pub(crate) fn dir(&self) -> Result<&Target, Refusal> {
        let target = self.file()?;
        if target.kind == Kind::Directory { Ok(target) } else { Err(refusals::NOT_DIRECTORY) }
    }
}

/// The fids of a connection.
pub(crate) struct FidTable {
    fids: Mutex<HashMap<u32, Arc<Fid>>>,
    limit: usize,
}

impl FidTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self { fids: Mutex::default(), limit }
    }

    pub(crate) fn get(&self, number: u32) -> Result<Arc<Fid>, Refusal> {
        lock(&self.fids).get(&number).cloned().ok_or(refusals::BAD_FID)
    }

    /// Fails if the number could not be given to a new fid now.
    pub(crate) fn check_free(&self, number: u32) -> Result<(), Refusal> {
        Self::check(&lock(&self.fids), self.limit, number)
    }

    pub(crate) fn insert(&self, number: u32, fid: Fid) -> Result<(), Refusal> {
        let mut fids = lock(&self.fids);
        Self::check(&fids, self.limit, number)?;
        fids.insert(number, Arc::new(fid));
        Ok(())
    }

    fn check(fids: &HashMap<u32, Arc<Fid>>, limit: usize, number: u32) -> Result<(), Refusal> {
        if fids.contains_key(&number) {
            return Err(refusals::FID_IN_USE);
        }
        if fids.len() >= limit { Err(refusals::TOO_MANY_FIDS) } else { Ok(()) }
    }

    /// Puts `new` where `old` is, unless the client has ended or changed that fid meanwhile.
    pub(crate) fn replace(&self, number: u32, old: &Arc<Fid>, new: Fid) -> Result<(), Refusal> {
        match lock(&self.fids).entry(number) {
            Entry::Occupied(mut entry) if Arc::ptr_eq(entry.get(), old) => {
                entry.insert(Arc::new(new));
                Ok(())
            }
            Entry::Occupied(_) | Entry::Vacant(_) => Err(refusals::BAD_FID),
        }
    }

    pub(crate) fn remove(&self, number: u32) -> Result<Arc<Fid>, Refusal> {
        lock(&self.fids).remove(&number).ok_or(refusals::BAD_FID)
    }

    /// Whether the number still stands for this fid.
    pub(crate) fn is_current(&self, number: u32, fid: &Arc<Fid>) -> bool {
        lock(&self.fids).get(&number).is_some_and(|current| Arc::ptr_eq(current, fid))
    }

    /// Ends all fids.
    pub(crate) fn clear(&self) -> Vec<Arc<Fid>> {
        std::mem::take(&mut *lock(&self.fids)).into_values().collect()
    }

    /// A name was moved: fids found by it are found by the new one.
    pub(crate) fn moved(&self, from: &Place, to: &Place) {
        for fid in lock(&self.fids).values() {
            let mut place = lock(&fid.place);
            if place.as_ref() == Some(from) {
                *place = Some(to.clone());
            }
        }
    }
}

/// A lock that a panic elsewhere does not spoil: what it guards is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::export::Export;
    use crate::user::Database;

    fn fid(name: &'static str) -> Fid {
        let user = Arc::new(User::attach(&Export::default(), b"root", 0, &Database::default()));
        let target = Target { handle: Handle::root(), kind: Kind::Directory, user, root: Handle::root() };
        Fid::new(target, Some(place(name)), Role::Path)
    }

    fn place(name: &'static str) -> Place {
        Place { dir: Handle::root(), name: Name::new(name.as_bytes()).unwrap() }
    }

    #[test]
    fn a_number_in_use_and_one_too_many_are_refused() {
        let table = FidTable::new(2);
        table.insert(1, fid("a")).unwrap();
        assert_eq!(table.insert(1, fid("b")), Err(refusals::FID_IN_USE));
        table.insert(2, fid("b")).unwrap();
        assert_eq!(table.insert(3, fid("c")), Err(refusals::TOO_MANY_FIDS));
        table.remove(1).unwrap();
        assert_eq!(table.check_free(3), Ok(()));
    }

    #[test]
    fn a_fid_clunked_during_an_operation_is_not_brought_back() {
        let table = FidTable::new(2);
        table.insert(1, fid("a")).unwrap();
        let found = table.get(1).unwrap();
        table.remove(1).unwrap();
        assert_eq!(table.replace(1, &found, fid("a")), Err(refusals::BAD_FID));
        table.insert(1, fid("other")).unwrap();
        assert_eq!(table.replace(1, &found, fid("a")), Err(refusals::BAD_FID));
        assert!(!table.is_current(1, &found));
    }

    #[test]
    fn fids_follow_a_rename() {
        let table = FidTable::new(3);
        table.insert(1, fid("a")).unwrap();
        table.insert(2, fid("b")).unwrap();
        table.moved(&place("a"), &place("c"));
        assert_eq!(table.get(1).unwrap().place(), Some(place("c")));
        assert_eq!(table.get(2).unwrap().place(), Some(place("b")));
        assert_eq!(table.clear().len(), 2);
        assert!(table.get(1).is_err());
    }
}
