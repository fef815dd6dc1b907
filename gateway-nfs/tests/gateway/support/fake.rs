//! A volcano that does what the test wants: counts what it executes, keeps answers back, or refuses for a while.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use magma_common::attr::{Attr, Kind, Wcc};
use magma_common::auth::{Keys, Role, Secret};
use magma_common::client::{ClientConfig, HostPort};
use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::{Key, KeyRange};
use magma_common::proto::frame::Tag;
use magma_common::proto::operation::{
    CommitReply, EntryReply, KeepAliveReply, MadeReply, ReadReply, RemovedReply, SessionReply, WriteReply,
};
use magma_common::proto::{Credentials, Failure, OpId, Reply, Request, SessionId};
use magma_common::time::Timestamp;
use magma_common::topology::{BootId, Epoch, Member, Replica, Slice, SliceId, Topology, VolcanoId};
use magma_common::transport::server::{
    Closer, DEFAULT_MAX_CONNECTIONS, Handler, IncomingRequest, PeerId, ReplyTo, Server, ServerConfig,
};

const KEY: &str = "correct horse battery staple";

fn keys() -> Keys {
    static KEYS: LazyLock<Keys> = LazyLock::new(|| Secret::new(KEY).stretch().unwrap());
    KEYS.clone()
}

/// What the test looks at and changes.
#[derive(Default)]
pub(crate) struct World {
    sessions: HashSet<SessionId>,
    ledger: HashMap<OpId, Reply>,
    /// Changes executed, by their names in the protocol; a repetition is not executed.
    pub(crate) executed: Vec<&'static str>,
    /// On whose behalf each request was.
    pub(crate) callers: Vec<Credentials>,
    /// Answers to changes and reads are kept back while this is so.
    pub(crate) hold: bool,
    /// How many are kept back.
    pub(crate) held: usize,
    /// So many changes more are executed and answered "unavailable".
    pub(crate) lose_answers: usize,
    /// Requests that concern a flare.
    pub(crate) requests: usize,
}

pub(crate) struct FakeVolcano {
    pub(crate) address: SocketAddr,
    world: Arc<Mutex<World>>,
    closer: Closer,
    thread: Option<JoinHandle<()>>,
}

impl FakeVolcano {
    pub(crate) fn start() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let shared = Arc::clone(&world);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let server = Server::bind(ServerConfig {
                    address: (Ipv4Addr::LOCALHOST, 0).into(),
                    keys: keys().cluster().unwrap().clone(),
                    volcano: 1,
                    max_connections: DEFAULT_MAX_CONNECTIONS,
                })
                .unwrap();
                let address = server.local_address();
                sender.send((address, server.closer())).unwrap();
                let fake = Rc::new(Fake { address, world: shared, held: RefCell::default() });
                let releaser = tokio::task::spawn_local(Rc::clone(&fake).release_held());
                server.serve(fake).await;
                releaser.abort();
            });
        });
        let (address, closer) = receiver.recv().unwrap();
        Self { address, world, closer, thread: Some(thread) }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig {
            hosts: vec![HostPort { host: self.address.ip().to_string(), port: self.address.port() }],
            key: Secret::new(KEY),
            name: "test".into(),
            patience: None,
        }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }

    /// Waits until the world is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&World) -> bool) {
        super::until(|| wanted(&self.world.lock().unwrap())).await;
    }
}

impl Drop for FakeVolcano {
    fn drop(&mut self) {
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn attr(handle: Handle) -> Attr {
    let time = Timestamp::new(1, 0).unwrap();
    let kind = if handle == Handle::root() { Kind::Directory } else { Kind::File };
    Attr {
        handle,
        kind,
        mode: 0o777,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 1 << 30,
        used: 1 << 30,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        change: 1,
    }
}

fn named(name: &[u8]) -> Handle {
    Handle { key: Key::from_bytes([name[0]; 20]), birth: BirthNumber(9) }
}

type Outcome = Result<(Reply, Bytes), Failure>;

struct Fake {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    held: RefCell<Vec<(ReplyTo, Outcome)>>,
}

impl Fake {
    async fn release_held(self: Rc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let mut world = self.world.lock().unwrap();
            if !world.hold {
                world.held = 0;
                for (reply, outcome) in self.held.take() {
                    reply.send(outcome, 1);
                }
            }
        }
    }

    fn topology(&self) -> Topology {
        let member = Member {
            id: VolcanoId(1),
            boot: BootId(1),
            nickname: "fake".into(),
            servername: "localhost".into(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: self.address.port(),
            bandwidth: 0,
            witness: false,
            leaving: false,
        };
        let slice = Slice {
            id: SliceId(1),
            range: KeyRange::ALL,
            epoch: Epoch(1),
            reign: Epoch(1),
            owner: VolcanoId(1),
            assigned: Epoch(1),
            primary: Replica { volcano: VolcanoId(1), boot: BootId(1) },
            mirrors: Vec::new(),
            joining: Vec::new(),
            recalling: false,
            dividing: None,
        };
        Topology {
            version: 1,
            network: 7,
            lineage: 1,
            loss_counter: 0,
            departed: Vec::new(),
            members: vec![member],
            slices: vec![slice],
            ancestors: Vec::new(),
            handle_key: [3; 32],
            copies: 1,
            voters: Vec::new(),
            balancer: false,
            stripes: None,
        }
    }

    fn session(&self, world: &mut World, request: &IncomingRequest) -> Option<Reply> {
        Some(match &request.request {
            Request::OpenSession(_) => {
                let session = SessionId(world.sessions.len() as u64 + 1);
                world.sessions.insert(session);
                let topology = self.topology();
                Reply::OpenSession(SessionReply { session, lease_ms: 60_000, door: VolcanoId(1), topology })
            }
            Request::KeepAlive(_) => {
                Reply::KeepAlive(KeepAliveReply { door: VolcanoId(1), topology_version: 1 })
            }
            Request::EndSession(_) => Reply::EndSession(()),
            Request::ReclaimOpens(_) => Reply::ReclaimOpens(()),
            Request::FetchTopology(_) => Reply::FetchTopology(self.topology()),
            _ => return None,
        })
    }

    fn flare(world: &mut World, request: &IncomingRequest) -> Outcome {
        world.requests += 1;
        world.callers.push(request.header.credentials.clone());
        let id = request.header.op_id();
        if let Some(done) = id.and_then(|id| world.ledger.get(&id)) {
            return Ok((done.clone(), Bytes::new()));
        }
        let mut payload = Bytes::new();
        let reply = match &request.request {
            Request::Getattr(op) => Reply::Getattr(attr(op.handle)),
            Request::Lookup(op) => {
                Reply::Lookup(EntryReply { attr: attr(named(op.name.as_bytes())), dir: attr(op.dir) })
            }
            Request::Read(op) => {
                payload = Bytes::from(vec![7; op.length as usize]);
                Reply::Read(ReadReply { eof: false, attr: attr(op.handle) })
            }
            Request::Write(_) => {
                Reply::Write(WriteReply { offset: 0, verifier: 5, wcc: Wcc::default(), unit: None })
            }
            Request::Commit(_) => Reply::Commit(CommitReply { verifier: 5, wcc: Wcc::default() }),
            Request::Setattr(_) => Reply::Setattr(Wcc::default()),
            Request::Create(op) => Reply::Create(MadeReply {
                attr: attr(named(op.name.as_bytes())),
                created: true,
                dir: Wcc::default(),
            }),
            Request::Unlink(op) => {
                Reply::Unlink(RemovedReply { attr: attr(named(op.name.as_bytes())), dir: Wcc::default() })
            }
            _ => return Err(FlareError::NotSupported.into()),
        };
        if let Some(id) = id {
            world.executed.push(request.request.name());
            world.ledger.insert(id, reply.clone());
            if world.lose_answers > 0 {
                world.lose_answers -= 1;
                return Err(FlareError::Unavailable.into());
            }
        }
        Ok((reply, payload))
    }
}

impl Handler for Fake {
    fn connected(&self, _: PeerId, _: SocketAddr, _: Role) {}

    fn request(&self, _: PeerId, request: IncomingRequest, reply: ReplyTo) {
        let mut world = self.world.lock().unwrap();
        if let Some(answer) = self.session(&mut world, &request) {
            reply.send(Ok((answer, Bytes::new())), 1);
            return;
        }
        let outcome = Self::flare(&mut world, &request);
        if world.hold && !matches!(request.request, Request::Getattr(_) | Request::Lookup(_)) {
            world.held += 1;
            self.held.borrow_mut().push((reply, outcome));
        } else {
            reply.send(outcome, 1);
        }
    }

    fn cancelled(&self, _: PeerId, _: Tag) {}

    fn disconnected(&self, _: PeerId) {}

    fn batch_end(&self) {}
}
