//! Everything that decodes what a peer sent, as functions of bytes: for fuzzers and for tests that replay their finds.

use bytes::Bytes;

use crate::wire::{Frame, HEADER, READ_OVERHEAD, Reply, Request};

/// A stream of frames as a client sends them. Each that can be taken must be encoded to the bytes it came in, and
/// memory must not exceed what came.
///
/// # Panics
/// If it is not: that is the finding.
pub fn requests(stream: &[u8]) {
    for frame in frames(stream) {
        let (kind, tag, body) = (frame.kind, frame.tag, frame.body.clone());
        if let Ok(request) = Request::decode(kind, frame.body) {
            let encoded = request.encode(tag);
            assert_eq!(encoded.get(HEADER..), Some(&body[..]), "{} is not what came", request.name());
        }
    }
}

/// The same for what a server sends.
///
/// # Panics
/// As above.
pub fn replies(stream: &[u8]) {
    for frame in frames(stream) {
        let (kind, tag, body) = (frame.kind, frame.tag, frame.body.clone());
        if let Ok(reply) = Reply::decode(kind, frame.body) {
            let encoded = reply.encode(tag);
            assert_eq!(encoded.get(HEADER..), Some(&body[..]), "{} is not what came", reply.name());
            let apart = reply.encode_apart(tag);
            assert!(apart.payload.is_empty() || apart.head.len() == READ_OVERHEAD as usize);
            assert_eq!([&apart.head[..], &apart.payload[..]].concat(), &encoded[..]);
        }
    }
}

/// Cuts bytes into frames by their size fields, the last one as far as it goes.
fn frames(mut stream: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((&[a, b, c, d, kind, t, g], _)) = stream.split_first_chunk::<HEADER>() {
        let size = (u32::from_le_bytes([a, b, c, d]) as usize).clamp(HEADER, stream.len());
        let (frame, rest) = stream.split_at(size);
        let body = frame.get(HEADER..).map(Bytes::copy_from_slice).unwrap_or_default();
        frames.push(Frame { kind, tag: u16::from_le_bytes([t, g]), body });
        stream = rest;
    }
    frames
}
