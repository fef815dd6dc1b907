//! XDR (RFC 4506), as far as RPC, MOUNT, portmap and NFSv3 need it.
//!
//! Decoding takes slices of the record that arrived and copies nothing; a length is
//! believed only as far as there are bytes behind it.

mod decoder;
mod encoder;

pub(crate) use decoder::{Decoder, XdrError};
pub(crate) use encoder::{Body, Encoder};

/// Zero bytes that fill an opaque of this length up to a multiple of four (RFC 4506 §4.10).
pub(crate) const fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

/// Size on the wire of a variable-length opaque with this many bytes.
pub(crate) const fn opaque_len(length: usize) -> usize {
    4 + length + padding(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(a: u32, b: u64, flag: bool, text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Encoder::new();
            out.u32(a);
            out.opaque(&text);
            out.bool(flag);
            out.u64(b);
            let body = out.finish();
            prop_assert_eq!(body.len() % 4, 0);
            let mut decoder = Decoder::new(body.to_bytes());
            prop_assert_eq!(decoder.u32(), Ok(a));
            prop_assert_eq!(decoder.opaque(40).unwrap(), text);
            prop_assert_eq!(decoder.bool(), Ok(flag));
            prop_assert_eq!(decoder.u64(), Ok(b));
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_decode_or_fail_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut decoder = Decoder::new(Bytes::from(bytes));
            while decoder.opaque(16).is_ok() && decoder.bool().is_ok() && decoder.u64().is_ok() {}
        }
    }

    #[test]
    fn a_length_is_not_believed_beyond_the_bytes_that_are_there() {
        let mut decoder = Decoder::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1, 2]));
        assert_eq!(decoder.opaque(usize::MAX), Err(XdrError::Truncated));
    }

    #[test]
    fn a_length_above_its_limit_is_refused() {
        let mut decoder = Decoder::new(Bytes::from_static(&[0, 0, 0, 4, 1, 2, 3, 4]));
        assert_eq!(decoder.opaque(3), Err(XdrError::TooLong));
    }
}
