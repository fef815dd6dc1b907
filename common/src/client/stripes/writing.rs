//! Writing: the stripes that are to be written are made first if they are not there, then they get their bytes directly and at the same
//! time, and then the head hears of it.

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::super::{Client, Context};
use super::{Stales, Tries};
use crate::error::FlareError;
use crate::proto::limits::MAX_THROUGH_HEAD;
use crate::proto::operation::{
    Layout, LayoutPurpose, LayoutReply, MakeStripes, Write, WriteAt, WriteDone, WriteReply, WriteStripe,
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
    stales: Stales,
    /// What the head said last.
    heard: Option<WriteReply>,
    /// What all parts that were written were answered with.
    verifiers: Vec<u64>,
}

/// What became of a part.
enum Tried {
    /// Written to its stripe.
    Stripe(u64),
    /// Written by the head.
    Head(WriteReply),
    /// Its stripe is not there, or was cut: it is to be made.
    Missing,
    /// Its stripe is not any more what the layout says: once more.
    Again,
}

/// What is left to be done after some parts have been tried.
#[derive(Default)]
struct Left {
    parts: Vec<StripePart>,
    /// The range of those that have to be made, counted from the beginning of the write.
    missing: Option<(u64, u64)>,
    is_stale: bool,
}

/// Writes to a striped file at an offset. It goes on to its end although its caller goes away: what was written to stripes has to be told to the head.
pub(super) async fn write(
    client: &Client,
    context: &Context,
    write: &Write,
    data: Bytes,
) -> Result<WriteReply, Failure> {
    let (sender, receiver) = oneshot::channel();
    let (writer, context, write) = (client.clone(), context.clone(), write.clone());
    let task = async move {
        let written = write_to_the_end(&writer, &context, &write, data).await;
        // The caller may have gone away.
        let _ = sender.send(written);
    };
    client.inner.network.surroundings.spawn(Box::pin(task)).leave();
    // A task that is gone has ended with the process.
    receiver.await.unwrap_or_else(|_| Err(FlareError::Io.into()))
}

async fn write_to_the_end(
    client: &Client,
    context: &Context,
    write: &Write,
    data: Bytes,
) -> Result<WriteReply, Failure> {
    let WriteAt::Offset(offset) = write.at else { return append(client, context, write, &data).await };
    let (tries, stales) = (Tries::new(client, context), Stales::default());
    let mut writing = Writing { tries, write, offset, data, stales, heard: None, verifiers: Vec::new() };
    let mut rest: Option<Vec<StripePart>> = None;
    loop {
        let (layout, unit) = writing.layout(rest.as_deref()).await?;
        let length = writing.data.len() as u64;
        let parts = rest.take().unwrap_or_else(|| unit.parts(offset, length).collect());
        let left = writing.try_parts((&layout, unit), parts).await?;
        if left.parts.is_empty() {
            return writing.reply();
        }
        rest = Some(left.parts);
        if let Some((from, to)) = left.missing {
            writing.make(from, to).await?;
        }
        if left.is_stale {
            writing.tries.pause().await?;
        }
    }
}

/// Appends more than the head takes at a time: several appends. What others append may stand between them.
async fn append(
    client: &Client,
    context: &Context,
    write: &Write,
    data: &Bytes,
) -> Result<WriteReply, Failure> {
    let tries = Tries::new(client, context);
    let mut first: Option<WriteReply> = None;
    for (number, piece) in (0..).zip(data.chunks(MAX_THROUGH_HEAD)) {
        let context = tries.context.part(number);
        let (reply, _) = client.perform(&context, write.clone().into(), data.slice_ref(piece)).await?;
        let reply = Write::reply(reply).ok_or(FlareError::Io)?;
        let offset = first.as_ref().map_or(reply.offset, |first| first.offset);
        let verifiers = first.iter().map(|first| first.verifier).chain([reply.verifier]);
        let verifier = earliest(client, verifiers).unwrap_or(reply.verifier);
        first = Some(WriteReply { offset, verifier, ..reply });
    }
    first.ok_or_else(|| FlareError::Io.into())
}

/// Of the verifiers of parts, that from before all losses: if something may have been lost between two parts, a commit shows another one.
fn earliest(client: &Client, verifiers: impl Iterator<Item = u64>) -> Option<u64> {
    let topology = client.topology();
    verifiers.min_by_key(|verifier| topology.losses_in(*verifier))
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
        let purpose = LayoutPurpose::Write;
        self.tries.layout(Layout { handle, offset, length, purpose, opened }).await
    }

    /// Has the stripes of a range made.
    async fn make(&self, from: u64, to: u64) -> Result<(), Failure> {
        let Write { handle, opened, .. } = *self.write;
        let (offset, length) = (self.offset.saturating_add(from), to.saturating_sub(from));
        self.tries.call(MakeStripes { handle, offset, length, opened }).await
    }

    /// Writes parts, all at the same time, and tells the head of those that were written to stripes, or may have been.
    async fn try_parts(
        &mut self,
        (layout, unit): (&LayoutReply, StripeUnit),
        parts: Vec<StripePart>,
    ) -> Result<Left, Failure> {
        let this = &*self;
        let tried = join_all(parts.iter().map(|part| this.put(layout, part))).await;
        let (mut end, mut left, mut failed) = (None, Left::default(), None);
        for (part, tried) in parts.into_iter().zip(tried) {
            let stop = part.at + part.length;
            match tried {
                Ok(Tried::Stripe(verifier)) => {
                    self.verifiers.push(verifier);
                    end = end.max(Some(self.offset.saturating_add(stop)));
                }
                Ok(Tried::Head(reply)) => {
                    self.verifiers.push(reply.verifier);
                    self.heard = Some(WriteReply { unit: Some(unit), ..reply });
                }
                Ok(Tried::Missing) => {
                    left.missing = Some((left.missing.map_or(part.at, |(from, _)| from), stop));
                    left.parts.push(part);
                }
                Ok(Tried::Again) => {
                    self.stales.note(layout, part.number)?;
                    left.is_stale = true;
                    left.parts.push(part);
                }
                Err(failure) => {
                    end = end.max(Some(0));
                    failed = Some(failure);
                }
            }
        }
        if let Some(end) = end {
            let done = WriteDone { handle: self.write.handle, end, cut: layout.cut };
            let reply = self.tries.call(done).await?;
            self.verifiers.push(reply.verifier);
            self.heard = Some(reply);
        }
        failed.map_or(Ok(left), Err)
    }

    async fn put(&self, layout: &LayoutReply, part: &StripePart) -> Result<Tried, Failure> {
        let start = part.at as usize;
        let data = self.data.slice(start..start + part.length as usize);
        let client = self.tries.client;
        let context = self.tries.context.part(part.number);
        if part.number == 0 {
            let own = Write { at: WriteAt::Offset(self.offset), ..self.write.clone() };
            let (reply, _) = client.perform(&context, own.into(), data).await?;
            return Ok(Tried::Head(Write::reply(reply).ok_or(FlareError::Io)?));
        }
        let stripe = layout.stripes.iter().find(|stripe| stripe.number == part.number);
        let Some(stripe) = stripe.filter(|stripe| stripe.trimmed.is_none()) else {
            return Ok(Tried::Missing);
        };
        let (stripe, head) = (stripe.handle, self.write.handle);
        let direct = WriteStripe { stripe, head, cut: layout.cut, offset: part.offset };
        match client.perform(&context, direct.into(), data).await {
            Ok((reply, _)) => {
                let written = WriteStripe::reply(reply).ok_or(FlareError::Io)?;
                Ok(Tried::Stripe(written.verifier))
            }
            Err(failure) if failure.error == FlareError::Stale => Ok(Tried::Again),
            Err(failure) => Err(failure),
        }
    }

    /// What the whole write is answered with.
    fn reply(self) -> Result<WriteReply, Failure> {
        match (self.heard, earliest(self.tries.client, self.verifiers.iter().copied())) {
            (Some(heard), Some(verifier)) => Ok(WriteReply { offset: self.offset, verifier, ..heard }),
            _ => Err(FlareError::Io.into()),
        }
    }
}
