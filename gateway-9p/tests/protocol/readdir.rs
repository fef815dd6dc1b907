use std::collections::{BTreeMap, BTreeSet};

use bytes::Buf;
use magma_gateway_9p::wire::codec::{Qid, Text, Wire};
use magma_gateway_9p::wire::io::Treaddir;
use magma_gateway_9p::wire::names::{Tmkdir, Tunlinkat};

use crate::client::{Client, EBADF, EINVAL, O_RDONLY, Setup, ask};

struct Entry {
    qid: Qid,
    offset: u64,
    kind: u8,
    name: String,
}

async fn page(client: &mut Client, fid: u32, offset: u64, count: u32) -> Vec<Entry> {
    let mut data = ask!(client, Rreaddir, Treaddir { fid, offset, count }).data.0;
    assert!(data.len() <= count as usize);
    let mut entries = Vec::new();
    while data.has_remaining() {
        let qid = Qid::take(&mut data).unwrap();
        let (offset, kind) = (u64::take(&mut data).unwrap(), u8::take(&mut data).unwrap());
        let name = Text::take(&mut data).unwrap();
        entries.push(Entry { qid, offset, kind, name: String::from_utf8(name.as_bytes().to_vec()).unwrap() });
    }
    entries
}

/// All names, and how often each came; `each` is called between the pages.
async fn list(client: &mut Client, fid: u32, count: u32) -> BTreeMap<String, usize> {
    let (mut names, mut offset) = (BTreeMap::new(), 0);
    loop {
        let entries = page(client, fid, offset, count).await;
        let Some(last) = entries.last() else { return names };
        offset = last.offset;
        for entry in entries {
            *names.entry(entry.name).or_insert(0) += 1;
        }
    }
}

fn name(number: usize) -> Text {
    Text::new(format!("entry-{number}"))
}

async fn make(client: &mut Client, number: usize) {
    ask!(client, Rmkdir, Tmkdir { dfid: 0, name: name(number), mode: 0o755, gid: 0 });
}

async fn opened(client: &mut Client) {
    client.walk(0, 1, "").await;
    client.open(1, O_RDONLY).await;
}

#[tokio::test]
async fn an_empty_directory_lists_itself_and_its_parent() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    let dir = client.mkdir(0, "dir", 0o755, 0).await;
    let root = client.attach(5, 0, "/").await;
    client.walk(0, 1, "dir").await;
    client.open(1, O_RDONLY).await;
    let entries = page(&mut client, 1, 0, 8192).await;
    let told: Vec<_> = entries.iter().map(|entry| (&entry.name[..], entry.qid.path, entry.kind)).collect();
    assert_eq!(told, [(".", dir.path, 4), ("..", root.path, 4)]);
    assert!(page(&mut client, 1, 2, 8192).await.is_empty());
}

#[tokio::test]
async fn every_entry_comes_once_however_small_the_pages() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    for number in 0..300 {
        make(&mut client, number).await;
    }
    opened(&mut client).await;
    for count in [60, 300, 4096, u32::MAX >> 8] {
        let names = list(&mut client, 1, count).await;
        assert_eq!(names.len(), 302, "pages of {count}");
        assert!(names.values().all(|&times| times == 1));
        assert!(!names.contains_key(".dht"));
    }
}

#[tokio::test]
async fn entries_that_stay_come_once_while_others_come_and_go() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    for number in 0..200 {
        make(&mut client, number).await;
    }
    opened(&mut client).await;
    let (mut seen, mut offset, mut round) = (Vec::new(), 0, 0);
    loop {
        let entries = page(&mut client, 1, offset, 500).await;
        let Some(last) = entries.last() else { break };
        offset = last.offset;
        seen.extend(entries.into_iter().map(|entry| entry.name));
        if round == 100 {
            continue;
        }
        // Odd ones go, from the front; new ones come.
        let unlink = Tunlinkat { dirfid: 0, name: name(2 * round + 1), flags: 0x200 };
        ask!(client, Runlinkat, unlink);
        make(&mut client, 1000 + round).await;
        round += 1;
    }
    let once: BTreeSet<_> = seen.iter().collect();
    assert_eq!(once.len(), seen.len(), "an entry came twice");
    for number in (0..200).step_by(2) {
        assert!(seen.contains(&format!("entry-{number}")), "entry-{number} is missing");
    }
}

#[tokio::test]
async fn only_open_directories_are_listed_and_no_room_is_an_error() {
    let setup = Setup::new().await;
    let mut client = setup.attached(0).await;
    assert_eq!(client.refused(Treaddir { fid: 0, offset: 0, count: 8192 }).await, EBADF);
    opened(&mut client).await;
    assert_eq!(client.refused(Treaddir { fid: 1, offset: 0, count: 20 }).await, EINVAL);
    client.create(0, 2, "file").await;
    assert_eq!(client.refused(Treaddir { fid: 2, offset: 0, count: 8192 }).await, 20, "ENOTDIR");
}
