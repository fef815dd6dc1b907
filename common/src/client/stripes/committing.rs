//! Committing: the head and all stripes, some at the same time.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use super::super::{Client, Context};
use super::Tries;
use crate::error::FlareError;
use crate::handle::Handle;
use crate::proto::limits::MAX_FILE_SIZE;
use crate::proto::operation::{CommitPart, CommitReply, Layout};
use crate::proto::{Failure, Operation as _};

/// Parts of one file that are committed at the same time.
const AT_ONCE: usize = 32;

/// Answers when everything of a striped file is on disk.
pub(super) async fn commit(
    client: &Client,
    context: &Context,
    handle: Handle,
) -> Result<CommitReply, Failure> {
    let tries = Tries::new(client, context);
    let mut reply = part(&tries, handle, handle).await?.ok_or(FlareError::Stale)?;
    let topology = client.topology();
    let mut offset = Some(0);
    while let Some(from) = offset {
        let length = MAX_FILE_SIZE.saturating_sub(from);
        let (layout, _) =
            tries.layout(Layout { handle, offset: from, length, write: true, opened: true }).await?;
        // It goes forward, whatever is said.
        offset = layout.next.filter(|next| *next > from);
        let stripes = layout.stripes.into_iter().map(|stripe| part(&tries, stripe.handle, handle));
        let mut committed = stream::iter(stripes).buffer_unordered(AT_ONCE);
        while let Some(done) = committed.next().await {
            // One that is gone has nothing to be kept.
            let Some(done) = done? else { continue };
            if topology.losses_in(done.verifier) > topology.losses_in(reply.verifier) {
                reply.verifier = done.verifier;
            }
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
