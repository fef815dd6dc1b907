//! A volcano in a process of its own, and mounts of it.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod mapping;

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use magma_common::auth::Secret;
use magma_common::client::{ClientConfig, HostPort};
use magma_mount_fuse::options::MountOptions;
use magma_mount_fuse::{MountConfig, MountHandle, run_mount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A cluster key with the 128 bits that it should have.
pub(crate) const KEY: &str = "9f1c0a5be2d34478a6b0c1d2e3f40516";
const FOLDER_VARIABLE: &str = "MAGMA_TEST_VOLCANO_FOLDER";
const ADDRESS_VARIABLE: &str = "MAGMA_TEST_VOLCANO_ADDRESS";
/// Longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Becomes a volcano if the environment says so; called by the test `volcano_process`.
pub(crate) fn become_volcano() {
    let (Ok(folder), Ok(address)) = (std::env::var(FOLDER_VARIABLE), std::env::var(ADDRESS_VARIABLE)) else {
        return;
    };
    let mut arguments = vec!["magmad", "-n", "wallace", "-s", "localhost", "-i", &address, "-d", &folder];
    let founded = std::fs::read_dir(&folder).unwrap().next().is_some();
    if !founded {
        arguments.extend(["-k", KEY, "-b"]);
    }
    magma_volcano::start::run(&magma_volcano::cli::Cli::parse_from(arguments)).unwrap();
}

/// A network of one volcano, gone at the end of the test.
pub(crate) struct Network {
    folder: TempDir,
    address: Ipv4Addr,
    volcano: Option<Child>,
}

impl Network {
    pub(crate) fn start() -> Self {
        require_fuse();
        let mut network = Self { folder: TempDir::new().unwrap(), address: own_address(), volcano: None };
        network.restart();
        network
    }

    /// Starts the volcano that was killed.
    pub(crate) fn restart(&mut self) {
        assert!(self.volcano.is_none(), "the volcano runs already");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["volcano_process", "--exact", "--nocapture"])
            .env(FOLDER_VARIABLE, self.folder.path())
            .env(ADDRESS_VARIABLE, self.address.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("magmad ready"));
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        self.volcano = Some(child);
        assert!(ready, "the volcano did not start");
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.volcano.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The volcano stops answering, or goes on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let child = self.volcano.as_ref().unwrap();
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub(crate) fn host(&self) -> HostPort {
        HostPort { host: self.address.to_string(), port: 12_000 }
    }

    pub(crate) fn mount(&self) -> Mounted {
        self.mount_with("", MountOptions::default())
    }

    pub(crate) fn mount_with(&self, path: &str, options: MountOptions) -> Mounted {
        let folder = TempDir::new().unwrap();
        let client = ClientConfig {
            hosts: vec![self.host()],
            key: Secret::new(KEY),
            name: "test".to_owned(),
            patience: options.patience,
        };
        let mountpoint = folder.path().to_owned();
        let config = MountConfig { client, path: path.to_owned(), mountpoint, options };
        let handle = run_mount(&config).unwrap();
        Mounted { handle: Some(handle), folder }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(mut child) = self.volcano.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// A mount, gone at the end of the test.
pub(crate) struct Mounted {
    handle: Option<MountHandle>,
    folder: TempDir,
}

impl Mounted {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn unmount(mut self) {
        self.handle.take().unwrap().unmount().unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.handle.take());
    }
}

fn require_fuse() {
    assert!(
        Path::new("/dev/fuse").exists(),
        "this test needs /dev/fuse: load the kernel's module with `modprobe fuse`"
    );
    assert!(rustix::process::geteuid().is_root(), "this test mounts, so it needs root");
}

/// Loopback addresses of their own keep networks apart that run at the same time.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(
        127,
        64 + high % 128,
        low,
        u8::try_from(number).expect("too many networks in one test process"),
    )
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
