//! MOUNT version 3 (RFC 1813 §5, appendix I), and of versions 1 and 2 what does not hand out handles:
//! `umount` and `showmount` ask for those, and their arguments and answers are the same.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use magma_common::attr::Kind;
use magma_common::client::Context;
use magma_common::error::FlareError;
use magma_common::proto::{Credentials, Durability};

use crate::dispatch::Fault;
use crate::export::ExportPath;
use crate::gateway::{Gateway, PATIENCE};
use crate::nfs3::outcome_is_open;
use crate::rpc::auth::AUTH_SYS;
use crate::rpc::connection::Peer;
use crate::rpc::message::{Accept, Call, accepted};
use crate::xdr::{Body, Decoder, Encoder};

pub(crate) const PROGRAM: u32 = 100_005;
pub(crate) const VERSION: u32 = 3;

/// Mounts remembered for DUMP. It is a courtesy: nothing depends on it.
const MAX_MOUNTS: usize = 1024;

/// `mountstat3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MountStatus {
    NoEntry = 2,
    Io = 5,
    Access = 13,
    NotDirectory = 20,
    Invalid = 22,
    NameTooLong = 63,
}

/// Who has mounted what, as far as this gateway has seen since it started.
#[derive(Debug, Default)]
pub(crate) struct MountTable {
    mounts: Mutex<VecDeque<(IpAddr, ExportPath)>>,
}

impl MountTable {
    fn mounts(&self) -> MutexGuard<'_, VecDeque<(IpAddr, ExportPath)>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, client: IpAddr, path: ExportPath) {
        let mut mounts = self.mounts();
        let mount = (client, path);
        if !mounts.contains(&mount) {
            mounts.push_back(mount);
        }
        if mounts.len() > MAX_MOUNTS {
            mounts.pop_front();
        }
    }

    fn remove(&self, client: IpAddr, path: Option<&ExportPath>) {
        self.mounts().retain(|(host, mounted)| *host != client || path.is_some_and(|path| path != mounted));
    }
}

/// Answers a call to the mount daemon.
pub(crate) async fn answer(gateway: &Gateway, peer: &Peer, call: &Call) -> Result<Body, Fault> {
    if !(1..=VERSION).contains(&call.version) {
        return Err(Fault::Version { low: 1, high: VERSION });
    }
    let mut arguments = Decoder::new(call.arguments.clone());
    let mut out = accepted(call.xid, Accept::Success);
    let client = peer.client.ip();
    match call.procedure {
        // NULL
        0 => {}
        // MNT: version 1 and 2 have no room for our handles.
        1 if call.version == VERSION => {
            mount(gateway, peer.client, &mut arguments, &mut out).await?;
        }
        // DUMP
        2 => {
            let told = gateway.exports.know(client);
            for (host, path) in gateway.mounts.mounts().iter().filter(|_| told) {
                out.bool(true);
                out.opaque(host.to_string().as_bytes());
                out.opaque(path.as_bytes());
            }
            out.bool(false);
        }
        // UMNT
        3 => {
            let bytes = arguments.opaque(usize::MAX)?;
            arguments.finish()?;
            if let Ok(path) = ExportPath::new(&bytes) {
                gateway.mounts.remove(client, Some(&path));
            }
        }
        // UMNTALL
        4 => gateway.mounts.remove(client, None),
        // EXPORT
        5 => export(gateway, client, &mut out),
        _ => return Err(Fault::Procedure),
    }
    Ok(out.finish())
}

async fn mount(
    gateway: &Gateway,
    client: SocketAddr,
    arguments: &mut Decoder,
    out: &mut Encoder,
) -> Result<(), Fault> {
    let bytes = arguments.opaque(usize::MAX)?;
    arguments.finish()?;
    match find(gateway, client, &bytes).await? {
        Ok(handle) => {
            out.u32(0);
            out.opaque(&handle);
            // The flavours a client may use: one.
            out.u32(1);
            out.u32(AUTH_SYS);
        }
        Err(status) => out.u32(status as u32),
    }
    Ok(())
}

/// The handle of the directory that a client wants to mount.
async fn find(
    gateway: &Gateway,
    client: SocketAddr,
    bytes: &[u8],
) -> Result<Result<Vec<u8>, MountStatus>, Fault> {
    let path = match ExportPath::new(bytes) {
        Ok(path) => path,
        Err(crate::export::ParsePathError::TooLong) => return Ok(Err(MountStatus::NameTooLong)),
        Err(_) => return Ok(Err(MountStatus::Invalid)),
    };
    let Some((id, export)) = gateway.exports.containing(&path) else {
        tracing::info!(target: "magma::nfs", %client, %path, "mount refused: not exported");
        return Ok(Err(MountStatus::Access));
    };
    if let Err(reason) = export.admit(client) {
        tracing::info!(target: "magma::nfs", %client, %path, "mount refused: {reason}");
        return Ok(Err(MountStatus::Access));
    }
    let context = Context {
        credentials: Credentials::ROOT.into(),
        durability: Durability::Replicated,
        deadline: Some(Instant::now() + PATIENCE),
        call: None,
    };
    match gateway.client.walk(&context, path.as_bytes()).await {
        Ok(attr) if attr.kind == Kind::Directory => {
            tracing::info!(target: "magma::nfs", %client, %path, "mounted");
            gateway.mounts.add(client.ip(), path);
            Ok(Ok(gateway.signer.seal(id, attr.handle).to_vec()))
        }
        Ok(_) => Ok(Err(MountStatus::NotDirectory)),
        Err(failure) if outcome_is_open(failure.error) => Err(Fault::HangUp),
        Err(failure) => Ok(Err(match failure.error {
            FlareError::NotFound | FlareError::Stale => MountStatus::NoEntry,
            FlareError::NotDirectory => MountStatus::NotDirectory,
            FlareError::NameTooLong => MountStatus::NameTooLong,
            _ => MountStatus::Io,
        })),
    }
}

/// What the client may mount; nobody is told of what is not for them.
fn export(gateway: &Gateway, client: IpAddr, out: &mut Encoder) {
    for export in gateway.exports.iter().filter(|export| export.lists(client)) {
        out.bool(true);
        out.opaque(export.path.as_bytes());
        for network in &export.clients {
            out.bool(true);
            out.opaque(network.to_string().as_bytes());
        }
        out.bool(false);
    }
    out.bool(false);
}
