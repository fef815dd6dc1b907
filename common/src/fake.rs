//! A volcano for tests: one file's worth of behaviour behind a real server on 127.0.0.1.
//!
//! Its [`World`] outlives it, as a disk does, so that it can be stopped and started again.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::attr::{Attr, Kind, Wcc};
use crate::auth::{Keys, Role, Secret};
use crate::client::{Client, ClientConfig, Context, HostPort};
use crate::error::FlareError;
use crate::handle::Handle;
use crate::key::{Ino, Key, KeyRange};
use crate::proto::frame::{RequestHeader, Tag};
use crate::proto::operation::{
    CommitReply, EntryReply, KeepAliveReply, MadeReply, ReadReply, SessionReply, WriteReply,
};
use crate::proto::{Credentials, Durability, Failure, OpId, Reply, Request, SessionId};
use crate::time::Timestamp;
use crate::topology::{BootId, Epoch, Member, Replica, Slice, SliceId, Topology, VolcanoId};
use crate::transport::forward::Forwarder;
use crate::transport::server::{
    Closer, DEFAULT_MAX_CONNECTIONS, Handler, IncomingRequest, PeerId, ReplyTo, Server, ServerConfig,
};

pub(crate) const KEY: &str = "correct horse battery staple";

/// The keys of [`KEY`], stretched once for all tests.
pub(crate) fn keys() -> Keys {
    static KEYS: std::sync::LazyLock<Keys> = std::sync::LazyLock::new(|| Secret::new(KEY).stretch().unwrap());
    KEYS.clone()
}

/// What survives a restart, and what tests look at and change.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) next_session: u64,
    pub(crate) sessions: HashSet<SessionId>,
    pub(crate) ledger: HashMap<OpId, Reply>,
    /// How many mutations were done, retries not counted.
    pub(crate) executed: u64,
    /// Opens of this life.
    pub(crate) opens: HashMap<Handle, u32>,
    /// What was said to be open, in this order.
    pub(crate) reclaims: Vec<Reclaim>,
    pub(crate) version: u64,
    /// One that covers everything, served by the first volcano to start, unless it is [split](Self::split).
    pub(crate) slices: Vec<Slice>,
    pub(crate) members: BTreeMap<VolcanoId, SocketAddr>,
    /// Clients cannot reach these themselves.
    pub(crate) hidden: HashSet<VolcanoId>,
    /// It hears of nothing, and so can pass nothing on.
    pub(crate) cut_off: Option<VolcanoId>,
    /// Nobody serves.
    pub(crate) interregnum: bool,
    /// Nobody serves these slices.
    pub(crate) unserved: HashSet<SliceId>,
    pub(crate) forwarded: usize,
    /// Operations on flares of each slice that came straight to its primary.
    pub(crate) direct: HashMap<SliceId, usize>,
    /// Done, but answers are kept back.
    pub(crate) mute: bool,
    /// So many requests more are dropped unanswered.
    pub(crate) drop_next: u32,
    pub(crate) cancelled: usize,
    pub(crate) waiting: usize,
    pub(crate) held: usize,
    pub(crate) batches: usize,
    pub(crate) requests: usize,
    pub(crate) peers: usize,
    pub(crate) largest_batch: usize,
    pub(crate) acknowledged: u64,
    pub(crate) roles: Vec<Role>,
}

/// A slice was told what is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reclaim {
    pub(crate) slice: SliceId,
    pub(crate) opens: Vec<(Handle, u32)>,
    pub(crate) last: bool,
}

impl World {
    /// Somebody begins to serve everything, in a new reign.
    pub(crate) fn promote(&mut self, id: VolcanoId) {
        self.version += 1;
        self.interregnum = false;
        for slice in self.slices.iter().map(|slice| slice.id).collect::<Vec<_>>() {
            self.crown(slice, id);
        }
    }

    /// Somebody begins to serve this slice, in a new reign.
    pub(crate) fn promote_in(&mut self, slice: SliceId, id: VolcanoId) {
        self.version += 1;
        self.crown(slice, id);
    }

    fn crown(&mut self, slice: SliceId, id: VolcanoId) {
        let (epoch, boot) = (Epoch(self.version), BootId(self.version));
        let slice = self.slices.iter_mut().find(|known| known.id == slice).unwrap();
        (slice.epoch, slice.reign, slice.primary) = (epoch, epoch, Replica { volcano: id, boot });
        self.opens.retain(|handle, _| !slice.range.contains(&handle.key));
        self.unserved.remove(&slice.id);
    }

    /// What of this slice lies beyond a key becomes a slice of its own, which this volcano serves.
    pub(crate) fn split(&mut self, slice: SliceId, beyond: Key, new: SliceId, id: VolcanoId) {
        self.version += 1;
        let slice = self.slices.iter_mut().find(|known| known.id == slice).unwrap();
        let upper = KeyRange::new(Ino(beyond.ino().0 + 1), slice.range.stop()).unwrap();
        slice.range = KeyRange::new(slice.range.start(), beyond.ino()).unwrap();
        slice.epoch = Epoch(self.version);
        let upper = Slice { id: new, range: upper, ..slice.clone() };
        self.slices.push(upper);
        self.crown(new, id);
    }

    fn begin(&mut self, id: VolcanoId, address: SocketAddr) {
        self.version += 1;
        self.members.insert(id, address);
        if self.slices.is_empty() {
            self.slices.push(Slice {
                id: SliceId(1),
                range: KeyRange::ALL,
                epoch: Epoch(self.version),
                reign: Epoch(self.version),
                owner: id,
                assigned: Epoch(self.version),
                primary: Replica { volcano: id, boot: BootId(self.version) },
                mirrors: Vec::new(),
                joining: Vec::new(),
                recalling: false,
                dividing: None,
            });
        }
        let served = self.slices.iter().filter(|slice| slice.primary.volcano == id).map(|slice| slice.id);
        for slice in served.collect::<Vec<_>>() {
            self.promote_in(slice, id);
        }
    }

    /// The slice that a request goes to; what is about none goes to the one that keeps the sessions.
    fn slice_for(&self, request: &Request) -> &Slice {
        let key = request.key().unwrap_or(Handle::root().key);
        self.slices.iter().find(|slice| slice.range.contains(&key)).unwrap()
    }

    fn topology(&self) -> Topology {
        let member = |(id, address): (&VolcanoId, &SocketAddr)| Member {
            id: *id,
            boot: BootId(1),
            nickname: format!("volcano{}", id.0),
            servername: "localhost".into(),
            address: if self.hidden.contains(id) { Ipv4Addr::UNSPECIFIED.into() } else { address.ip() },
            port: address.port(),
            bandwidth: 0,
            witness: false,
            leaving: false,
        };
        Topology {
            version: self.version,
            network: 7,
            lineage: 1,
            loss_counter: 0,
            departed: Vec::new(),
            members: self.members.iter().map(member).collect(),
            slices: self.slices.clone(),
            ancestors: Vec::new(),
            handle_key: [0; 32],
            copies: 1,
            voters: Vec::new(),
            balancer: false,
            stripes: None,
        }
    }
}

pub(crate) type SharedWorld = Arc<Mutex<World>>;

pub(crate) struct FakeVolcano {
    pub(crate) id: VolcanoId,
    pub(crate) address: SocketAddr,
    pub(crate) world: SharedWorld,
    closer: Closer,
    crash: Arc<tokio::sync::Notify>,
    thread: Option<JoinHandle<()>>,
}

impl FakeVolcano {
    pub(crate) fn start() -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SharedWorld::default())
    }

    pub(crate) fn start_at(address: SocketAddr, world: SharedWorld) -> Self {
        Self::start_with(VolcanoId(1), address, world, DEFAULT_MAX_CONNECTIONS)
    }

    /// Another volcano of the same network.
    pub(crate) fn start_beside(&self, id: u64) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::start_with(VolcanoId(id), any, Arc::clone(&self.world), DEFAULT_MAX_CONNECTIONS)
    }

    pub(crate) fn start_with(
        id: VolcanoId,
        address: SocketAddr,
        world: SharedWorld,
        max_connections: usize,
    ) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        let shared = Arc::clone(&world);
        let crash = Arc::new(tokio::sync::Notify::new());
        let crashed = Arc::clone(&crash);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let keys = keys().cluster().unwrap().clone();
                let forwarder = Rc::new(Forwarder::new(&keys, id).unwrap());
                let server =
                    Server::bind(ServerConfig { address, keys, volcano: id.0, max_connections }).unwrap();
                let address = server.local_address();
                shared.lock().unwrap().begin(id, address);
                sender.send((address, server.closer())).unwrap();
                tokio::select! {
                    () = server.serve(Rc::new(Fake::new(id, forwarder, shared))) => {}
                    () = crashed.notified() => {}
                }
            });
        });
        let (address, closer) = receiver.recv().unwrap();
        Self { id, address, world, closer, crash, thread: Some(thread) }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig {
            hosts: vec![HostPort { host: self.address.ip().to_string(), port: self.address.port() }],
            key: Secret::new(KEY),
            name: "test".into(),
            patience: Some(Duration::from_secs(20)),
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.config()).await.unwrap()
    }

    /// Stops it and starts it again at the same address.
    pub(crate) fn restart(mut self) -> Self {
        self.stop();
        Self::start_with(self.id, self.address, Arc::clone(&self.world), DEFAULT_MAX_CONNECTIONS)
    }

    /// Stops it without a farewell, as a power cut does, and starts it again at the same address.
    pub(crate) fn crash(mut self) -> Self {
        self.die();
        self.world.lock().unwrap().peers = 0;
        Self::start_with(self.id, self.address, Arc::clone(&self.world), DEFAULT_MAX_CONNECTIONS)
    }

    /// Stops it without a farewell: from now on its address is silent.
    pub(crate) fn die(&mut self) {
        self.crash.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn stop(&mut self) {
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }

    /// Waits until the world is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&World) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !wanted(&self.world.lock().unwrap()) {
            assert!(Instant::now() < limit, "waited in vain");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for FakeVolcano {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a request of the superuser says about itself that wants nothing in particular.
pub(crate) fn header(tag: u32) -> RequestHeader {
    RequestHeader {
        tag: Tag(tag),
        durability: Durability::Replicated,
        topology_version: 0,
        session: SessionId(1),
        sequence: 0,
        acknowledged: 0,
        call: None,
        deadline_ms: None,
        forwarded: false,
        credentials: Credentials::ROOT,
    }
}

pub(crate) fn root_context() -> Context {
    Context {
        credentials: Arc::new(Credentials::ROOT),
        durability: Durability::Replicated,
        deadline: None,
        call: None,
    }
}

pub(crate) fn attr(handle: Handle) -> Attr {
    let time = Timestamp::new(1, 0).unwrap();
    Attr {
        handle,
        kind: Kind::File,
        mode: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 1 << 20,
        used: 1 << 20,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        change: 1,
    }
}

struct Fake {
    id: VolcanoId,
    forwarder: Rc<Forwarder>,
    world: SharedWorld,
    held: RefCell<Vec<ReplyTo>>,
    waiting: RefCell<HashMap<(PeerId, Tag), ReplyTo>>,
    data: Bytes,
    batch: RefCell<usize>,
}

impl Fake {
    fn new(id: VolcanoId, forwarder: Rc<Forwarder>, world: SharedWorld) -> Self {
        Self {
            id,
            forwarder,
            world,
            held: RefCell::default(),
            waiting: RefCell::default(),
            data: Bytes::from((0..1_u32 << 20).map(|i| (i % 251) as u8).collect::<Vec<_>>()),
            batch: RefCell::default(),
        }
    }

    fn answer(&self, world: &mut World, request: &IncomingRequest) -> Result<(Reply, Bytes), Failure> {
        let session = request.header.session;
        world.acknowledged = world.acknowledged.max(request.header.acknowledged);
        if let Request::OpenSession(_) = &request.request {
            world.next_session += 1;
            let session = SessionId(world.next_session);
            world.sessions.insert(session);
            let terms = SessionReply { session, lease_ms: 60_000, door: self.id, topology: world.topology() };
            return Ok((Reply::OpenSession(terms), Bytes::new()));
        }
        if !world.sessions.contains(&session) && !matches!(request.request, Request::FetchTopology(_)) {
            return Err(FlareError::SessionEnded.into());
        }
        let id = request.header.op_id();
        assert_eq!(id.is_some(), request.request.mutates(), "{request:?}");
        if let Some(done) = id.and_then(|id| world.ledger.get(&id)) {
            return Ok((done.clone(), Bytes::new()));
        }
        let (reply, payload) = self.execute(world, session, request)?;
        if let Some(id) = id {
            world.executed += 1;
            // Opens are kept in memory: nothing of them survives.
            if !matches!(reply, Reply::Open(_) | Reply::Release(())) {
                world.ledger.insert(id, reply.clone());
            }
        }
        Ok((reply, payload))
    }

    fn execute(
        &self,
        world: &mut World,
        session: SessionId,
        request: &IncomingRequest,
    ) -> Result<(Reply, Bytes), Failure> {
        let mut payload = Bytes::new();
        let reply = match &request.request {
            Request::KeepAlive(_) => {
                Reply::KeepAlive(KeepAliveReply { door: self.id, topology_version: world.version })
            }
            Request::EndSession(_) => {
                world.sessions.remove(&session);
                Reply::EndSession(())
            }
            Request::ReclaimOpens(reclaim) => {
                let slice = world.slice_for(&request.request);
                if reclaim.reign != slice.reign {
                    return Err(FlareError::NotOwner.into());
                }
                assert!(reclaim.opens.iter().all(|(handle, _)| slice.range.contains(&handle.key)));
                let (slice, opens, last) = (slice.id, reclaim.opens.clone(), reclaim.last);
                world.opens.extend(opens.iter().copied());
                world.reclaims.push(Reclaim { slice, opens, last });
                Reply::ReclaimOpens(())
            }
            Request::FetchTopology(_) => Reply::FetchTopology(world.topology()),
            Request::Getattr(op) => Reply::Getattr(attr(op.handle)),
            Request::Lookup(op) => {
                let key = Key::from_bytes([op.name.as_bytes()[0]; 20]);
                let found = attr(Handle { key, birth: op.dir.birth });
                Reply::Lookup(EntryReply { attr: found, dir: attr(op.dir) })
            }
            Request::LookupParent(op) => {
                Reply::LookupParent(EntryReply { attr: attr(Handle::root()), dir: attr(op.dir) })
            }
            Request::StatMany(op) => Reply::StatMany(op.handles.iter().map(|h| Ok(attr(*h))).collect()),
            Request::Read(op) => {
                payload = self.data.slice(..op.length as usize);
                Reply::Read(ReadReply { eof: false, attr: attr(op.handle) })
            }
            Request::Write(_) => {
                let (offset, verifier) = (world.executed, request.payload.len() as u64);
                Reply::Write(WriteReply { offset, verifier, wcc: Wcc::default(), unit: None })
            }
            Request::Commit(_) => Reply::Commit(CommitReply { verifier: 1, wcc: Wcc::default() }),
            Request::Open(op) => {
                *world.opens.entry(op.handle).or_default() += 1;
                Reply::Open(attr(op.handle))
            }
            Request::Create(op) => {
                if op.open {
                    *world.opens.entry(op.dir).or_default() += 1;
                }
                Reply::Create(MadeReply { attr: attr(op.dir), created: true, dir: Wcc::default() })
            }
            Request::Release(op) => {
                if let Some(count) = world.opens.get_mut(&op.handle) {
                    *count = count.saturating_sub(op.count);
                }
                Reply::Release(())
            }
            _ => return Err(FlareError::NotSupported.into()),
        };
        Ok((reply, payload))
    }
}

impl Handler for Fake {
    fn connected(&self, _: PeerId, _: SocketAddr, role: Role) {
        let mut world = self.world.lock().unwrap();
        world.peers += 1;
        world.roles.push(role);
    }

    fn request(&self, peer: PeerId, request: IncomingRequest, reply: ReplyTo) {
        let mut world = self.world.lock().unwrap();
        world.requests += 1;
        *self.batch.borrow_mut() += 1;
        if world.drop_next > 0 {
            world.drop_next -= 1;
            return;
        }
        if request.request.waits() {
            world.waiting += 1;
            self.waiting.borrow_mut().insert((peer, request.header.tag), reply);
            return;
        }
        if world.cut_off == Some(self.id) {
            return reply.send(Err(FlareError::Unavailable.into()), 0);
        }
        if world.interregnum && !matches!(request.request, Request::FetchTopology(_)) {
            return reply.send(Err(FlareError::Unavailable.into()), world.version);
        }
        world.forwarded += usize::from(request.header.forwarded);
        let (slice, primary) = {
            let slice = world.slice_for(&request.request);
            (slice.id, slice.primary.volcano)
        };
        let is_for_any = matches!(request.request, Request::FetchTopology(_));
        if world.unserved.contains(&slice) && !is_for_any {
            return reply.send(Err(FlareError::Unavailable.into()), world.version);
        }
        if request.request.handle().is_some() && primary == self.id && !request.header.forwarded {
            *world.direct.entry(slice).or_default() += 1;
        }
        if primary != self.id && !is_for_any {
            if request.header.forwarded {
                return reply.send(Err(FlareError::NotOwner.into()), world.version);
            }
            let owner = world.members[&primary];
            let (forwarder, world) = (Rc::clone(&self.forwarder), Arc::clone(&self.world));
            drop(tokio::task::spawn_local(async move {
                let IncomingRequest { header, request, payload } = request;
                let answer = forwarder.forward(owner, header, &request, payload).await;
                let version = world.lock().unwrap().version;
                match answer {
                    Ok(answer) => reply.pass_on(answer, version),
                    Err(_) => reply.send(Err(FlareError::Unavailable.into()), version),
                }
            }));
            return;
        }
        let outcome = self.answer(&mut world, &request);
        if world.mute && request.request.handle().is_some() {
            world.held += 1;
            self.held.borrow_mut().push(reply);
            return;
        }
        reply.send(outcome, world.version);
    }

    fn cancelled(&self, peer: PeerId, tag: Tag) {
        if self.waiting.borrow_mut().remove(&(peer, tag)).is_some() {
            self.world.lock().unwrap().cancelled += 1;
        }
    }

    fn disconnected(&self, _: PeerId) {
        self.world.lock().unwrap().peers -= 1;
    }

    fn batch_end(&self) {
        let mut world = self.world.lock().unwrap();
        world.batches += 1;
        world.largest_batch = world.largest_batch.max(self.batch.replace(0));
    }
}
