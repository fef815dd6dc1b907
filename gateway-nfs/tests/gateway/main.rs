//! The gateway over TCP and UDP, against a volcano that does as it is told and against a real one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails ends there"
)]

mod hostile;
mod load;
mod mounting;
mod procedures;
mod recovery;
mod retransmission;
mod support;

/// The process that [`magma_tests::network::Network`] starts.
#[test]
fn volcano_process() {
    magma_tests::network::become_volcano();
}
