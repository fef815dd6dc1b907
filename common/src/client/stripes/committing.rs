//! Committing: the head and all stripes, some at the same time.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use super::super::retry::Backoff;
use super::super::{Client, Context};
use super::{Stales, Tries};
use crate::error::FlareError;
use crate::handle::Handle;
use crate::proto::limits::MAX_FILE_SIZE;
use crate::proto::operation::{CommitPart, CommitReply, Layout, LayoutPurpose, StripeAt};
use crate::proto::{Failure, Operation as _};

/// Parts of one file that are committed at the same time.
const AT_ONCE: usize = 32;

/// Answers when everything of a striped file is on disk. That may be many stripes, so each request has the time that one has.
pub(super) async fn commit(
    client: &Client,
    context: &Context,
    handle: Handle,
) -> Result<CommitReply, Failure> {
    let mut tries = Tries { client, context: context.clone(), backoff: Backoff::new() };
    let mut reply = part(&tries, handle, handle).await?.ok_or(FlareError::Stale)?;
    let topology = client.topology();
    let (mut offset, mut stales) = (Some(0), Stales::default());
    while let Some(from) = offset {
        let length = MAX_FILE_SIZE.saturating_sub(from);
        let purpose = LayoutPurpose::Commit;
        let layout = Layout { handle, offset: from, length, purpose, opened: true };
        let (layout, _) = tries.layout(layout).await?;
        let stripes: Vec<StripeAt> = layout.stripes.clone();
        let stripes = stripes.into_iter().map(|stripe| {
            let committed = part(&tries, stripe.handle, handle);
            async move { (stripe.number, committed.await) }
        });
        let mut committed = stream::iter(stripes).buffer_unordered(AT_ONCE);
        let mut is_stale = false;
        while let Some((number, done)) = committed.next().await {
            match done? {
                Some(done) if topology.losses_in(done.verifier) > topology.losses_in(reply.verifier) => {
                    reply.verifier = done.verifier;
                }
                Some(_) => {}
                // One that is gone has nothing to be kept. The next layout does not have it.
                None => {
                    stales.note(&layout, number)?;
                    is_stale = true;
                }
            }
        }
        drop(committed);
        if is_stale {
            tries.pause().await?;
        } else {
            // It goes forward, whatever is said.
            offset = layout.next.filter(|next| *next > from);
        }
    }
    Ok(reply)
}

/// Commits one flare of a file; none if it is gone.
async fn part(tries: &Tries<'_>, part: Handle, head: Handle) -> Result<Option<CommitReply>, Failure> {
    let request = CommitPart { part, head };
    match tries.client.perform(&tries.context, request.into(), Bytes::new()).await {
        Ok((reply, _)) => Ok(Some(CommitPart::reply(reply).ok_or(FlareError::Io)?)),
        Err(failure) if failure.error == FlareError::Stale => Ok(None),
        Err(failure) => Err(failure),
    }
}
