//! What lies in a range of the keyspace, and what hangs on one flare, page by page: for copying slices.

use std::cmp::Ordering;

use bytes::Bytes;
use magma_common::handle::Handle;
use magma_common::key::{Ino, KeyRange};
use magma_common::name::Name;
use rusqlite::params;

use super::Db;
use super::columns::{self, op_id_bytes, signed, unsigned};
use crate::rows::{BodyId, ReferenceRow};
use crate::view::ReadError;

/// The lowest inode number whose column is negative.
const SIGN: u64 = 1 << 63;

/// The inode numbers of a range in one or two ranges of the column: as signed numbers the upper half of the keyspace comes before the
/// lower.
pub(super) fn halves(range: KeyRange) -> impl Iterator<Item = (u64, u64)> {
    let (start, stop) = (range.start().0, range.stop().0);
    let halves = [(start, stop.min(SIGN - 1)), (start.max(SIGN), stop)];
    halves.into_iter().filter(|(low, high)| low.cmp(high) != Ordering::Greater)
}

impl Db {
    /// Up to `limit` inode numbers of flares in a range, ascending.
    pub(in super::super) fn inos(&self, range: KeyRange, limit: usize) -> Result<Vec<Ino>, ReadError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT ino FROM flares WHERE ino BETWEEN ?1 AND ?2 ORDER BY ino LIMIT ?3")?;
        let mut inos = Vec::new();
        for (low, high) in halves(range) {
            let left = super::limit(limit.saturating_sub(inos.len()));
            let mut rows = statement.query(params![signed(low), signed(high), left])?;
            while let Some(row) = rows.next()? {
                inos.push(Ino(unsigned(row, 0)?));
            }
        }
        Ok(inos)
    }

    /// Up to `limit` bodies in use whose flares are, or were, in a range; by their flares.
    pub(in super::super) fn bodies_of(
        &self,
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<(BodyId, Handle)>, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT body, flare FROM bodies WHERE flare BETWEEN ?1 AND ?2 AND dropped IS NULL ORDER BY flare LIMIT ?3",
        )?;
        let low = [&range.first_key().as_bytes()[..], &[0; 8]].concat();
        let high = [&range.last_key().as_bytes()[..], &[0xff; 8]].concat();
        let mut rows = statement.query(params![low, high, super::limit(limit)])?;
        let mut bodies = Vec::new();
        while let Some(row) = rows.next()? {
            bodies.push((BodyId(unsigned(row, 0)?), columns::handle(row, 1)?));
        }
        Ok(bodies)
    }

    /// Up to `limit` names of a flare (by its local id) after this one, in a fixed order.
    pub(in super::super) fn references_after(
        &self,
        flare: i64,
        after: Option<&ReferenceRow>,
        limit: usize,
    ) -> Result<Vec<ReferenceRow>, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT parent, name, made_by FROM refs WHERE flare = ?1 AND (parent, name, made_by) > (?2, ?3, ?4)
             ORDER BY parent, name, made_by LIMIT ?5",
        )?;
        let (parent, name, made_by) = match after {
            Some(after) => (
                after.parent.to_bytes().to_vec(),
                after.name.as_bytes().to_vec(),
                op_id_bytes(after.made_by).to_vec(),
            ),
            None => Default::default(),
        };
        let mut rows = statement.query(params![flare, parent, name, made_by, super::limit(limit)])?;
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

    /// The extended attribute of a flare (by its local id) whose name follows this one.
    pub(in super::super) fn xattr_after(
        &self,
        flare: i64,
        after: Option<&Name>,
    ) -> Result<Option<(Name, Bytes)>, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT name, value FROM xattrs WHERE flare = ?1 AND name > ?2 ORDER BY name LIMIT 1",
        )?;
        let mut rows = statement.query(params![flare, after.map_or(&[][..], |name| name.as_bytes())])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some((columns::name(row, 0)?, row.get::<_, Vec<u8>>(1)?.into())))
    }
}
