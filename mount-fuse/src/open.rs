//! What the kernel has open: files and directories by the number that each open was answered with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fuser::{Errno, FileHandle};
use magma_common::handle::Handle;

use crate::reply::Outcome;
use crate::sync::locked;

/// An open regular file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The file.
    pub(crate) handle: Handle,
    /// It can be written to and resized through this, whatever its permissions have become.
    pub(crate) writable: bool,
    /// Each write goes to the end, whatever others append meanwhile.
    pub(crate) append: bool,
    /// The kernel caches no pages for it.
    pub(crate) direct: bool,
}

/// Numbers what is open. The kernel holds one number per open and releases each once, which bounds the table.
pub(crate) struct OpenTable<T> {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<T>>>,
}

impl<T> Default for OpenTable<T> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), open: Mutex::default() }
    }
}

impl<T> OpenTable<T> {
    /// Gives it a number that was never used before.
    pub(crate) fn insert(&self, opened: T) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        locked(&self.open).insert(number, Arc::new(opened));
        FileHandle(number)
    }

    /// What bears this number.
    pub(crate) fn of(&self, number: FileHandle) -> Outcome<Arc<T>> {
        locked(&self.open).get(&number.0).cloned().ok_or(Errno::EBADF)
    }

    /// Takes it out.
    pub(crate) fn remove(&self, number: FileHandle) -> Option<Arc<T>> {
        locked(&self.open).remove(&number.0)
    }
}
