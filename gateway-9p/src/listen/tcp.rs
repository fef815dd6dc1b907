//! TCP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpListener;

use super::{Accepted, Address, ListenError};

/// A client that has been silent for so long is asked whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
/// And again after so long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// So often in vain, and its locks and open files are given back. Together 15 minutes: a virtual machine may be
/// paused for a while, and Linux does not reconnect a 9P mount.
const KEEPALIVE_COUNT: u32 = 10;

pub(crate) struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(wanted: SocketAddr) -> Result<Self, ListenError> {
        let bind = || {
            let listener = std::net::TcpListener::bind(wanted)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { inner: TcpListener::from_std(listener)?, address })
        };
        bind().map_err(|reason| ListenError::Bind { address: Address::Tcp(wanted), reason })
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.inner.accept().await?;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_COUNT)?;
        let (reader, writer) = stream.into_split();
        let address = Some(peer.ip());
        Ok(Accepted { reader: Box::new(reader), writer: Box::new(writer), peer: peer.to_string(), address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
