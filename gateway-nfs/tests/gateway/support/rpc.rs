//! RPC by the byte, to say what no decent client would.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::LIMIT;

pub(crate) const NFS: u32 = 100_003;
pub(crate) const MOUNT: u32 = 100_005;
pub(crate) const PORTMAP: u32 = 100_000;

/// Bytes of XDR.
#[derive(Clone, Default)]
pub(crate) struct Xdr(pub(crate) Vec<u8>);

impl Xdr {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn opaque(mut self, bytes: &[u8]) -> Self {
        self = self.u32(bytes.len() as u32);
        self.0.extend(bytes);
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// `AUTH_SYS` of a user without supplementary groups, and an empty verifier.
pub(crate) fn auth_sys(uid: u32, gid: u32) -> Xdr {
    let body = Xdr::new().u32(0).opaque(b"test").u32(uid).u32(gid).u32(0);
    Xdr::new().u32(1).opaque(&body.0).u32(0).u32(0)
}

/// A call with this credential and verifier.
pub(crate) fn call_as(
    auth: &Xdr,
    xid: u32,
    program: u32,
    version: u32,
    procedure: u32,
    arguments: &Xdr,
) -> Vec<u8> {
    let head = Xdr::new().u32(xid).u32(0).u32(2).u32(program).u32(version).u32(procedure);
    head.raw(&auth.0).raw(&arguments.0).0
}

/// A call of root.
pub(crate) fn call(xid: u32, program: u32, version: u32, procedure: u32, arguments: &Xdr) -> Vec<u8> {
    call_as(&auth_sys(0, 0), xid, program, version, procedure, arguments)
}

/// A connection.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, record: &[u8]) {
        let header = (record.len() as u32 | 1 << 31).to_be_bytes();
        self.0.write_all(&[&header, record].concat()).await.unwrap();
    }

    /// The next reply, or `None` if the gateway hangs up.
    pub(crate) async fn receive(&mut self) -> Option<Reply> {
        tokio::time::timeout(LIMIT, self.receive_now()).await.expect("no reply")
    }

    async fn receive_now(&mut self) -> Option<Reply> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes(header);
        assert!(length & (1 << 31) != 0, "a reply in fragments");
        let mut record = vec![0; (length & !(1 << 31)) as usize];
        self.0.read_exact(&mut record).await.ok()?;
        Some(Reply(record))
    }

    pub(crate) async fn exchange(&mut self, record: &[u8]) -> Reply {
        self.send(record).await;
        self.receive().await.expect("the gateway hung up")
    }
}

/// A reply's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply(pub(crate) Vec<u8>);

impl Reply {
    pub(crate) fn word(&self, index: usize) -> u32 {
        u32::from_be_bytes(self.0[4 * index..4 * index + 4].try_into().unwrap())
    }

    pub(crate) fn xid(&self) -> u32 {
        self.word(0)
    }

    /// `accept_stat`; panics if the call was denied.
    pub(crate) fn accepted(&self) -> u32 {
        assert_eq!((self.word(1), self.word(2)), (1, 0), "denied: {self:?}");
        self.word(5)
    }

    /// `reject_stat` and the word after it.
    pub(crate) fn denied(&self) -> (u32, u32) {
        assert_eq!((self.word(1), self.word(2)), (1, 1), "accepted: {self:?}");
        (self.word(3), self.word(4))
    }

    /// The result of a call that succeeded as far as RPC goes.
    pub(crate) fn result(&self) -> &[u8] {
        assert_eq!(self.accepted(), 0);
        &self.0[24..]
    }

    /// The first word of the result: the status of NFS and MOUNT.
    pub(crate) fn status(&self) -> u32 {
        assert_eq!(self.accepted(), 0);
        self.word(6)
    }
}

/// The handle of a path, by MNT.
pub(crate) async fn mount(wire: &mut Wire, path: &[u8]) -> Vec<u8> {
    let reply = wire.exchange(&call(1, MOUNT, 3, 1, &Xdr::new().opaque(path))).await;
    assert_eq!(reply.status(), 0);
    let length = reply.word(7) as usize;
    reply.result()[8..8 + length].to_vec()
}
