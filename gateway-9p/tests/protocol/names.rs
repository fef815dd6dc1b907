use magma_gateway_9p::wire::attr::{Tgetattr, getattr};
use magma_gateway_9p::wire::codec::{Qid, Text};
use magma_gateway_9p::wire::fid::Tremove;
use magma_gateway_9p::wire::names::{
    AT_REMOVEDIR, Tlink, Tmknod, Treadlink, Trename, Trenameat, Tsymlink, Tunlinkat,
};

use crate::client::{
    Client, EBADF, EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, O_RDONLY, Setup, ask, text,
    walk,
};

fn stat(fid: u32) -> Tgetattr {
    Tgetattr { fid, request_mask: getattr::ALL }
}

fn unlink(dirfid: u32, name: &'static str) -> Tunlinkat {
    Tunlinkat { dirfid, name: text(name), flags: 0 }
}

fn rmdir(dirfid: u32, name: &'static str) -> Tunlinkat {
    Tunlinkat { dirfid, name: text(name), flags: AT_REMOVEDIR }
}

fn renameat(olddirfid: u32, oldname: &'static str, newdirfid: u32, newname: &'static str) -> Trenameat {
    Trenameat { olddirfid, oldname: text(oldname), newdirfid, newname: text(newname) }
}

/// Fid 1 is a directory in which fid 2, a file, is open.
async fn dir_and_file(client: &mut Client) {
    client.mkdir(0, "dir", 0o755, 0).await;
    client.walk(0, 1, "dir").await;
    client.create(1, 2, "file").await;
}

/// What `rm -r` does.
#[tokio::test]
async fn names_can_be_removed_through_an_open_directory() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    dir_and_file(&mut client).await;
    client.walk(0, 3, "dir").await;
    client.open(3, O_RDONLY).await;
    ask!(client, Runlinkat, unlink(3, "file"));
    client.clunk(3).await;
    ask!(client, Runlinkat, rmdir(0, "dir"));
    assert_eq!(client.refused(walk(0, 4, "dir")).await, ENOENT);
}

#[tokio::test]
async fn files_and_directories_are_removed_each_in_its_way() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    dir_and_file(&mut client).await;
    assert_eq!(client.refused(unlink(0, "dir")).await, EISDIR);
    assert_eq!(client.refused(rmdir(1, "file")).await, ENOTDIR);
    assert_eq!(client.refused(rmdir(0, "dir")).await, ENOTEMPTY);
    assert_eq!(client.refused(unlink(1, "nothing")).await, ENOENT);
    assert_eq!(client.refused(unlink(2, "x")).await, ENOTDIR);
    assert_eq!(client.refused(Tunlinkat { flags: 0x400, ..unlink(1, "file") }).await, EINVAL);
    assert_eq!(client.refused(unlink(1, "..")).await, EINVAL);
}

#[tokio::test]
async fn a_hard_link_is_another_name_of_the_same_file() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    dir_and_file(&mut client).await;
    ask!(client, Rlink, Tlink { dfid: 0, fid: 2, name: text("second") });
    let found = client.walk(0, 3, "second").await;
    let attr = ask!(client, Rgetattr, stat(2));
    assert_eq!((attr.nlink, attr.qid.path), (2, found[0].path));
    assert_eq!(client.refused(Tlink { dfid: 0, fid: 2, name: text("second") }).await, EEXIST);
    assert_eq!(client.refused(Tlink { dfid: 0, fid: 1, name: text("third") }).await, EPERM);
    ask!(client, Runlinkat, unlink(1, "file"));
    assert_eq!(ask!(client, Rgetattr, stat(3)).nlink, 1);
}

#[tokio::test]
async fn symbolic_links_say_what_they_were_given() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let target = Text::new(&b"../\xff/not there"[..]);
    let made =
        ask!(client, Rsymlink, Tsymlink { dfid: 0, name: text("link"), target: target.clone(), gid: 0 });
    assert_eq!(made.qid.kind, Qid::QTSYMLINK);
    client.walk(0, 1, "link").await;
    assert_eq!(ask!(client, Rreadlink, Treadlink { fid: 1 }).target, target);
    let attr = ask!(client, Rgetattr, stat(1));
    assert_eq!((attr.mode & 0o170_000, attr.size), (0o120_000, target.as_bytes().len() as u64));
    assert_eq!(client.refused(Treadlink { fid: 0 }).await, EINVAL);
    assert_eq!(ask!(client, Rwalk, walk(0, 2, "link/x")).wqids.len(), 1, "links are the client's to follow");
}

#[tokio::test]
async fn a_target_longer_than_a_message_is_refused() {
    let setup = Setup::new().await;
    let mut client = setup.client_with_msize(4200).await;
    client.attach(0, 0, "/").await;
    let target = Text::new(vec![b'x'; 4095]);
    ask!(client, Rsymlink, Tsymlink { dfid: 0, name: text("link"), target: target.clone(), gid: 0 });
    client.walk(0, 1, "link").await;
    assert_eq!(ask!(client, Rreadlink, Treadlink { fid: 1 }).target, target);
    assert_eq!(client.version(4096).await, 4096);
    client.attach(0, 0, "/").await;
    client.walk(0, 1, "link").await;
    assert_eq!(client.refused(Treadlink { fid: 1 }).await, 90, "EMSGSIZE");
}

#[tokio::test]
async fn devices_fifos_sockets_and_files_are_made_by_mknod() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let mknod = |name, mode, major, minor| Tmknod { dfid: 0, name: text(name), mode, major, minor, gid: 0 };
    for (fid, name, mode, rdev) in [
        (1, "fifo", 0o010_600, 0),
        (2, "char", 0o020_600, (5 << 8) | 1),
        (3, "block", 0o060_600, (259 << 8) | (0x123 & 0xff) | ((0x123 & !0xff) << 12)),
        (4, "socket", 0o140_600, 0),
        (5, "file", 0o100_600, 0),
    ] {
        let (major, minor) = match name {
            "char" => (5, 1),
            "block" => (259, 0x123),
            _ => (0, 0),
        };
        ask!(client, Rmknod, mknod(name, mode, major, minor));
        client.walk(0, fid, name).await;
        let attr = ask!(client, Rgetattr, stat(fid));
        assert_eq!((attr.mode, attr.rdev), (mode, rdev), "{name}");
    }
    assert_eq!(client.refused(mknod("dir", 0o040_755, 0, 0)).await, EINVAL);
    assert_eq!(client.refused(mknod("fifo", 0o010_600, 0, 0)).await, EEXIST);
}

#[tokio::test]
async fn a_name_is_moved_over_another() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    dir_and_file(&mut client).await;
    client.create(0, 3, "other").await;
    client.write(2, 0, b"moved").await;
    ask!(client, Rrenameat, renameat(1, "file", 0, "other"));
    client.walk(0, 4, "other").await;
    client.open(4, O_RDONLY).await;
    assert_eq!(client.read(4, 0, 100).await, b"moved");
    assert_eq!(client.refused(walk(1, 5, "file")).await, ENOENT);
    assert_eq!(ask!(client, Rgetattr, stat(3)).nlink, 0, "the replaced file is still open");
    assert_eq!(client.refused(renameat(0, "dir", 1, "inside")).await, EINVAL);
    assert_eq!(client.refused(renameat(0, "other", 0, "dir")).await, EISDIR);
}

#[tokio::test]
async fn a_fid_is_moved_and_removed_under_its_new_name() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    dir_and_file(&mut client).await;
    client.walk(1, 3, "file").await;
    ask!(client, Rrename, Trename { fid: 3, dfid: 0, name: text("moved") });
    client.walk(0, 4, "moved").await;
    ask!(client, Rrenameat, renameat(0, "moved", 1, "back"));
    ask!(client, Rremove, Tremove { fid: 3 });
    assert_eq!(client.refused(walk(1, 5, "back")).await, ENOENT);
    assert_eq!(client.refused(Trename { fid: 3, dfid: 0, name: text("x") }).await, EBADF);
    assert_eq!(client.refused(Trename { fid: 0, dfid: 1, name: text("x") }).await, 16, "EBUSY");
}
