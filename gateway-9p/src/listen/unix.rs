//! Unix sockets. Who can open the socket can claim to be any user, so only its owner and root can.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::{Accepted, Address, ListenError};

pub(crate) struct Listener {
    inner: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// A socket left behind by a gateway that is gone is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, ListenError> {
        let failed = |reason| ListenError::Bind { address: Address::Unix(path.to_owned()), reason };
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed)?;
                }
                Err(error) => return Err(failed(error)),
                Ok(_) => return Err(ListenError::SocketInUse(path.to_owned())),
            },
        }
        let inner = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { inner, path: path.to_owned() })
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, _) = self.inner.accept().await?;
        let credentials = stream.peer_cred()?;
        let peer = format!("process {} of user {}", credentials.pid().unwrap_or_default(), credentials.uid());
        let (reader, writer) = stream.into_split();
        Ok(Accepted { reader: Box::new(reader), writer: Box::new(writer), peer, address: None })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("{} could not be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let path = std::env::temp_dir().join(format!("magma-9p-unix-{}", std::process::id()));
        std::fs::write(&path, b"precious").unwrap();
        assert!(matches!(Listener::bind(&path), Err(ListenError::NotASocket(_))));
        std::fs::remove_file(&path).unwrap();

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Listener::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Listener::bind(&path), Err(ListenError::SocketInUse(_))));
        drop(first);
        assert!(!path.exists());
    }
}
