//! Sessions are opened with the home slice, the one that has the root. Another slice asks it for those that it does not know, and before it takes one
//! for ended that has been silent here.

use std::collections::BTreeMap;
use std::time::Duration;

use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::SessionId;

use super::SAY_AGAIN;
use super::message::AcrossMessage;
use crate::record::Change;
use crate::rows::SessionRow;
use crate::slice::gate::Need;
use crate::slice::{Call, Now, Slice, Ticket, Trouble};

/// Sessions that are asked for at a time.
const MAX_STRANGERS: usize = 4096;
/// Requests of one of them that wait.
const MAX_WAITING: usize = 1024;

/// A session that the home slice was asked about.
struct Stranger {
    asked: Duration,
    waiting: Vec<(Ticket, Call)>,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Strangers {
    asked: BTreeMap<SessionId, Stranger>,
}

impl Strangers {
    /// Nobody is asked for any more; whose requests waited.
    pub(super) fn drain(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.asked)
            .into_values()
            .flat_map(|stranger| stranger.waiting.into_iter().map(|(ticket, _)| ticket))
            .collect()
    }
}

impl Slice<'_> {
    /// Whether sessions are opened here.
    pub(in crate::slice) fn is_home(&self) -> bool {
        self.range().contains(&Handle::root().key)
    }

    /// A request of a session that is not known here: it waits until the home slice has said whether there is such a session.
    pub(in crate::slice) fn wait_for_session(&mut self, now: Now, ticket: Ticket, call: Call) {
        let session = call.header.session;
        if !self.ask_for_session(now, session) {
            return self.tell_later(ticket);
        }
        match self.across.strangers.asked.get_mut(&session) {
            Some(stranger) if stranger.waiting.len() < MAX_WAITING => stranger.waiting.push((ticket, call)),
            _ => self.tell_later(ticket),
        }
    }

    /// Asks the home slice about a session; false if too many are asked for already.
    pub(in crate::slice) fn ask_for_session(&mut self, now: Now, session: SessionId) -> bool {
        let asked = &mut self.across.strangers.asked;
        if asked.contains_key(&session) {
            return true;
        }
        if asked.len() >= MAX_STRANGERS {
            return false;
        }
        asked.insert(session, Stranger { asked: now.monotonic, waiting: Vec::new() });
        self.say_ask(session);
        true
    }

    fn say_ask(&mut self, session: SessionId) {
        let back = self.range().first_key();
        self.say(Handle::root().key, AcrossMessage::AskSession { session, back });
    }

    /// The home slice says again whom it was asked about.
    pub(super) fn ask_for_strangers(&mut self, now: Now) {
        let mut again = Vec::new();
        for (session, stranger) in &mut self.across.strangers.asked {
            if now.monotonic.saturating_sub(stranger.asked) >= SAY_AGAIN {
                stranger.asked = now.monotonic;
                again.push(*session);
            }
        }
        for session in again {
            self.say_ask(session);
        }
    }

    /// Another slice asks whether there is a session.
    pub(super) fn answer_session(&mut self, session: SessionId, back: magma_common::key::Key) {
        if self.is_home() {
            let acknowledged = self.ledger.acknowledged(session);
            let row = self.sessions.row(session).map(|row| SessionRow { acknowledged, ..row.clone() });
            self.say_safely(back, AcrossMessage::SessionIs { session, row }, Need::Logged);
        }
    }

    /// The home slice has said what a session is.
    pub(super) fn hear_session(
        &mut self,
        now: Now,
        session: SessionId,
        row: Option<SessionRow>,
    ) -> Result<(), Trouble> {
        if self.is_home() {
            return Ok(());
        }
        let waiting = self.across.strangers.asked.remove(&session).map(|stranger| stranger.waiting);
        let waiting: Vec<_> = waiting.into_iter().flatten().collect();
        if let Err(trouble) = self.take_session(now, session, row) {
            for (ticket, _) in waiting {
                self.tell_later(ticket);
            }
            return Err(trouble);
        }
        for (ticket, call) in waiting {
            if self.sessions.knows(session) {
                self.evaluate(now, ticket, call);
            } else {
                self.hold(ticket, Err(FlareError::SessionEnded.into()), Need::Logged);
            }
        }
        Ok(())
    }

    /// Keeps a session of the home slice, or ends one that has ended there.
    fn take_session(&mut self, now: Now, session: SessionId, row: Option<SessionRow>) -> Result<(), Trouble> {
        match row {
            Some(row) if !self.sessions.hear(session, now.monotonic) => {
                self.record(now, vec![Change::PutSession(row.clone())], None)?;
                self.ledger.settle(session, row.acknowledged);
                self.sessions.begin(row, now.monotonic);
            }
            None if self.sessions.knows(session) => self.end_session(now, session)?,
            Some(_) | None => {}
        }
        Ok(())
    }

    /// A flare here was opened for a session, by an operation that another slice has driven for it.
    pub(super) fn take_over_session(&mut self, now: Now, session: SessionId) -> Result<(), Trouble> {
        if !self.sessions.knows(session) {
            let row = SessionRow { id: session, client: String::new(), opened: now.wall, acknowledged: 0 };
            self.record(now, vec![Change::PutSession(row.clone())], None)?;
            self.sessions.begin(row, now.monotonic);
        }
        Ok(())
    }

    /// A session has ended here, at home: the other slices hear of it.
    pub(in crate::slice) fn spread_end(&mut self, session: SessionId) {
        if !self.is_home() {
            return;
        }
        let own = self.identity.slice;
        let others: Vec<_> = self
            .topology
            .slices
            .iter()
            .filter(|slice| slice.id != own)
            .map(|slice| slice.range.first_key())
            .collect();
        for to in others {
            self.say_safely(to, AcrossMessage::SessionIs { session, row: None }, Need::Logged);
        }
    }
}
