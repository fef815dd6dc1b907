//! Record marking: messages in a TCP stream (RFC 5531 §11).

use bytes::{Buf, Bytes, BytesMut};
use magma_common::proto::limits::MAX_IO;

/// Largest record in bytes: a WRITE of the largest size with the longest headers around it.
pub(crate) const MAX_RECORD: usize = MAX_IO as usize + 4096;

/// Room offered to the socket when nothing is known of what comes.
const USUAL_READ: usize = 16 << 10;
/// The bit of a fragment's header that says it is its record's last.
const LAST_FRAGMENT: u32 = 1 << 31;

/// A client that announces more than [`MAX_RECORD`]; there is no way to find the next record after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of more than {MAX_RECORD} bytes")]
pub(crate) struct RecordTooLong;

/// Cuts a stream into records.
///
/// Fill [`buffer`](Self::buffer) after [`reserve`](Self::reserve), then take [`next`](Self::next) until it has nothing.
/// Memory grows with the bytes that have arrived, never with the length that was claimed.
#[derive(Debug, Default)]
pub(crate) struct RecordReader {
    arrived: BytesMut,
    /// Earlier fragments of a record that is sent in several.
    fragments: BytesMut,
    /// The longest fragment this stream has completed: so much it may claim again without suspicion.
    proven: usize,
}

impl RecordReader {
    /// Where bytes from the stream go.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.arrived
    }

    /// Makes room for what can be expected.
    pub(crate) fn reserve(&mut self) {
        let missing = match self.claimed() {
            Some((length, _)) => (length + 4).saturating_sub(self.arrived.len()),
            None => USUAL_READ,
        };
        let believed = self.proven.max(self.arrived.len()).max(USUAL_READ);
        self.arrived.reserve(missing.clamp(1, believed));
    }

    /// Whether a record has begun and not ended.
    pub(crate) fn is_partial(&self) -> bool {
        !self.arrived.is_empty() || !self.fragments.is_empty()
    }

    /// The next complete record.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, RecordTooLong> {
        while let Some((length, last)) = self.claimed() {
            if length + self.fragments.len() > MAX_RECORD {
                return Err(RecordTooLong);
            }
            if self.arrived.len() < 4 + length {
                return Ok(None);
            }
            self.arrived.advance(4);
            let fragment = self.arrived.split_to(length);
            self.proven = self.proven.max(length);
            match (last, self.fragments.is_empty()) {
                (true, true) => return Ok(Some(fragment.freeze())),
                (true, false) => {
                    self.fragments.extend_from_slice(&fragment);
                    return Ok(Some(std::mem::take(&mut self.fragments).freeze()));
                }
                (false, _) => self.fragments.extend_from_slice(&fragment),
            }
        }
        Ok(None)
    }

    /// Length and finality of the fragment whose header has arrived.
    fn claimed(&self) -> Option<(usize, bool)> {
        let header: [u8; 4] = self.arrived.get(..4)?.try_into().ok()?;
        let header = u32::from_be_bytes(header);
        Some(((header & !LAST_FRAGMENT) as usize, header & LAST_FRAGMENT != 0))
    }
}

/// The header of a record sent as one fragment.
pub(crate) fn marker(length: usize) -> [u8; 4] {
    (length as u32 | LAST_FRAGMENT).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn feed(reader: &mut RecordReader, bytes: &[u8]) -> Result<Vec<Bytes>, RecordTooLong> {
        reader.reserve();
        reader.buffer().extend_from_slice(bytes);
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record);
        }
        Ok(records)
    }

    fn fragment(bytes: &[u8], last: bool) -> Vec<u8> {
        let mut header = marker(bytes.len());
        if !last {
            header[0] &= 0x7f;
        }
        [&header[..], bytes].concat()
    }

    proptest! {
        #[test]
        fn records_arrive_whole_however_they_are_cut(
            records in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..4), 1..5),
            step in 1usize..70,
        ) {
            let mut stream = Vec::new();
            for record in &records {
                for (i, part) in record.iter().enumerate() {
                    stream.extend(fragment(part, i + 1 == record.len()));
                }
            }
            let mut reader = RecordReader::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                seen.extend(feed(&mut reader, piece).unwrap());
            }
            let sent: Vec<Vec<u8>> = records.iter().map(|record| record.concat()).collect();
            prop_assert_eq!(seen, sent);
            prop_assert!(!reader.is_partial());
        }

        #[test]
        fn memory_follows_what_arrived_not_what_was_claimed(claim: u32, sent in 0usize..4000) {
            let mut reader = RecordReader::default();
            let mut stream = claim.to_be_bytes().to_vec();
            stream.extend(vec![0; sent]);
            for piece in stream.chunks(100) {
                if feed(&mut reader, piece).is_err() {
                    break;
                }
                reader.reserve();
                prop_assert!(reader.arrived.capacity() + reader.fragments.capacity() < 8 * USUAL_READ);
            }
        }
    }

    #[test]
    fn a_claim_of_two_gigabytes_ends_the_stream_at_once() {
        assert_eq!(feed(&mut RecordReader::default(), &[0xff; 4]), Err(RecordTooLong));
    }

    #[test]
    fn a_record_grown_by_fragments_is_bound_as_well() {
        let mut reader = RecordReader::default();
        let part = fragment(&vec![0; MAX_RECORD / 2], false);
        assert_eq!(feed(&mut reader, &part), Ok(vec![]));
        assert_eq!(feed(&mut reader, &part), Ok(vec![]));
        assert_eq!(feed(&mut reader, &fragment(b"last", true)), Err(RecordTooLong));
    }

    #[test]
    fn a_whole_record_is_a_slice_of_what_arrived() {
        let mut reader = RecordReader::default();
        reader.reserve();
        reader.buffer().extend_from_slice(&fragment(b"payload!", true));
        let address = reader.buffer()[4..].as_ptr();
        assert_eq!(reader.next().unwrap().unwrap().as_ptr(), address);
    }
}
