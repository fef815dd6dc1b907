use magma_gateway_9p::wire::attr::{Rgetattr, Tgetattr, Time, Tsetattr, Tstatfs, getattr, setattr};

use crate::client::{Client, EBADF, EINVAL, EISDIR, EPERM, Setup, ask};

async fn stat(client: &mut Client, fid: u32) -> Rgetattr {
    ask!(client, Rgetattr, Tgetattr { fid, request_mask: getattr::ALL })
}

fn nothing(fid: u32) -> Tsetattr {
    let time = Time { seconds: 0, nanos: 0 };
    Tsetattr { fid, valid: 0, mode: 0, uid: 0, gid: 0, size: 0, atime: time.clone(), mtime: time }
}

#[tokio::test]
async fn all_attributes_of_a_new_file_are_told() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let qid = client.create(0, 1, "file").await;
    client.write(1, 0, &[1; 1000]).await;
    let attr = stat(&mut client, 1).await;
    assert_eq!(attr.valid, getattr::ALL);
    assert_eq!((attr.qid.path, attr.mode, attr.uid, attr.gid), (qid.path, 0o100_644, 0, 0));
    assert_eq!((attr.nlink, attr.size, attr.blksize), (1, 1000, 4096));
    assert!(attr.btime.seconds > 1_600_000_000 && attr.mtime.nanos < 1_000_000_000);
    let root = stat(&mut client, 0).await;
    assert_eq!(root.mode & 0o170_000, 0o040_000);
    assert_eq!(client.refused(Tgetattr { fid: 9, request_mask: 0 }).await, EBADF);
}

#[tokio::test]
async fn attributes_are_set_one_by_one() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    ask!(client, Rsetattr, Tsetattr { valid: setattr::MODE, mode: 0o10_4750, ..nothing(1) });
    assert_eq!(stat(&mut client, 1).await.mode, 0o104_750);
    ask!(client, Rsetattr, Tsetattr { valid: setattr::UID | setattr::GID, uid: 5, gid: 6, ..nothing(1) });
    let attr = stat(&mut client, 1).await;
    assert_eq!((attr.uid, attr.gid), (5, 6));
    ask!(client, Rsetattr, Tsetattr { valid: setattr::SIZE, size: 12, ..nothing(1) });
    assert_eq!(stat(&mut client, 1).await.size, 12);
    let mtime = Time { seconds: (-7_i64).cast_unsigned(), nanos: 999 };
    let set = Tsetattr { valid: setattr::MTIME | setattr::MTIME_SET, mtime: mtime.clone(), ..nothing(1) };
    ask!(client, Rsetattr, set);
    let attr = stat(&mut client, 1).await;
    assert_eq!(attr.mtime, mtime);
    ask!(client, Rsetattr, Tsetattr { valid: setattr::MTIME | setattr::ATIME, ..nothing(1) });
    let now = stat(&mut client, 1).await;
    assert!(now.mtime.seconds.cast_signed() > 1_600_000_000 && now.atime == now.mtime);
    ask!(client, Rsetattr, Tsetattr { valid: setattr::CTIME, ..nothing(1) });
}

#[tokio::test]
async fn what_makes_no_sense_is_not_set() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    assert_eq!(client.refused(Tsetattr { valid: setattr::SIZE, ..nothing(0) }).await, EISDIR);
    let mtime = Time { seconds: 0, nanos: 1_000_000_000 };
    let set = Tsetattr { valid: setattr::MTIME | setattr::MTIME_SET, mtime, ..nothing(1) };
    assert_eq!(client.refused(set).await, EINVAL);
    let mut other = setup.attached(1000).await;
    other.walk(0, 1, "file").await;
    assert_eq!(other.refused(Tsetattr { valid: setattr::MODE, mode: 0o777, ..nothing(1) }).await, EPERM);
}

#[tokio::test]
async fn the_space_of_the_network_is_told() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let space = ask!(client, Rstatfs, Tstatfs { fid: 0 });
    assert_eq!((space.kind, space.namelen), (0x0102_1997, 255));
    assert_ne!(space.fsid, 0, "the network has a number");
    assert!(space.blocks > 0 && space.bfree <= space.blocks && space.files >= space.ffree);
}

/// The internal directory is made when it is read; a client must not cache it.
#[tokio::test]
async fn the_internal_directory_is_readable_and_never_cached() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let found = client.walk(0, 1, ".dht").await;
    assert_eq!(found[0].version, 0);
    assert_eq!(stat(&mut client, 1).await.qid.version, 0);
    let mkdir =
        magma_gateway_9p::wire::names::Tmkdir { dfid: 1, name: crate::client::text("x"), mode: 0, gid: 0 };
    assert_eq!(client.refused(mkdir).await, crate::client::EROFS);
}
