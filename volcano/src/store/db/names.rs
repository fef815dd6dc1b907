//! Directory entries and back references.

use magma_common::key::Key;
use magma_common::name::Name;
use magma_common::proto::OpId;
use rusqlite::{Row, params};

use super::Db;
use super::columns::{self, op_id_bytes, signed, unsigned};
use crate::rows::{EntryRow, ReferenceRow};
use crate::view::ReadError;

impl Db {
    /// One entry of a directory.
    pub(in super::super) fn entry(&self, dir: &Key, name: &Name) -> Result<Option<EntryRow>, ReadError> {
        let Some(dir) = self.local(dir)? else { return Ok(None) };
        let mut statement = self.conn.prepare_cached(
            "SELECT name, child, kind, cookie, made_by FROM entries WHERE dir = ?1 AND name = ?2",
        )?;
        let mut rows = statement.query(params![dir, name.as_bytes()])?;
        rows.next()?.map(read_entry).transpose()
    }

    /// Up to `limit` entries with a cookie above `cookie`, ascending.
    pub(in super::super) fn entries_after(
        &self,
        dir: &Key,
        cookie: u64,
        limit: usize,
    ) -> Result<Vec<EntryRow>, ReadError> {
        let Some(dir) = self.local(dir)? else { return Ok(Vec::new()) };
        let mut statement = self.conn.prepare_cached(
            "SELECT name, child, kind, cookie, made_by FROM entries
             WHERE dir = ?1 AND cookie > ?2 ORDER BY cookie LIMIT ?3",
        )?;
        // cookies come from a counter that starts at 3: none has the highest bit, and a caller's that has lies behind all
        let cookie = i64::try_from(cookie).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![dir, cookie, super::limit(limit)])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(read_entry(row)?);
        }
        Ok(entries)
    }

    /// Inserts or replaces an entry.
    pub(in super::super) fn put_entry(&mut self, dir: i64, entry: &EntryRow) -> Result<(), ReadError> {
        let mut statement = self.conn.prepare_cached(
            "INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET child = excluded.child,
             kind = excluded.kind, cookie = excluded.cookie, made_by = excluded.made_by",
        )?;
        statement.execute(params![
            dir,
            entry.name.as_bytes(),
            entry.child.to_bytes(),
            columns::kind_code(entry.kind),
            signed(entry.cookie),
            op_id_bytes(entry.made_by),
        ])?;
        Ok(())
    }

    /// Removes an entry.
    pub(in super::super) fn delete_entry(&mut self, dir: &Key, name: &Name) -> Result<(), ReadError> {
        let Some(dir) = self.local(dir)? else { return Ok(()) };
        let mut statement = self.conn.prepare_cached("DELETE FROM entries WHERE dir = ?1 AND name = ?2")?;
        statement.execute(params![dir, name.as_bytes()])?;
        Ok(())
    }

    /// All names of a flare.
    pub(in super::super) fn references(&self, flare: &Key) -> Result<Vec<ReferenceRow>, ReadError> {
        let Some(flare) = self.local(flare)? else { return Ok(Vec::new()) };
        let mut statement =
            self.conn.prepare_cached("SELECT parent, name, made_by FROM refs WHERE flare = ?1")?;
        let mut rows = statement.query([flare])?;
        let mut references = Vec::new();
        while let Some(row) = rows.next()? {
            references.push(ReferenceRow {
                parent: columns::handle(row, 0)?,
                name: columns::name(row, 1)?,
                made_by: columns::op_id(row, 2)?,
            });
        }
        Ok(references)
    }

    /// Inserts or replaces a back reference.
    pub(in super::super) fn put_reference(
        &mut self,
        flare: i64,
        reference: &ReferenceRow,
    ) -> Result<(), ReadError> {
        let mut statement =
            self.conn.prepare_cached("INSERT OR REPLACE INTO refs VALUES (?1, ?2, ?3, ?4)")?;
        statement.execute(params![
            flare,
            reference.parent.to_bytes(),
            reference.name.as_bytes(),
            op_id_bytes(reference.made_by),
        ])?;
        Ok(())
    }

    /// Removes the back reference with this parent, name and maker.
    pub(in super::super) fn delete_reference(
        &mut self,
        flare: &Key,
        parent: &Key,
        name: &Name,
        made_by: OpId,
    ) -> Result<(), ReadError> {
        let Some(flare) = self.local(flare)? else { return Ok(()) };
        // the column holds the parent's handle, of which the key is the first part
        let mut statement = self.conn.prepare_cached(
            "DELETE FROM refs WHERE flare = ?1 AND parent BETWEEN ?2 AND ?3 AND name = ?4 AND made_by = ?5",
        )?;
        let low = [&parent.as_bytes()[..], &[0; 8]].concat();
        let high = [&parent.as_bytes()[..], &[0xff; 8]].concat();
        statement.execute(params![flare, low, high, name.as_bytes(), op_id_bytes(made_by)])?;
        Ok(())
    }
}

fn read_entry(row: &Row<'_>) -> Result<EntryRow, ReadError> {
    Ok(EntryRow {
        name: columns::name(row, 0)?,
        child: columns::handle(row, 1)?,
        kind: columns::kind(row, 2)?,
        cookie: unsigned(row, 3)?,
        made_by: columns::op_id(row, 4)?,
    })
}
