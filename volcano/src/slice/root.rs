//! The first record of a network: its root directory.

use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::key::BirthString;

use super::{Now, Slice};
use crate::record::Change;
use crate::rows::{Content, FIRST_COOKIE, FlareRow, Life};
use crate::store::{StoreError, SyncBodies};
use crate::view::View;

impl Slice {
    /// Makes the root directory if there is none, and takes it to disk. Returns whether it was made.
    pub fn found(&mut self, now: Now) -> Result<bool, StoreError> {
        if self.store.flare(&Handle::root().key)?.is_some() {
            return Ok(false);
        }
        let root = FlareRow {
            handle: Handle::root(),
            birth: BirthString::root(),
            kind: Kind::Directory,
            life: Life::Named,
            mode: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: now.wall,
            mtime: now.wall,
            ctime: now.wall,
            btime: now.wall,
            change: 1,
            content: Content::Inline,
            verifier: None,
            entries: 0,
            next_cookie: FIRST_COOKIE,
            has_acl: false,
        };
        let record = self.next_record(now, vec![Change::PutFlare(root)], None);
        self.store.append(&record)?;
        self.last_time = record.time;
        self.store.sync_now(SyncBodies::None)?;
        Ok(true)
    }
}
