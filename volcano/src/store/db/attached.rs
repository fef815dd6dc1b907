//! What hangs on a flare besides its names: small bodies, extended attributes, locks.

use bytes::Bytes;
use magma_common::key::{Key, KeyRange};
use magma_common::name::Name;
use magma_common::proto::SessionId;
use magma_common::proto::operation::LockOwner;
use rusqlite::{OptionalExtension, Row, params};

use super::Db;
use super::columns::{self, signed, unsigned};
use crate::rows::LockRow;
use crate::view::ReadError;

impl Db {
    /// The bytes of a small body.
    pub(in super::super) fn inline(&self, flare: &Key) -> Result<Bytes, ReadError> {
        let Some(flare) = self.local(flare)? else { return Ok(Bytes::new()) };
        let mut statement = self.conn.prepare_cached("SELECT data FROM inlines WHERE flare = ?1")?;
        let data: Option<Vec<u8>> = statement.query_row([flare], |row| row.get(0)).optional()?;
        Ok(data.map_or_else(Bytes::new, Bytes::from))
    }

    /// Inserts, replaces or (without bytes) removes a small body.
    pub(in super::super) fn put_inline(&mut self, flare: i64, data: &[u8]) -> Result<(), ReadError> {
        if data.is_empty() {
            self.conn.prepare_cached("DELETE FROM inlines WHERE flare = ?1")?.execute([flare])?;
            return Ok(());
        }
        let mut statement = self.conn.prepare_cached("INSERT OR REPLACE INTO inlines VALUES (?1, ?2)")?;
        statement.execute(params![flare, data])?;
        Ok(())
    }

    /// One extended attribute.
    pub(in super::super) fn xattr(&self, flare: &Key, name: &Name) -> Result<Option<Bytes>, ReadError> {
        let Some(flare) = self.local(flare)? else { return Ok(None) };
        let mut statement =
            self.conn.prepare_cached("SELECT value FROM xattrs WHERE flare = ?1 AND name = ?2")?;
        let row = |row: &Row<'_>| row.get::<_, Vec<u8>>(0);
        Ok(statement.query_row(params![flare, name.as_bytes()], row).optional()?.map(Bytes::from))
    }

    /// The names of all extended attributes.
    pub(in super::super) fn xattr_names(&self, flare: &Key) -> Result<Vec<Name>, ReadError> {
        let Some(flare) = self.local(flare)? else { return Ok(Vec::new()) };
        let mut statement = self.conn.prepare_cached("SELECT name FROM xattrs WHERE flare = ?1")?;
        let mut rows = statement.query([flare])?;
        let mut names = Vec::new();
        while let Some(row) = rows.next()? {
            names.push(columns::name(row, 0)?);
        }
        Ok(names)
    }

    /// Inserts or replaces an extended attribute.
    pub(in super::super) fn put_xattr(
        &mut self,
        flare: i64,
        name: &Name,
        value: &[u8],
    ) -> Result<(), ReadError> {
        let mut statement = self.conn.prepare_cached("INSERT OR REPLACE INTO xattrs VALUES (?1, ?2, ?3)")?;
        statement.execute(params![flare, name.as_bytes(), value])?;
        Ok(())
    }

    /// Removes an extended attribute.
    pub(in super::super) fn delete_xattr(&mut self, flare: &Key, name: &Name) -> Result<(), ReadError> {
        let Some(flare) = self.local(flare)? else { return Ok(()) };
        let mut statement = self.conn.prepare_cached("DELETE FROM xattrs WHERE flare = ?1 AND name = ?2")?;
        statement.execute(params![flare, name.as_bytes()])?;
        Ok(())
    }

    /// All locks of a flare.
    pub(in super::super) fn locks(&self, flare: &Key) -> Result<Vec<LockRow>, ReadError> {
        let Some(flare) = self.local(flare)? else { return Ok(Vec::new()) };
        let mut statement = self.conn.prepare_cached(
            "SELECT family, session, owner, pid, kind, first, last FROM locks WHERE flare = ?1 ORDER BY number",
        )?;
        let mut rows = statement.query([flare])?;
        let mut locks = Vec::new();
        while let Some(row) = rows.next()? {
            locks.push(LockRow {
                family: columns::family(row, 0)?,
                session: SessionId(unsigned(row, 1)?),
                owner: LockOwner { owner: unsigned(row, 2)?, pid: row.get(3)? },
                kind: columns::lock_kind(row, 4)?,
                start: unsigned(row, 5)?,
                end: unsigned(row, 6)?,
            });
        }
        Ok(locks)
    }

    /// Replaces all locks of a flare.
    pub(in super::super) fn put_locks(&mut self, flare: i64, locks: &[LockRow]) -> Result<(), ReadError> {
        self.conn.prepare_cached("DELETE FROM locks WHERE flare = ?1")?.execute([flare])?;
        let mut statement =
            self.conn.prepare_cached("INSERT INTO locks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
        for (number, lock) in (0_i64..).zip(locks) {
            statement.execute(params![
                flare,
                number,
                signed(lock.session.0),
                columns::family_code(lock.family),
                signed(lock.owner.owner),
                lock.owner.pid,
                columns::lock_kind_code(lock.kind),
                signed(lock.start),
                signed(lock.end),
            ])?;
        }
        Ok(())
    }

    /// The flares in a range on which a session holds locks, ascending.
    pub(in super::super) fn locked_by(
        &self,
        range: KeyRange,
        session: SessionId,
    ) -> Result<Vec<Key>, ReadError> {
        // +key: by the session's locks, not by all flares of the range
        let mut statement = self.conn.prepare_cached(
            "SELECT key FROM flares WHERE id IN (SELECT flare FROM locks WHERE session = ?1)
             AND +key BETWEEN ?2 AND ?3 ORDER BY +key",
        )?;
        let (first, last) = (range.first_key(), range.last_key());
        let mut rows = statement.query(params![signed(session.0), first.as_bytes(), last.as_bytes()])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push(columns::key(row, 0)?);
        }
        Ok(keys)
    }
}
