//! From a request to its operation; and what a refusal says about the flares it touched.

use bytes::Bytes;
use magma_common::attr::Wcc;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::{Failure, Reply, Request};

use super::plan::{Caller, Plan, Stop};
use super::{
    access, attributes, create, data, link, lock, lookup, mkdir, open, readdir, readlink, rename, rmdir,
    setattr, special, statfs, stripes, unlink, xattr,
};

/// Carries out one operation on the plan: the reply and its payload, or why not.
///
/// After a failure the plan must be thrown away. Requests about sessions and the topology are not
/// operations on flares: they are [`FlareError::NotSupported`] here.
pub fn execute(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    request: &Request,
    payload: &Bytes,
) -> Result<(Reply, Bytes), Stop> {
    perform(plan, caller, request, payload).map_err(|stop| match stop {
        Stop::Failure(failure) => describe(plan, request, failure.error),
        other => other,
    })
}

fn perform(
    plan: &mut Plan<'_>,
    caller: &Caller<'_>,
    request: &Request,
    payload: &Bytes,
) -> Result<(Reply, Bytes), Stop> {
    let reply = match request {
        Request::Lookup(op) => Reply::Lookup(lookup::lookup(plan, caller, op)?),
        Request::LookupParent(op) => Reply::LookupParent(lookup::lookup_parent(plan, caller, op)?),
        Request::Getattr(op) => Reply::Getattr(attributes::getattr(plan, op)?),
        Request::StatMany(op) => Reply::StatMany(attributes::stat_many(plan, op)?),
        Request::Setattr(op) => Reply::Setattr(setattr::setattr(plan, caller, op)?),
        Request::Access(op) => Reply::Access(access::access(plan, caller, op)?),
        Request::Create(op) => Reply::Create(create::create(plan, caller, op)?),
        Request::Mkdir(op) => Reply::Mkdir(mkdir::mkdir(plan, caller, op)?),
        Request::Symlink(op) => Reply::Symlink(special::symlink(plan, caller, op)?),
        Request::Mknod(op) => Reply::Mknod(special::mknod(plan, caller, op)?),
        Request::Link(op) => Reply::Link(link::link(plan, caller, op)?),
        Request::Unlink(op) => Reply::Unlink(unlink::unlink(plan, caller, op)?),
        Request::Rmdir(op) => Reply::Rmdir(rmdir::rmdir(plan, caller, op)?),
        Request::Rename(op) => Reply::Rename(rename::rename(plan, caller, op)?),
        Request::Readdir(op) => Reply::Readdir(readdir::readdir(plan, caller, op)?),
        Request::Readlink(op) => Reply::Readlink(readlink::readlink(plan, op)?),
        Request::Open(op) => Reply::Open(open::open(plan, caller, op)?),
        // The slice keeps count of opens, and calls `release_last` for the last one.
        Request::Release(_) => Reply::Release(()),
        Request::Read(op) => {
            let (reply, data) = data::read(plan, caller, op)?;
            return Ok((Reply::Read(reply), data));
        }
        Request::Write(op) => Reply::Write(data::write(plan, caller, op, payload)?),
        Request::Commit(op) => Reply::Commit(data::commit(plan, op)?),
        Request::Allocate(op) => Reply::Allocate(data::allocate(plan, caller, op)?),
        Request::Seek(op) => Reply::Seek(data::seek(plan, op)?),
        Request::Layout(op) => Reply::Layout(stripes::layout(plan, caller, op)?),
        Request::ReadStripe(op) => return Ok((Reply::ReadStripe(()), stripes::part::read(plan, op)?)),
        Request::WriteStripe(op) => Reply::WriteStripe(stripes::part::write(plan, op, payload)?),
        Request::WriteDone(op) => Reply::WriteDone(stripes::done(plan, caller, op)?),
        Request::CommitPart(op) => Reply::CommitPart(stripes::part::commit(plan, op)?),
        Request::Shed(op) => Reply::Shed(stripes::shed(plan, op)?),
        Request::MakeStripes(op) => Reply::MakeStripes(stripes::make(plan, caller, op)?),
        Request::Statfs(_) => Reply::Statfs(statfs::statfs(plan)),
        Request::GetXattr(op) => Reply::GetXattr(xattr::get(plan, caller, op)?),
        Request::SetXattr(op) => Reply::SetXattr(xattr::set(plan, caller, op)?),
        Request::ListXattr(op) => Reply::ListXattr(xattr::list(plan, caller, op)?),
        Request::RemoveXattr(op) => Reply::RemoveXattr(xattr::remove(plan, caller, op)?),
        Request::Lock(op) => Reply::Lock(lock::lock(plan, caller, op)?),
        Request::TestLock(op) => Reply::TestLock(lock::test_lock(plan, caller, op)?),
        Request::OpenSession(_)
        | Request::KeepAlive(_)
        | Request::EndSession(_)
        | Request::ReclaimOpens(_)
        | Request::FetchTopology(_) => return Err(FlareError::NotSupported.into()),
    };
    Ok((reply, Bytes::new()))
}

/// A refusal changes nothing, so that what it touched is after it what it was before.
fn describe(plan: &Plan<'_>, request: &Request, error: FlareError) -> Stop {
    let (first, second) = touched(request);
    let wcc = |handle| unchanged(plan, handle);
    match (first.map_or(Ok(Wcc::default()), wcc), second.map_or(Ok(Wcc::default()), wcc)) {
        (Ok(first), Ok(second)) => Failure { error, first, second }.into(),
        (Err(stop), _) | (_, Err(stop)) => stop,
    }
}

fn unchanged(plan: &Plan<'_>, handle: &Handle) -> Result<Wcc, Stop> {
    let Some(row) = plan.stored_row(handle)? else { return Ok(Wcc::default()) };
    match plan.stored_attr(&row) {
        Ok(attr) => Ok(Wcc { before: Some((&attr).into()), after: Some(attr) }),
        // An unreadable block must not hide why the operation was refused.
        Err(Stop::Failure(_)) => Ok(Wcc::default()),
        Err(fatal) => Err(fatal),
    }
}

/// The flares whose attributes a failure carries.
fn touched(request: &Request) -> (Option<&Handle>, Option<&Handle>) {
    match request {
        Request::Lookup(op) => (Some(&op.dir), None),
        Request::LookupParent(op) => (Some(&op.dir), None),
        Request::Getattr(op) => (Some(&op.handle), None),
        Request::Setattr(op) => (Some(&op.handle), None),
        Request::Access(op) => (Some(&op.handle), None),
        Request::Create(op) => (Some(&op.dir), None),
        Request::Mkdir(op) => (Some(&op.dir), None),
        Request::Symlink(op) => (Some(&op.dir), None),
        Request::Mknod(op) => (Some(&op.dir), None),
        Request::Link(op) => (Some(&op.handle), Some(&op.dir)),
        Request::Unlink(op) => (Some(&op.dir), None),
        Request::Rmdir(op) => (Some(&op.dir), None),
        Request::Rename(op) => (Some(&op.from_dir), Some(&op.to_dir)),
        Request::Readdir(op) => (Some(&op.dir), None),
        Request::Readlink(op) => (Some(&op.handle), None),
        Request::Open(op) => (Some(&op.handle), None),
        Request::Read(op) => (Some(&op.handle), None),
        Request::Write(op) => (Some(&op.handle), None),
        Request::Commit(op) => (Some(&op.handle), None),
        Request::Allocate(op) => (Some(&op.handle), None),
        Request::Seek(op) => (Some(&op.handle), None),
        Request::WriteDone(op) => (Some(&op.handle), None),
        Request::SetXattr(op) => (Some(&op.handle), None),
        Request::RemoveXattr(op) => (Some(&op.handle), None),
        _ => (None, None),
    }
}
