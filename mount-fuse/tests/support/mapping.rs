//! A shared memory mapping of a file.

use std::fs::File;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// A mapping for reading and writing, undone when it is dropped.
pub(crate) struct Mapping {
    start: *mut std::ffi::c_void,
    length: usize,
}

#[allow(unsafe_code, reason = "a mapping is what is tested, and there is no safe call for it")]
impl Mapping {
    pub(crate) fn shared(file: &File, length: usize) -> Self {
        // SAFETY: the kernel chooses the place; nothing else refers to it.
        let start = unsafe {
            mmap(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        };
        Self { start: start.unwrap(), length }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped for reading and writing for as long as `self` lives, and borrowed from it.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.length) }
    }

    pub(crate) fn sync(&self) {
        // SAFETY: the range is ours.
        unsafe { msync(self.start, self.length, MsyncFlags::SYNC) }.unwrap();
    }
}

#[allow(unsafe_code, reason = "see above")]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and nothing refers to it any more.
        unsafe { munmap(self.start, self.length) }.unwrap();
    }
}
