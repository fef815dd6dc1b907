//! A network of one volcano in a process of its own, which a test can kill and start again.
//!
//! The process is the test's own program, run again for one "test" that becomes a volcano. A test file that uses a
//! [`Network`] therefore contains
//!
//! ```ignore
//! #[test]
//! fn volcano_process() {
//!     magma_tests::network::become_volcano();
//! }
//! ```

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use magma_common::auth::Secret;
use magma_common::client::{Client, ClientConfig, HostPort};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A cluster key with the 128 bits that it should have.
pub const KEY: &str = "9f1c0a5be2d34478a6b0c1d2e3f40516";
const FOLDER_VARIABLE: &str = "MAGMA_TEST_VOLCANO_FOLDER";
const ADDRESS_VARIABLE: &str = "MAGMA_TEST_VOLCANO_ADDRESS";
/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Becomes a volcano if the environment says so; called by the test `volcano_process`.
pub fn become_volcano() {
    let (Ok(folder), Ok(address)) = (std::env::var(FOLDER_VARIABLE), std::env::var(ADDRESS_VARIABLE)) else {
        return;
    };
    let mut arguments = vec!["magmad", "-n", "wallace", "-s", "localhost", "-i", &address, "-d", &folder];
    if std::fs::read_dir(&folder).unwrap().next().is_none() {
        arguments.extend(["-k", KEY, "-b"]);
    }
    magma_volcano::start::run(&magma_volcano::cli::Cli::parse_from(arguments)).unwrap();
}

/// A network of one volcano, gone at the end of the test.
pub struct Network {
    folder: TempDir,
    address: Ipv4Addr,
    volcano: Option<Child>,
}

impl Network {
    /// Founds it in a temporary folder, on a loopback address of its own.
    pub fn start() -> Self {
        let mut network = Self { folder: TempDir::new().unwrap(), address: own_address(), volcano: None };
        network.restart();
        network
    }

    /// Starts the volcano that was killed.
    pub fn restart(&mut self) {
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

    /// Ends the volcano's process without warning.
    pub fn kill(&mut self) {
        let mut child = self.volcano.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends the volcano as an administrator would, and waits for it.
    pub fn stop(&mut self) {
        let mut child = self.volcano.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "the volcano did not stop in order");
    }

    /// The volcano stops answering, or goes on.
    pub fn freeze(&self, frozen: bool) {
        let child = self.volcano.as_ref().unwrap();
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Where the volcano serves.
    pub fn host(&self) -> HostPort {
        HostPort { host: self.address.to_string(), port: 12_000 }
    }

    /// The loopback address that is this network's own; gateways may use it too.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What a client of this network is configured with: it waits for ever.
    pub fn client_config(&self) -> ClientConfig {
        ClientConfig {
            hosts: vec![self.host()],
            key: Secret::new(KEY),
            name: "test".to_owned(),
            patience: None,
        }
    }

    /// A connected client. Call it in the runtime that its tasks are to stay in.
    pub async fn client(&self) -> Client {
        Client::connect(self.client_config()).await.unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.volcano.is_some() {
            self.kill();
        }
    }
}

/// Loopback addresses of their own keep networks apart that run at the same time.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < u8::MAX, "too many networks in one test process");
    Ipv4Addr::new(127, 64 + high % 128, low, number)
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
