//! A real volcano in this process, on a thread and a port of its own, that can be killed and started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, mpsc};
use std::thread::JoinHandle;

use magma_common::auth::{Keys, Secret};
use magma_common::client::{ClientConfig, HostPort};
use magma_common::topology::VolcanoId;
use magma_common::transport::forward::Forwarder;
use magma_common::transport::server::{Server, ServerConfig};
use magma_volcano::life::{self, Origin, Profile};
use magma_volcano::node::Node;
use magma_volcano::server::{Clock, Edge};
use magma_volcano::store::{OpenOptions, RealDisk};
use tempfile::TempDir;
use tokio::task::LocalSet;

const SECRET: &str = "a key for tests, long enough not to be weak";

/// Stretched once for all tests.
static KEYS: LazyLock<Keys> = LazyLock::new(|| Secret::new(SECRET).stretch().unwrap());

pub(crate) struct Volcano {
    folder: TempDir,
    address: SocketAddr,
    boots: u64,
    running: Option<(tokio::sync::oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Volcano {
    pub(crate) fn start() -> Self {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let mut volcano = Self { folder: TempDir::new().unwrap(), address, boots: 0, running: None };
        volcano.start_again();
        volcano
    }

    /// Starts it after a [`kill`](Self::kill), with what its folder holds.
    pub(crate) fn start_again(&mut self) {
        assert!(self.running.is_none());
        self.boots += 1;
        let (folder, boot, address) = (self.folder.path().to_owned(), self.boots, self.address);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let keys = KEYS.cluster().unwrap().clone();
                let forwarder = Forwarder::new(&keys, VolcanoId(1)).unwrap();
                let server =
                    Server::bind(ServerConfig { address, keys, volcano: 1, max_connections: 100 }).unwrap();
                let bound = server.local_address();
                let edge = Edge::new(open(&folder, boot, bound.port()), Clock, forwarder);
                let closer = server.closer();
                let time = tokio::task::spawn_local(Rc::clone(&edge).tell_time());
                let serving = tokio::task::spawn_local(server.serve(edge.handler()));
                ready.send(bound).unwrap();
                // Nobody who asks to stop means that the test is over.
                let _ = stopped.await;
                closer.close();
                serving.await.unwrap();
                time.abort();
            });
        });
        self.address = is_ready.recv().unwrap();
        self.running = Some((stop, thread));
    }

    /// Ends it without closing its store, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let (stop, thread) = self.running.take().unwrap();
        let _ = stop.send(());
        thread.join().unwrap();
    }

    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig {
            hosts: vec![HostPort { host: self.address.ip().to_string(), port: self.address.port() }],
            key: Secret::new(SECRET),
            name: "9P protocol test".to_owned(),
            patience: None,
        }
    }
}

impl Drop for Volcano {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}

fn open(folder: &Path, boot: u64, port: u16) -> Node {
    let profile = Profile {
        nickname: "wallace".to_owned(),
        servername: "wallace.test".to_owned(),
        address: Ipv4Addr::LOCALHOST.into(),
        port,
        bandwidth: 0,
        witness: false,
    };
    let mut sources = boot;
    let random = move || {
        sources += 1;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(boot * 1000 + sources);
        Box::new(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }) as Box<dyn FnMut() -> u64>
    };
    let origin = if boot == 1 { Origin::Found { slices: 1, stripes: None } } else { Origin::Resume };
    let options = OpenOptions { machine_boot: "test".to_owned(), ..OpenOptions::default() };
    life::begin(folder, Arc::new(RealDisk), options, origin, profile, random, Clock.now()).unwrap()
}
