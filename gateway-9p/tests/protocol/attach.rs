use magma_gateway_9p::export::Export;
use magma_gateway_9p::wire::codec::Qid;
use magma_gateway_9p::wire::fid::Tclunk;
use magma_gateway_9p::wire::session::{NONUNAME, Tattach, Tauth};

use crate::client::{EACCES, EBADF, EINVAL, ENOENT, ENOTDIR, EOPNOTSUPP, Setup, ask, attach, text};

#[tokio::test]
async fn the_root_and_directories_below_it_can_be_attached_to() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.mkdir(0, "sub", 0o755, 0).await;
    let below = client.mkdir(0, "other", 0o755, 0).await;
    client.walk(0, 1, "sub").await;
    let deep = client.mkdir(1, "deep", 0o755, 0).await;
    assert_eq!(client.attach(2, 0, "sub//deep/").await.path, deep.path);
    assert_eq!(client.attach(3, 1000, "/other").await.path, below.path);
    let root = client.attach(4, 0, "").await;
    assert_eq!(root.kind, Qid::QTDIR);
    assert_eq!(client.walk(4, 5, "sub/deep").await[1].path, deep.path);
}

#[tokio::test]
async fn what_is_no_directory_cannot_be_attached_to() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    assert_eq!(client.refused(attach(2, 0, "/nothing")).await, ENOENT);
    assert_eq!(client.refused(attach(2, 0, "/file")).await, ENOTDIR);
    assert_eq!(client.refused(attach(2, 0, "/a/../b")).await, EINVAL);
    assert_eq!(client.refused(attach(0, 0, "/")).await, EBADF, "the fid is in use");
    assert_eq!(client.refused(Tclunk { fid: 2 }).await, EBADF, "no fid was made");
}

#[tokio::test]
async fn there_is_no_authentication_inside_9p() {
    let setup = Setup::new().await;
    let mut client = setup.client().await;
    let auth = Tauth { afid: 9, uname: text("root"), aname: text("/"), n_uname: NONUNAME };
    assert_eq!(client.refused(auth).await, EOPNOTSUPP);
    assert_eq!(client.refused(Tattach { afid: 9, ..attach(0, 0, "/") }).await, EBADF);
}

#[tokio::test]
async fn only_exported_trees_can_be_attached_to() {
    let first = Setup::new().await;
    first.attached(0).await.mkdir(0, "vm", 0o755, 0).await;
    let trees = vec!["/vm".parse().unwrap()];
    let export = Export { trees, ..Export::default() };
    let config =
        magma_gateway_9p::Config { export, ..magma_gateway_9p::Config::new(first.volcano.client_config()) };
    let second = magma_gateway_9p::Running::start(config).await.unwrap();
    let setup = Setup { running: second, volcano: first.volcano };
    let mut client = setup.client().await;
    assert_eq!(client.refused(attach(0, 0, "/")).await, EACCES);
    assert_eq!(client.refused(attach(0, 0, "/vmx")).await, EACCES);
    let root = client.attach(0, 0, "/vm").await;
    let up = ask!(client, Rwalk, crate::client::walk(0, 1, "..")).wqids;
    assert_eq!(up[0].path, root.path, "a walk does not lead out of the tree");
}

#[tokio::test]
async fn a_new_version_ends_all_fids() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    assert_eq!(client.version(8192).await, 8192);
    assert_eq!(client.refused(Tclunk { fid: 0 }).await, EBADF);
    client.attach(0, 0, "/").await;
}
