//! Reading: the layout, then all parts at the same time.

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;

use super::super::{Client, Context};
use super::{Stales, Tries};
use crate::error::FlareError;
use crate::handle::Handle;
use crate::proto::operation::{Layout, LayoutPurpose, LayoutReply, Read, ReadReply, ReadStripe, StripeAt};
use crate::proto::{Failure, Operation as _, Reply};
use crate::stripes::{StripePart, StripeUnit};

/// Reads a range of a striped file.
pub(super) async fn read(
    client: &Client,
    context: &Context,
    read: &Read,
) -> Result<(ReadReply, Bytes), Failure> {
    let Read { handle, offset, length, opened } = *read;
    let (mut tries, mut stales) = (Tries::new(client, context), Stales::default());
    loop {
        let purpose = LayoutPurpose::Read;
        let layout = Layout { handle, offset, length: length.into(), purpose, opened };
        let (layout, unit) = tries.layout(layout).await?;
        let end = offset.saturating_add(length.into()).min(layout.attr.size);
        let eof = end >= layout.attr.size;
        let length = end.saturating_sub(offset);
        if let Some(data) = gather(&tries, &mut stales, read, (&layout, unit), length).await? {
            return Ok((ReadReply { eof, attr: layout.attr }, data));
        }
        tries.pause().await?;
    }
}

/// All bytes of the range; none if the file was cut meanwhile, so that they have to be asked for once more.
async fn gather(
    tries: &Tries<'_>,
    stales: &mut Stales,
    read: &Read,
    (layout, unit): (&LayoutReply, StripeUnit),
    length: u64,
) -> Result<Option<Bytes>, Failure> {
    let parts: Vec<StripePart> = unit.parts(read.offset, length).collect();
    let asked = parts.iter().map(|part| async {
        if part.number == 0 {
            return own_part(tries, read, part).await;
        }
        match layout.stripes.iter().find(|stripe| stripe.number == part.number) {
            Some(stripe) => stripe_part(tries, (read.handle, layout.cut), stripe, part).await,
            None => Ok(Some(Bytes::new())),
        }
    });
    let asked = try_join_all(asked).await?;
    for (part, _) in parts.iter().zip(&asked).filter(|(_, got)| got.is_none()) {
        stales.note(layout, part.number)?;
    }
    let Some(got) = asked.into_iter().collect::<Option<Vec<Bytes>>>() else { return Ok(None) };
    if let [single] = got.as_slice()
        && single.len() as u64 == length
    {
        return Ok(Some(single.clone()));
    }
    let mut all = BytesMut::with_capacity(length as usize);
    for (part, bytes) in parts.iter().zip(got) {
        all.extend_from_slice(&bytes);
        // What a stripe does not have is zeros.
        all.resize((part.at + part.length) as usize, 0);
    }
    Ok(Some(all.freeze()))
}

async fn own_part(tries: &Tries<'_>, read: &Read, part: &StripePart) -> Result<Option<Bytes>, Failure> {
    let own = Read { offset: part.offset, length: short(part.length), ..read.clone() };
    let (reply, data) = tries.client.perform(&tries.context, own.into(), Bytes::new()).await?;
    let Reply::Read(_) = reply else { return Err(FlareError::Io.into()) };
    // The layout has said that it is longer.
    Ok(Some(data).filter(|data| data.len() as u64 == part.length))
}

async fn stripe_part(
    tries: &Tries<'_>,
    (head, cut): (Handle, u64),
    stripe: &StripeAt,
    part: &StripePart,
) -> Result<Option<Bytes>, Failure> {
    let there = stripe.trimmed.map_or(u64::MAX, |from| from.saturating_sub(part.offset));
    let length = short(part.length.min(there));
    if length == 0 {
        return Ok(Some(Bytes::new()));
    }
    let read = ReadStripe { stripe: stripe.handle, head, cut, offset: part.offset, length };
    match tries.client.perform(&tries.context, read.into(), Bytes::new()).await {
        Ok((reply, mut data)) => {
            ReadStripe::reply(reply).ok_or(FlareError::Io)?;
            data.truncate(length as usize);
            Ok(Some(data))
        }
        Err(failure) if failure.error == FlareError::Stale => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// A length within one read.
fn short(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
