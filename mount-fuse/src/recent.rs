//! What the mount's own changes showed of directories.
//!
//! Each change of a directory makes the kernel ask for its attributes again, although the reply to the
//! change had them. They are kept here and answered from memory, for no longer than the kernel may believe them: a
//! getattr that is answered from here has only the rest of that time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use magma_common::attr::{Attr, Kind, Wcc};
use magma_common::handle::Handle;

use crate::sync::locked;

/// Most directories to remember; with more, all are forgotten.
const MAX_DIRECTORIES: usize = 4096;

struct Shown {
    attr: Attr,
    at: Instant,
}

/// Directories that this mount changed a moment ago.
#[derive(Default)]
pub(crate) struct RecentDirectories(Mutex<HashMap<Handle, Shown>>);

impl RecentDirectories {
    /// A change's reply shows a directory; the newest state counts, in whatever order replies arrive.
    pub(crate) fn changed(&self, wcc: &Wcc) {
        let Some(attr) = wcc.after.as_ref().filter(|attr| attr.kind == Kind::Directory) else { return };
        let mut shown = locked(&self.0);
        if shown.get(&attr.handle).is_some_and(|known| known.attr.change > attr.change) {
            return;
        }
        if shown.len() >= MAX_DIRECTORIES {
            shown.clear();
        }
        shown.insert(attr.handle, Shown { attr: attr.clone(), at: Instant::now() });
    }

    /// The flare changes in a way whose reply does not show it as a directory.
    pub(crate) fn forget(&self, handle: Handle) {
        locked(&self.0).remove(&handle);
    }

    /// The attributes, and for how much of `lifetime` they may still be believed.
    pub(crate) fn attributes(&self, handle: Handle, lifetime: Duration) -> Option<(Attr, Duration)> {
        let mut shown = locked(&self.0);
        let known = shown.get(&handle)?;
        let Some(rest) = lifetime.checked_sub(known.at.elapsed()).filter(|rest| !rest.is_zero()) else {
            shown.remove(&handle);
            return None;
        };
        Some((known.attr.clone(), rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::time::Timestamp;

    fn directory(change: u64) -> Wcc {
        let time = Timestamp::default();
        let attr = Attr {
            handle: Handle::root(),
            kind: Kind::Directory,
            mode: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            used: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            change,
        };
        Wcc { before: None, after: Some(attr) }
    }

    #[test]
    fn a_reply_that_was_overtaken_does_not_count() {
        let recent = RecentDirectories::default();
        recent.changed(&directory(7));
        recent.changed(&directory(6));
        let (attr, rest) = recent.attributes(Handle::root(), Duration::from_secs(60)).unwrap();
        assert_eq!(attr.change, 7);
        assert!(rest <= Duration::from_secs(60));
    }

    #[test]
    fn nothing_is_answered_beyond_its_time_or_after_it_was_forgotten() {
        let recent = RecentDirectories::default();
        recent.changed(&directory(7));
        assert!(recent.attributes(Handle::root(), Duration::ZERO).is_none());
        recent.changed(&directory(7));
        recent.forget(Handle::root());
        assert!(recent.attributes(Handle::root(), Duration::from_secs(60)).is_none());
    }
}
