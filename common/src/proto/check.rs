//! The limits of a request that its encoding alone does not keep.

use super::limits::{
    MAX_IO, MAX_OPENS_PER_MESSAGE, MAX_READDIR_ENTRIES, MAX_SHED, MAX_STAT_MANY, MAX_XATTR_VALUE,
};
use super::operation::{Request, WriteAt};
use crate::error::FlareError;
use crate::name::PATH_MAX;

/// Longest name that a client gives itself, in bytes.
const MAX_CLIENT_NAME: usize = 255;

impl Request {
    /// Checks the request and its payload's length against the limits of the protocol.
    pub fn check(&self, payload_len: usize) -> Result<(), FlareError> {
        let ensure = |holds: bool| if holds { Ok(()) } else { Err(FlareError::BadRequest) };
        ensure(payload_len == 0 || matches!(self, Self::Write(_) | Self::WriteStripe(_)))?;
        match self {
            Self::OpenSession(op) => ensure(op.client.len() <= MAX_CLIENT_NAME),
            Self::ReclaimOpens(op) => ensure(op.opens.len() <= MAX_OPENS_PER_MESSAGE),
            Self::StatMany(op) => ensure(op.handles.len() <= MAX_STAT_MANY),
            Self::Readdir(op) => ensure((1..=MAX_READDIR_ENTRIES).contains(&op.limit)),
            Self::Read(op) => ensure(op.length <= MAX_IO),
            Self::Shed(op) => ensure(op.numbers.len() <= MAX_SHED),
            Self::ReadStripe(op) => ensure(op.length <= MAX_IO),
            Self::WriteStripe(op) => {
                ensure(payload_len <= MAX_IO as usize)?;
                op.offset.checked_add(payload_len as u64).map(drop).ok_or(FlareError::FileTooBig)
            }
            Self::Symlink(op) => match op.target.len() {
                0 => Err(FlareError::NotFound),
                1..=PATH_MAX => Ok(()),
                _ => Err(FlareError::NameTooLong),
            },
            Self::SetXattr(op) if op.value.len() > MAX_XATTR_VALUE => Err(FlareError::TooBig),
            Self::Write(op) => {
                ensure(payload_len <= MAX_IO as usize)?;
                match op.at {
                    WriteAt::Offset(offset) if offset.checked_add(payload_len as u64).is_none() => {
                        Err(FlareError::FileTooBig)
                    }
                    WriteAt::Offset(_) | WriteAt::End => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::handle::Handle;
    use crate::proto::operation::{Getattr, Read, StatMany, Write};

    #[test]
    fn only_a_write_brings_a_payload() {
        let getattr = Request::from(Getattr { handle: Handle::root() });
        assert_eq!(getattr.check(0), Ok(()));
        assert_eq!(getattr.check(1), Err(FlareError::BadRequest));
        let write = Write { handle: Handle::root(), at: WriteAt::Offset(0), opened: false };
        assert_eq!(Request::from(write).check(MAX_IO as usize), Ok(()));
    }

    #[test]
    fn lists_and_lengths_above_their_limit_are_refused() {
        let read = Read { handle: Handle::root(), offset: 0, length: MAX_IO + 1, opened: true };
        assert_eq!(Request::from(read).check(0), Err(FlareError::BadRequest));
        let many = StatMany { handles: vec![Handle::root(); MAX_STAT_MANY + 1] };
        assert_eq!(Request::from(many).check(0), Err(FlareError::BadRequest));
    }

    #[test]
    fn a_write_beyond_the_last_offset_is_too_big() {
        let write = Write { handle: Handle::root(), at: WriteAt::Offset(u64::MAX), opened: false };
        assert_eq!(Request::from(write).check(1), Err(FlareError::FileTooBig));
    }
}
