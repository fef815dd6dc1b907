//! An NFS client of another make: [`nfs3_client`].

use std::net::SocketAddr;

use nfs3_client::nfs3_types::mount::dirpath;
use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, Nfs3Client};
use tokio::net::TcpStream;

pub(crate) type Nfs = Nfs3Client<TokioIo<TcpStream>>;

fn credential(uid: u32, gid: u32, gids: &[u32]) -> opaque_auth<'static> {
    let machinename = Opaque::borrowed(b"test");
    opaque_auth::auth_unix(&auth_unix { stamp: 0, machinename, uid, gid, gids: gids.to_vec() })
}

/// The handle of a path.
pub(crate) async fn mount(gateway: SocketAddr, path: &[u8]) -> nfs_fh3 {
    let io = TokioIo::new(TcpStream::connect(gateway).await.unwrap());
    let mut client = MountClient::new_with_auth(io, credential(0, 0, &[]), opaque_auth::default());
    let mounted = client.mnt(dirpath(Opaque::owned(path.to_vec()))).await.unwrap();
    assert_eq!(mounted.auth_flavors, [1]);
    nfs_fh3 { data: Opaque::owned(mounted.fhandle.0.to_vec()) }
}

/// A connection as this user.
pub(crate) async fn connect(gateway: SocketAddr, uid: u32, gid: u32, gids: &[u32]) -> Nfs {
    let io = TokioIo::new(TcpStream::connect(gateway).await.unwrap());
    Nfs3Client::new_with_auth(io, credential(uid, gid, gids), opaque_auth::default())
}

/// A connection as root.
pub(crate) async fn as_root(gateway: SocketAddr) -> Nfs {
    connect(gateway, 0, 0, &[]).await
}

pub(crate) fn at<'a>(dir: &nfs_fh3, name: &'a [u8]) -> diropargs3<'a> {
    diropargs3 { dir: dir.clone(), name: name.into() }
}

pub(crate) fn mode(mode: u32) -> sattr3 {
    sattr3 { mode: Nfs3Option::Some(mode), ..sattr3::default() }
}

/// The status of a result, whatever came with it.
#[allow(clippy::needless_pass_by_value, reason = "takes what the client gives")]
pub(crate) fn status<T, E>(result: Nfs3Result<T, E>) -> nfsstat3 {
    match result {
        Nfs3Result::Ok(_) => nfsstat3::NFS3_OK,
        Nfs3Result::Err((status, _)) => status,
    }
}

pub(crate) async fn create(nfs: &mut Nfs, dir: &nfs_fh3, name: &[u8]) -> nfs_fh3 {
    let how = createhow3::GUARDED(mode(0o644));
    nfs.create(&CREATE3args { where_: at(dir, name), how }).await.unwrap().unwrap().obj.unwrap()
}

pub(crate) async fn mkdir(nfs: &mut Nfs, dir: &nfs_fh3, name: &[u8], bits: u32) -> nfs_fh3 {
    let made = nfs.mkdir(&MKDIR3args { where_: at(dir, name), attributes: mode(bits) }).await.unwrap();
    made.unwrap().obj.unwrap()
}

pub(crate) async fn attributes(nfs: &mut Nfs, object: &nfs_fh3) -> fattr3 {
    nfs.getattr(&GETATTR3args { object: object.clone() }).await.unwrap().unwrap().obj_attributes
}

pub(crate) async fn lookup(nfs: &mut Nfs, dir: &nfs_fh3, name: &[u8]) -> LOOKUP3res {
    nfs.lookup(&LOOKUP3args { what: at(dir, name) }).await.unwrap()
}

pub(crate) async fn write(
    nfs: &mut Nfs,
    file: &nfs_fh3,
    offset: u64,
    data: &[u8],
    stable: stable_how,
) -> WRITE3resok {
    let data = Opaque::borrowed(data);
    let args = WRITE3args { file: file.clone(), offset, count: data.len() as u32, stable, data };
    nfs.write(&args).await.unwrap().unwrap()
}

pub(crate) async fn read(nfs: &mut Nfs, file: &nfs_fh3, offset: u64, count: u32) -> (Vec<u8>, bool) {
    let read = nfs.read(&READ3args { file: file.clone(), offset, count }).await.unwrap().unwrap();
    assert_eq!(read.count as usize, read.data.len());
    (read.data.to_vec(), read.eof)
}

/// Names and cookies of a whole listing, in replies of so many bytes.
pub(crate) async fn list(nfs: &mut Nfs, dir: &nfs_fh3, count: u32) -> Vec<(Vec<u8>, u64, u64)> {
    let mut all = Vec::new();
    let mut cookie = 0;
    loop {
        let args = READDIR3args { dir: dir.clone(), cookie, cookieverf: cookieverf3::default(), count };
        let page = nfs.readdir(&args).await.unwrap().unwrap().reply;
        for entry in &page.entries.0 {
            cookie = entry.cookie;
            all.push((entry.name.as_ref().to_vec(), entry.cookie, entry.fileid));
        }
        if page.eof {
            return all;
        }
        assert!(!page.entries.0.is_empty(), "an empty page before the end");
    }
}
