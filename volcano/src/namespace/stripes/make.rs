//! MAKESTRIPES: stripes come into being, and those that were cut become writable.

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::BirthString;
use magma_common::proto::limits::MAX_STRIPES_MADE;
use magma_common::proto::operation::MakeStripes;

use super::shed::drop_dying;
use super::{head_of, name_of, take};
use crate::namespace::data::{self, content};
use crate::namespace::plan::{Caller, Plan, Stop};
use crate::namespace::steps::child::BYTES_PER_FLARE;
use crate::record::Change;
use crate::rows::{Content, FIRST_COOKIE, FlareRow, Head, Life, ReferenceRow, Striping, Trim};
use crate::transaction::{Newborn, Step, StripeLink};

/// Dying stripes that are removed at once because new ones are needed in their place.
const DROPPED_FOR_NEW: usize = 32;

pub(in crate::namespace) fn make(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    op: &MakeStripes,
) -> Result<(), Stop> {
    let row = data::file(plan, &op.handle)?;
    data::may_write(plan, caller.credentials, &row, op.opened)?;
    let Some(head) = head_of(&row) else { return Err(FlareError::Invalid.into()) };
    content::end_within_limit(op.offset, op.length)?;
    let numbers: Vec<u64> = head
        .unit
        .parts(op.offset, op.length)
        .map(|part| part.number)
        .filter(|number| *number > 0)
        .take(MAX_STRIPES_MADE + 1)
        .collect();
    if numbers.len() > MAX_STRIPES_MADE {
        return Err(FlareError::Invalid.into());
    }
    make_room(plan, &row, head, numbers.iter().copied())?;
    numbers.into_iter().try_for_each(|number| writable(plan, &row, head, number).map(drop))
}

/// Removes dying stripes if any of these is to be made in the place of one.
pub(super) fn make_room(
    plan: &mut Plan<'_>,
    row: &FlareRow,
    head: &Head,
    mut numbers: impl Iterator<Item = u64>,
) -> Result<(), Stop> {
    if numbers.any(|number| head.is_dying(number)) && !drop_dying(plan, row, head, DROPPED_FOR_NEW)? {
        // They are being removed.
        return Err(FlareError::Unavailable.into());
    }
    Ok(())
}

/// The stripe with this number, which is made if it is not there, and whose end is cleared first if that is due.
pub(super) fn writable(
    plan: &mut Plan<'_>,
    row: &FlareRow,
    head: &Head,
    number: u64,
) -> Result<Handle, Stop> {
    let key = row.key();
    let Some(entry) = plan.entry(&key, &name_of(number)?)? else { return bear(plan, row, head, number) };
    let stripe = entry.child;
    if let Some(from) = head.trimmed(number) {
        take(plan, stripe.key, Step::ClearEnd { stripe, from, cut: head.cut })?;
        take(plan, key, Step::ForgetTrim { trim: Trim { number, from }, cut: head.cut })?;
    }
    Ok(stripe)
}

/// Makes a stripe that is not there.
fn bear(plan: &mut Plan<'_>, head_row: &FlareRow, head: &Head, number: u64) -> Result<Handle, Stop> {
    plan.need(BYTES_PER_FLARE)?;
    let birth = free_birth_string(plan, head_row, number)?;
    let handle = Handle { key: birth.key(), birth: BirthNumber(plan.random().max(BirthNumber::ROOT.0 + 1)) };
    let now = plan.moment.now;
    let row = FlareRow {
        handle,
        birth,
        kind: Kind::File,
        life: Life::Named,
        mode: 0,
        nlink: 1,
        uid: head_row.uid,
        gid: head_row.gid,
        rdev: 0,
        size: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        // The number of the record that makes it is put in there.
        change: 0,
        content: Content::Inline,
        verifier: None,
        entries: 0,
        next_cookie: FIRST_COOKIE,
        has_acl: false,
        striping: Striping::Stripe { cut: head.cut, unit: head.unit },
    };
    let made_by = plan.moment.op;
    let reference = ReferenceRow { parent: head_row.handle, name: name_of(number)?, made_by };
    let newborn = Newborn { row, reference, inline: Bytes::new(), xattrs: Vec::new() };
    take(plan, handle.key, Step::Birth { newborn: Box::new(newborn), opened_by: None })?;
    take(
        plan,
        head_row.key(),
        Step::GainStripe { link: StripeLink { number, child: handle, made_by }, cut: head.cut },
    )?;
    Ok(handle)
}

/// The head's birth string and the number, or where the key of that is taken one second try, as for files.
fn free_birth_string(plan: &mut Plan<'_>, head: &FlareRow, number: u64) -> Result<BirthString, Stop> {
    let plain = head.birth.clone().with_generation(number);
    if !is_taken(plan, &plain)? {
        return Ok(plain);
    }
    let second = plain.with_generation(plan.moment.generation);
    if is_taken(plan, &second)? { Err(FlareError::Unavailable.into()) } else { Ok(second) }
}

fn is_taken(plan: &Plan<'_>, birth: &BirthString) -> Result<bool, Stop> {
    let ino = birth.key().ino();
    let is_planned = |change: &Change| matches!(change, Change::PutFlare(row) if row.handle.ino() == ino);
    Ok(plan.planned().iter().any(is_planned) || plan.view.ino_taken(ino)?)
}
