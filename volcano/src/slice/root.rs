//! The first record of a network: its root directory.

use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::key::{BirthString, KeyRange};
use magma_common::topology::Position;

use super::{Now, Slice, Trouble};
use crate::record::Change;
use crate::rows::{Content, FIRST_COOKIE, FlareRow, Life, Striping};
use crate::view::View;

impl Slice<'_> {
    /// An empty copy of a slice that does not cover everything has to know what it covers.
    pub(super) fn found(&mut self) -> Result<(), Trouble> {
        let range = self.range();
        if self.position() == Position::default() && range != KeyRange::ALL {
            self.store.found(self.identity.slice, range)?;
        }
        Ok(())
    }

    /// What makes the root directory, if it belongs here and there is none.
    pub(super) fn founding_changes(&self, now: Now) -> Result<Vec<Change>, Trouble> {
        let key = Handle::root().key;
        if !self.range().contains(&key) || self.store.flare(&key)?.is_some() {
            return Ok(Vec::new());
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
            striping: Striping::Whole,
        };
        Ok(vec![Change::PutFlare(root)])
    }
}
