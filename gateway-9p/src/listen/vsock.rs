//! vsock: virtual machines of this host, without a network.

use std::io;

use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use super::{Accepted, ListenError};

pub(crate) struct Listener {
    inner: VsockListener,
    port: u32,
}

impl Listener {
    pub(crate) fn bind(port: u32) -> Result<Self, ListenError> {
        let bound = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port));
        let inner = bound.map_err(|reason| ListenError::NoVsock { port, reason })?;
        let port = inner.local_addr().map_or(port, |address| address.port());
        Ok(Self { inner, port })
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.inner.accept().await?;
        let (reader, writer) = stream.into_split();
        let peer = format!("virtual machine {} port {}", peer.cid(), peer.port());
        Ok(Accepted { reader: Box::new(reader), writer: Box::new(writer), peer, address: None })
    }

    pub(crate) fn port(&self) -> u32 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kernel_without_vsock_is_told_of_clearly() {
        let port = 0x4d41_0000 | (std::process::id() & 0xffff);
        match Listener::bind(port) {
            Ok(listener) => assert_eq!(listener.port(), port),
            Err(error) => {
                let told = error.to_string();
                assert!(
                    told.starts_with("cannot listen at vsock:") && told.contains("needs the kernel's vsock")
                );
            }
        }
    }
}
