//! Messages that are wrong on purpose.

use super::Port;

/// An ONC RPC call (RFC 5531 §9) as one record, with whatever credentials and arguments.
pub(super) struct Call<'a> {
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: u32,
    pub(super) credentials: &'a [u8],
    pub(super) arguments: &'a [u8],
}

/// The transaction id of all our calls; each goes over a connection of its own.
pub(super) const XID: u32 = 0x4D41_474D;
/// `AUTH_SYS` (RFC 5531 appendix A).
const AUTH_SYS: u32 = 1;
/// NFS version 3.
pub(super) const NFS: u32 = 100_003;
/// Its MOUNT protocol.
pub(super) const MOUNT: u32 = 100_005;

impl Call<'_> {
    /// The bytes on the wire, record mark included.
    pub(super) fn record(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for word in [XID, 0, 2, self.program, self.version, self.procedure, AUTH_SYS] {
            body.extend_from_slice(&word.to_be_bytes());
        }
        body.extend_from_slice(&u32::try_from(self.credentials.len()).unwrap_or(0).to_be_bytes());
        body.extend_from_slice(self.credentials);
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(self.arguments);
        let mut record = (0x8000_0000 | u32::try_from(body.len()).unwrap_or(0)).to_be_bytes().to_vec();
        record.append(&mut body);
        record
    }
}

/// `AUTH_SYS` credentials of root that claim `count` groups and carry none.
pub(super) fn credentials(count: u32) -> Vec<u8> {
    // stamp, machine name of length 0, uid, gid, number of groups
    [0_u32, 0, 0, 0, count].iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A 9P message: size, type, tag, body.
pub(super) fn ninep(kind: u8, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 7).unwrap_or(0);
    let mut message = size.to_le_bytes().to_vec();
    message.push(kind);
    message.extend_from_slice(&0_u16.to_le_bytes());
    message.extend_from_slice(body);
    message
}

/// Tversion with `size` and this version.
pub(super) fn version(size: u32, version: &str) -> Vec<u8> {
    let mut body = size.to_le_bytes().to_vec();
    body.extend_from_slice(&u16::try_from(version.len()).unwrap_or(0).to_le_bytes());
    body.extend_from_slice(version.as_bytes());
    ninep(100, &body)
}

/// All of them, by name.
pub(super) fn malformed() -> Vec<(&'static str, Port, Vec<u8>)> {
    let none = credentials(0);
    let call = |program, version, procedure, credentials: &[u8], arguments: &[u8]| {
        Call { program, version, procedure, credentials, arguments }.record()
    };
    let truncated = |bytes: Vec<u8>, keep: usize| bytes.get(..keep).map(<[u8]>::to_vec).unwrap_or_default();
    let behind_version = |message: &[u8]| [version(8192, "9P2000.L"), message.to_vec()].concat();
    vec![
        ("a record of 2 GiB claimed", Port::Nfs, vec![0xFF; 4]),
        ("a fragment of 2 GiB that is not the last", Port::Nfs, vec![0x7F, 0xFF, 0xFF, 0xFF]),
        ("endless empty fragments", Port::Nfs, vec![0; 4096]),
        ("a list of 2^32-1 groups", Port::Nfs, call(NFS, 3, 1, &credentials(u32::MAX), &[])),
        ("a list of 17 groups", Port::Nfs, call(NFS, 3, 1, &credentials(17), &[0; 68])),
        ("a handle of 2^32-1 bytes", Port::Nfs, call(NFS, 3, 1, &none, &[0xFF; 4])),
        ("a name of 2^31 bytes", Port::Nfs, call(NFS, 3, 3, &none, &[0, 0, 0, 4, 1, 2, 3, 4, 0x80, 0, 0, 0])),
        (
            "a read of 4 GiB",
            Port::Nfs,
            call(NFS, 3, 6, &none, &[[0, 0, 0, 4, 1, 2, 3, 4].as_slice(), &[0xFF; 12]].concat()),
        ),
        ("an unknown procedure", Port::Nfs, call(NFS, 3, 4711, &none, &[])),
        ("an unknown version", Port::Nfs, call(NFS, 77, 1, &none, &[])),
        ("an unknown program", Port::Nfs, call(4711, 3, 1, &none, &[])),
        ("a reply instead of a call", Port::Nfs, [0x80_u8, 0, 0, 8, 1, 2, 3, 4, 0, 0, 0, 1].to_vec()),
        ("half a call, then silence", Port::Nfs, truncated(call(MOUNT, 3, 1, &none, &[0; 64]), 40)),
        ("a message of 4 GiB claimed", Port::Ninep, vec![0xFF; 7]),
        ("a message shorter than its header", Port::Ninep, vec![3, 0, 0, 0, 100, 0, 0]),
        ("a size of 1 byte negotiated", Port::Ninep, version(1, "9P2000.L")),
        ("an unknown version string", Port::Ninep, version(8192, "9P1812")),
        ("work before the version", Port::Ninep, ninep(24, &[0; 12])),
        ("an unknown message", Port::Ninep, behind_version(&ninep(250, &[]))),
        ("an attach that ends early", Port::Ninep, behind_version(&ninep(104, &[0, 0]))),
        (
            "a walk of 65535 names",
            Port::Ninep,
            behind_version(&ninep(110, &[0, 0, 0, 0, 1, 0, 0, 0, 0xFF, 0xFF])),
        ),
        ("a write that claims 4 GiB", Port::Ninep, behind_version(&ninep(118, &[0xFF; 16]))),
        ("a flush of nothing", Port::Ninep, behind_version(&ninep(108, &[9, 9]))),
        ("half a message, then silence", Port::Ninep, truncated(version(8192, "9P2000.L"), 9)),
        ("telnet commands without end", Port::Console, [0xFF, 0xFD].repeat(2048)),
        ("a subnegotiation that never ends", Port::Console, [&[0xFF, 0xFA][..], &[0x18; 8192]].concat()),
        ("control characters and half a line", Port::Console, (0..32).chain(127..=255).collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Call, NFS, credentials, ninep, version};

    #[test]
    fn a_call_has_its_length_in_front() {
        let record =
            Call { program: NFS, version: 3, procedure: 0, credentials: &credentials(0), arguments: &[] }
                .record();
        assert_eq!(record.len(), 4 + 28 + 4 + 20 + 8);
        assert_eq!(record[..4], [0x80, 0, 0, 60]);
    }

    #[test]
    fn a_message_counts_its_header() {
        assert_eq!(ninep(100, &[1, 2, 3]), [10, 0, 0, 0, 100, 0, 0, 1, 2, 3]);
        assert_eq!(version(8192, "9P2000.L").len(), 7 + 4 + 2 + 8);
    }
}
