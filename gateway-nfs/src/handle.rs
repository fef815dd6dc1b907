//! NFS file handles: a flare's handle and its export, signed.
//!
//! The key is part of the topology and the export's number follows from its path, so a
//! handle is the same at every gateway and outlives restarts of gateway and volcano.
//!
//! ```text
//! 0        version, 1
//! 1..4     zero
//! 4..8     export
//! 8..28    key
//! 28..36   birth number
//! 36..52   HMAC-SHA256 of bytes 0..36, its first 16 bytes
//! ```

use hmac::{Hmac, Mac};
use magma_common::handle::Handle;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::export::ExportId;

/// Length of a handle on the wire in bytes; NFSv3 allows 64.
pub(crate) const WIRE_LEN: usize = SIGNED_LEN + MAC_LEN;

const VERSION: u8 = 1;
const SIGNED_LEN: usize = 8 + Handle::LEN;
const MAC_LEN: usize = 16;
/// Keeps the signing of handles apart from other uses of the same key.
const LABEL: &[u8] = b"magma nfs handle v1";

/// Signs handles and checks signatures.
#[derive(Clone)]
pub(crate) struct Signer {
    mac: Hmac<Sha256>,
}

impl Signer {
    /// `key` is [`Topology::handle_key`](magma_common::topology::Topology::handle_key).
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        // A key of one block length is what every HMAC takes.
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(key) {
            *to = *from;
        }
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into());
        mac.update(LABEL);
        Self { mac }
    }

    /// The handle as clients carry it.
    pub(crate) fn seal(&self, export: ExportId, handle: Handle) -> [u8; WIRE_LEN] {
        let mut wire = [0; WIRE_LEN];
        let (signed, mac) = wire.split_at_mut(SIGNED_LEN);
        let export = export.0.to_be_bytes();
        let fields = [VERSION, 0, 0, 0].into_iter().chain(export).chain(handle.to_bytes());
        for (to, from) in signed.iter_mut().zip(fields) {
            *to = from;
        }
        for (to, from) in mac.iter_mut().zip(self.sign(signed)) {
            *to = from;
        }
        wire
    }

    /// What a handle names; `None` if no gateway of this network made it.
    pub(crate) fn open(&self, wire: &[u8]) -> Option<(ExportId, Handle)> {
        let wire: &[u8; WIRE_LEN] = wire.try_into().ok()?;
        let (signed, mac) = wire.split_at(SIGNED_LEN);
        if !bool::from(self.sign(signed).ct_eq(mac)) {
            return None;
        }
        let (head, flare) = signed.split_at(8);
        let &[VERSION, 0, 0, 0, a, b, c, d] = head else { return None };
        Some((ExportId(u32::from_be_bytes([a, b, c, d])), Handle::from_bytes(flare.try_into().ok()?)))
    }

    fn sign(&self, signed: &[u8]) -> [u8; MAC_LEN] {
        let mut mac = self.mac.clone();
        mac.update(signed);
        let mut short = [0; MAC_LEN];
        for (to, from) in short.iter_mut().zip(mac.finalize().into_bytes()) {
            *to = from;
        }
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::handle::BirthNumber;
    use magma_common::key::Key;
    use proptest::prelude::*;

    #[test]
    fn handles_are_the_same_in_every_version_of_this_program() {
        let wire = Signer::new(&[7; 32]).seal(ExportId(0x0102_0304), Handle::root());
        let hex = wire.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            hex,
            "010000000102030442099b4af021e53fd8fd4e056c2568d7c2e3ffa80000000000000001\
             7ef0b0dcee5f79fed2169d14cc6e07a3"
        );
    }

    proptest! {
        #[test]
        fn a_sealed_handle_opens_to_what_it_named(key: [u8; 32], at: [u8; 20], birth: u64, export: u32) {
            let signer = Signer::new(&key);
            let handle = Handle { key: Key::from_bytes(at), birth: BirthNumber(birth) };
            let wire = signer.seal(ExportId(export), handle);
            prop_assert_eq!(signer.open(&wire), Some((ExportId(export), handle)));
        }

        #[test]
        fn one_changed_bit_makes_a_handle_worthless(bit in 0..WIRE_LEN * 8) {
            let signer = Signer::new(&[7; 32]);
            let mut wire = signer.seal(ExportId(1), Handle::root());
            wire[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(signer.open(&wire), None);
        }

        #[test]
        fn arbitrary_bytes_are_no_handle(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Signer::new(&[7; 32]).open(&bytes), None);
        }
    }

    #[test]
    fn a_handle_of_another_network_is_worthless() {
        let wire = Signer::new(&[7; 32]).seal(ExportId(1), Handle::root());
        assert_eq!(Signer::new(&[8; 32]).open(&wire), None);
    }
}
