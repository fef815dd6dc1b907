//! A write that goes through the head: the file's own bytes and size, and what each stripe gets, happen together.

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::BirthString;
use magma_common::stripes::StripePart;

use super::shed::drop_dying;
use super::{name_of, take};
use crate::namespace::data::content;
use crate::namespace::plan::{Caller, Plan, Stop};
use crate::namespace::steps::child::BYTES_PER_FLARE;
use crate::planted::{Bug, planted};
use crate::record::Change;
use crate::rows::{BodyId, Content, FIRST_COOKIE, FlareRow, Head, Life, ReferenceRow, Striping, Trim};
use crate::transaction::{Newborn, Step, StripeLink};

/// Dying stripes that a write may remove because it needs new ones in their place.
const DROPPED_BY_WRITE: usize = 32;

/// Writes bytes at an offset of a striped file, some of them beyond its first unit.
pub(in crate::namespace) fn write(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    (row, head): (&FlareRow, &Head),
    offset: u64,
    data: &Bytes,
) -> Result<(), Stop> {
    let end = content::end_within_limit(offset, data.len() as u64)?;
    plan.need(data.len() as u64)?;
    let key = row.key();
    let parts: Vec<StripePart> = head.unit.parts(offset, data.len() as u64).collect();
    let stripes = || parts.iter().filter(|part| part.number > 0);
    if stripes().any(|part| head.is_dying(part.number)) && !drop_dying(plan, row, head, DROPPED_BY_WRITE)? {
        // They are being removed.
        return Err(FlareError::Unavailable.into());
    }
    let own = parts.iter().find(|part| part.number == 0).map_or(Bytes::new(), |part| bytes_of(part, data));
    take(plan, key, Step::Extend { credentials: caller.credentials.clone(), offset, data: own, end })?;
    for part in stripes() {
        let stripe = writable(plan, row, head, part.number)?;
        let body = BodyId(plan.random());
        let fill = Step::Fill {
            stripe,
            offset: part.offset,
            data: bytes_of(part, data),
            body,
            stable: caller.stable && !planted(Bug::FillOutsideLog),
        };
        take(plan, stripe.key, fill)?;
    }
    Ok(())
}

fn bytes_of(part: &StripePart, data: &Bytes) -> Bytes {
    let start = (part.at as usize).min(data.len());
    data.slice(start..start.saturating_add(part.length as usize).min(data.len()))
}

/// The stripe with this number, which is made if it is not there, and whose end is cleared first if that is due.
fn writable(plan: &mut Plan<'_>, row: &FlareRow, head: &Head, number: u64) -> Result<Handle, Stop> {
    let key = row.key();
    let Some(entry) = plan.entry(&key, &name_of(number)?)? else { return make(plan, row, head, number) };
    let stripe = entry.child;
    if let Some(from) = head.trimmed(number) {
        take(plan, stripe.key, Step::ClearEnd { stripe, from, cut: head.cut })?;
        take(plan, key, Step::ForgetTrim { trim: Trim { number, from }, cut: head.cut })?;
    }
    Ok(stripe)
}

/// Makes a stripe that is not there.
fn make(plan: &mut Plan<'_>, head_row: &FlareRow, head: &Head, number: u64) -> Result<Handle, Stop> {
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
        striping: Striping::Stripe { cut: head.cut },
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
