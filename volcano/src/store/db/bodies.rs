//! What the database knows of bodies: how far they reach, their blocks' checksums, and which are to be removed.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::log::Lsn;
use magma_common::handle::Handle;
use rusqlite::params;

use super::Db;
use super::columns::{signed, unsigned};
use crate::rows::BodyId;
use crate::view::ReadError;

/// A body's row.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct BodyRow {
    /// Its id in this database.
    pub(in super::super) local: i64,
    /// The entry of the log that brought it in from another copy; 0 if a record began it.
    pub(in super::super) born: Lsn,
    /// One more than its highest byte ever written.
    pub(in super::super) high: u64,
    /// Storage that it took when it was last looked at.
    pub(in super::super) used: Option<u64>,
    /// Every block that holds data has its checksum.
    pub(in super::super) summed: bool,
}

/// A body that nobody uses any more.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct DroppedBody {
    pub(in super::super) local: i64,
    pub(in super::super) body: BodyId,
    /// As in its row.
    pub(in super::super) born: Lsn,
    /// The entry of the log that dropped it.
    pub(in super::super) lsn: Lsn,
}

/// The checksum of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct BlockSum {
    /// How many of the block's bytes it covers, from its start.
    pub(in super::super) length: u32,
    /// Their CRC-32C.
    pub(in super::super) crc: u32,
}

impl Db {
    /// The row of a body in use.
    pub(in super::super) fn body(&self, body: BodyId) -> Result<Option<BodyRow>, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, born, high, used, summed FROM bodies WHERE body = ?1 AND dropped IS NULL",
        )?;
        let mut rows = statement.query([signed(body.0)])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some(BodyRow {
            local: row.get(0)?,
            born: Lsn(unsigned(row, 1)?),
            high: unsigned(row, 2)?,
            used: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
            summed: row.get(4)?,
        }))
    }

    /// Whether the body that began so has a row, dropped or not.
    pub(in super::super) fn knows_body(&self, body: BodyId, born: Lsn) -> Result<bool, ReadError> {
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM bodies WHERE body = ?1 AND born = ?2")?;
        Ok(statement.exists([signed(body.0), signed(born.0)])?)
    }

    /// Makes the row of a new body; gives out its local id.
    pub(in super::super) fn insert_body(
        &mut self,
        body: BodyId,
        flare: Handle,
        born: Lsn,
    ) -> Result<i64, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "INSERT INTO bodies(body, born, flare, high, summed) VALUES (?1, ?2, ?3, 0, 0)",
        )?;
        Ok(statement.insert(params![signed(body.0), signed(born.0), flare.to_bytes()])?)
    }

    /// Replaces a body's row.
    pub(in super::super) fn update_body(&self, row: &BodyRow) -> Result<(), ReadError> {
        let mut statement =
            self.conn.prepare_cached("UPDATE bodies SET high = ?2, used = ?3, summed = ?4 WHERE id = ?1")?;
        statement.execute(params![row.local, signed(row.high), row.used.map(signed), row.summed])?;
        Ok(())
    }

    /// Marks a body as not in use any more.
    pub(in super::super) fn drop_body(&mut self, local: i64, lsn: Lsn) -> Result<(), ReadError> {
        let mut statement = self.conn.prepare_cached("UPDATE bodies SET dropped = ?2 WHERE id = ?1")?;
        statement.execute(params![local, signed(lsn.0)])?;
        Ok(())
    }

    /// Up to `limit` dropped bodies with a local id above `after`, ascending.
    pub(in super::super) fn dropped_bodies(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DroppedBody>, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, body, born, dropped FROM bodies WHERE dropped IS NOT NULL AND id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let mut rows = statement.query(params![after, super::limit(limit)])?;
        let mut dropped = Vec::new();
        while let Some(row) = rows.next()? {
            dropped.push(DroppedBody {
                local: row.get(0)?,
                body: BodyId(unsigned(row, 1)?),
                born: Lsn(unsigned(row, 2)?),
                lsn: Lsn(unsigned(row, 3)?),
            });
        }
        Ok(dropped)
    }

    /// Removes up to `limit` checksums of a body whose file is gone, and its row when none is left. Whether it is done.
    pub(in super::super) fn erase_body(&mut self, local: i64, limit: usize) -> Result<bool, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "DELETE FROM blocks WHERE body = ?1 AND block IN (SELECT block FROM blocks WHERE body = ?1 LIMIT ?2)",
        )?;
        if statement.execute(params![local, super::limit(limit)])? >= limit {
            return Ok(false);
        }
        drop(statement);
        self.conn.prepare_cached("DELETE FROM bodies WHERE id = ?1")?.execute([local])?;
        Ok(true)
    }

    /// The first body with a local id above `after` of which blocks lack checksums.
    pub(in super::super) fn unsummed_body(&self, after: i64) -> Result<Option<(i64, BodyId)>, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, body FROM bodies WHERE summed = 0 AND dropped IS NULL AND id > ?1 ORDER BY id LIMIT 1",
        )?;
        let mut rows = statement.query([after])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some((row.get(0)?, BodyId(unsigned(row, 1)?))))
    }

    /// The checksums of a range of blocks, by block.
    pub(in super::super) fn sums(
        &self,
        local: i64,
        blocks: Range<u64>,
    ) -> Result<BTreeMap<u64, BlockSum>, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT block, length, crc FROM blocks WHERE body = ?1 AND block >= ?2 AND block < ?3",
        )?;
        let mut rows = statement.query(params![local, signed(blocks.start), signed(blocks.end)])?;
        let mut sums = BTreeMap::new();
        while let Some(row) = rows.next()? {
            sums.insert(unsigned(row, 0)?, BlockSum { length: row.get(1)?, crc: row.get(2)? });
        }
        Ok(sums)
    }

    /// Keeps a block's checksum.
    pub(in super::super) fn put_sum(
        &mut self,
        local: i64,
        block: u64,
        sum: BlockSum,
    ) -> Result<(), ReadError> {
        let mut statement =
            self.conn.prepare_cached("INSERT OR REPLACE INTO blocks VALUES (?1, ?2, ?3, ?4)")?;
        statement.execute(params![local, signed(block), sum.length, sum.crc])?;
        Ok(())
    }

    /// Forgets the checksums of a range of blocks.
    pub(in super::super) fn delete_sums(&mut self, local: i64, blocks: Range<u64>) -> Result<(), ReadError> {
        let mut statement =
            self.conn.prepare_cached("DELETE FROM blocks WHERE body = ?1 AND block >= ?2 AND block < ?3")?;
        statement.execute(params![local, signed(blocks.start), signed(blocks.end)])?;
        Ok(())
    }
}
