//! The requests that are about sessions themselves.

use std::time::Duration;

use magma_common::error::FlareError;
use magma_common::handle::BirthNumber;
use magma_common::proto::limits::MAX_OPENS_PER_MESSAGE;
use magma_common::proto::operation::{KeepAliveReply, OpenSession, ReclaimOpens, SessionReply};
use magma_common::proto::{OpId, Reply, SessionId};

use super::gate::Need;
use super::orphans::Search;
use super::session::{MAX_SESSIONS, SESSION_LEASE};
use super::{Answer, Now, Slice, Trouble};
use crate::namespace;
use crate::record::Change;
use crate::rows::SessionRow;

/// Longest name a client may give itself, in bytes.
const MAX_CLIENT_NAME: usize = 255;
/// Sessions that are ended in one step.
const SESSIONS_PER_STEP: usize = 256;
/// Sessions of which one record says what they have acknowledged.
const MARKS_PER_RECORD: usize = 1024;
/// How often that is recorded.
const MARKS_INTERVAL: Duration = Duration::from_secs(5);
/// Locks that one record may carry, so that it stays far below the largest record.
const LOCKS_PER_RECORD: usize = 64 << 10;

impl Slice<'_> {
    pub(super) fn open_session(&mut self, now: Now, request: &OpenSession) -> Result<Answer, Trouble> {
        if request.client.len() > MAX_CLIENT_NAME {
            return Ok(Err(FlareError::BadRequest.into()));
        }
        if self.sessions.len() >= MAX_SESSIONS {
            tracing::warn!(target: "magma::volcano", limit = MAX_SESSIONS, "a client is refused: too many sessions");
            return Ok(Err(FlareError::Unavailable.into()));
        }
        let id = self.unused_session_id();
        let row = SessionRow { id, client: request.client.clone(), opened: now.wall, acknowledged: 0 };
        self.record(now, vec![Change::PutSession(row.clone())], None)?;
        tracing::debug!(target: "magma::volcano", session = id.0, client = %row.client, "session opened");
        self.sessions.begin(row, now.monotonic);
        Ok(Ok((
            Reply::OpenSession(SessionReply {
                session: id,
                lease_ms: u32::try_from(SESSION_LEASE.as_millis()).unwrap_or(u32::MAX),
                door: self.identity.volcano,
                topology: self.topology.clone(),
            }),
            bytes::Bytes::new(),
        )))
    }

    /// A session's number is drawn anew until it is unused: nobody can guess another's, and an ended one does not come back.
    fn unused_session_id(&mut self) -> SessionId {
        loop {
            let id = SessionId((self.random)());
            if id != SessionId::NONE && !self.sessions.knows(id) {
                return id;
            }
        }
    }

    pub(super) fn keep_alive(&self) -> Reply {
        Reply::KeepAlive(KeepAliveReply {
            door: self.identity.volcano,
            topology_version: self.topology.version,
        })
    }

    pub(super) fn reclaim_opens(
        &mut self,
        now: Now,
        session: SessionId,
        request: &ReclaimOpens,
    ) -> Result<Answer, Trouble> {
        if request.opens.len() > MAX_OPENS_PER_MESSAGE {
            return Ok(Err(FlareError::BadRequest.into()));
        }
        if request.reign != *self.reign {
            return Ok(Err(FlareError::NotOwner.into()));
        }
        if !self.sessions.is_news(session, request.number) {
            return Ok(Ok((Reply::ReclaimOpens(()), bytes::Bytes::new())));
        }
        let stored = request.opens.iter().filter(|(handle, _)| handle.birth != BirthNumber::INTERNAL);
        for (handle, count) in stored {
            if !self.sessions.reclaim(session, *handle, *count) {
                return Ok(Err(FlareError::TooManyOpen.into()));
            }
            if *count == 0 {
                *self.search = Search::from_start();
            }
        }
        self.sessions.state(session, request.number);
        if request.last && self.sessions.report(session) {
            *self.search = Search::from_start();
        }
        self.bury_some(now)?;
        Ok(Ok((Reply::ReclaimOpens(()), bytes::Bytes::new())))
    }

    pub(super) fn end_silent_sessions(&mut self, now: Now) -> Result<(), Trouble> {
        for id in self.sessions.silent(now.monotonic).into_iter().take(SESSIONS_PER_STEP) {
            if !self.is_home() {
                // It may well be heard of elsewhere.
                self.ask_for_session(now, id);
                continue;
            }
            tracing::info!(target: "magma::volcano", session = id.0, "a client has been silent for its whole lease; its session ends");
            self.end_session(now, id)?;
        }
        Ok(())
    }

    /// A record says which outcomes clients have, so that no copy need keep them.
    pub(super) fn record_marks(&mut self, now: Now) -> Result<(), Trouble> {
        if now.monotonic.saturating_sub(*self.marks_recorded) < MARKS_INTERVAL {
            return Ok(());
        }
        *self.marks_recorded = now.monotonic;
        let marks = self.ledger.marks(MARKS_PER_RECORD);
        let row = |&(session, acknowledged): &(SessionId, u64)| {
            Some(Change::PutSession(SessionRow { acknowledged, ..self.sessions.row(session)?.clone() }))
        };
        let changes: Vec<Change> = marks.iter().filter_map(row).collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.record(now, changes, None)?;
        for (session, upto) in marks {
            self.sessions.acknowledge(session, upto);
            self.ledger.settle(session, upto);
        }
        Ok(())
    }

    /// Ends a session: its locks go, and what it had open. Only when the records are taken does it count as ended, so that a
    /// full disk leaves nobody half-way.
    pub(super) fn end_session(&mut self, now: Now, id: SessionId) -> Result<(), Trouble> {
        let mut changes = Vec::new();
        let mut locks = 0;
        for change in self.plan_internal(now, |plan| namespace::release_locks(plan, id))? {
            locks += if let Change::PutLocks { locks, .. } = &change { locks.len() + 1 } else { 1 };
            changes.push(change);
            if locks >= LOCKS_PER_RECORD {
                locks = 0;
                self.record(now, std::mem::take(&mut changes), None)?;
            }
        }
        changes.push(Change::EndSession(id));
        self.record(now, changes, None)?;
        self.sessions.end(id);
        self.ledger.end(id);
        self.spread_end(id);
        for waiter in self.waits.cancel(|waiter| waiter.call.header.session == id) {
            self.hold(waiter.ticket, Err(FlareError::SessionEnded.into()), Need::Logged);
        }
        *self.search = Search::from_start();
        self.bury_some(now)
    }

    /// The operation id under which the volcano itself acts.
    pub(super) const OWN_OPERATION: OpId = OpId::Session { session: SessionId::NONE, sequence: 0 };
}
