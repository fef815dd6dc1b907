//! The one table from what went wrong to the Linux errno that an Rlerror carries.

use magma_common::error::FlareError;
use magma_common::name::NameError;
use magma_common::proto::Failure;
use rustix::io::Errno;

use crate::wire::session::Rlerror;
use crate::wire::{DecodeError, Reply};

/// A request that is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) Errno);

/// The refusals that the door makes itself.
pub(crate) mod refusals {
    use super::{Errno, Refusal};

    /// No fid of that number, or one that cannot do this.
    pub(crate) const BAD_FID: Refusal = Refusal(Errno::BADF);
    /// The number of a fid to be made is taken.
    pub(crate) const FID_IN_USE: Refusal = Refusal(Errno::BADF);
    /// The connection has as many fids as it may.
    pub(crate) const TOO_MANY_FIDS: Refusal = Refusal(Errno::MFILE);
    /// The connection's fids hold as many bytes of extended attributes as they may.
    pub(crate) const TOO_MANY_XATTR_BYTES: Refusal = Refusal(Errno::NOMEM);
    /// A message before a version was agreed on.
    pub(crate) const NO_VERSION: Refusal = Refusal(Errno::PROTO);
    /// The client wants messages too small to carry the protocol's.
    pub(crate) const MSIZE_TOO_SMALL: Refusal = Refusal(Errno::MSGSIZE);
    /// The fields of a message make no sense together.
    pub(crate) const INVALID: Refusal = Refusal(Errno::INVAL);
    /// There is nothing to authenticate with inside 9P.
    pub(crate) const NO_AUTHENTICATION: Refusal = Refusal(Errno::OPNOTSUPP);
    /// The tree is not among those that may be attached to.
    pub(crate) const NOT_EXPORTED: Refusal = Refusal(Errno::ACCESS);
    /// The export is read-only.
    pub(crate) const READ_ONLY: Refusal = Refusal(Errno::ROFS);
    /// A directory was needed.
    pub(crate) const NOT_DIRECTORY: Refusal = Refusal(Errno::NOTDIR);
    /// Something other than a directory was needed.
    pub(crate) const IS_DIRECTORY: Refusal = Refusal(Errno::ISDIR);
    /// The name exists.
    pub(crate) const EXISTS: Refusal = Refusal(Errno::EXIST);
    /// Nothing of that name.
    pub(crate) const NOT_FOUND: Refusal = Refusal(Errno::NOENT);
    /// A symbolic link cannot be opened.
    pub(crate) const IS_SYMLINK: Refusal = Refusal(Errno::LOOP);
    /// A request's task died; it may or may not have been done.
    pub(crate) const INTERNAL: Refusal = Refusal(Errno::IO);
}

impl From<FlareError> for Refusal {
    /// A flare that is gone is ENOENT: v9fs then looks the name up again, where ESTALE would reach the program.
    fn from(error: FlareError) -> Self {
        match error {
            FlareError::Stale => Self(Errno::NOENT),
            other => Self(other.errno()),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        failure.error.into()
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        FlareError::from(error).into()
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Unknown(_) => Self(Errno::OPNOTSUPP),
            DecodeError::Malformed(_) => Self(Errno::PROTO),
        }
    }
}

impl Refusal {
    /// For reads and writes of open files: one that is gone although it was open is ESTALE.
    pub(crate) fn of_open_file(failure: &Failure) -> Self {
        Self(failure.error.errno())
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Rlerror { ecode: refusal.0.raw_os_error().unsigned_abs() }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flare_error_has_an_errno_that_linux_knows() {
        for error in FlareError::ALL {
            let Reply::Rlerror(reply) = Reply::from(Refusal::from(*error)) else { panic!("not an error") };
            assert!((1..134).contains(&reply.ecode), "{error}");
        }
    }

    #[test]
    fn a_vanished_file_is_looked_up_again_unless_it_was_open() {
        assert_eq!(Refusal::from(FlareError::Stale), Refusal(Errno::NOENT));
        assert_eq!(Refusal::of_open_file(&FlareError::Stale.into()), Refusal(Errno::STALE));
    }
}
