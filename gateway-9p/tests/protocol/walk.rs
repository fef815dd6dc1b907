use magma_gateway_9p::wire::Request;
use magma_gateway_9p::wire::codec::Text;
use magma_gateway_9p::wire::fid::{Tclunk, Tremove, Twalk};
use magma_gateway_9p::wire::session::Rlerror;
use tokio::io::AsyncWriteExt;

use crate::client::{EBADF, EINVAL, ENOENT, ENOTDIR, ENOTEMPTY, O_RDONLY, Setup, ask, text, walk};

#[tokio::test]
async fn a_walk_that_ends_early_tells_how_far_and_makes_no_fid() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.mkdir(0, "a", 0o755, 0).await;
    client.walk(0, 1, "a").await;
    client.mkdir(1, "b", 0o755, 0).await;
    client.create(1, 2, "file").await;
    assert_eq!(ask!(client, Rwalk, walk(0, 3, "a/b/c/d")).wqids.len(), 2);
    assert_eq!(client.refused(Tclunk { fid: 3 }).await, EBADF);
    assert_eq!(ask!(client, Rwalk, walk(0, 3, "a/file/x")).wqids.len(), 2);
    assert_eq!(client.refused(walk(0, 3, "x/y")).await, ENOENT);
    assert_eq!(client.refused(walk(2, 3, "x")).await, ENOTDIR);
    assert_eq!(client.refused(walk(77, 3, "a")).await, EBADF);
    assert_eq!(client.refused(walk(0, 1, "a")).await, EBADF, "the new fid is in use");
}

#[tokio::test]
async fn sixteen_names_are_walked_at_once_and_seventeen_refused() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.walk(0, 1, "").await;
    for _ in 0..17 {
        client.mkdir(1, "d", 0o755, 0).await;
        client.walk(1, 1, "d").await;
    }
    assert_eq!(client.walk(0, 2, "d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d").await.len(), 16);
    let mut seventeen = Request::from(walk(0, 3, "d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d")).encode(9).to_vec();
    seventeen.extend_from_slice(&[1, 0, b'd']);
    seventeen[0] += 3;
    seventeen[15] += 1;
    client.stream.write_all(&seventeen).await.unwrap();
    assert_eq!(client.receive().await, (9, Rlerror { ecode: 71 }.into()), "EPROTO");
}

#[tokio::test]
async fn up_leads_to_the_parent_and_never_above_the_root() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let a = client.mkdir(0, "a", 0o755, 0).await;
    client.walk(0, 1, "a").await;
    client.mkdir(1, "b", 0o755, 0).await;
    assert_eq!(client.walk(0, 2, "a/b/..").await[2].path, a.path);
    let up = client.walk(0, 3, "../../a").await;
    assert_eq!(up[2].path, a.path);
    client.attach(4, 0, "/a").await;
    assert_eq!(client.walk(4, 5, "b/../..").await[2].path, a.path);
}

#[tokio::test]
async fn a_directory_moved_out_of_a_tree_leads_nowhere_up() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.mkdir(0, "tree", 0o755, 0).await;
    client.attach(1, 0, "/tree").await;
    client.mkdir(1, "dir", 0o755, 0).await;
    client.walk(1, 2, "dir").await;
    let rename = magma_gateway_9p::wire::names::Trenameat {
        olddirfid: 1,
        oldname: text("dir"),
        newdirfid: 0,
        newname: text("outside"),
    };
    ask!(client, Rrenameat, rename);
    assert_eq!(client.refused(walk(2, 3, "..")).await, ENOENT);
}

#[tokio::test]
async fn an_open_fid_can_be_walked_from_but_not_onto() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.mkdir(0, "a", 0o755, 0).await;
    client.walk(0, 1, "").await;
    client.open(1, O_RDONLY).await;
    client.walk(1, 2, "a").await;
    client.walk(1, 3, "").await;
    assert_eq!(client.refused(walk(1, 1, "a")).await, EINVAL);
    client.open(3, O_RDONLY).await;
}

#[tokio::test]
async fn names_are_any_bytes() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let name = Text::new(&b"\xff\xfe\n\x01"[..]);
    let mkdir = magma_gateway_9p::wire::names::Tmkdir { dfid: 0, name: name.clone(), mode: 0o755, gid: 0 };
    let made = ask!(client, Rmkdir, mkdir).qid;
    let found = ask!(client, Rwalk, Twalk { fid: 0, newfid: 1, wnames: vec![name] }).wqids;
    assert_eq!(found[0].path, made.path);
    assert_eq!(client.refused(Twalk { fid: 0, newfid: 2, wnames: vec![text("a/b")] }).await, EINVAL);
    assert_eq!(client.refused(Twalk { fid: 0, newfid: 2, wnames: vec![text("")] }).await, ENOENT);
    let long = Text::new(vec![b'x'; 256]);
    assert_eq!(client.refused(Twalk { fid: 0, newfid: 2, wnames: vec![long] }).await, 36, "ENAMETOOLONG");
}

#[tokio::test]
async fn remove_ends_the_fid_whether_or_not_the_file_goes() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.mkdir(0, "dir", 0o755, 0).await;
    client.walk(0, 1, "dir").await;
    client.create(1, 2, "file").await;
    assert_eq!(client.refused(Tremove { fid: 1 }).await, ENOTEMPTY);
    assert_eq!(client.refused(Tclunk { fid: 1 }).await, EBADF);
    ask!(client, Rremove, Tremove { fid: 2 });
    client.walk(0, 3, "dir").await;
    assert_eq!(client.refused(walk(3, 4, "file")).await, ENOENT);
    ask!(client, Rremove, Tremove { fid: 3 });
    assert_eq!(client.refused(walk(0, 4, "dir")).await, ENOENT);
    assert_eq!(client.refused(Tremove { fid: 0 }).await, 16, "EBUSY");
}

#[tokio::test]
async fn remove_takes_the_file_and_not_another_that_has_got_its_name() {
    let setup = Setup::new().await;
    let (mut one, mut two) = (setup.attached(0).await, setup.attached(0).await);
    one.create(0, 1, "file").await;
    two.walk(0, 1, "file").await;
    ask!(two, Rremove, Tremove { fid: 1 });
    two.create(0, 2, "file").await;
    assert_eq!(one.refused(Tremove { fid: 1 }).await, ENOENT);
    two.walk(0, 3, "file").await;
}
