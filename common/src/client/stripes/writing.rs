//! Writing: stripes that exist directly and at the same time, everything else through the head; then the head hears of it.

use bytes::Bytes;
use futures_util::future::join_all;

use super::super::{Client, Context};
use super::Tries;
use crate::error::FlareError;
use crate::proto::operation::{
    Layout, LayoutReply, Write, WriteAt, WriteDone, WriteReply, WriteStripe, WriteStripeReply,
};
use crate::proto::{Failure, Operation as _};
use crate::stripes::{StripePart, StripeUnit};

/// A write under way.
struct Writing<'a> {
    tries: Tries<'a>,
    write: &'a Write,
    /// Where it begins.
    offset: u64,
    data: Bytes,
    /// What the head said last.
    heard: Option<WriteReply>,
    /// What all parts that were written were answered with.
    verifiers: Vec<u64>,
}

/// What became of a part.
enum Tried {
    /// Written to its stripe.
    Stripe(WriteStripeReply),
    /// Written by the head.
    Head(WriteReply),
    /// Its stripe was cut or is gone: once more.
    Again(StripePart),
}

/// Writes to a striped file at an offset.
pub(super) async fn write(
    client: &Client,
    context: &Context,
    write: &Write,
    data: Bytes,
) -> Result<WriteReply, Failure> {
    let WriteAt::Offset(offset) = write.at else { return Err(FlareError::Io.into()) };
    let tries = Tries::new(client, context);
    let mut writing = Writing { tries, write, offset, data, heard: None, verifiers: Vec::new() };
    let mut rest: Option<Vec<StripePart>> = None;
    loop {
        let (layout, unit) = writing.layout(rest.as_deref()).await?;
        let length = writing.data.len() as u64;
        let parts = rest.take().unwrap_or_else(|| unit.parts(offset, length).collect());
        let refused = writing.try_parts((&layout, unit), parts).await?;
        if refused.is_empty() {
            return writing.reply();
        }
        rest = Some(refused);
        writing.tries.pause().await?;
    }
}

impl Writing<'_> {
    /// Where the bytes go that are still to be written.
    async fn layout(&self, rest: Option<&[StripePart]>) -> Result<(LayoutReply, StripeUnit), Failure> {
        let from = rest.and_then(|rest| rest.first()).map_or(0, |part| part.at);
        let to =
            rest.and_then(|rest| rest.last()).map_or(self.data.len() as u64, |part| part.at + part.length);
        let Write { handle, opened, .. } = *self.write;
        let offset = self.offset.saturating_add(from);
        let length = to.saturating_sub(from);
        self.tries.layout(Layout { handle, offset, length, write: true, opened }).await
    }

    /// Writes parts, all at the same time, and tells the head of those that were written to stripes. Those that have to be tried
    /// once more.
    async fn try_parts(
        &mut self,
        (layout, unit): (&LayoutReply, StripeUnit),
        parts: Vec<StripePart>,
    ) -> Result<Vec<StripePart>, Failure> {
        let this = &*self;
        let tried = join_all(parts.into_iter().map(|part| this.try_part(layout, part))).await;
        let (mut end, mut again, mut failed) = (0, Vec::new(), None);
        for (part, tried) in tried {
            match tried {
                Ok(Tried::Stripe(reply)) => {
                    self.verifiers.push(reply.verifier);
                    end = end.max(self.offset.saturating_add(part.at + part.length));
                }
                Ok(Tried::Head(reply)) => {
                    self.verifiers.push(reply.verifier);
                    self.heard = Some(WriteReply { unit: Some(unit), ..reply });
                }
                Ok(Tried::Again(part)) => again.push(part),
                Err(failure) => failed = Some(failure),
            }
        }
        if end > 0 {
            let done = WriteDone { handle: self.write.handle, end, cut: layout.cut };
            let reply = self.tries.client.call(&self.tries.context, done).await?;
            self.verifiers.push(reply.verifier);
            self.heard = Some(reply);
        }
        failed.map_or(Ok(again), Err)
    }

    async fn try_part(&self, layout: &LayoutReply, part: StripePart) -> (StripePart, Result<Tried, Failure>) {
        (part, self.put(layout, part).await)
    }

    async fn put(&self, layout: &LayoutReply, part: StripePart) -> Result<Tried, Failure> {
        let start = part.at as usize;
        let data = self.data.slice(start..start + part.length as usize);
        let Tries { client, context, .. } = &self.tries;
        let stripe = layout.stripes.iter().find(|stripe| stripe.number == part.number);
        // What has to be made or cleared first is the head's business.
        let Some(stripe) = stripe.filter(|stripe| stripe.trimmed.is_none()) else {
            let at = WriteAt::Offset(self.offset.saturating_add(part.at));
            let through = Write { at, ..self.write.clone() };
            let (reply, _) = client.perform(context, through.into(), data).await?;
            return Ok(Tried::Head(Write::reply(reply).ok_or(FlareError::Io)?));
        };
        let (stripe, head) = (stripe.handle, self.write.handle);
        let direct = WriteStripe { stripe, head, cut: layout.cut, offset: part.offset };
        match client.perform(context, direct.into(), data).await {
            Ok((reply, _)) => Ok(Tried::Stripe(WriteStripe::reply(reply).ok_or(FlareError::Io)?)),
            Err(failure) if failure.error == FlareError::Stale => Ok(Tried::Again(part)),
            Err(failure) => Err(failure),
        }
    }

    /// What the whole write is answered with. If something may have been lost between two parts of it, its verifier is from before that,
    /// so that a commit shows another one.
    fn reply(self) -> Result<WriteReply, Failure> {
        let topology = self.tries.client.topology();
        let first = self.verifiers.iter().copied().min_by_key(|verifier| topology.losses_in(*verifier));
        match (self.heard, first) {
            (Some(heard), Some(verifier)) => Ok(WriteReply { offset: self.offset, verifier, ..heard }),
            _ => Err(FlareError::Io.into()),
        }
    }
}
