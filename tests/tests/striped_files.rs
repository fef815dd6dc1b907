//! Striped files that several clients use at the same time, whether or not a volcano is killed meanwhile.

use std::time::Duration;

use bytes::Bytes;
use magma_common::attr::SetAttr;
use magma_common::client::{Client, Context};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::operation::{
    Commit, Create, CreateHow, Getattr, Read, Setattr, Unlink, Write, WriteAt,
};
use magma_common::proto::{Credentials, Durability};
use magma_tests::network::{self, Network};
use tokio::runtime::Runtime;

const UNIT: u64 = 64 << 10;
const SLICES: u32 = 8;

#[test]
fn volcano_process() {
    network::become_volcano();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn context() -> Context {
    let credentials = Credentials::ROOT.into();
    Context { credentials, durability: Durability::Replicated, deadline: None, call: None }
}

fn name(text: &str) -> Name {
    Name::new(text.to_owned()).unwrap()
}

async fn create(client: &Client, text: &str) -> Handle {
    let (how, set) = (CreateHow::Guarded, SetAttr::default());
    let op = Create { dir: Handle::root(), name: name(text), mode: 0o644, umask: 0, how, set, open: true };
    client.call(&context(), op).await.unwrap().attr.handle
}

async fn write(client: &Client, handle: Handle, at: WriteAt, data: Vec<u8>) -> u64 {
    let write = Write { handle, at, opened: true };
    client.write(&context(), write, data.into()).await.unwrap().offset
}

async fn truncate(client: &Client, handle: Handle, size: u64) {
    let set = SetAttr { size: Some(size), ..SetAttr::default() };
    client.call(&context(), Setattr { handle, set, guard: None, opened: true }).await.unwrap();
}

async fn contents(client: &Client, handle: Handle) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let read = Read { handle, offset: all.len() as u64, length: 1 << 20, opened: true };
        let (reply, data) = client.read(&context(), read).await.unwrap();
        all.extend_from_slice(&data);
        if reply.eof {
            return all;
        }
        assert!(!data.is_empty(), "a read goes forward");
    }
}

/// A byte of the file that says where it belongs, and is no zero.
fn byte_at(offset: u64) -> u8 {
    (offset % 251) as u8 | 1
}

fn bytes_at(offset: u64, length: u64) -> Vec<u8> {
    (offset..offset + length).map(byte_at).collect()
}

/// Appends of several clients; the volcano is killed while they go on.
#[test]
fn appends_of_several_clients_are_there_once_each() {
    const CLIENTS: u8 = 4;
    const RECORDS: u8 = 40;
    const LENGTH: usize = 9000;
    let (mut network, runtime) = (Network::striped(1, SLICES, "64K"), runtime());
    let first = runtime.block_on(network.client());
    let file = runtime.block_on(create(&first, "log"));
    let clients: Vec<Client> = (0..CLIENTS).map(|_| runtime.block_on(network.client())).collect();
    let working: Vec<_> = (0..)
        .zip(clients.clone())
        .map(|(number, client): (u8, Client)| {
            runtime.spawn(async move {
                for record in 0..RECORDS {
                    let tag = [number + 1, record];
                    let data = tag.iter().copied().cycle().take(LENGTH).collect();
                    write(&client, file, WriteAt::End, data).await;
                }
            })
        })
        .collect();
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(300));
        network.kill();
        network.restart();
    }
    for work in working {
        runtime.block_on(work).unwrap();
    }
    runtime.block_on(async {
        let all = contents(&first, file).await;
        assert_eq!(all.len(), usize::from(CLIENTS) * usize::from(RECORDS) * LENGTH);
        let mut tags: Vec<[u8; 2]> = Vec::new();
        for record in all.chunks(LENGTH) {
            let tag = [record[0], record[1]];
            assert!(record.iter().copied().eq(tag.iter().copied().cycle().take(LENGTH)), "a record is whole");
            tags.push(tag);
        }
        for number in 1..=CLIENTS {
            let of_one: Vec<u8> = tags.iter().filter(|tag| tag[0] == number).map(|tag| tag[1]).collect();
            assert_eq!(of_one, (0..RECORDS).collect::<Vec<_>>(), "in the order of their client");
        }
    });
}

/// What several clients have written to one file in parallel, and committed, is there after the volcano was killed.
#[test]
fn what_was_written_in_parallel_is_there_after_a_kill() {
    const CLIENTS: u64 = 4;
    const BLOCKS: u64 = 40;
    const LENGTH: u64 = 30_000;
    let (mut network, runtime) = (Network::striped(1, SLICES, "64K"), runtime());
    let first = runtime.block_on(network.client());
    let file = runtime.block_on(create(&first, "parallel"));
    let clients: Vec<Client> = (0..CLIENTS).map(|_| runtime.block_on(network.client())).collect();
    let working: Vec<_> = (0..)
        .zip(clients.clone())
        .map(|(number, client): (u64, Client)| {
            runtime.spawn(async move {
                for block in 0..BLOCKS {
                    let offset = (block * CLIENTS + number) * LENGTH;
                    write(&client, file, WriteAt::Offset(offset), bytes_at(offset, LENGTH)).await;
                }
                client.call(&context(), Commit { handle: file }).await.unwrap();
            })
        })
        .collect();
    for work in working {
        runtime.block_on(work).unwrap();
    }
    network.kill();
    network.restart();
    let all = runtime.block_on(contents(&first, file));
    assert!(all == bytes_at(0, CLIENTS * BLOCKS * LENGTH), "each byte is where it belongs");
}

/// Clients write while another one cuts the file and extends it. What is there afterwards was written there, or is a hole.
#[test]
fn no_byte_turns_up_where_it_was_not_written() {
    const ROUNDS: u64 = 120;
    let (network, runtime) = (Network::striped(1, SLICES, "64K"), runtime());
    let first = runtime.block_on(network.client());
    let file = runtime.block_on(create(&first, "cut"));
    let clients: Vec<Client> = (0..3).map(|_| runtime.block_on(network.client())).collect();
    let mut working: Vec<_> = (0..)
        .zip(clients.clone())
        .map(|(number, client): (u64, Client)| {
            runtime.spawn(async move {
                for round in 0..ROUNDS {
                    let offset = (round * 7919 + number * 104_729) * 3001 % (8 * UNIT);
                    let length = 1 + (round * 4099) % (2 * UNIT);
                    write(&client, file, WriteAt::Offset(offset), bytes_at(offset, length)).await;
                }
            })
        })
        .collect();
    let cutter = clients[0].clone();
    working.push(runtime.spawn(async move {
        for round in 0..ROUNDS / 2 {
            truncate(&cutter, file, round * 65_537 * 13 % (9 * UNIT)).await;
            truncate(&cutter, file, 9 * UNIT).await;
            let there = contents(&cutter, file).await;
            let is_wrong = |(at, byte): (u64, &u8)| *byte != 0 && *byte != byte_at(at);
            assert_eq!((0..).zip(&there).find(|found| is_wrong(*found)), None, "round {round}");
        }
    }));
    for work in working {
        runtime.block_on(work).unwrap();
    }
    runtime.block_on(async {
        truncate(&first, file, UNIT + 100).await;
        truncate(&first, file, 9 * UNIT).await;
        let there = contents(&first, file).await;
        assert!(
            there[(UNIT + 100) as usize..].iter().all(|byte| *byte == 0),
            "what was cut does not come back"
        );
        first.call(&context(), Unlink { dir: Handle::root(), name: name("cut") }).await.unwrap();
        first.release(file);
        let again = create(&first, "cut").await;
        write(&first, again, WriteAt::Offset(5 * UNIT), b"new".to_vec()).await;
        let there = contents(&first, again).await;
        assert!(there[..5 * UNIT as usize].iter().all(|byte| *byte == 0) && there.ends_with(b"new"));
        // In the end nothing is left of the first one.
        for attempt in 0.. {
            let gone = first.call(&context(), Getattr { handle: file }).await.map(drop);
            if gone.is_err_and(|failure| failure.error == FlareError::Stale) {
                break;
            }
            assert!(attempt < 100, "the file is gone");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// A write of nothing to a striped file failed, since nothing of it was left for any stripe.
#[test]
fn writes_at_the_borders_of_stripes_are_whole() {
    let (network, runtime) = (Network::striped(1, SLICES, "64K"), runtime());
    runtime.block_on(async {
        let client = network.client().await;
        let file = create(&client, "borders").await;
        for border in [4 * UNIT, 2 * UNIT, UNIT, 3 * UNIT] {
            for (before, after) in [(1, 0), (0, 1), (1, 1), (UNIT, UNIT), (0, 0)] {
                let (offset, length) = (border - before, before + after);
                write(&client, file, WriteAt::Offset(offset), bytes_at(offset, length)).await;
                let read = Read { handle: file, offset, length: length as u32, opened: true };
                let (reply, data) = client.read(&context(), read).await.unwrap();
                assert!(!reply.eof || offset + length == contents(&client, file).await.len() as u64);
                assert_eq!(data, Bytes::from(bytes_at(offset, length)));
            }
        }
        assert_eq!(contents(&client, file).await, bytes_at(0, 5 * UNIT));
    });
}

/// A gateway has written, and its caller has not heard of it; another client has written meanwhile, and then another gateway gets the call again.
#[test]
fn a_call_that_comes_again_is_not_done_again() {
    let (network, runtime) = (Network::striped(1, SLICES, "64K"), runtime());
    runtime.block_on(async {
        let (gateway, other) = (network.client().await, network.client().await);
        let file = create(&gateway, "called").await;
        let offset = 3 * UNIT - 10;
        for (call, length) in [(1, 1000), (2, 300_000), (3, UNIT)] {
            let at = WriteAt::Offset(offset);
            let context = Context { call: Some(call), ..context() };
            let op = Write { handle: file, at, opened: true };
            let first: Bytes = vec![call as u8; length as usize].into();
            gateway.write(&context, op.clone(), first.clone()).await.unwrap();
            write(&other, file, at, bytes_at(offset, length)).await;
            for client in [&other, &gateway] {
                let reply = client.write(&context, op.clone(), first.clone()).await.unwrap();
                assert_eq!(reply.offset, offset);
            }
            let there = contents(&other, file).await;
            let range = offset as usize..(offset + length) as usize;
            assert!(there[range] == bytes_at(offset, length), "call {call}");
        }
    });
}

#[test]
fn a_long_append_is_whole() {
    let (network, runtime) = (Network::striped(1, SLICES, "64K"), runtime());
    runtime.block_on(async {
        let client = network.client().await;
        let file = create(&client, "long").await;
        let mut end = 0;
        for length in [UNIT - 7, 1 << 20, 100, 5 * UNIT] {
            assert_eq!(write(&client, file, WriteAt::End, bytes_at(end, length)).await, end);
            end += length;
        }
        assert!(contents(&client, file).await == bytes_at(0, end));
    });
}
