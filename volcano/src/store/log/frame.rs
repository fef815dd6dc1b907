//! How one entry lies in a segment: 32 bytes of header, then the entry in postcard's encoding.
//!
//! Both checksums start from the segment's random salt. A frame of another segment, or one that a user stored in a file and
//! that came into the log as an overwrite's bytes, is therefore never taken for one of this segment's.

use super::Lsn;

/// Length of a frame's header in bytes.
pub(crate) const HEADER_LEN: usize = 32;
/// Most bytes of an encoded entry.
pub(crate) const MAX_ENTRY: usize = 16 << 20;

const MAGIC: [u8; 4] = *b"\xA7LVA";

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The entry's place.
    pub(crate) lsn: Lsn,
    /// When this was written, all entries up to this one were on disk for certain.
    pub(crate) stable: Lsn,
    /// Bytes of the entry.
    pub(crate) length: u32,
    payload_crc: u32,
}

/// Appends a frame to a buffer. The payload must not be longer than [`MAX_ENTRY`].
pub(crate) fn push(buffer: &mut Vec<u8>, salt: u32, lsn: Lsn, stable: Lsn, payload: &[u8]) {
    let start = buffer.len();
    buffer.extend_from_slice(&MAGIC);
    buffer.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    buffer.extend_from_slice(&lsn.0.to_le_bytes());
    buffer.extend_from_slice(&stable.0.to_le_bytes());
    buffer.extend_from_slice(&crc32c::crc32c_append(salt, payload).to_le_bytes());
    let header_crc = crc32c::crc32c_append(salt, buffer.get(start..).unwrap_or_default());
    buffer.extend_from_slice(&header_crc.to_le_bytes());
    buffer.extend_from_slice(payload);
}

/// Reads the header at the start of `bytes`; `None` if no header of this segment is there.
pub(crate) fn header(bytes: &[u8], salt: u32) -> Option<Header> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    let (covered, crc) = header.split_last_chunk::<4>()?;
    if !covered.starts_with(&MAGIC) || crc32c::crc32c_append(salt, covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (words, _) = covered.as_chunks::<4>();
    let word = |index: usize| words.get(index).map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let long = |index: usize| u64::from(word(index)) | u64::from(word(index + 1)) << 32;
    Some(Header { length: word(1), lsn: Lsn(long(2)), stable: Lsn(long(4)), payload_crc: word(6) })
}

/// Reads the frame at the start of `bytes`: its header and its payload, checked. `None` if it is not whole.
pub(crate) fn read(bytes: &[u8], salt: u32) -> Option<(Header, &[u8])> {
    let found = header(bytes, salt)?;
    let payload = bytes.get(HEADER_LEN..)?.get(..found.length as usize)?;
    (crc32c::crc32c_append(salt, payload) == found.payload_crc).then_some((found, payload))
}

/// The whole frames anywhere in `bytes`, for judging damage: first the position, then the header.
pub(crate) fn survivors(bytes: &[u8], salt: u32) -> impl Iterator<Item = (usize, Header)> {
    let candidates = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    candidates.filter_map(move |(at, _)| Some((at, read(bytes.get(at..)?, salt)?.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push(&mut bytes, 77, Lsn(5), Lsn(3), payload);
        bytes
    }

    #[test]
    fn a_frame_of_another_segment_is_not_read() {
        let bytes = frame(b"entry");
        assert_eq!(read(&bytes, 77).unwrap().1, b"entry");
        assert!(read(&bytes, 78).is_none());
    }

    #[test]
    fn whole_frames_are_found_behind_damage() {
        let mut bytes = vec![0xA7; 100];
        bytes.extend(frame(b"after"));
        let found: Vec<_> = survivors(&bytes, 77).collect();
        assert_eq!((found.len(), found[0].0, found[0].1.lsn), (1, 100, Lsn(5)));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_and_any_cut_is_noticed(payload: Vec<u8>, bit: usize, cut: usize) {
            let whole = frame(&payload);
            let mut flipped = whole.clone();
            let bit = bit % (whole.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(read(&flipped, 77).is_none());
            prop_assert!(read(&whole[..cut % whole.len()], 77).is_none());
        }
    }
}
