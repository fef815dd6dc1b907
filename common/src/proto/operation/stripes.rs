//! Striped files: see `docs/STRIPES.md`.

use serde::{Deserialize, Serialize};

use crate::attr::Attr;
use crate::handle::Handle;
use crate::stripes::StripeUnit;

/// Asks the head of a striped file where the bytes of a range are, and whether the caller may read or write them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The file.
    pub handle: Handle,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// What for.
    pub purpose: LayoutPurpose,
    /// The caller has it open: no permission check.
    pub opened: bool,
}

/// What a layout is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayoutPurpose {
    /// To read: that is allowed, and the file's time of last access is now.
    Read,
    /// To write: that is allowed, and the set-user-id bits go that a write takes away.
    Write,
    /// To commit what was written.
    Commit,
}

/// One stripe of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeAt {
    /// Which: it has the bytes from `number` units on. Never 0.
    pub number: u64,
    /// Its flare.
    pub handle: Handle,
    /// Its bytes from here on (counted from its beginning) are zeros, whatever it says, and only the head may write to it.
    pub trimmed: Option<u64>,
}

/// Where the bytes of a range are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutReply {
    /// The file.
    pub attr: Attr,
    /// How many bytes are in each flare; none if all are in the file's own.
    pub unit: Option<StripeUnit>,
    /// The cut number.
    pub cut: u64,
    /// The stripes that there are, ascending; at most [`MAX_LAYOUT`](crate::proto::limits::MAX_LAYOUT). All others are zeros.
    pub stripes: Vec<StripeAt>,
    /// There are more: ask for the range from here on.
    pub next: Option<u64>,
}

/// Reads from a stripe; what it has of the range comes as the reply's payload. Behind that are zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadStripe {
    /// The stripe.
    pub stripe: Handle,
    /// Its file.
    pub head: Handle,
    /// The cut number of the layout. [`Stale`](crate::error::FlareError::Stale) if the stripe knows a higher one.
    pub cut: u64,
    /// First byte, counted from the stripe's beginning.
    pub offset: u64,
    /// At most so many bytes, up to [`MAX_IO`](crate::proto::limits::MAX_IO).
    pub length: u32,
}

/// Writes the request's payload to a stripe. It counts when the head has heard of it: see [`WriteDone`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteStripe {
    /// The stripe.
    pub stripe: Handle,
    /// Its file.
    pub head: Handle,
    /// As in [`ReadStripe`].
    pub cut: u64,
    /// First byte, counted from the stripe's beginning.
    pub offset: u64,
}

/// Bytes were written to a stripe, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteStripeReply {
    /// As in [`WriteReply`](super::WriteReply).
    pub verifier: u64,
}

/// Tells the head that stripes were written, or may have been. The file is extended, unless it was cut meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteDone {
    /// The file.
    pub handle: Handle,
    /// One more than the last byte that is known to be written, counted from the file's beginning; 0 if none is.
    pub end: u64,
    /// The cut number under which they were written.
    pub cut: u64,
}

/// Answers when one flare of a striped file is on disk at every in-sync copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPart {
    /// A stripe, or the head itself.
    pub part: Handle,
    /// The file.
    pub head: Handle,
}

/// Makes all stripes of a range writable for clients: those that are not there are made, and the ends of those that were cut are cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeStripes {
    /// The file.
    pub handle: Handle,
    /// First byte of the range.
    pub offset: u64,
    /// Number of bytes. They are in at most [`MAX_STRIPES_MADE`](crate::proto::limits::MAX_STRIPES_MADE) stripes.
    pub length: u64,
    /// The caller has the file open: no permission check.
    pub opened: bool,
}

/// Removes some of what a striped file does not need any more. Volcanos do that by themselves; it never does harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shed {
    /// The file.
    pub handle: Handle,
    /// The stripes that are removed if they are dying, or whose ends are cleared if that is due; at most
    /// [`MAX_SHED`](crate::proto::limits::MAX_SHED).
    pub numbers: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::error::FlareError;
    use crate::proto::operation::{WriteReply, *};
    use crate::proto::{Reply, Request};

    use proptest::prelude::*;

    fn comes_back(request: impl Into<Request>) {
        let request = request.into();
        let body = request.encode().unwrap();
        assert_eq!(Request::decode(request.opcode(), &body), Ok(request.clone()));
        let longer = [&body[..], &[0]].concat();
        assert_eq!(Request::decode(request.opcode(), &longer), Err(FlareError::BadRequest));
    }

    fn reply_comes_back(opcode: u16, reply: &Reply) {
        assert_eq!(Reply::decode(opcode, &reply.encode().unwrap()).as_ref(), Ok(reply));
    }

    proptest! {
        #[test]
        fn requests_survive_the_round_trip(
            offset: u64, length: u64, cut: u64, opened: bool, short in 0_u32..1 << 20
        ) {
            let (handle, stripe, head) = (Handle::root(), Handle::root(), Handle::root());
            for purpose in [LayoutPurpose::Read, LayoutPurpose::Write, LayoutPurpose::Commit] {
                comes_back(Layout { handle, offset, length, purpose, opened });
            }
            comes_back(ReadStripe { stripe, head, cut, offset, length: short });
            comes_back(WriteStripe { stripe, head, cut, offset });
            comes_back(WriteDone { handle, end: offset, cut });
            comes_back(CommitPart { part: stripe, head });
            comes_back(Shed { handle, numbers: vec![offset, length] });
            comes_back(MakeStripes { handle, offset, length, opened });
        }

        #[test]
        fn replies_survive_the_round_trip(cut: u64, log2 in 16_u8..=36, number: u64, next: Option<u64>) {
            let unit = StripeUnit::try_from(log2).ok();
            let stripe = StripeAt { number, handle: Handle::root(), trimmed: next };
            let attr = crate::fake::attr(Handle::root());
            let layout = LayoutReply { attr, unit, cut, stripes: vec![stripe], next };
            reply_comes_back(Layout::OPCODE, &Reply::Layout(layout));
            reply_comes_back(WriteStripe::OPCODE, &Reply::WriteStripe(WriteStripeReply { verifier: cut }));
            let wcc = crate::attr::Wcc::default();
            let done = WriteReply { offset: 0, verifier: cut, wcc: wcc.clone(), unit };
            reply_comes_back(WriteDone::OPCODE, &Reply::WriteDone(done));
            reply_comes_back(CommitPart::OPCODE, &Reply::CommitPart(CommitReply { verifier: cut, wcc }));
        }
    }

    #[test]
    fn what_concerns_a_stripe_goes_to_it_and_what_concerns_the_file_to_its_head() {
        let head = Handle::root();
        let stripe = Handle { birth: crate::handle::BirthNumber(7), ..head };
        let routes = [
            (Request::from(ReadStripe { stripe, head, cut: 0, offset: 0, length: 1 }), stripe),
            (WriteStripe { stripe, head, cut: 0, offset: 0 }.into(), stripe),
            (CommitPart { part: stripe, head }.into(), stripe),
            (WriteDone { handle: head, end: 0, cut: 0 }.into(), head),
            (MakeStripes { handle: head, offset: 0, length: 1, opened: true }.into(), head),
        ];
        for (request, to) in routes {
            assert_eq!(request.handle(), Some(to), "{}", request.name());
        }
    }

    #[test]
    fn writes_to_stripes_have_the_limits_of_writes() {
        let (stripe, head) = (Handle::root(), Handle::root());
        let at = |offset| Request::from(WriteStripe { stripe, head, cut: 0, offset });
        assert_eq!(at(0).check(crate::proto::limits::MAX_IO as usize), Ok(()));
        assert_eq!(at(u64::MAX).check(1), Err(FlareError::FileTooBig));
        let read = ReadStripe { stripe, head, cut: 0, offset: 0, length: crate::proto::limits::MAX_IO + 1 };
        assert_eq!(Request::from(read).check(0), Err(FlareError::BadRequest));
    }
}
