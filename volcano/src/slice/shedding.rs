//! Striped files shed in the background what they do not need any more: their primary sends itself requests for it.
//!
//! What is to be shed is in the rows of the heads, so a new primary goes on with it, and nothing has to be remembered but where the search stands.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use magma_common::handle::Handle;
use magma_common::key::Key;
use magma_common::proto::frame::{RequestHeader, Tag};
use magma_common::proto::operation::Shed;
use magma_common::proto::{Credentials, Durability, Request, SessionId};

use super::{Call, Now, Slice, Trouble, Verdict};
use crate::view::View;

/// Files that shed something at a time.
const AT_ONCE: usize = 16;
/// How often it is looked for such files.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the search for files that have something to shed stands.
#[derive(Debug, Default)]
pub(super) struct Shedding {
    /// To be gone on with after this key.
    after: Option<Key>,
    /// And not before this time.
    next: Duration,
}

impl Slice<'_> {
    /// Lets some striped files shed something each.
    pub(super) fn shed_some(&mut self, now: Now) -> Result<(), Trouble> {
        if now.monotonic < self.shedding.next {
            return Ok(());
        }
        self.shedding.next = now.monotonic.saturating_add(PAUSE);
        let keys = self.store.to_shed_in(self.range(), self.shedding.after, AT_ONCE)?;
        self.shedding.after = keys.last().copied().filter(|_| keys.len() == AT_ONCE);
        if keys.is_empty() {
            return Ok(());
        }
        let under_way: BTreeSet<Key> = self.across.shedding().collect();
        for key in keys.into_iter().filter(|key| !under_way.contains(key)) {
            if let Some(row) = self.store.flare(&key)? {
                self.shed(now, row.handle)?;
            }
        }
        Ok(())
    }

    fn shed(&mut self, now: Now, handle: Handle) -> Result<(), Trouble> {
        let call = self.own_call(Shed { handle }.into());
        match self.serve_flare(now, &call) {
            Ok(Verdict::Across) => self.drive_call(now, None, call),
            // Done; or somebody is in the way, and it is tried again.
            Ok(_) => {}
            Err(Trouble::Refused(error)) => self.warnings.put_off(error),
            Err(fatal) => return Err(fatal),
        }
        Ok(())
    }

    /// A request of nobody's, under an operation id that was never used.
    fn own_call(&mut self, request: Request) -> Call {
        let id = u128::from((self.random)()) << 64 | u128::from((self.random)());
        let header = RequestHeader {
            tag: Tag(0),
            durability: Durability::Replicated,
            topology_version: self.topology.version,
            session: SessionId::NONE,
            sequence: 0,
            acknowledged: 0,
            call: Some(id),
            deadline_ms: None,
            forwarded: false,
            credentials: Credentials::ROOT,
        };
        Call { header, deadline: None, request, payload: Bytes::new() }
    }
}
