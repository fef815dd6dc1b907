//! How values lie in columns.

use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::key::Key;
use magma_common::name::Name;
use magma_common::proto::operation::{LockFamily, LockKind};
use magma_common::proto::{OpId, SessionId};
use magma_common::time::Timestamp;
use rusqlite::Row;

use crate::rows::{Life, Striping};
use crate::transaction::Attempt;
use crate::view::ReadError;

/// Bytes of an operation id in a column.
pub(super) const OP_ID_LEN: usize = 17;
/// Bytes of an attempt's name in a column.
const ATTEMPT_LEN: usize = Key::LEN + 16;

/// What a column held that cannot be.
pub(super) fn damaged(what: &str) -> ReadError {
    ReadError::Damaged { what: what.to_owned() }
}

/// The signed number with the same bits: `SQLite` knows no unsigned 64-bit numbers.
pub(super) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// An unsigned number from a column.
pub(super) fn unsigned(row: &Row<'_>, index: usize) -> Result<u64, ReadError> {
    Ok(row.get::<_, i64>(index)?.cast_unsigned())
}

/// A time from two columns.
pub(super) fn time(row: &Row<'_>, index: usize) -> Result<Timestamp, ReadError> {
    Timestamp::new(row.get(index)?, row.get(index + 1)?).ok_or_else(|| damaged("a time in magma.db"))
}

/// A key from a column.
pub(super) fn key(row: &Row<'_>, index: usize) -> Result<Key, ReadError> {
    Ok(Key::from_bytes(row.get(index)?))
}

/// A handle from a column.
pub(super) fn handle(row: &Row<'_>, index: usize) -> Result<Handle, ReadError> {
    Ok(Handle::from_bytes(&row.get::<_, [u8; Handle::LEN]>(index)?))
}

/// A name from a column.
pub(super) fn name(row: &Row<'_>, index: usize) -> Result<Name, ReadError> {
    Name::new(row.get::<_, Vec<u8>>(index)?).map_err(|_| damaged("a name in magma.db"))
}

/// An operation id as a column's bytes: 0, session, sequence; or 1, the call's hash. Most significant byte first.
pub(super) fn op_id_bytes(id: OpId) -> [u8; OP_ID_LEN] {
    let (tag, rest) = match id {
        OpId::Session { session, sequence } => (0, u128::from(session.0) << 64 | u128::from(sequence)),
        OpId::Call(hash) => (1, hash),
    };
    let mut bytes = [tag; OP_ID_LEN];
    if let Some(number) = bytes.last_chunk_mut() {
        *number = rest.to_be_bytes();
    }
    bytes
}

/// An operation id from a column.
pub(super) fn op_id(row: &Row<'_>, index: usize) -> Result<OpId, ReadError> {
    let [tag, rest @ ..] = row.get::<_, [u8; OP_ID_LEN]>(index)?;
    let number = u128::from_be_bytes(rest);
    match tag {
        0 => Ok(OpId::Session { session: SessionId((number >> 64) as u64), sequence: number as u64 }),
        1 => Ok(OpId::Call(number)),
        _ => Err(damaged("an operation id in magma.db")),
    }
}

/// An attempt's name as a column's bytes: driver, reign, number. Most significant byte first, so that they are in its order.
pub(super) fn attempt_bytes(attempt: &Attempt) -> [u8; ATTEMPT_LEN] {
    let mut bytes = [0; ATTEMPT_LEN];
    let (reign, number) = (attempt.reign.0.to_be_bytes(), attempt.number.to_be_bytes());
    let from = attempt.driver.as_bytes().iter().chain(&reign).chain(&number);
    bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    bytes
}

/// How a file is spread, as a column's bytes; none if it is not.
pub(super) fn striping_bytes(striping: &Striping) -> Option<Vec<u8>> {
    match striping {
        Striping::Whole => None,
        // Writing to memory cannot fail.
        spread => Some(postcard::to_stdvec(spread).unwrap_or_default()),
    }
}

/// The inverse of [`striping_bytes`].
pub(super) fn striping(row: &Row<'_>, index: usize) -> Result<Striping, ReadError> {
    let Some(bytes) = row.get::<_, Option<Vec<u8>>>(index)? else { return Ok(Striping::Whole) };
    postcard::from_bytes(&bytes).map_err(|_| damaged("a striped file's row in magma.db"))
}

macro_rules! codes {
    ($to:ident, $from:ident, $type:ty, $what:literal, $($code:literal => $variant:path),*) => {
        #[doc = concat!("The number that stands for ", $what, ".")]
        pub(super) const fn $to(value: $type) -> i64 {
            match value { $($variant => $code,)* }
        }

        #[doc = concat!("The inverse of `", stringify!($to), "`.")]
        pub(super) fn $from(row: &Row<'_>, index: usize) -> Result<$type, ReadError> {
            match row.get::<_, i64>(index)? {
                $($code => Ok($variant),)*
                _ => Err(damaged(concat!($what, " in magma.db"))),
            }
        }
    };
}

codes!(kind_code, kind, Kind, "a flare's kind",
    0 => Kind::File, 1 => Kind::Directory, 2 => Kind::Symlink, 3 => Kind::Fifo, 4 => Kind::Socket,
    5 => Kind::CharDevice, 6 => Kind::BlockDevice);
codes!(life_code, life, Life, "a flare's life", 0 => Life::Named, 1 => Life::Orphan,
    2 => Life::Dying);
codes!(family_code, family, LockFamily, "a lock's family", 0 => LockFamily::Posix, 1 => LockFamily::Flock);
codes!(lock_kind_code, lock_kind, LockKind, "a lock's kind",
    0 => LockKind::Shared, 1 => LockKind::Exclusive, 2 => LockKind::Unlock);
