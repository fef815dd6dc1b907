//! Where clients connect: TCP, unix sockets, vsock. One file per kind, and what they share.

mod tcp;
mod unix;
mod vsock;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};

/// 9P's port.
pub const DEFAULT_PORT: u16 = 564;

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `ADDR:PORT`, `ADDR` or `:PORT`; alone of its kind, where other machines may be let in.
    Tcp(SocketAddr),
    /// `unix:PATH`; only the user who runs the gateway, and root, may connect.
    Unix(PathBuf),
    /// `vsock:PORT`; virtual machines of this host.
    Vsock(u32),
}

/// Why a text is no place to listen at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place to listen at: give ADDR:PORT, unix:PATH or vsock:PORT")]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let wrong = || ParseAddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(port) = text.strip_prefix("vsock:") {
            return port.parse().map(Self::Vsock).map_err(|_| wrong());
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Tcp(address));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Tcp(SocketAddr::new(address, DEFAULT_PORT)));
        }
        let port = text.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(wrong)?;
        Ok(Self::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock(port) => write!(f, "vsock:{port}"),
        }
    }
}

/// Why the gateway cannot listen somewhere.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen at {address}: {reason}")]
    Bind {
        /// Which.
        address: Address,
        /// Why not.
        reason: io::Error,
    },
    /// Another process serves the unix socket.
    #[error("another process listens at unix:{}", .0.display())]
    SocketInUse(PathBuf),
    /// The path of the unix socket is something else.
    #[error("{} exists and is no socket; choose another path or remove it", .0.display())]
    NotASocket(PathBuf),
    /// The kernel has no vsock.
    #[error(
        "cannot listen at vsock:{port}: {reason}; this needs the kernel's vsock and, on a host, vhost_vsock"
    )]
    NoVsock {
        /// Which port.
        port: u32,
        /// What the kernel said.
        reason: io::Error,
    },
}

/// A client that has connected.
pub(crate) struct Accepted {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Who it is, for people.
    pub(crate) peer: String,
    /// Its address, unless it is on this machine anyway.
    pub(crate) address: Option<IpAddr>,
}

/// Waits for clients.
pub(crate) enum Listener {
    Tcp(tcp::Listener),
    Unix(unix::Listener),
    Vsock(vsock::Listener),
}

impl Listener {
    pub(crate) fn bind(address: &Address) -> Result<Self, ListenError> {
        match address {
            Address::Tcp(address) => tcp::Listener::bind(*address).map(Self::Tcp),
            Address::Unix(path) => unix::Listener::bind(path).map(Self::Unix),
            Address::Vsock(port) => vsock::Listener::bind(*port).map(Self::Vsock),
        }
    }

    /// The next client. An error concerns that client, or a passing lack of means; listening goes on.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await,
            Self::Unix(listener) => listener.accept().await,
            Self::Vsock(listener) => listener.accept().await,
        }
    }

    /// Where it listens; port 0 has become a real one.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Tcp(listener) => Address::Tcp(listener.address()),
            Self::Unix(listener) => Address::Unix(listener.path().to_owned()),
            Self::Vsock(listener) => Address::Vsock(listener.port()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_and_written_as_they_are_read() {
        for (text, written) in [
            ("127.0.0.1:5640", "127.0.0.1:5640"),
            ("[::1]:1", "[::1]:1"),
            ("::", "[::]:564"),
            ("[::1]", "[::1]:564"),
            ("10.0.0.1", "10.0.0.1:564"),
            (":99", "127.0.0.1:99"),
            ("unix:/run/magma.sock", "unix:/run/magma.sock"),
            ("vsock:564", "vsock:564"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), written);
        }
        for text in ["", "unix:", "vsock:", "vsock:x", "host:1", ":", "1.2.3.4:70000"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
