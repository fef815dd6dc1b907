//! Which lock owners hold locks through which open, so that a close gives back what it must and asks the volcano only then.
//!
//! POSIX locks of a process end with *any* close of the file by it (the kernel's flush, which names the owner). Whole-file
//! locks and open-file-description locks end with the last close of their open (release).

use std::collections::HashMap;
use std::sync::Mutex;

use fuser::FileHandle;
use magma_common::handle::Handle;
use magma_common::proto::operation::LockFamily;

use crate::sync::locked;

/// An owner that may hold locks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Which family of locks.
    pub(crate) family: LockFamily,
    /// The kernel's number for the owner.
    pub(crate) owner: u64,
    /// The open it locked through last.
    pub(crate) through: FileHandle,
}

/// Owners by file. An owner is noted before its lock is asked for, so that one whose answer was lost is given back too.
#[derive(Default)]
pub(crate) struct HeldLocks {
    holders: Mutex<HashMap<Handle, Vec<Holder>>>,
}

impl HeldLocks {
    /// The owner may hold a lock from now on.
    pub(crate) fn note(&self, handle: Handle, holder: Holder) {
        let mut holders = locked(&self.holders);
        let of_file = holders.entry(handle).or_default();
        match of_file.iter_mut().find(|held| held.family == holder.family && held.owner == holder.owner) {
            Some(held) => held.through = holder.through,
            None => of_file.push(holder),
        }
    }

    /// Whether anybody may hold a lock of the file.
    pub(crate) fn any(&self, handle: Handle) -> bool {
        locked(&self.holders).contains_key(&handle)
    }

    /// The owner has given all its locks back.
    pub(crate) fn clear(&self, handle: Handle, family: LockFamily, owner: u64) {
        self.take(handle, |held| held.family == family && held.owner == owner);
    }

    /// The POSIX locks to give back because this owner closes the file.
    pub(crate) fn closed_by(&self, handle: Handle, owner: u64) -> Vec<Holder> {
        self.take(handle, |held| held.family == LockFamily::Posix && held.owner == owner)
    }

    /// The locks to give back because this open ends.
    pub(crate) fn ended_with(&self, handle: Handle, through: FileHandle) -> Vec<Holder> {
        self.take(handle, |held| held.through == through)
    }

    fn take(&self, handle: Handle, matches: impl Fn(&Holder) -> bool) -> Vec<Holder> {
        let mut holders = locked(&self.holders);
        let Some(of_file) = holders.get_mut(&handle) else { return Vec::new() };
        let (taken, kept) = std::mem::take(of_file).into_iter().partition(matches);
        *of_file = kept;
        if of_file.is_empty() {
            holders.remove(&handle);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_by_a_process_ends_its_posix_locks_and_leaves_whole_file_locks() {
        let (held, file) = (HeldLocks::default(), Handle::root());
        let posix = Holder { family: LockFamily::Posix, owner: 1, through: FileHandle(7) };
        let flock = Holder { family: LockFamily::Flock, owner: 2, through: FileHandle(7) };
        held.note(file, posix);
        held.note(file, flock);
        assert_eq!(held.closed_by(file, 1), [posix]);
        assert_eq!(held.closed_by(file, 1), []);
        assert_eq!(held.ended_with(file, FileHandle(7)), [flock]);
        assert!(locked(&held.holders).is_empty());
    }

    #[test]
    fn the_end_of_one_open_leaves_locks_taken_through_another() {
        let (held, file) = (HeldLocks::default(), Handle::root());
        held.note(file, Holder { family: LockFamily::Flock, owner: 2, through: FileHandle(7) });
        assert_eq!(held.ended_with(file, FileHandle(8)), []);
        assert_eq!(held.ended_with(file, FileHandle(7)).len(), 1);
    }
}
