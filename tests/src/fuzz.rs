//! Every decoder that reads what a stranger wrote, as functions of bytes.
//!
//! `fuzz/` hands these to cargo-fuzz; `tests/fuzz.rs` runs them over the corpus and over mutations of it on every test run.

use bytes::BytesMut;
use magma_common::proto::frame::{Frame, MAX_FRAME};

/// One decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also of its corpus folder.
    pub name: &'static str,
    /// Decodes the bytes; a panic is a finding.
    pub run: fn(&[u8]),
    /// Bytes of memory that one byte of input may take: decoded types are larger than their encoding.
    pub memory_factor: usize,
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, memory_factor: 64 }
}

/// All decoders.
pub const TARGETS: &[Target] = &[
    target("flare_frames", flare_frames),
    target("nfs_stream", nfs_stream),
    target("nfs_arguments", nfs_arguments),
    target("nfs_handle", magma_gateway_nfs::fuzz::fuzz_handle),
    target("ninep_requests", magma_gateway_9p::fuzz::requests),
    target("ninep_replies", magma_gateway_9p::fuzz::replies),
    target("console_input", magma_volcano::console::fuzz_input),
    // The TOML library keeps a syntax tree. The file is local, root's own, and at most 64 KiB long.
    Target { memory_factor: 160, ..target("volcano_config", magma_volcano::config::fuzz_config) },
];

/// A stream of the flare protocol, from either side.
pub fn flare_frames(bytes: &[u8]) {
    let mut stream = BytesMut::from(bytes);
    while let Ok(Some(frame)) = Frame::decode(&mut stream) {
        match frame {
            Frame::Request(request) => drop(request.request()),
            Frame::Reply(reply) => drop(reply.outcome()),
            _ => {}
        }
    }
    assert!(bytes.len() > MAX_FRAME || stream.len() <= bytes.len(), "nothing is made up");
}

/// Bytes of a TCP connection to the NFS gateway. The first one says in which pieces they come.
fn nfs_stream(bytes: &[u8]) {
    if let Some((&step, stream)) = bytes.split_first() {
        magma_gateway_nfs::fuzz::fuzz_stream(stream, usize::from(step));
    }
}

/// The arguments of the NFS procedure that the first byte names.
fn nfs_arguments(bytes: &[u8]) {
    if let Some((&procedure, arguments)) = bytes.split_first() {
        magma_gateway_nfs::fuzz::fuzz_arguments(u32::from(procedure % 23), arguments);
    }
}

/// Runs the decoder of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("fuzz/ and this list name the same decoders");
    (target.run)(bytes);
}
