//! A network of volcanos in processes of their own, which a test can kill and start again.
//!
//! Such a process is the test's own program, run again for one "test" that becomes a volcano. A test file that uses a
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
use magma_common::client::{Client, ClientConfig, Context, HostPort};
use magma_common::handle::Handle;
use magma_common::proto::operation::Getattr;
use magma_common::proto::{Credentials, Durability};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A cluster key with the 128 bits that it should have.
pub const KEY: &str = "9f1c0a5be2d34478a6b0c1d2e3f40516";
const FOLDER_VARIABLE: &str = "MAGMA_TEST_VOLCANO_FOLDER";
const ADDRESS_VARIABLE: &str = "MAGMA_TEST_VOLCANO_ADDRESS";
const NAME_VARIABLE: &str = "MAGMA_TEST_VOLCANO_NAME";
const SLICES_VARIABLE: &str = "MAGMA_TEST_VOLCANO_SLICES";
const STRIPES_VARIABLE: &str = "MAGMA_TEST_VOLCANO_STRIPES";
const CONTACT_VARIABLE: &str = "MAGMA_TEST_VOLCANO_CONTACT";
/// The volcanos' names, in the order in which they join.
const NAMES: [&str; 5] = ["wallace", "gromit", "shaun", "preston", "feathers"];
/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Becomes a volcano if the environment says so; called by the test `volcano_process`.
pub fn become_volcano() {
    let (Ok(folder), Ok(address)) = (std::env::var(FOLDER_VARIABLE), std::env::var(ADDRESS_VARIABLE)) else {
        return;
    };
    let name = std::env::var(NAME_VARIABLE).unwrap();
    let contact = std::env::var(CONTACT_VARIABLE);
    let slices = std::env::var(SLICES_VARIABLE).unwrap();
    let stripes = std::env::var(STRIPES_VARIABLE);
    let mut arguments = vec!["magmad", "-n", &name, "-s", "localhost", "-i", &address, "-d", &folder];
    if std::fs::read_dir(&folder).unwrap().next().is_none() {
        arguments.extend(["-k", KEY]);
        if let Ok(contact) = &contact {
            arguments.extend(["-r", contact]);
        } else {
            arguments.extend(["-b", "--slices", &slices]);
            if let Ok(unit) = &stripes {
                arguments.extend(["--stripes", unit]);
            }
        }
    }
    magma_volcano::start::run(&magma_volcano::cli::Cli::parse_from(arguments)).unwrap();
}

/// One volcano, whether or not it runs.
struct Volcano {
    folder: TempDir,
    address: Ipv4Addr,
    process: Option<Child>,
}

/// A network of one volcano or several, gone at the end of the test.
pub struct Network {
    volcanos: Vec<Volcano>,
    slices: u32,
    stripes: Option<&'static str>,
}

impl Network {
    /// Founds a network of one volcano in a temporary folder, on a loopback address of its own.
    pub fn start() -> Self {
        Self::ring(1)
    }

    /// The same, with a keyspace that is cut into so many slices.
    pub fn sliced(volcanos: usize, slices: u32) -> Self {
        Self::founded(volcanos, slices, None)
    }

    /// The same, with files that are striped by this unit.
    pub fn striped(volcanos: usize, slices: u32, unit: &'static str) -> Self {
        Self::founded(volcanos, slices, Some(unit))
    }

    fn founded(volcanos: usize, slices: u32, stripes: Option<&'static str>) -> Self {
        let volcano = |_| Volcano { folder: TempDir::new().unwrap(), address: own_address(), process: None };
        let mut network = Self { volcanos: (0..volcanos).map(volcano).collect(), slices, stripes };
        (0..volcanos).for_each(|number| network.restart_one(number));
        network
    }

    /// The same with so many volcanos. Their copies may still be on the way.
    pub fn ring(volcanos: usize) -> Self {
        Self::sliced(volcanos, 1)
    }

    /// Starts the first volcano again, which was killed.
    pub fn restart(&mut self) {
        self.restart_one(0);
    }

    /// Starts a volcano that does not run.
    pub fn restart_one(&mut self, number: usize) {
        let first = self.volcanos[0].address.to_string();
        let volcano = &mut self.volcanos[number];
        assert!(volcano.process.is_none(), "the volcano runs already");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["volcano_process", "--exact", "--nocapture"])
            .env(FOLDER_VARIABLE, volcano.folder.path())
            .env(ADDRESS_VARIABLE, volcano.address.to_string())
            .env(NAME_VARIABLE, NAMES[number])
            .env(SLICES_VARIABLE, self.slices.to_string())
            .env_remove(STRIPES_VARIABLE)
            .env_remove(CONTACT_VARIABLE);
        if let Some(unit) = self.stripes {
            command.env(STRIPES_VARIABLE, unit);
        }
        if number > 0 {
            command.env(CONTACT_VARIABLE, first);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("magmad ready"));
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        volcano.process = Some(child);
        assert!(ready, "the volcano did not start");
    }

    /// Ends the first volcano's process without warning.
    pub fn kill(&mut self) {
        self.kill_one(0);
    }

    /// Ends a volcano's process without warning.
    pub fn kill_one(&mut self, number: usize) {
        let mut child = self.volcanos[number].process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends the first volcano as an administrator would, and waits for it.
    pub fn stop(&mut self) {
        let mut child = self.volcanos[0].process.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "the volcano did not stop in order");
    }

    /// The first volcano stops answering, or goes on.
    pub fn freeze(&self, frozen: bool) {
        let child = self.volcanos[0].process.as_ref().unwrap();
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// The number of the volcano that serves the first slice, as this client knows it; `None` unless all copies are in sync
    /// and, in a network of three or more, enough volcanos vote for one of them to be lost.
    fn primary_of_a_whole_ring(&self, client: &Client) -> Option<usize> {
        let topology = client.topology();
        let slice = topology.slices.first()?;
        let wanted = self.volcanos.len().min(usize::from(topology.copies));
        let can_lose_one = self.volcanos.len() < 3 || topology.voters.len() >= 3;
        if slice.mirrors.len() + 1 != wanted || !slice.joining.is_empty() || !can_lose_one {
            return None;
        }
        let address = topology.member(slice.primary.volcano)?.address;
        self.volcanos.iter().position(|volcano| volcano.address == address)
    }

    /// Waits until all copies are in sync and one volcano can be lost; gives the one that serves.
    pub fn when_whole(&self, runtime: &Runtime, client: &Client) -> usize {
        let context = Context {
            credentials: Credentials::ROOT.into(),
            durability: Durability::Replicated,
            deadline: None,
            call: None,
        };
        let mut primary = None;
        eventually("all copies are in sync", || {
            // Answers tell of newer topologies.
            runtime.block_on(client.call(&context, Getattr { handle: Handle::root() })).unwrap();
            primary = self.primary_of_a_whole_ring(client);
            primary.is_some()
        });
        primary.unwrap()
    }

    /// Where the first volcano serves.
    pub fn host(&self) -> HostPort {
        HostPort { host: self.address().to_string(), port: 12_000 }
    }

    /// The loopback address that is this network's own; gateways may use it too.
    pub fn address(&self) -> Ipv4Addr {
        self.volcanos[0].address
    }

    /// What a client of this network is configured with: it knows all volcanos and waits for ever.
    pub fn client_config(&self) -> ClientConfig {
        let host = |volcano: &Volcano| HostPort { host: volcano.address.to_string(), port: 12_000 };
        ClientConfig {
            hosts: self.volcanos.iter().map(host).collect(),
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
        for number in 0..self.volcanos.len() {
            if self.volcanos[number].process.is_some() {
                self.kill_one(number);
            }
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
