//! Entry points for the fuzz drivers: everything here that reads bytes from a socket.

use bytes::Bytes;

use crate::handle::Signer;
use crate::nfs3;
use crate::rpc::message::Incoming;
use crate::rpc::record::RecordReader;

/// Cuts bytes into records as a connection would, in pieces of `step` bytes, and takes each apart.
pub fn fuzz_stream(bytes: &[u8], step: usize) {
    let mut reader = RecordReader::default();
    for piece in bytes.chunks(step.max(1)) {
        reader.reserve();
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.next() {
                Ok(Some(record)) => fuzz_record(&record),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Takes one record apart: message, credentials, and the arguments of whatever procedure it names.
pub fn fuzz_record(bytes: &[u8]) {
    let record = Bytes::copy_from_slice(bytes);
    let incoming = Incoming::parse(&record);
    let _ = nfs3::reply_bound(&incoming);
    if let Incoming::Call(call) = incoming {
        let _ = nfs3::decode_arguments(call.procedure, &call.arguments);
    }
}

/// Decodes the bytes as the arguments of the NFSv3 procedure with this number.
pub fn fuzz_arguments(procedure: u32, bytes: &[u8]) {
    let _ = nfs3::decode_arguments(procedure, &Bytes::copy_from_slice(bytes));
}

/// Opens the bytes as a file handle.
pub fn fuzz_handle(bytes: &[u8]) {
    let _ = Signer::new(&[0; 32]).open(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_stream_is_cut_and_taken_apart_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), step in 1usize..50
        ) {
            fuzz_stream(&bytes, step);
            fuzz_handle(&bytes);
        }

        #[test]
        fn any_arguments_of_a_well_formed_call_are_taken_apart_without_a_panic(
            procedure in 0u32..30, arguments in proptest::collection::vec(0u32..70, 0..60)
        ) {
            let head = [7, 0, 2, 100_003, 3, procedure, 0, 0, 0, 0];
            let record: Vec<u8> = head.into_iter().chain(arguments).flat_map(u32::to_be_bytes).collect();
            fuzz_record(&record);
        }
    }
}
