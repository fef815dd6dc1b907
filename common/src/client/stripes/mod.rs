//! Reads, writes and commits of striped files: `docs/STRIPES.md` says how they are done and why that is right.
//!
//! Whether a file is striped is found out when it matters: a read or commit that its head cannot do alone is refused with
//! [`Striped`](FlareError::Striped), and a write that it could do says by which unit. From then on its stripes are asked themselves.

mod committing;
mod reading;
mod writing;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quick_cache::sync::Cache as Lru;
use sha1::{Digest as _, Sha1};

use super::retry::Backoff;
use super::{Client, Context};
use crate::error::FlareError;
use crate::handle::Handle;
use crate::proto::limits::MAX_THROUGH_HEAD;
use crate::proto::operation::{Layout, LayoutReply, WriteAt};
use crate::proto::{Failure, Operation, Reply, Request};
use crate::stripes::StripeUnit;

/// Striped files that are remembered.
const FILES: usize = 16 << 10;
/// So often a stripe may be another one than a layout says, and the next layout say the same.
const MOST_STALES: u32 = 8;

/// What is known of files: a file that is striped is for ever, and by the same unit.
pub(super) struct Striped(Lru<Handle, StripeUnit>);

impl Striped {
    pub(super) fn new() -> Self {
        Self(Lru::new(FILES))
    }
}

/// Whether a request may concern stripes.
pub(super) fn may_concern(request: &Request) -> bool {
    matches!(request, Request::Read(_) | Request::Write(_) | Request::Commit(_))
}

/// Does a request that may concern stripes.
pub(super) async fn perform(
    client: &Client,
    context: &Context,
    request: Request,
    payload: Bytes,
) -> Result<(Reply, Bytes), Failure> {
    let Some(handle) = request.handle() else { return client.perform(context, request, payload).await };
    let Striped(files) = &client.inner.striped;
    if files.get(&handle).is_none_or(|unit| !goes_beyond(unit, context, &request, payload.len())) {
        let done = client.perform(context, request.clone(), payload.clone()).await;
        match done {
            Err(ref failure) if failure.error == FlareError::Striped => {}
            Ok((Reply::Write(ref reply), _)) => {
                reply.unit.into_iter().for_each(|unit| files.insert(handle, unit));
                return done;
            }
            done => return done,
        }
    }
    // What it takes is large, and other files need not carry it along.
    match request {
        Request::Read(read) => {
            let (reply, data) = Box::pin(reading::read(client, context, &read)).await?;
            Ok((Reply::Read(reply), data))
        }
        Request::Write(write) => {
            let reply = Box::pin(writing::write(client, context, &write, payload)).await?;
            Ok((Reply::Write(reply), Bytes::new()))
        }
        _ => {
            let reply = Box::pin(committing::commit(client, context, handle)).await?;
            Ok((Reply::Commit(reply), Bytes::new()))
        }
    }
}

/// Whether this request is better put to the stripes themselves.
fn goes_beyond(unit: StripeUnit, context: &Context, request: &Request, payload: usize) -> bool {
    let reaches = |offset: u64, length: u64| offset.saturating_add(length) > unit.bytes();
    match request {
        Request::Read(read) => reaches(read.offset, read.length.into()),
        // Under an id from outside it must be recognised wherever it comes again: it goes the way that it would go if nothing were known here.
        Request::Write(write) => match write.at {
            WriteAt::Offset(offset) => {
                let is_head_asked = context.call.is_some() && payload <= MAX_THROUGH_HEAD;
                !is_head_asked && payload > 0 && reaches(offset, payload as u64)
            }
            // Only the head knows where the end is.
            WriteAt::End => false,
        },
        _ => true,
    }
}

/// A request that takes several tries, each of them several requests.
struct Tries<'a> {
    client: &'a Client,
    context: Context,
    backoff: Backoff,
}

impl<'a> Tries<'a> {
    /// All tries together have the time that one request has.
    fn new(client: &'a Client, context: &Context) -> Self {
        let by_patience = || client.inner.patience.and_then(|patience| client.now().checked_add(patience));
        let deadline = context.deadline.or_else(by_patience);
        Self { client, context: Context { deadline, ..context.clone() }, backoff: Backoff::new() }
    }

    /// Does something that need not be recognised by the id of the whole.
    async fn call<O: Operation>(&self, operation: O) -> Result<O::Reply, Failure> {
        let context = Context { call: None, ..self.context.clone() };
        let (reply, _) = self.client.perform(&context, operation.into(), Bytes::new()).await?;
        O::reply(reply).ok_or_else(|| FlareError::Io.into())
    }

    /// Waits before the next try.
    async fn pause(&mut self) -> Result<(), Failure> {
        let is_over = |deadline: Instant| deadline <= self.client.now();
        if self.context.deadline.is_some_and(is_over) {
            return Err(FlareError::TimedOut.into());
        }
        let pause: Duration = self.backoff.next();
        self.client.inner.network.surroundings.sleep(pause).await;
        Ok(())
    }

    /// Asks the head of a striped file where the bytes of a range are.
    async fn layout(&self, layout: Layout) -> Result<(LayoutReply, StripeUnit), Failure> {
        let handle = layout.handle;
        let reply = self.call(layout).await?;
        let Some(unit) = reply.unit else { return Err(FlareError::Io.into()) };
        let Striped(files) = &self.client.inner.striped;
        files.insert(handle, unit);
        Ok((reply, unit))
    }
}

/// How often a stripe was not what a layout said. It may be so a few times: the file was cut. If the file says the same again and again, something is damaged.
#[derive(Default)]
struct Stales(BTreeMap<(u64, Handle), u32>);

impl Stales {
    /// The stripe with this number is not what this layout says.
    fn note(&mut self, layout: &LayoutReply, number: u64) -> Result<(), Failure> {
        let stripe = layout.stripes.iter().find(|stripe| stripe.number == number);
        let Some(stripe) = stripe else { return Ok(()) };
        let Self(counts) = self;
        let count = counts.entry((layout.cut, stripe.handle)).or_default();
        *count += 1;
        if *count < MOST_STALES {
            return Ok(());
        }
        tracing::error!(target: "magma::client", stripe = ?stripe.handle, "a stripe of a file is missing");
        Err(FlareError::Io.into())
    }
}

impl Context {
    /// Of the part with this number of an operation.
    fn part(&self, number: u64) -> Self {
        let call = self.call.map(|call| part_of_call(call, number));
        Self { call, ..self.clone() }
    }
}

/// Names the part with this number of a call, wherever that comes again.
fn part_of_call(call: u128, number: u64) -> u128 {
    let hash = Sha1::new().chain_update(call.to_le_bytes()).chain_update(number.to_le_bytes()).finalize();
    hash.iter().take(16).fold(0, |name, byte| name << 8 | u128::from(*byte))
}
