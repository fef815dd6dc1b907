//! What belongs to a slice as a whole: its sessions, and what it keeps of transactions.

use magma_common::key::{Key, KeyRange};
use magma_common::proto::SessionId;
use magma_common::topology::SliceId;
use rusqlite::{Row, params};

use super::Db;
use super::columns::{attempt_bytes, damaged, signed, time, unsigned};
use crate::rows::SessionRow;
use crate::transaction::{Attempt, TransactionRow};
use crate::view::ReadError;

/// What distinguishes a transaction's row from the others of its slice: flare, attempt, whether the flare drives it.
pub(in super::super) type TransactionId = (Key, Attempt, bool);

impl Db {
    /// One session with a slice, if it is open.
    pub(in super::super) fn session(
        &self,
        slice: SliceId,
        id: SessionId,
    ) -> Result<Option<SessionRow>, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, client, opened_s, opened_n, acknowledged FROM sessions WHERE slice = ?1 AND id = ?2",
        )?;
        let mut rows = statement.query(params![slice.0, signed(id.0)])?;
        rows.next()?.map(read_session).transpose()
    }

    /// Up to `limit` open sessions with a slice after this one, in a fixed order.
    pub(in super::super) fn sessions_after(
        &self,
        slice: SliceId,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRow>, ReadError> {
        let first = after.map_or(Some(i64::MIN), |after| signed(after.0).checked_add(1));
        let Some(first) = first else { return Ok(Vec::new()) };
        let mut statement = self.conn.prepare_cached(
            "SELECT id, client, opened_s, opened_n, acknowledged FROM sessions
             WHERE slice = ?1 AND id >= ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = statement.query(params![slice.0, first, super::limit(limit)])?;
        let mut sessions = Vec::new();
        while let Some(row) = rows.next()? {
            sessions.push(read_session(row)?);
        }
        Ok(sessions)
    }

    /// All open sessions with a slice, by their numbers.
    pub(in super::super) fn sessions(&self, slice: SliceId) -> Result<Vec<SessionRow>, ReadError> {
        let mut sessions = self.sessions_after(slice, None, usize::MAX)?;
        // as signed numbers the large ones came first
        sessions.sort_by_key(|session| session.id);
        Ok(sessions)
    }

    /// Opens or renews a session with a slice.
    pub(in super::super) fn put_session(
        &mut self,
        slice: SliceId,
        session: &SessionRow,
    ) -> Result<(), ReadError> {
        let mut statement =
            self.conn.prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        let opened = session.opened;
        let (slice, id, acknowledged) = (slice.0, signed(session.id.0), signed(session.acknowledged));
        statement.execute(params![
            slice,
            id,
            session.client,
            opened.seconds(),
            opened.nanos(),
            acknowledged
        ])?;
        Ok(())
    }

    /// Ends a session with a slice.
    pub(in super::super) fn end_session(&mut self, slice: SliceId, id: SessionId) -> Result<(), ReadError> {
        let mut statement = self.conn.prepare_cached("DELETE FROM sessions WHERE slice = ?1 AND id = ?2")?;
        statement.execute(params![slice.0, signed(id.0)])?;
        Ok(())
    }

    /// What a slice keeps of the transaction after this one, in the order of their ids.
    pub(in super::super) fn transaction_after(
        &self,
        slice: SliceId,
        after: Option<&TransactionId>,
    ) -> Result<Option<TransactionRow>, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT row FROM transactions WHERE slice = ?1 AND (key, attempt, driven) > (?2, ?3, ?4)
             ORDER BY key, attempt, driven LIMIT 1",
        )?;
        let (key, attempt, driven) = match after {
            Some((key, attempt, driven)) => {
                (key.as_bytes().to_vec(), attempt_bytes(attempt).to_vec(), i64::from(*driven))
            }
            None => Default::default(),
        };
        let mut rows = statement.query(params![slice.0, key, attempt, driven])?;
        rows.next()?.map(read_transaction).transpose()
    }

    /// All that a slice keeps of transactions, in the order of their ids.
    pub(in super::super) fn transactions(&self, slice: SliceId) -> Result<Vec<TransactionRow>, ReadError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT row FROM transactions WHERE slice = ?1 ORDER BY key, attempt, driven")?;
        let mut rows = statement.query([slice.0])?;
        let mut transactions = Vec::new();
        while let Some(row) = rows.next()? {
            transactions.push(read_transaction(row)?);
        }
        Ok(transactions)
    }

    /// Inserts or replaces what a slice keeps of a transaction.
    pub(in super::super) fn put_transaction(
        &mut self,
        slice: SliceId,
        row: &TransactionRow,
    ) -> Result<(), ReadError> {
        let (key, attempt, driven) = row.id();
        let encoded = postcard::to_stdvec(row)
            .map_err(|error| ReadError::Damaged { what: format!("a transaction of {key} ({error})") })?;
        let mut statement =
            self.conn.prepare_cached("INSERT OR REPLACE INTO transactions VALUES (?1, ?2, ?3, ?4, ?5)")?;
        statement.execute(params![slice.0, key.as_bytes(), attempt_bytes(&attempt), driven, encoded])?;
        Ok(())
    }

    /// Forgets a transaction.
    pub(in super::super) fn delete_transaction(
        &mut self,
        slice: SliceId,
        (key, attempt, driven): &TransactionId,
    ) -> Result<(), ReadError> {
        let mut statement = self.conn.prepare_cached(
            "DELETE FROM transactions WHERE slice = ?1 AND key = ?2 AND attempt = ?3 AND driven = ?4",
        )?;
        statement.execute(params![slice.0, key.as_bytes(), attempt_bytes(attempt), driven])?;
        Ok(())
    }

    /// Gives a new slice the sessions of this one, and the transactions that are kept for the keys of this range.
    pub(in super::super) fn divide_whole(
        &mut self,
        slice: SliceId,
        new: SliceId,
        range: KeyRange,
    ) -> Result<(), ReadError> {
        self.wipe_slice(new)?;
        self.conn
            .prepare_cached(
                "INSERT INTO sessions SELECT ?2, id, client, opened_s, opened_n, acknowledged FROM sessions WHERE slice = ?1",
            )?
            .execute([slice.0, new.0])?;
        let (first, last) = (range.first_key(), range.last_key());
        self.conn
            .prepare_cached("UPDATE transactions SET slice = ?2 WHERE slice = ?1 AND key BETWEEN ?3 AND ?4")?
            .execute(params![slice.0, new.0, first.as_bytes(), last.as_bytes()])?;
        Ok(())
    }

    /// Forgets everything that belongs to a slice as a whole.
    pub(in super::super) fn wipe_slice(&mut self, slice: SliceId) -> Result<(), ReadError> {
        self.conn.prepare_cached("DELETE FROM sessions WHERE slice = ?1")?.execute([slice.0])?;
        self.conn.prepare_cached("DELETE FROM transactions WHERE slice = ?1")?.execute([slice.0])?;
        Ok(())
    }
}

fn read_session(row: &Row<'_>) -> Result<SessionRow, ReadError> {
    let id = SessionId(unsigned(row, 0)?);
    Ok(SessionRow { id, client: row.get(1)?, opened: time(row, 2)?, acknowledged: unsigned(row, 4)? })
}

fn read_transaction(row: &Row<'_>) -> Result<TransactionRow, ReadError> {
    let encoded = row.get_ref(0)?.as_blob().ok();
    let decoded = encoded.and_then(|bytes| postcard::from_bytes(bytes).ok());
    decoded.ok_or_else(|| damaged("a transaction in magma.db"))
}
