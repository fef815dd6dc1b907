//! The program itself: what it prints, how it ends, the unix socket.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use magma_gateway_9p::listen::Address;
use magma_gateway_9p::wire::codec::Text;
use magma_gateway_9p::wire::session::{NOTAG, Tversion, VERSION};
use magma_gateway_9p::wire::{Reply, Request};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::client::{LONG, Setup};
use crate::volcano::Volcano;

fn program(volcano: &Volcano, key: &str) -> Command {
    let host = &volcano.client_config().hosts[0];
    let mut command = Command::new(env!("CARGO_BIN_EXE_magma-9p"));
    command.args(["--host", &host.to_string(), "--listen", "127.0.0.1:0", "--config", "/dev/null"]);
    command.env("MAGMA_KEY", key).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn it_says_when_it_is_ready_and_stops_in_order() {
    let volcano = Volcano::start();
    let mut child = program(&volcano, volcano.client_config().key.expose()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("magma-9p ready: 127.0.0.1:"), "{line}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn it_says_why_it_cannot_start() {
    let volcano = Volcano::start();
    let key = "another key, which is long enough too";
    for (listen, reason) in [
        ("127.0.0.1:0", "do not have the same key"),
        ("127.0.0.1:1x", "is no place to listen at"),
        ("unix:/no/such/folder/socket", "cannot listen at unix:/no/such/folder/socket"),
    ] {
        let output = program(&volcano, key).args(["--listen", listen]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(reason), "{told}");
    }
}

#[tokio::test]
async fn a_unix_socket_serves_as_tcp_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listen = path.clone();
    let setup = Setup::with(|config| config.listen.push(Address::Unix(listen))).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let version = Request::from(Tversion { msize: 8192, version: Text::new(VERSION) });
    stream.write_all(&version.encode(NOTAG)).await.unwrap();
    let mut reply = vec![0; 21];
    stream.read_exact(&mut reply).await.unwrap();
    let reply = Reply::decode(reply[4], reply.split_off(7).into()).unwrap();
    assert!(matches!(reply, Reply::Rversion(_)));
    setup.running.stop().await;
    let mut rest = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(!path.exists());
}
