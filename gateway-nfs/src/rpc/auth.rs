//! Who calls: `AUTH_NONE` and `AUTH_SYS` (RFC 5531 §8.1, appendix A).

use bytes::Bytes;

use crate::xdr::{Decoder, XdrError};

/// Longest body of a credential or verifier in bytes.
pub(crate) const MAX_AUTH_BODY: usize = 400;
/// Longest machine name of `AUTH_SYS` in bytes.
const MAX_MACHINE_NAME: usize = 255;
/// Most supplementary groups of `AUTH_SYS`.
const MAX_GIDS: u32 = 16;

const AUTH_NONE: u32 = 0;
pub(crate) const AUTH_SYS: u32 = 1;

/// What a call says about its user. Nothing here is proven: the client's host is trusted, or it is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// Nobody in particular.
    None,
    /// A user of the client's host.
    Sys(SysCredential),
}

/// The ids of `AUTH_SYS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SysCredential {
    /// The client's name for itself, for people.
    pub(crate) machine: Bytes,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, at most 16.
    pub(crate) gids: Vec<u32>,
}

impl Credential {
    /// `None` for flavours that are not served.
    pub(crate) fn parse(flavour: u32, body: Bytes) -> Result<Option<Self>, XdrError> {
        match flavour {
            AUTH_NONE => Ok(Some(Self::None)),
            AUTH_SYS => SysCredential::parse(body).map(|sys| Some(Self::Sys(sys))),
            _ => Ok(None),
        }
    }
}

impl SysCredential {
    fn parse(body: Bytes) -> Result<Self, XdrError> {
        let mut decoder = Decoder::new(body);
        let _stamp = decoder.u32()?;
        let machine = decoder.opaque(MAX_MACHINE_NAME)?;
        let uid = decoder.u32()?;
        let gid = decoder.u32()?;
        let count = decoder.u32()?;
        if count > MAX_GIDS {
            return Err(XdrError::TooLong);
        }
        let gids = (0..count).map(|_| decoder.u32()).collect::<Result<_, _>>()?;
        decoder.finish()?;
        Ok(Self { machine, uid, gid, gids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xdr::Encoder;

    fn body(machine: &[u8], count: u32, gids: &[u32]) -> Bytes {
        let mut out = Encoder::new();
        out.u32(0);
        out.opaque(machine);
        out.u32(1000);
        out.u32(100);
        out.u32(count);
        for &gid in gids {
            out.u32(gid);
        }
        out.finish().head
    }

    #[test]
    fn sixteen_groups_are_taken() {
        let gids: Vec<u32> = (0..16).collect();
        let Ok(Some(Credential::Sys(sys))) = Credential::parse(1, body(b"host", 16, &gids)) else {
            panic!("refused")
        };
        assert_eq!((sys.uid, sys.gid, sys.gids), (1000, 100, gids));
    }

    #[test]
    fn more_groups_than_sixteen_or_than_there_are_bytes_are_refused() {
        assert!(Credential::parse(1, body(b"host", 17, &[0; 17])).is_err());
        assert!(Credential::parse(1, body(b"host", u32::MAX, &[])).is_err());
        assert!(Credential::parse(1, body(b"host", 3, &[1, 2])).is_err());
        assert!(Credential::parse(1, body(b"host", 1, &[1, 2])).is_err());
        assert!(Credential::parse(1, body(&[b'x'; 256], 0, &[])).is_err());
    }

    #[test]
    fn flavours_that_are_not_served_are_told_apart_from_malformed_ones() {
        assert_eq!(Credential::parse(6, Bytes::new()), Ok(None));
        assert_eq!(Credential::parse(0, Bytes::new()), Ok(Some(Credential::None)));
    }
}
