//! The child's part in being made: a key is reserved and the flare stands there with its first reference.

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::BirthString;
use magma_common::name::Name;
use magma_common::proto::SessionId;

use crate::namespace::plan::{Plan, Stop};
use crate::record::Change;
use crate::rows::{Content, FIRST_COOKIE, FlareRow, Head, Life, ReferenceRow, Striping};

/// What a new flare takes at least, in bytes: its row, an entry, a reference, and all of them once more in the log.
pub(in crate::namespace) const BYTES_PER_FLARE: u64 = 1024;

/// What a flare is born as.
#[derive(Clone, Copy, Debug)]
pub(in crate::namespace) struct Birth {
    pub(in crate::namespace) kind: Kind,
    pub(in crate::namespace) mode: u32,
    pub(in crate::namespace) uid: u32,
    pub(in crate::namespace) gid: u32,
    pub(in crate::namespace) rdev: u64,
    /// Who has it open from the beginning.
    pub(in crate::namespace) opened_by: Option<SessionId>,
}

/// Makes the flare that will be called `name` in `parent`.
pub(in crate::namespace) fn reserve(
    plan: &mut Plan<'_>,
    parent: &FlareRow,
    name: &Name,
    born: Birth,
) -> Result<FlareRow, Stop> {
    plan.need(BYTES_PER_FLARE)?;
    let opened_by = born.opened_by;
    let birth = free_birth_string(plan, parent, name)?;
    let number = plan.random().max(BirthNumber::ROOT.0 + 1);
    let now = plan.moment.now;
    let row = FlareRow {
        handle: Handle { key: birth.key(), birth: BirthNumber(number) },
        birth,
        kind: born.kind,
        life: Life::Named,
        mode: born.mode,
        nlink: if born.kind == Kind::Directory { 2 } else { 1 },
        uid: born.uid,
        gid: born.gid,
        rdev: born.rdev,
        size: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        change: plan.moment.seq.0,
        content: Content::Inline,
        verifier: None,
        entries: 0,
        next_cookie: FIRST_COOKIE,
        has_acl: false,
        striping: match (born.kind, plan.moment.stripes) {
            (Kind::File, Some(unit)) => Striping::Head(Box::new(Head::new(unit))),
            _ => Striping::Whole,
        },
    };
    plan.put(row.clone());
    let made_by = plan.moment.op;
    let reference = ReferenceRow { parent: parent.handle, name: name.clone(), made_by };
    plan.push(Change::PutReference { flare: row.key(), reference });
    plan.is_born(row.key(), opened_by);
    Ok(row)
}

/// The path, or where its key is taken one second try with a number that was never used.
fn free_birth_string(plan: &Plan<'_>, parent: &FlareRow, name: &Name) -> Result<BirthString, Stop> {
    let plain = parent.birth.child(name.as_bytes());
    if !plan.view.ino_taken(plain.key().ino())? {
        return Ok(plain);
    }
    let second = plain.with_generation(plan.moment.generation);
    if plan.view.ino_taken(second.key().ino())? {
        // One chance in 2^64 for each flare there is. A repeated request comes to another number.
        return Err(FlareError::Unavailable.into());
    }
    Ok(second)
}
