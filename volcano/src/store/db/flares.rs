//! Rows of flares, with a cache of those used last.

use std::sync::Arc;

use magma_common::attr::Kind;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::{BirthString, Ino, Key, KeyRange};
use magma_common::topology::SliceId;
use rusqlite::{Row, params};

use super::Db;
use super::columns::{self, damaged, signed, time, unsigned};
use crate::rows::{BodyId, Content, FlareRow};
use crate::view::ReadError;

const SELECT: &str = "SELECT id, key, birth_number, birth, kind, life, mode, nlink, uid, gid, rdev, size,
    atime_s, atime_n, mtime_s, mtime_n, ctime_s, ctime_n, btime_s, btime_n, change, body, high, verifier,
    entries, next_cookie, has_acl, striping FROM flares WHERE ino = ?1";

const INSERT: &str = "INSERT INTO flares(ino, key, birth_number, birth, kind, life, mode, nlink, uid, gid, rdev, size,
    atime_s, atime_n, mtime_s, mtime_n, ctime_s, ctime_n, btime_s, btime_n, change, body, high, verifier,
    entries, next_cookie, has_acl, striping, sheds)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
    ?24, ?25, ?26, ?27, ?28, ?29)";

const UPDATE: &str = "UPDATE flares SET birth_number = ?3, birth = ?4, kind = ?5, life = ?6, mode = ?7, nlink = ?8,
    uid = ?9, gid = ?10, rdev = ?11, size = ?12, atime_s = ?13, atime_n = ?14, mtime_s = ?15, mtime_n = ?16,
    ctime_s = ?17, ctime_n = ?18, btime_s = ?19, btime_n = ?20, change = ?21, body = ?22, high = ?23, verifier = ?24,
    entries = ?25, next_cookie = ?26, has_acl = ?27, striping = ?28,
    sheds = ?29
    WHERE ino = ?1 AND key = ?2";

/// A flare's row with its local id, which never leaves the store.
#[derive(Debug)]
pub(in super::super) struct Flare {
    pub(in super::super) local: i64,
    pub(in super::super) row: FlareRow,
}

impl Db {
    /// The flare with this key.
    pub(in super::super) fn flare(&self, key: &Key) -> Result<Option<Arc<Flare>>, ReadError> {
        Ok(self.flare_by_ino(key.ino())?.filter(|flare| flare.row.handle.key == *key))
    }

    /// The flare with this inode number.
    pub(in super::super) fn flare_by_ino(&self, ino: Ino) -> Result<Option<Arc<Flare>>, ReadError> {
        if let Some(flare) = self.flare_cache.borrow().get(&ino) {
            return Ok(Some(Arc::clone(flare)));
        }
        let mut statement = self.conn.prepare_cached(SELECT)?;
        let mut rows = statement.query([signed(ino.0)])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let flare = Arc::new(Flare { local: row.get(0)?, row: read(row)? });
        self.flare_cache.borrow_mut().insert(ino, Arc::clone(&flare));
        Ok(Some(flare))
    }

    /// Inserts or replaces a flare's row.
    pub(in super::super) fn put_flare(&mut self, row: &FlareRow) -> Result<(), ReadError> {
        let ino = row.handle.ino();
        let before = self.flare_by_ino(ino)?;
        let existing = before.as_ref().map(|flare| flare.local);
        let (body, high) = match row.content {
            Content::Inline => (None, None),
            Content::Body { body, high } => (Some(signed(body.0)), Some(signed(high))),
        };
        let sql = if existing.is_some() { UPDATE } else { INSERT };
        self.conn.prepare_cached(sql)?.execute(params![
            signed(ino.0),
            row.handle.key.as_bytes(),
            signed(row.handle.birth.0),
            row.birth.as_bytes(),
            columns::kind_code(row.kind),
            columns::life_code(row.life),
            row.mode,
            row.nlink,
            row.uid,
            row.gid,
            signed(row.rdev),
            signed(row.size),
            row.atime.seconds(),
            row.atime.nanos(),
            row.mtime.seconds(),
            row.mtime.nanos(),
            row.ctime.seconds(),
            row.ctime.nanos(),
            row.btime.seconds(),
            row.btime.nanos(),
            signed(row.change),
            body,
            high,
            row.verifier.map(signed),
            signed(row.entries),
            signed(row.next_cookie),
            row.has_acl,
            columns::striping_bytes(&row.striping),
            row.is_to_shed(),
        ])?;
        let local = existing.unwrap_or_else(|| self.conn.last_insert_rowid());
        if existing.is_none() {
            self.state.flares += 1;
        }
        self.count(ino, before.as_deref().map(|flare| &flare.row), Some(row));
        self.flare_cache.borrow_mut().insert(ino, Arc::new(Flare { local, row: row.clone() }));
        Ok(())
    }

    /// Removes a flare with all rows that hang on it.
    pub(in super::super) fn delete_flare(&mut self, key: &Key) -> Result<(), ReadError> {
        let Some(flare) = self.flare(key)? else { return Ok(()) };
        for sql in [
            "DELETE FROM flares WHERE id = ?1",
            "DELETE FROM entries WHERE dir = ?1",
            "DELETE FROM refs WHERE flare = ?1",
            "DELETE FROM xattrs WHERE flare = ?1",
            "DELETE FROM inlines WHERE flare = ?1",
            "DELETE FROM locks WHERE flare = ?1",
        ] {
            self.conn.prepare_cached(sql)?.execute([flare.local])?;
        }
        self.state.flares = self.state.flares.saturating_sub(1);
        self.count(key.ino(), Some(&flare.row), None);
        self.flare_cache.borrow_mut().remove(&key.ino());
        Ok(())
    }

    fn count(&mut self, ino: Ino, before: Option<&FlareRow>, after: Option<&FlareRow>) {
        let (before, after) = (before.map(FlareRow::own_bytes), after.map(FlareRow::own_bytes));
        let bytes = self.state.bytes.saturating_sub(before.unwrap_or(0));
        self.state.bytes = bytes.saturating_add(after.unwrap_or(0));
        self.census.change(ino, before, after);
    }

    /// Counts up to `limit` flares of the copies more; false if all are counted.
    pub(in super::super) fn count_some(&mut self, limit: usize) -> Result<bool, ReadError> {
        self.census.keep(self.slices.iter().map(|(id, state)| (*id, state.range)));
        let Some((id, count)) = self.census.unfinished() else { return Ok(false) };
        let rest = count.next.and_then(|next| KeyRange::new(next, count.range.stop()));
        let (mut keys, mut bytes, mut last) = (0, 0_u64, None);
        for (low, high) in rest.map(super::ranges::halves).into_iter().flatten() {
            let mut statement = self.conn.prepare_cached(
                "SELECT ino, kind, size, striping FROM flares WHERE ino BETWEEN ?1 AND ?2 ORDER BY ino LIMIT ?3",
            )?;
            let mut rows = statement.query(params![signed(low), signed(high), super::limit(limit - keys)])?;
            while let Some(row) = rows.next()? {
                keys += 1;
                if columns::kind(row, 1)? == Kind::File {
                    let size = unsigned(row, 2)?;
                    bytes = bytes.saturating_add(columns::striping(row, 3)?.own_bytes(size));
                }
                last = Some(unsigned(row, 0)?);
            }
        }
        let next = last.filter(|_| keys >= limit).and_then(|last| last.checked_add(1)).map(Ino);
        self.census.counted(id, keys as u64, bytes, next.filter(|next| count.range.contains_ino(*next)));
        Ok(true)
    }

    /// Flares of a copy and their bytes; see the census.
    pub(in super::super) fn counted(&self, slice: SliceId) -> Option<(u64, u64)> {
        self.census.of(slice)
    }

    /// Up to `limit` keys in a range and above `after` of flares without a name that may be open, ascending.
    pub(in super::super) fn orphans(
        &self,
        range: KeyRange,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<Key>, ReadError> {
        let sql = "SELECT key FROM flares WHERE life = 1 AND key > ?1 AND key <= ?2 ORDER BY key LIMIT ?3";
        self.keys(sql, range, after, limit)
    }

    /// Up to `limit` keys in a range and above `after` of heads of striped files that have something to shed, ascending.
    pub(in super::super) fn to_shed(
        &self,
        range: KeyRange,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<Key>, ReadError> {
        let sql = "SELECT key FROM flares WHERE sheds = 1 AND key > ?1 AND key <= ?2 ORDER BY key LIMIT ?3";
        self.keys(sql, range, after, limit)
    }

    fn keys(
        &self,
        sql: &str,
        range: KeyRange,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<Key>, ReadError> {
        let (first, last) = (range.first_key(), range.last_key());
        let after = after.filter(|after| *after >= first).map_or_else(
            // lies before this key and behind all that are lower
            || first.as_bytes().split_last().map_or(Vec::new(), |(_, shorter)| shorter.to_vec()),
            |after| after.as_bytes().to_vec(),
        );
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![after, last.as_bytes(), super::limit(limit)])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push(columns::key(row, 0)?);
        }
        Ok(keys)
    }
}

fn read(row: &Row<'_>) -> Result<FlareRow, ReadError> {
    let content = match (row.get::<_, Option<i64>>(21)?, row.get::<_, Option<i64>>(22)?) {
        (None, _) => Content::Inline,
        (Some(body), Some(high)) => {
            Content::Body { body: BodyId(body.cast_unsigned()), high: high.cast_unsigned() }
        }
        (Some(_), None) => return Err(damaged("a flare's body in magma.db")),
    };
    Ok(FlareRow {
        handle: Handle { key: columns::key(row, 1)?, birth: BirthNumber(unsigned(row, 2)?) },
        birth: BirthString::from_stored(row.get(3)?),
        kind: columns::kind(row, 4)?,
        life: columns::life(row, 5)?,
        mode: row.get(6)?,
        nlink: row.get(7)?,
        uid: row.get(8)?,
        gid: row.get(9)?,
        rdev: unsigned(row, 10)?,
        size: unsigned(row, 11)?,
        atime: time(row, 12)?,
        mtime: time(row, 14)?,
        ctime: time(row, 16)?,
        btime: time(row, 18)?,
        change: unsigned(row, 20)?,
        content,
        verifier: row.get::<_, Option<i64>>(23)?.map(i64::cast_unsigned),
        entries: unsigned(row, 24)?,
        next_cookie: unsigned(row, 25)?,
        has_acl: row.get(26)?,
        striping: columns::striping(row, 27)?,
    })
}
