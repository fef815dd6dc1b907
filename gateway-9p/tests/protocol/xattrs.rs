use magma_gateway_9p::wire::attr::{Txattrcreate, Txattrwalk};
use magma_gateway_9p::wire::fid::Tclunk;

use crate::client::{Client, EBADF, EEXIST, EINVAL, ENODATA, Setup, ask, text, write};

fn xattrcreate(fid: u32, name: &'static str, attr_size: u64, flags: u32) -> Txattrcreate {
    Txattrcreate { fid, name: text(name), attr_size, flags }
}

/// Sets an attribute of fid 1 through fid 8, and tells what clunking says.
async fn set(client: &mut Client, name: &'static str, value: &[u8], flags: u32) -> Option<u32> {
    client.walk(1, 8, "").await;
    ask!(client, Rxattrcreate, xattrcreate(8, name, value.len() as u64, flags));
    for (number, part) in value.chunks(3).enumerate() {
        client.write(8, number as u64 * 3, part).await;
    }
    match client.ask(Tclunk { fid: 8 }).await {
        magma_gateway_9p::wire::Reply::Rlerror(error) => Some(error.ecode),
        _ => None,
    }
}

/// An attribute of fid 1, or the list of their names, through fid 9.
async fn get(client: &mut Client, name: &'static str) -> Vec<u8> {
    let size = ask!(client, Rxattrwalk, Txattrwalk { fid: 1, newfid: 9, name: text(name) }).size;
    let value = client.read(9, 0, 100_000).await;
    assert_eq!(value.len() as u64, size);
    client.clunk(9).await;
    value
}

async fn setup_with_file() -> (Setup, Client) {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    client.create(0, 2, "file").await;
    client.walk(0, 1, "file").await;
    (setup, client)
}

#[tokio::test]
async fn attributes_are_set_read_listed_and_removed() {
    let (_setup, mut client) = setup_with_file().await;
    assert_eq!(set(&mut client, "user.one", b"value of one", 0).await, None);
    assert_eq!(set(&mut client, "user.two", b"", 0).await, None);
    assert_eq!(get(&mut client, "user.one").await, b"value of one");
    assert_eq!(get(&mut client, "user.two").await, b"");
    assert_eq!(get(&mut client, "").await, b"user.one\0user.two\0");
    assert_eq!(set(&mut client, "user.one", b"", 2).await, None, "replacing by nothing removes");
    assert_eq!(client.refused(Txattrwalk { fid: 1, newfid: 9, name: text("user.one") }).await, ENODATA);
    assert_eq!(get(&mut client, "").await, b"user.two\0");
}

#[tokio::test]
async fn what_is_wrong_with_a_value_is_told_when_its_fid_ends() {
    let (_setup, mut client) = setup_with_file().await;
    assert_eq!(set(&mut client, "user.one", b"1", 1).await, None);
    assert_eq!(set(&mut client, "user.one", b"2", 1).await, Some(EEXIST));
    assert_eq!(set(&mut client, "user.new", b"2", 2).await, Some(ENODATA));
    assert_eq!(client.refused(Tclunk { fid: 8 }).await, EBADF, "the fid ended all the same");
    client.walk(1, 8, "").await;
    ask!(client, Rxattrcreate, xattrcreate(8, "user.half", 10, 0));
    client.write(8, 0, b"half").await;
    assert_eq!(client.refused(Tclunk { fid: 8 }).await, EINVAL, "the value did not come whole");
    assert_eq!(get(&mut client, "").await, b"user.one\0");
}

#[tokio::test]
async fn a_value_that_cannot_be_is_refused_at_once() {
    let (_setup, mut client) = setup_with_file().await;
    client.walk(1, 8, "").await;
    assert_eq!(client.refused(xattrcreate(8, "user.x", u64::MAX, 0)).await, 7, "E2BIG");
    assert_eq!(client.refused(xattrcreate(8, "user.x", 1, 7)).await, EINVAL);
    assert_eq!(client.refused(xattrcreate(2, "user.x", 1, 0)).await, EBADF, "the fid is open");
    ask!(client, Rxattrcreate, xattrcreate(8, "user.x", 2, 0));
    assert_eq!(client.refused(write(8, 1, b"x")).await, EINVAL);
    assert_eq!(client.refused(write(8, 0, b"xyz")).await, 28, "ENOSPC");
}

#[tokio::test]
async fn values_held_by_fids_are_limited() {
    let setup = Setup::with(|config| config.limits.xattr_bytes = 10).await;
    let mut client = setup.attached(0).await;
    client.create(0, 2, "file").await;
    client.walk(0, 1, "file").await;
    client.walk(1, 8, "").await;
    assert_eq!(client.refused(xattrcreate(8, "user.x", 11, 0)).await, 12, "ENOMEM");
    assert_eq!(set_after(&mut client).await, None);
}

async fn set_after(client: &mut Client) -> Option<u32> {
    client.clunk(8).await;
    set(client, "user.x", b"0123456789", 0).await
}
