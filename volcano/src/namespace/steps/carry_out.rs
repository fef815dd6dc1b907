//! Steps of operations that another slice drives, at a flare of this one.
//!
//! First they are checked, strictly: what they rely upon must hold. Later, when the operation is known to have happened, they are carried
//! out on whatever the flare has become: then what is done already is left as it is, since after a loss a step may come once more.

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::key::Key;
use magma_common::name::Name;
use magma_common::proto::limits::MAX_LINKS;

use super::child::BYTES_PER_FLARE;
use super::{entry, reference, stripe};
use crate::namespace::data::content::Target;
use crate::namespace::plan::{Plan, Stop};
use crate::namespace::{acl, create};
use crate::record::Change;
use crate::rows::{EntryRow, FlareRow, Life, ReferenceRow};
use crate::transaction::{Link, Newborn, Participant, Seen, Step};

/// Why a step cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The flare is not any more what the driver saw: the operation has to be planned anew.
    #[error("the flare has changed meanwhile")]
    Changed,
    /// The key that the flare was to have is taken.
    #[error("the key is taken")]
    KeyTaken,
    /// The operation is not allowed.
    #[error(transparent)]
    Refused(#[from] FlareError),
}

/// Whether the steps at a flare can be carried out as it is now, or why not; outside, why that cannot be said. Their changes stay in the plan, which must be
/// thrown away.
pub fn check(plan: &mut Plan<'_>, part: &Participant) -> Result<Result<(), Unfit>, Stop> {
    if let Some(seen) = &part.seen
        && see(plan, &part.key)?.as_ref() != Some(seen)
    {
        return Ok(Err(Unfit::Changed));
    }
    for step in &part.steps {
        if let Err(unfit) = check_step(plan, &part.key, step)? {
            return Ok(Err(unfit));
        }
        match carry_out(plan, &part.key, step) {
            Ok(()) => {}
            Err(Stop::Failure(failure)) => return Ok(Err(failure.error.into())),
            Err(other) => return Err(other),
        }
    }
    Ok(Ok(()))
}

/// What decides about operations on the flare with this key; none if there is no such flare.
fn see(plan: &mut Plan<'_>, key: &Key) -> Result<Option<Seen>, Stop> {
    let Some(row) = plan.row_by_key(key)? else { return Ok(None) };
    let mut acls = Vec::new();
    if row.has_acl {
        for name in [acl::access_name(), acl::default_name()] {
            acls.extend(plan.xattr(key, &name)?.map(|value| (name, value)));
        }
    }
    Ok(Some(Seen::new(&row, acls)))
}

/// What is to be told of a flare to another slice: its row, what decides about operations on it, and the storage that it takes.
pub fn describe_flare(plan: &mut Plan<'_>, key: &Key) -> Result<Option<(FlareRow, Seen, u64)>, Stop> {
    let (Some(row), Some(seen)) = (plan.row_by_key(key)?, see(plan, key)?) else { return Ok(None) };
    let used = plan.attr(&row)?.used;
    Ok(Some((row, seen, used)))
}

fn check_step(plan: &mut Plan<'_>, key: &Key, step: &Step) -> Result<Result<(), Unfit>, Stop> {
    let holds = match step {
        Step::Birth { .. } => {
            if plan.view.ino_taken(key.ino())? {
                return Ok(Err(Unfit::KeyTaken));
            }
            plan.need(BYTES_PER_FLARE)?;
            true
        }
        Step::AddEntry(link) => plan.entry(key, &link.name)?.is_none(),
        Step::RemoveEntry(link) | Step::ReplaceEntry { old: link, .. } => {
            plan.entry(key, &link.name)?.is_some_and(|entry| leads_as(&entry, link))
        }
        Step::AddReference(_) => {
            let Some(row) = plan.row_by_key(key)? else { return Ok(Err(Unfit::Changed)) };
            if row.life == Life::Named && row.kind != Kind::Directory && row.nlink >= MAX_LINKS {
                return Ok(Err(FlareError::TooManyLinks.into()));
            }
            row.life == Life::Named
        }
        Step::DropMoved(wanted) => has_reference(plan, key, wanted)?,
        Step::DropRemoved(wanted) => {
            let holds = has_reference(plan, key, wanted)?;
            if holds && plan.row_by_key(key)?.is_some_and(|row| row.entries > 0) {
                return Ok(Err(FlareError::NotEmpty.into()));
            }
            holds
        }
        Step::TakeExisting { .. } => plan.row_by_key(key)?.is_some_and(|row| row.kind == Kind::File),
        Step::Fill { stripe, .. } => stripe::is_there(plan, stripe)?,
        // These are steps of a driver's own flare, and are never prepared.
        Step::Extend { .. } | Step::GainStripe { .. } | Step::LoseStripe(_) | Step::ForgetTrim { .. } => {
            false
        }
        // Of a stripe that is not there nothing is left to be taken away.
        Step::ClearEnd { .. } | Step::DropStripe { .. } | Step::MoveDirectory => true,
    };
    Ok(if holds { Ok(()) } else { Err(Unfit::Changed) })
}

/// Carries out a step of an operation that has happened. What is done already stays as it is.
pub fn carry_out(plan: &mut Plan<'_>, key: &Key, step: &Step) -> Result<(), Stop> {
    match step {
        Step::Birth { newborn, .. } => be_born(plan, key, newborn),
        Step::AddEntry(link) => lead(plan, key, link),
        Step::ReplaceEntry { new, .. } => lead(plan, key, new),
        Step::RemoveEntry(link) => match plan.entry(key, &link.name)? {
            Some(entry) if leads_as(&entry, link) => {
                let Some(dir) = plan.row_by_key(key)? else { return Ok(()) };
                entry::remove(plan, &dir.handle, &entry)
            }
            _ => Ok(()),
        },
        Step::AddReference(wanted) => {
            if has_reference(plan, key, wanted)? {
                return Ok(());
            }
            match plan.row_by_key(key)? {
                Some(row) => drop(reference::add_this(plan, &row.handle, wanted.clone())?),
                None => lost(key, "a name"),
            }
            Ok(())
        }
        Step::DropMoved(wanted) => match referred(plan, key, wanted)? {
            Some(row) => reference::forget_moved(plan, &row.handle, wanted).map(drop),
            None => Ok(()),
        },
        Step::DropRemoved(wanted) => match referred(plan, key, wanted)? {
            Some(row) => reference::forget_removed(plan, &row.handle, wanted).map(drop),
            None => Ok(()),
        },
        Step::TakeExisting { credentials, opened_by, size } => {
            let Some(mut row) = plan.row_by_key(key)? else { return Ok(()) };
            create::open_and_cut(plan, credentials, (opened_by.is_some(), *size), &mut row)
        }
        Step::Extend { credentials, offset, data, end } => {
            stripe::extend(plan, key, credentials, (*offset, data), *end)
        }
        Step::GainStripe { link, cut } => stripe::gain(plan, key, link, *cut),
        Step::LoseStripe(link) => stripe::lose(plan, key, link),
        Step::ForgetTrim { trim, cut } => stripe::forget_trim(plan, key, *trim, *cut),
        Step::Fill { stripe, offset, data, body, stable } => {
            let target = Target { body: Some(*body), in_log: *stable };
            stripe::fill(plan, stripe, (*offset, data), &target)
        }
        Step::ClearEnd { stripe, from, cut } => stripe::clear_end(plan, stripe, *from, *cut),
        Step::DropStripe { stripe } => stripe::drop(plan, stripe),
        Step::MoveDirectory => Ok(()),
    }
}

fn be_born(plan: &mut Plan<'_>, key: &Key, newborn: &Newborn) -> Result<(), Stop> {
    if plan.row_by_key(key)?.is_some() {
        return Ok(());
    }
    let Newborn { row, reference, inline, xattrs } = newborn.clone();
    let flare = *key;
    plan.put(FlareRow { change: plan.moment.seq.0, ..row });
    plan.push(Change::PutReference { flare, reference });
    if !inline.is_empty() {
        plan.push(Change::PutInline { flare, data: inline });
    }
    for (name, value) in xattrs {
        plan.push(Change::PutXattr { flare, name, value });
    }
    Ok(())
}

/// Lets a name of a directory lead there, wherever it led before.
fn lead(plan: &mut Plan<'_>, key: &Key, link: &Link) -> Result<(), Stop> {
    let found = plan.entry(key, &link.name)?;
    if found.as_ref().is_some_and(|entry| leads_as(entry, link)) {
        return Ok(());
    }
    match (plan.row_by_key(key)?, found) {
        (Some(dir), Some(old)) => entry::lead_elsewhere(plan, &dir.handle, &old, link)?,
        (Some(dir), None) => entry::add_link(plan, &dir.handle, link)?,
        (None, _) => lost(key, "an entry"),
    }
    Ok(())
}

fn leads_as(entry: &EntryRow, link: &Link) -> bool {
    entry.child == link.child && entry.made_by == link.made_by
}

fn has_reference(plan: &mut Plan<'_>, key: &Key, wanted: &ReferenceRow) -> Result<bool, Stop> {
    for change in plan.planned().iter().rev() {
        match change {
            Change::PutReference { flare, reference } if flare == key && reference == wanted => {
                return Ok(true);
            }
            Change::DeleteReference { flare, parent, name, made_by }
                if flare == key && is_reference(wanted, (parent, name), *made_by) =>
            {
                return Ok(false);
            }
            Change::DeleteFlare(dead) if dead == key => return Ok(false),
            _ => {}
        }
    }
    Ok(plan.view.references(key)?.iter().any(|reference| reference == wanted))
}

fn is_reference(
    wanted: &ReferenceRow,
    (parent, name): (&Key, &Name),
    made_by: magma_common::proto::OpId,
) -> bool {
    wanted.parent.key == *parent && wanted.name == *name && wanted.made_by == made_by
}

/// The flare, if it has this reference.
fn referred(plan: &mut Plan<'_>, key: &Key, wanted: &ReferenceRow) -> Result<Option<FlareRow>, Stop> {
    if has_reference(plan, key, wanted)? { plan.row_by_key(key) } else { Ok(None) }
}

/// The flare was prepared for the step and is gone: nothing but damage explains that. What is left of the operation is done.
fn lost(key: &Key, what: &str) {
    tracing::error!(target: "magma::flare", %key, "a flare is missing that an operation has given {what}");
}

/// The flares that a participant's steps open, and for which sessions.
pub fn opened_by(steps: &[Step]) -> Option<magma_common::proto::SessionId> {
    steps.iter().find_map(|step| match step {
        Step::Birth { opened_by, .. } | Step::TakeExisting { opened_by, .. } => *opened_by,
        _ => None,
    })
}

/// The handle of the flare that is born by these steps.
pub fn born(steps: &[Step]) -> Option<Handle> {
    steps.iter().find_map(|step| match step {
        Step::Birth { newborn, .. } => Some(newborn.row.handle),
        _ => None,
    })
}
