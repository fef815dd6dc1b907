//! The program `mount.magma`: in the background, in the foreground, and when it fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so"
)]

mod support;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{KEY, Network, eventually};
use tempfile::TempDir;

#[test]
fn volcano_process() {
    support::become_volcano();
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mount-magma"))
}

/// Type and source of the mount there.
fn mounted(mountpoint: &Path) -> Option<(String, String)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (source, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (Path::new(place) == mountpoint).then(|| (kind.to_owned(), source.to_owned()))
    })
}

#[test]
fn in_the_background_it_returns_when_the_mount_can_be_used() {
    let network = Network::start();
    let folder = TempDir::new().unwrap();
    let key_file = folder.path().join("key");
    fs::write(&key_file, KEY).unwrap();
    let mountpoint = folder.path().join("mnt");
    fs::create_dir(&mountpoint).unwrap();
    // As mount(8) calls it.
    let source = format!("{}:/", network.host());
    let options = format!("rw,keyfile={},_netdev,actimeo=0.5", key_file.display());
    let output = program().arg(&source).arg(&mountpoint).arg("-o").arg(options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(mounted(&mountpoint), Some(("fuse.magma".to_owned(), source)));
    fs::write(mountpoint.join("file"), "x").unwrap();
    assert_eq!(fs::read_to_string(mountpoint.join("file")).unwrap(), "x");
    assert!(Command::new("umount").arg(&mountpoint).status().unwrap().success());
    assert_eq!(mounted(&mountpoint), None);
}

/// The program, mounting in the foreground until it is told to end.
fn foreground(network: &Network, folder: &TempDir) -> Child {
    let mut child = program()
        .arg(format!("--host={}", network.host()))
        .args(["--key", KEY, "-f"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("mounted on "), "{line}");
    child
}

fn end(mut child: Child, folder: &TempDir) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    eventually("it is unmounted", || mounted(folder.path()).is_none());
}

#[test]
fn in_the_foreground_it_unmounts_when_it_is_told_to_end() {
    let network = Network::start();
    let folder = TempDir::new().unwrap();
    let child = foreground(&network, &folder);
    fs::write(folder.path().join("file"), "x").unwrap();
    // A file that is open does not keep it from ending.
    let open = fs::File::open(folder.path().join("file")).unwrap();
    end(child, &folder);
    drop(open);
}

/// The mounts are processes of their own: a page fault on a mapping holds the process's memory map, and whoever answers it must
/// not need the same one.
#[test]
fn shared_mappings_reach_the_volcano() {
    let network = Network::start();
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mounts = [foreground(&network, &folder), foreground(&network, &other)];
    let (here, there) = (folder.path().join("mapped"), other.path().join("mapped"));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&here).unwrap();
    file.set_len(1 << 20).unwrap();
    let mut map = support::mapping::Mapping::shared(&file, 1 << 20);
    let data: Vec<u8> = (0..1u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    map.bytes().copy_from_slice(&data);
    map.sync();
    assert!(fs::read(&there).unwrap() == data);
    map.bytes()[5] = !data[5];
    drop(map);
    drop(file);
    eventually("the last change is written back", || fs::read(&there).unwrap()[5] == !data[5]);
    for (mount, folder) in mounts.into_iter().zip([&folder, &other]) {
        end(mount, folder);
    }
}

#[test]
fn a_wrong_key_and_a_missing_volcano_are_told_with_a_status() {
    let network = Network::start();
    let folder = TempDir::new().unwrap();
    let run = |host: &str, key: &str| {
        let output =
            program().arg(format!("--host={host}")).args(["--key", key]).arg(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(32));
        assert_eq!(mounted(folder.path()), None);
        String::from_utf8(output.stderr).unwrap()
    };
    let told = run(&network.host().to_string(), "00112233445566778899aabbccddeeff");
    assert!(told.contains("same key"), "{told}");
    let told = run("127.255.255.253:11999", KEY);
    assert!(told.contains("no volcano answers"), "{told}");
}

#[test]
fn an_unknown_option_is_refused_with_a_sentence() {
    let folder = TempDir::new().unwrap();
    let output = program().args(["--key", KEY, "-o", "rszie=4"]).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(32));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("there is no mount option `rszie=4`"), "{told}");
}
