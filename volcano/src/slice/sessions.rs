//! The requests that are about sessions themselves.

use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::proto::limits::MAX_OPENS_PER_MESSAGE;
use magma_common::proto::operation::{KeepAliveReply, OpenSession, ReclaimOpens, SessionReply};
use magma_common::proto::{OpId, Reply, SessionId};

use super::session::{MAX_SESSIONS, SESSION_LEASE};
use super::{Answer, Now, Slice, Trouble};
use crate::namespace;
use crate::record::Change;
use crate::rows::SessionRow;
use crate::view::View;

/// Longest name a client may give itself, in bytes.
const MAX_CLIENT_NAME: usize = 255;
/// Orphans looked at in one step after a restart.
const ORPHANS_PER_STEP: usize = 1024;

impl Slice {
    pub(super) fn open_session(&mut self, now: Now, request: &OpenSession) -> Result<Answer, Trouble> {
        if request.client.len() > MAX_CLIENT_NAME {
            return Ok(Err(FlareError::BadRequest.into()));
        }
        if self.sessions.len() >= MAX_SESSIONS {
            tracing::warn!(target: "magma::volcano", limit = MAX_SESSIONS, "a client is refused: too many sessions");
            return Ok(Err(FlareError::Unavailable.into()));
        }
        let id = self.unused_session_id();
        let row = SessionRow { id, client: request.client.clone(), opened: now.wall };
        self.record(now, vec![Change::PutSession(row.clone())], None)?;
        tracing::debug!(target: "magma::volcano", session = id.0, client = %row.client, "session opened");
        self.sessions.begin(row, now.monotonic);
        Ok(Ok((
            Reply::OpenSession(SessionReply {
                session: id,
                lease_ms: u32::try_from(SESSION_LEASE.as_millis()).unwrap_or(u32::MAX),
                boot: self.identity.boot,
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

    pub(super) fn keep_alive(&self) -> Answer {
        let reply = KeepAliveReply { boot: self.identity.boot, topology_version: self.topology.version };
        Ok((Reply::KeepAlive(reply), bytes::Bytes::new()))
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
        let stored = request.opens.iter().filter(|(handle, _)| handle.birth != BirthNumber::INTERNAL);
        for (handle, count) in stored {
            if !self.sessions.reclaim(session, *handle, *count) {
                return Ok(Err(FlareError::TooManyOpen.into()));
            }
        }
        if request.last && self.sessions.report(session) {
            self.bury_orphans(now)?;
        }
        Ok(Ok((Reply::ReclaimOpens(()), bytes::Bytes::new())))
    }

    pub(super) fn end_silent_sessions(&mut self, now: Now) -> Result<(), Trouble> {
        for id in self.sessions.silent(now.monotonic) {
            tracing::info!(target: "magma::volcano", session = id.0, "a client has been silent for its whole lease; its session ends");
            self.end_session(now, id)?;
        }
        Ok(())
    }

    pub(super) fn end_session(&mut self, now: Now, id: SessionId) -> Result<(), Trouble> {
        let waited_for_others = self.sessions.all_reported();
        let released = self.sessions.end(id);
        self.ledger.end(id);
        for waiter in self.waits.cancel(|waiter| waiter.call.header.session == id) {
            let answer = Err(FlareError::SessionEnded.into());
            self.effects.push(super::Effect::Answer(waiter.ticket, answer));
        }
        let mut changes = self.plan_internal(now, |plan| namespace::release_locks(plan, id))?;
        changes.push(Change::EndSession(id));
        self.record(now, changes, None)?;
        self.bury(now, &released)?;
        if !waited_for_others && self.sessions.all_reported() {
            self.bury_orphans(now)?;
        }
        Ok(())
    }

    /// Lets those of the flares die that have no name and are not open any more.
    pub(super) fn bury(&mut self, now: Now, flares: &[Handle]) -> Result<(), Trouble> {
        for handle in flares {
            let changes = self.plan_internal(now, |plan| namespace::release_last(plan, *handle))?;
            if !changes.is_empty() {
                self.record(now, changes, None)?;
            }
        }
        Ok(())
    }

    /// Every session that was alive at the start has said what it holds: nameless flares that nobody holds die now.
    pub(super) fn bury_orphans(&mut self, now: Now) -> Result<(), Trouble> {
        let mut after = None;
        loop {
            let orphans = self.store.orphans(after, ORPHANS_PER_STEP)?;
            let Some(last) = orphans.last().copied() else { return Ok(()) };
            for key in orphans {
                if let Some(row) = self.store.flare(&key)? {
                    self.bury(now, &[row.handle])?;
                }
            }
            after = Some(last);
        }
    }

    /// The operation id under which the volcano itself acts.
    pub(super) const OWN_OPERATION: OpId = OpId::Session { session: SessionId::NONE, sequence: 0 };
}
