use magma_gateway_9p::flags::{EXCLUSIVE, TRUNCATE};
use magma_gateway_9p::wire::attr::{Tgetattr, Time, Tsetattr, getattr, setattr};
use magma_gateway_9p::wire::fid::Tclunk;
use magma_gateway_9p::wire::io::{Tfsync, Tlopen, Tread};
use magma_gateway_9p::wire::names::Tunlinkat;

use crate::client::{
    EBADF, EEXIST, EISDIR, ENOENT, ENOTDIR, LONG, O_RDONLY, O_RDWR, O_WRONLY, Setup, ask, lcreate, text,
    walk, write,
};

fn truncate(fid: u32, size: u64) -> Tsetattr {
    let time = Time { seconds: 0, nanos: 0 };
    Tsetattr { fid, valid: setattr::SIZE, mode: 0, uid: 0, gid: 0, size, atime: time.clone(), mtime: time }
}

fn stat(fid: u32) -> Tgetattr {
    Tgetattr { fid, request_mask: getattr::ALL }
}

#[tokio::test]
async fn what_is_written_is_read_by_another_client() {
    let setup = Setup::new().await;
    let (mut one, mut two) = (setup.attached(0).await, setup.attached(0).await);
    one.create(0, 1, "file").await;
    one.write(1, 0, b"hello world").await;
    one.write(1, 6, b"there").await;
    two.walk(0, 1, "file").await;
    two.open(1, O_RDONLY).await;
    assert_eq!(two.read(1, 0, 100).await, b"hello there");
    assert_eq!(two.read(1, 6, 2).await, b"th");
    assert_eq!(two.read(1, 11, 100).await, b"");
}

#[tokio::test]
async fn large_transfers_fill_whole_messages() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    let chunk = (1 << 20) - 23;
    for (number, part) in data.chunks(chunk).enumerate() {
        client.write(1, (number * chunk) as u64, part).await;
    }
    let mut back = Vec::new();
    loop {
        let part = client.read(1, back.len() as u64, u32::MAX).await;
        if part.is_empty() {
            break;
        }
        back.extend(part);
    }
    assert!(back == data, "{} bytes came back of {}", back.len(), data.len());
}

#[tokio::test]
async fn a_read_is_cut_to_what_a_message_holds() {
    let setup = Setup::new().await;
    let mut client = setup.client_with_msize(4096).await;
    client.attach(0, 0, "/").await;
    client.create(0, 1, "file").await;
    client.write(1, 0, &[7; 4000]).await;
    client.write(1, 4000, &[7; 4000]).await;
    assert_eq!(client.read(1, 0, u32::MAX).await.len(), 4096 - 11);
}

/// What git, apt, iperf3 and every temporary file do.
#[tokio::test]
async fn an_open_file_outlives_its_name() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    client.write(1, 0, b"before").await;
    client.walk(0, 2, "file").await;
    ask!(client, Runlinkat, Tunlinkat { dirfid: 0, name: text("file"), flags: 0 });
    assert_eq!(client.refused(walk(0, 3, "file")).await, ENOENT);
    for fid in [1, 2] {
        let attr = ask!(client, Rgetattr, stat(fid));
        assert_eq!((attr.nlink, attr.size), (0, 6));
    }
    client.write(1, 6, b" and after").await;
    assert_eq!(client.read(1, 0, 100).await, b"before and after");
    ask!(client, Rsetattr, truncate(1, 3));
    ask!(client, Rfsync, Tfsync { fid: 1, datasync: None });
    assert_eq!(client.read(1, 0, 100).await, b"bef");
    client.clunk(1).await;
    // Opens are given back in batches, in the background; then the file is gone.
    let gone = async { while client.ask(stat(2)).await.name() != "Rlerror" {} };
    tokio::time::timeout(LONG, gone).await.unwrap();
    assert_eq!(client.refused(stat(2)).await, ENOENT);
}

#[tokio::test]
async fn two_files_of_one_name_live_side_by_side_while_open() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let first = client.create(0, 1, "file").await;
    ask!(client, Runlinkat, Tunlinkat { dirfid: 0, name: text("file"), flags: 0 });
    let second = client.create(0, 2, "file").await;
    assert_ne!(first.path, second.path);
    client.write(1, 0, b"first").await;
    client.write(2, 0, b"second").await;
    assert_eq!(client.read(1, 0, 100).await, b"first");
    assert_eq!(client.read(2, 0, 100).await, b"second");
}

#[tokio::test]
async fn opening_heeds_its_flags() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    client.write(1, 0, b"content").await;
    client.walk(0, 2, "file").await;
    client.walk(0, 3, "file").await;
    assert_eq!(client.refused(Tlopen { fid: 2, flags: 0o200_000 }).await, ENOTDIR);
    client.open(2, O_RDONLY).await;
    assert_eq!(client.refused(Tlopen { fid: 2, flags: O_RDONLY }).await, EBADF, "it is open");
    assert_eq!(client.refused(write(2, 0, b"x")).await, EBADF);
    client.open(3, O_WRONLY | TRUNCATE).await;
    assert_eq!(client.refused(Tread { fid: 3, offset: 0, count: 1 }).await, EBADF);
    assert_eq!(client.read(2, 0, 100).await, b"");
    client.walk(0, 4, "").await;
    assert_eq!(client.refused(Tread { fid: 4, offset: 0, count: 1 }).await, EBADF, "it is not open");
    assert_eq!(client.refused(Tlopen { fid: 4, flags: O_RDWR }).await, EISDIR);
    client.open(4, O_RDONLY).await;
    assert_eq!(client.refused(Tread { fid: 4, offset: 0, count: 1 }).await, EISDIR);
}

#[tokio::test]
async fn creating_opens_what_exists_unless_it_must_be_new() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let made = client.create(0, 1, "file").await;
    client.write(1, 0, b"content").await;
    client.walk(0, 2, "").await;
    assert_eq!(client.refused(lcreate(2, "file", O_RDWR | EXCLUSIVE)).await, EEXIST);
    let found = ask!(client, Rlcreate, lcreate(2, "file", O_RDWR));
    assert_eq!(found.qid.path, made.path);
    assert_eq!(client.read(2, 0, 100).await, b"content");
    client.mkdir(0, "dir", 0o755, 0).await;
    client.walk(0, 3, "").await;
    assert_eq!(client.refused(lcreate(3, "dir", O_RDWR)).await, EISDIR);
    // A create that failed leaves the fid what it was.
    assert_eq!(client.walk(3, 4, "file").await[0].path, made.path);
}

#[tokio::test]
async fn a_file_can_be_written_by_who_made_it_whatever_its_mode_says() {
    let setup = Setup::new().await;
    let mut root = setup.attached(0).await;
    root.mkdir(0, "dir", 0o777, 0).await;
    let mut client = setup.attached(1000).await;
    client.walk(0, 1, "dir").await;
    let create =
        magma_gateway_9p::wire::io::Tlcreate { mode: 0o400, gid: 1000, ..lcreate(1, "file", O_RDWR) };
    ask!(client, Rlcreate, create);
    client.write(1, 0, b"content").await;
    ask!(client, Rsetattr, truncate(1, 2));
    assert_eq!(client.read(1, 0, 100).await, b"co");
    let attr = ask!(client, Rgetattr, stat(1));
    assert_eq!((attr.uid, attr.gid, attr.mode), (1000, 1000, 0o100_400));
}

#[tokio::test]
async fn the_version_of_a_qid_changes_with_each_write() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let made = client.create(0, 1, "file").await;
    client.write(1, 0, b"x").await;
    let first = ask!(client, Rgetattr, stat(1));
    client.write(1, 0, b"y").await;
    let second = ask!(client, Rgetattr, stat(1));
    assert!(made.version != 0 && first.qid.version > made.version && second.qid.version > first.qid.version);
    assert_eq!((first.qid.path, first.generation), (second.qid.path, second.generation));
    assert!(second.data_version > first.data_version);
}

#[tokio::test]
async fn fsync_takes_files_and_directories_with_and_without_datasync() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    client.write(1, 0, b"x").await;
    ask!(client, Rfsync, Tfsync { fid: 1, datasync: Some(1) });
    ask!(client, Rfsync, Tfsync { fid: 1, datasync: None });
    ask!(client, Rfsync, Tfsync { fid: 0, datasync: Some(0) });
    assert_eq!(client.refused(Tfsync { fid: 9, datasync: None }).await, EBADF);
}

#[tokio::test]
async fn a_sparse_file_of_terabytes_reads_as_zeros() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 1, "file").await;
    client.write(1, 5 << 40, b"end").await;
    let attr = ask!(client, Rgetattr, stat(1));
    assert_eq!(attr.size, (5 << 40) + 3);
    assert!(attr.blocks * 512 < 1 << 20);
    assert_eq!(client.read(1, 1 << 40, 100).await, [0; 100]);
    assert_eq!(client.refused(write(1, u64::MAX - 1, b"xy")).await, 27, "EFBIG");
}

#[tokio::test]
async fn clunking_a_fid_twice_is_an_error() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.walk(0, 1, "").await;
    client.clunk(1).await;
    assert_eq!(client.refused(Tclunk { fid: 1 }).await, EBADF);
}
