//! Requests that came while their slice was being divided: they wait for the few milliseconds that this takes.

use std::time::Duration;

use magma_common::error::FlareError;
use magma_common::handle::Handle;

use super::{Effect, Node};
use crate::slice::{Call, Now, Ticket};

/// Most that wait; the others are sent away.
const MAX_HELD: usize = 4096;
/// A division that takes longer has trouble: who waits is sent away.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that waits, and since when.
struct Held {
    since: Duration,
    ticket: Ticket,
    call: Box<Call>,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Holding(Vec<Held>);

impl Node {
    /// Whether the slice of this request's flare is being divided here.
    fn is_being_divided(&self, call: &Call) -> bool {
        let key = call.request.key().unwrap_or(Handle::root().key);
        let slice = self.topology.slice_of(&key).and_then(|slice| self.slices.get(slice.id));
        slice.is_some_and(|slice| slice.is_dividing())
    }

    /// Lets a request wait if its slice is being divided; gives it back if not, or if too many wait.
    pub(super) fn hold_back(&mut self, now: Now, ticket: Ticket, call: Call) -> Option<Call> {
        if self.holding.0.len() >= MAX_HELD || !self.is_being_divided(&call) {
            return Some(call);
        }
        self.holding.0.push(Held { since: now.monotonic, ticket, call: Box::new(call) });
        None
    }

    /// Those whose slices have been divided go on.
    pub(super) fn let_go_on(&mut self, now: Now) {
        for Held { since, ticket, call } in std::mem::take(&mut self.holding.0) {
            if !self.is_being_divided(&call) {
                self.has_more = true;
                self.request(now, ticket, *call);
            } else if now.monotonic.saturating_sub(since) >= PATIENCE {
                self.effects.push(Effect::Answer(ticket, Err(FlareError::Unavailable.into())));
            } else {
                self.holding.0.push(Held { since, ticket, call });
            }
        }
    }

    /// The caller of this request went away.
    pub(super) fn cancel_held(&mut self, ticket: Ticket) {
        let effects = &mut self.effects;
        self.holding.0.retain(|held| {
            let stays = held.ticket != ticket;
            if !stays {
                effects.push(Effect::Answer(ticket, Err(FlareError::Interrupted.into())));
            }
            stays
        });
    }
}
