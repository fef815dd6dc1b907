//! Gateways and volcanos that stop and start again under a client.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use magma_gateway_nfs::{Config, start};
use magma_tests::network::{KEY, Network};
use nfs3_client::nfs3_types::nfs3::*;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::nfs::*;
use crate::support::{address, gateway};

const OPEN: &str = "/:no_root_squash,insecure";

#[tokio::test]
async fn handles_data_and_verifier_survive_a_restart_of_gateway_and_volcano() {
    let mut network = Network::start();
    let first = gateway(network.client_config(), &[OPEN]).await;
    let root = mount(address(&first), b"/").await;
    let mut nfs = as_root(address(&first)).await;
    let file = create(&mut nfs, &root, b"file").await;
    let written = write(&mut nfs, &file, 0, b"stable", stable_how::FILE_SYNC).await;
    drop(nfs);
    first.stop().await;
    network.stop();
    network.restart();

    let second = gateway(network.client_config(), &[OPEN]).await;
    let mut nfs = as_root(address(&second)).await;
    assert_eq!(mount(address(&second), b"/").await, root);
    assert_eq!(read(&mut nfs, &file, 0, 100).await, (b"stable".to_vec(), true));
    let again = write(&mut nfs, &file, 6, b"!", stable_how::UNSTABLE).await;
    assert_eq!(again.verf, written.verf, "nothing was lost, so clients need not send anything again");
}

#[tokio::test]
async fn calls_wait_for_a_volcano_that_was_killed_and_nothing_stable_is_missing() {
    let mut network = Network::start();
    let gateway = gateway(network.client_config(), &[OPEN]).await;
    let root = mount(address(&gateway), b"/").await;
    let mut nfs = as_root(address(&gateway)).await;
    let file = create(&mut nfs, &root, b"file").await;
    write(&mut nfs, &file, 0, b"stable", stable_how::FILE_SYNC).await;
    network.kill();

    let at = address(&gateway);
    let (dir, to_read) = (root.clone(), file.clone());
    let change = tokio::spawn(async move {
        let mut nfs = as_root(at).await;
        mkdir(&mut nfs, &dir, b"made while it was away", 0o755).await
    });
    let reading = tokio::spawn(async move {
        let mut nfs = as_root(at).await;
        read(&mut nfs, &to_read, 0, 100).await
    });
    tokio::task::yield_now().await;
    let network = tokio::task::spawn_blocking(move || {
        network.restart();
        network
    })
    .await
    .unwrap();
    let made = change.await.unwrap();
    assert_eq!(reading.await.unwrap(), (b"stable".to_vec(), true));
    assert_eq!(lookup(&mut nfs, &root, b"made while it was away").await.unwrap().object, made);
    drop(network);
}

#[test]
fn the_program_says_when_it_is_ready_and_stops_on_sigterm() {
    let network = Network::start();
    let mut program = Command::new(env!("CARGO_BIN_EXE_magma-nfs"))
        .args(["--host", &network.host().to_string(), "--listen", &format!("{}:2049", network.address())])
        .env("MAGMA_KEY", KEY)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, format!("magma-nfs ready: nfs on {}:2049; exports /\n", network.address()));
    kill_process(Pid::from_child(&program), Signal::TERM).unwrap();
    assert!(program.wait().unwrap().success());
}

#[test]
fn the_program_fails_with_the_reason() {
    let output = Command::new(env!("CARGO_BIN_EXE_magma-nfs"))
        .args(["--export", "docs", "--key-file", "/nonexistent"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the path must begin with /"));
    let output =
        Command::new(env!("CARGO_BIN_EXE_magma-nfs")).args(["--key-file", "/nonexistent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("magma-nfs: cannot read /nonexistent"));
}

#[tokio::test]
async fn a_gateway_without_a_volcano_says_why_it_does_not_start() {
    let mut network = Network::start();
    network.stop();
    let Err(error) = start(Config::new(network.client_config())).await else { panic!("it started") };
    assert!(error.to_string().contains("no volcano answer"), "{error}");
}

#[tokio::test]
async fn a_gateway_with_the_wrong_key_says_so() {
    let network = Network::start();
    let mut config = Config::new(network.client_config());
    config.client.key = magma_common::auth::Secret::new("00000000000000000000000000000000");
    let Err(error) = start(config).await else { panic!("it started") };
    assert!(error.to_string().contains("do not have the same key"), "{error}");
}
