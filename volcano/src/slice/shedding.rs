//! Striped files shed in the background what they do not need any more: their primary sends itself requests for it.
//!
//! What is to be shed is in the rows of the heads, so a new primary goes on with it, and nothing has to be remembered but where the search stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use magma_common::key::Key;
use magma_common::proto::frame::{RequestHeader, Tag};
use magma_common::proto::limits::MAX_SHED;
use magma_common::proto::operation::Shed;
use magma_common::proto::{Credentials, Durability, Request, SessionId};
use magma_common::topology::SliceId;

use super::{Call, Now, Slice, SliceView, Trouble, Verdict};
use crate::namespace;
use crate::rows::{FlareRow, Striping};
use crate::view::View;

/// Files that are looked at at a time.
const AT_ONCE: usize = 16;
/// How often it is looked for such files.
const PAUSE: Duration = Duration::from_millis(100);
/// Stripes of one file that are looked at at a time.
const STRIPES_AT_ONCE: usize = 256;

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
        for key in keys {
            if let Some(row) = self.store.flare(&key)? {
                self.shed(now, &row)?;
            }
        }
        Ok(())
    }

    /// Has a file shed something. Each slice of its stripes is asked for its own, so that one that is away keeps nobody else back; and a stripe
    /// that is cleared, which others want to read and write meanwhile, is not held for the sake of another one.
    fn shed(&mut self, now: Now, row: &FlareRow) -> Result<(), Trouble> {
        let under_way: BTreeSet<u64> = self.across.shedding(&row.handle).collect();
        let slice = SliceView::new(self.store, self.identity.slice, self.range(), *self.space_elsewhere);
        let stripes = namespace::to_shed(&slice, row, STRIPES_AT_ONCE)?;
        let mut groups: BTreeMap<(Option<u64>, Option<SliceId>), Vec<u64>> = BTreeMap::new();
        let is_dying = |number: u64| matches!(&row.striping, Striping::Head(head) if head.is_dying(number));
        for (number, key) in &stripes {
            if under_way.contains(number) {
                continue;
            }
            let slice = key.and_then(|key| self.topology.slice_of(&key)).map(|slice| slice.id);
            let alone = Some(*number).filter(|number| !is_dying(*number));
            groups.entry((alone, slice)).or_default().push(*number);
        }
        if stripes.is_empty() {
            groups.insert((None, None), Vec::new());
        }
        for mut numbers in groups.into_values() {
            numbers.truncate(MAX_SHED);
            let call = self.own_call(Shed { handle: row.handle, numbers }.into());
            match self.serve_flare(now, &call) {
                Ok(Verdict::Across) => self.drive_call(now, None, call),
                Ok(Verdict::Answer(Err(failure), _)) => self.warnings.put_off(failure.error),
                // Done; or somebody is in the way, and it is tried again.
                Ok(_) => {}
                Err(Trouble::Refused(error)) => self.warnings.put_off(error),
                Err(fatal) => return Err(fatal),
            }
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
