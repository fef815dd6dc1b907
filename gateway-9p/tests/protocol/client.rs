//! A 9P client as simple as possible, and a gateway for it to speak to.

use std::time::Duration;

use magma_gateway_9p::listen::Address;
use magma_gateway_9p::wire::codec::{Data, Qid, Text};
use magma_gateway_9p::wire::fid::{Rclunk, Tclunk, Twalk};
use magma_gateway_9p::wire::io::{Tlcreate, Tlopen, Tread, Twrite};
use magma_gateway_9p::wire::names::Tmkdir;
use magma_gateway_9p::wire::session::{NOFID, NOTAG, Tattach, Tversion, VERSION};
use magma_gateway_9p::wire::{HEADER, Reply, Request};
use magma_gateway_9p::{Config, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::volcano::Volcano;

/// Nothing here takes longer, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const O_RDONLY: u32 = 0;
pub(crate) const O_WRONLY: u32 = 1;
pub(crate) const O_RDWR: u32 = 2;

pub(crate) const EPERM: u32 = 1;
pub(crate) const ENOENT: u32 = 2;
pub(crate) const EBADF: u32 = 9;
pub(crate) const EACCES: u32 = 13;
pub(crate) const EEXIST: u32 = 17;
pub(crate) const ENOTDIR: u32 = 20;
pub(crate) const EISDIR: u32 = 21;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const EROFS: u32 = 30;
pub(crate) const ENOTEMPTY: u32 = 39;
pub(crate) const ENODATA: u32 = 61;
pub(crate) const EOPNOTSUPP: u32 = 95;

/// The reply to a request, which must be a success of this kind.
macro_rules! ask {
    ($client:expr, $reply:ident, $request:expr) => {
        match $client.ask($request).await {
            magma_gateway_9p::wire::Reply::$reply(reply) => reply,
            other => panic!("{} instead of {}: {other:?}", other.name(), stringify!($reply)),
        }
    };
}
pub(crate) use ask;

/// A gateway and the volcano behind it.
pub(crate) struct Setup {
    pub(crate) running: Running,
    pub(crate) volcano: Volcano,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let volcano = Volcano::start();
        let mut config = Config::new(volcano.client_config());
        change(&mut config);
        let running = Running::start(config).await.unwrap();
        Self { running, volcano }
    }

    pub(crate) async fn stream(&self) -> TcpStream {
        let address = self.running.addresses().iter().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) | Address::Vsock(_) => None,
        });
        TcpStream::connect(address.unwrap()).await.unwrap()
    }

    /// A client that has agreed on 9P2000.L and large messages.
    pub(crate) async fn client(&self) -> Client {
        self.client_with_msize(1 << 20).await
    }

    pub(crate) async fn client_with_msize(&self, msize: u32) -> Client {
        let mut client = Client { stream: self.stream().await, next_tag: 1 };
        assert_eq!(client.version(msize).await, msize);
        client
    }

    /// A client whose fid 0 is the root, attached to as this user.
    pub(crate) async fn attached(&self, uid: u32) -> Client {
        let mut client = self.client().await;
        client.attach(0, uid, "/").await;
        client
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    next_tag: u16,
}

impl Client {
    pub(crate) async fn send(&mut self, tag: u16, request: impl Into<Request>) {
        self.stream.write_all(&request.into().encode(tag)).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> (u16, Reply) {
        timeout(LONG, self.receive_frame()).await.expect("no reply")
    }

    async fn receive_frame(&mut self) -> (u16, Reply) {
        let size = self.stream.read_u32_le().await.unwrap();
        let kind = self.stream.read_u8().await.unwrap();
        let tag = self.stream.read_u16_le().await.unwrap();
        let mut body = vec![0; size as usize - HEADER];
        self.stream.read_exact(&mut body).await.unwrap();
        (tag, Reply::decode(kind, body.into()).unwrap())
    }

    /// Waits until the gateway has closed the connection.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset closes it as well.
        let _ = timeout(LONG, self.stream.read_to_end(&mut rest)).await.expect("still open");
    }

    pub(crate) async fn ask(&mut self, request: impl Into<Request>) -> Reply {
        let tag = self.next_tag;
        self.next_tag = (self.next_tag + 1) % NOTAG;
        self.send(tag, request).await;
        let (answered, reply) = self.receive().await;
        assert_eq!(answered, tag);
        reply
    }

    /// The errno that the request is refused with.
    pub(crate) async fn refused(&mut self, request: impl Into<Request>) -> u32 {
        ask!(self, Rlerror, request).ecode
    }

    pub(crate) async fn version(&mut self, msize: u32) -> u32 {
        self.send(NOTAG, Tversion { msize, version: Text::new(VERSION) }).await;
        let (tag, reply) = self.receive().await;
        let Reply::Rversion(agreed) = reply else { panic!("{reply:?}") };
        assert_eq!((tag, agreed.version.as_bytes()), (NOTAG, VERSION));
        agreed.msize
    }

    pub(crate) async fn attach(&mut self, fid: u32, uid: u32, aname: &'static str) -> Qid {
        ask!(self, Rattach, attach(fid, uid, aname)).qid
    }

    /// A new fid for a path below another.
    pub(crate) async fn walk(&mut self, fid: u32, newfid: u32, path: &'static str) -> Vec<Qid> {
        let walked = ask!(self, Rwalk, walk(fid, newfid, path));
        assert_eq!(walked.wqids.len(), names(path).len(), "{path}");
        walked.wqids
    }

    pub(crate) async fn clunk(&mut self, fid: u32) {
        assert_eq!(self.ask(Tclunk { fid }).await, Rclunk {}.into());
    }

    pub(crate) async fn mkdir(&mut self, dfid: u32, name: &'static str, mode: u32, gid: u32) -> Qid {
        ask!(self, Rmkdir, Tmkdir { dfid, name: text(name), mode, gid }).qid
    }

    /// Makes a file; `newfid` is then open for reading and writing.
    pub(crate) async fn create(&mut self, dir: u32, newfid: u32, name: &'static str) -> Qid {
        self.walk(dir, newfid, "").await;
        ask!(self, Rlcreate, lcreate(newfid, name, O_RDWR)).qid
    }

    pub(crate) async fn open(&mut self, fid: u32, flags: u32) -> Qid {
        ask!(self, Rlopen, Tlopen { fid, flags }).qid
    }

    pub(crate) async fn write(&mut self, fid: u32, offset: u64, data: &[u8]) {
        let written = ask!(self, Rwrite, write(fid, offset, data));
        assert_eq!(written.count as usize, data.len());
    }

    pub(crate) async fn read(&mut self, fid: u32, offset: u64, count: u32) -> Vec<u8> {
        ask!(self, Rread, Tread { fid, offset, count }).data.0.to_vec()
    }
}

pub(crate) fn text(bytes: &'static str) -> Text {
    Text::new(bytes.as_bytes())
}

fn names(path: &'static str) -> Vec<Text> {
    path.split('/').filter(|name| !name.is_empty()).map(text).collect()
}

pub(crate) fn walk(fid: u32, newfid: u32, path: &'static str) -> Twalk {
    Twalk { fid, newfid, wnames: names(path) }
}

pub(crate) fn attach(fid: u32, n_uname: u32, aname: &'static str) -> Tattach {
    Tattach { fid, afid: NOFID, uname: text(""), aname: text(aname), n_uname }
}

pub(crate) fn lcreate(fid: u32, name: &'static str, flags: u32) -> Tlcreate {
    Tlcreate { fid, name: text(name), flags, mode: 0o10_0644, gid: 0 }
}

pub(crate) fn write(fid: u32, offset: u64, data: &[u8]) -> Twrite {
    Twrite { fid, offset, data: Data(data.to_vec().into()) }
}
