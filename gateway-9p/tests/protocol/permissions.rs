use magma_gateway_9p::export::{Groups, Squash};
use magma_gateway_9p::wire::attr::{Tgetattr, Time, Tsetattr, getattr, setattr};
use magma_gateway_9p::wire::codec::Text;
use magma_gateway_9p::wire::io::{Tlcreate, Tlopen};
use magma_gateway_9p::wire::names::{Tmkdir, Tunlinkat};
use magma_gateway_9p::wire::session::{NOFID, NONUNAME, Tattach};

use crate::client::{Client, EACCES, EROFS, O_RDONLY, O_RDWR, Setup, ask, lcreate, text, walk};

async fn owner(client: &mut Client, fid: u32) -> (u32, u32, u32) {
    let attr = ask!(client, Rgetattr, Tgetattr { fid, request_mask: getattr::BASIC });
    (attr.uid, attr.gid, attr.mode & 0o7777)
}

fn set(fid: u32, valid: u32, mode: u32, uid: u32, gid: u32) -> Tsetattr {
    let time = Time { seconds: 0, nanos: 0 };
    Tsetattr { fid, valid, mode, uid, gid, size: 0, atime: time.clone(), mtime: time }
}

/// A directory `shared` of root and group 50, mode 0770, and in it a file `file` of mode 0640.
async fn shared_with_group_50(setup: &Setup) {
    let mut root = setup.attached(0).await;
    root.mkdir(0, "shared", 0o770, 50).await;
    root.walk(0, 1, "shared").await;
    let create = Tlcreate { gid: 50, mode: 0o640, ..lcreate(1, "file", O_RDWR) };
    ask!(root, Rlcreate, create);
    root.write(1, 0, b"content").await;
}

#[tokio::test]
async fn users_of_one_connection_have_their_own_permissions() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.attach(10, 1000, "/").await;
    let mkdir = Tmkdir { dfid: 10, name: text("mine"), mode: 0o755, gid: 1000 };
    assert_eq!(client.refused(mkdir.clone()).await, EACCES, "the root is root's");
    client.mkdir(0, "public", 0o1777, 0).await;
    client.walk(10, 11, "public").await;
    ask!(client, Rmkdir, Tmkdir { dfid: 11, ..mkdir });
    client.walk(11, 12, "mine").await;
    assert_eq!(owner(&mut client, 12).await, (1000, 1000, 0o755));
    client.attach(20, 1001, "/public").await;
    let unlink = Tunlinkat { dirfid: 20, name: text("mine"), flags: 0x200 };
    assert_eq!(client.refused(unlink).await, 1, "EPERM: the sticky bit");
}

#[tokio::test]
async fn the_clients_word_counts_for_groups() {
    let setup = Setup::new().await;
    shared_with_group_50(&setup).await;
    let mut client = setup.attached(1000).await;
    client.walk(0, 1, "shared/file").await;
    client.open(1, O_RDONLY).await;
    assert_eq!(client.read(1, 0, 100).await, b"content");
    client.walk(0, 2, "shared").await;
    ask!(client, Rlcreate, Tlcreate { gid: 1000, ..lcreate(2, "mine", O_RDWR) });
    client.walk(0, 3, "shared/file").await;
    assert_eq!(client.refused(Tlopen { fid: 3, flags: O_RDWR }).await, EACCES, "the group may only read");
    // Giving a file to a group, and the set-group-id bit, are for members.
    ask!(client, Rsetattr, set(2, setattr::GID, 0, 0, 50));
    ask!(client, Rsetattr, set(2, setattr::MODE, 0o2755, 0, 0));
    assert_eq!(owner(&mut client, 2).await, (1000, 50, 0o2755));
}

#[tokio::test]
async fn who_is_not_vouched_for_may_do_what_others_may() {
    let setup = Setup::new().await;
    let mut root = setup.attached(0).await;
    // The group is locked out of this file, others are not.
    let create = Tlcreate { gid: 50, mode: 0o604, ..lcreate(1, "file", O_RDWR) };
    root.walk(0, 1, "").await;
    ask!(root, Rlcreate, create);
    let mut client = setup.attached(1000).await;
    client.walk(0, 1, "file").await;
    client.open(1, O_RDONLY).await;
}

#[tokio::test]
async fn with_the_hosts_groups_the_clients_word_does_not_count() {
    let setup = Setup::with(|config| config.export.groups = Groups::Host).await;
    shared_with_group_50(&setup).await;
    let mut client = setup.attached(3_000_000).await;
    assert_eq!(ask!(client, Rwalk, walk(0, 1, "shared/file")).wqids.len(), 1);
    client.walk(0, 2, "shared").await;
    assert_eq!(client.refused(lcreate(2, "mine", O_RDWR)).await, EACCES);
}

#[tokio::test]
async fn programs_that_may_be_run_may_be_read() {
    let setup = Setup::new().await;
    let mut root = setup.attached(0).await;
    root.walk(0, 1, "").await;
    ask!(root, Rlcreate, Tlcreate { mode: 0o711, ..lcreate(1, "program", O_RDWR) });
    root.write(1, 0, b"#!").await;
    let mut client = setup.attached(1000).await;
    client.walk(0, 1, "program").await;
    client.walk(0, 2, "program").await;
    assert_eq!(client.refused(Tlopen { fid: 2, flags: O_RDWR }).await, EACCES);
    client.open(1, O_RDONLY).await;
    assert_eq!(client.read(1, 0, 2).await, b"#!");
}

#[tokio::test]
async fn squashed_root_is_nobody_special() {
    let setup = Setup::with(|config| config.export.squash = Squash::Root).await;
    let mut client = setup.attached(0).await;
    let mkdir = Tmkdir { dfid: 0, name: text("dir"), mode: 0o755, gid: 0 };
    assert_eq!(client.refused(mkdir).await, EACCES);
}

#[tokio::test]
async fn a_name_alone_is_root_or_known_to_this_host_or_nobody() {
    let setup = Setup::new().await;
    let mut client = setup.client().await;
    let attach = |fid, uname: &'static str| Tattach {
        fid,
        afid: NOFID,
        uname: Text::new(uname.as_bytes()),
        aname: text("/"),
        n_uname: NONUNAME,
    };
    ask!(client, Rattach, attach(0, "root"));
    client.mkdir(0, "public", 0o777, 0).await;
    ask!(client, Rattach, attach(1, "nobody-of-this-name"));
    client.walk(1, 2, "public").await;
    ask!(client, Rlcreate, Tlcreate { gid: 100, ..lcreate(2, "file", O_RDWR) });
    assert_eq!(owner(&mut client, 2).await.0, 65_534);
}

#[tokio::test]
async fn a_read_only_export_is_only_read() {
    let setup = Setup::with(|config| config.export.read_only = true).await;
    let mut client = setup.attached(0).await;
    let mkdir = Tmkdir { dfid: 0, name: text("dir"), mode: 0o755, gid: 0 };
    assert_eq!(client.refused(mkdir).await, EROFS);
    client.walk(0, 1, "").await;
    assert_eq!(client.refused(lcreate(1, "file", O_RDWR)).await, EROFS);
    assert_eq!(client.refused(set(0, setattr::MODE, 0o777, 0, 0)).await, EROFS);
    assert_eq!(client.refused(Tunlinkat { dirfid: 0, name: text("x"), flags: 0 }).await, EROFS);
    client.open(1, O_RDONLY).await;
}

#[tokio::test]
async fn what_is_made_in_a_set_group_id_directory_gets_its_group() {
    let setup = Setup::new().await;
    let mut root = setup.attached(0).await;
    root.mkdir(0, "dir", 0o777, 50).await;
    root.walk(0, 1, "dir").await;
    ask!(root, Rsetattr, set(1, setattr::MODE, 0o2777, 0, 0));
    let mut client = setup.attached(1000).await;
    client.walk(0, 1, "dir").await;
    ask!(client, Rmkdir, Tmkdir { dfid: 1, name: text("sub"), mode: 0o2755, gid: 50 });
    client.walk(1, 2, "sub").await;
    assert_eq!(owner(&mut client, 2).await, (1000, 50, 0o2755));
    ask!(client, Rlcreate, Tlcreate { gid: 50, mode: 0o644, ..lcreate(1, "file", O_RDWR) });
    assert_eq!(owner(&mut client, 1).await, (1000, 50, 0o644));
}
