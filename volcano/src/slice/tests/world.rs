//! A slice with a store in a temporary folder, a clock that tests move, and effects that are carried out by hand.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use magma_common::attr::{Attr, SetAttr};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::key::KeyRange;
use magma_common::name::Name;
use magma_common::proto::frame::{RequestHeader, Tag};
use magma_common::proto::operation::{
    Create, CreateHow, Getattr, Lock, LockFamily, LockKind, LockOwner, Lookup, OpenSession, Read,
    ReclaimOpens, Release, SessionReply, Unlink, Write, WriteAt,
};
use magma_common::proto::{Credentials, Durability, Reply, Request, SessionId};
use magma_common::time::Timestamp;
use magma_common::topology::{
    BootId, Epoch, Member, Replica, Slice as SliceOfRing, SliceId, Topology, VolcanoId,
};
use tempfile::TempDir;

use crate::slice::{Answer, Call, Effect, Now, Slice, SliceRef, Slices, SyncFor, Ticket};
use crate::store::simulated::{Dice, SimDisk};
use crate::store::{BodyRead, OpenOptions, Store, SyncJob};

/// The slice that there is.
const SLICE: SliceId = SliceId(1);
/// How far apart ticks are when time passes.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct World {
    dir: TempDir,
    pub(super) disk: SimDisk,
    slices: Option<Slices>,
    pub(super) topology: Topology,
    pub(super) now: Now,
    next: u64,
    sequences: BTreeMap<SessionId, u64>,
    /// Statements of what is open.
    statements: Cell<u64>,
    /// Tickets without an answer.
    pub(super) asked: BTreeSet<Ticket>,
    answers: BTreeMap<Ticket, Answer>,
    /// Tickets in the order of their answers.
    pub(super) order: Vec<Ticket>,
    /// Syncs that were asked for and have not run.
    pub(super) jobs: VecDeque<(SyncJob, Vec<SyncFor>)>,
    /// Reads that were asked for and have not run.
    pub(super) reads: VecDeque<(Ticket, BodyRead)>,
    /// Whether reads wait for [`run_read`](Self::run_read).
    pub(super) hold_reads: bool,
    pub(super) stopped: Option<String>,
    /// The last start could not rely on what was not synced.
    pub(super) may_have_lost: bool,
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(seconds, 0).unwrap()
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text.as_bytes().to_vec()).unwrap()
}

fn topology(range: KeyRange) -> Topology {
    let id = VolcanoId(7);
    Topology {
        version: 1,
        network: 77,
        lineage: 1,
        loss_counter: 3,
        departed: Vec::new(),
        members: vec![Member {
            id,
            boot: BootId(1),
            nickname: "wallace".into(),
            servername: "wallace.intranet".into(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            port: 12_000,
            bandwidth: 0,
            witness: false,
            leaving: false,
        }],
        slices: vec![SliceOfRing {
            id: SLICE,
            range,
            epoch: Epoch(1),
            reign: Epoch(1),
            owner: id,
            assigned: Epoch(1),
            primary: Replica { volcano: id, boot: BootId(1) },
            mirrors: Vec::new(),
            joining: Vec::new(),
            recalling: false,
            dividing: None,
        }],
        ancestors: Vec::new(),
        handle_key: [9; 32],
        copies: 1,
        voters: Vec::new(),
        balancer: false,
        stripes: None,
    }
}

fn open(dir: &TempDir, disk: &SimDisk, topology: &Topology, now: Now, create: bool) -> (Slices, bool) {
    let options = OpenOptions {
        create,
        machine_boot: "this run".into(),
        segment_size: 256 << 10,
        commit_interval: Duration::from_secs(2),
        body_interval: Duration::from_secs(3600),
        ..OpenOptions::default()
    };
    let (store, opened) = Store::open(&dir.path().join("store"), Arc::new(disk.clone()), options).unwrap();
    let may_have_lost = opened.may_have_lost_unsynced();
    let boot = topology.members[0].boot;
    let mut dice = Dice::new(boot.0);
    let random = Box::new(move || dice.next() << 32 | dice.next());
    let mut slices = Slices::new(Replica { volcano: VolcanoId(7), boot }, store, opened, random, now);
    slices.configure(now, topology);
    assert!(slices.get(SLICE).unwrap().is_serving(), "a copy that is alone serves at once");
    (slices, may_have_lost)
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_range(KeyRange::ALL)
    }

    pub(super) fn with_range(range: KeyRange) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let disk = SimDisk::new(&dir.path().join("store"));
        let topology = topology(range);
        let now = Now { monotonic: Duration::from_secs(1000), wall: at(1_000_000) };
        let (slices, _) = open(&dir, &disk, &topology, now, true);
        Self {
            dir,
            disk,
            slices: Some(slices),
            topology,
            now,
            next: 1,
            sequences: BTreeMap::new(),
            statements: Cell::new(0),
            asked: BTreeSet::new(),
            answers: BTreeMap::new(),
            order: Vec::new(),
            jobs: VecDeque::new(),
            reads: VecDeque::new(),
            hold_reads: false,
            stopped: None,
            may_have_lost: false,
        }
    }

    pub(super) fn slices(&mut self) -> &mut Slices {
        self.slices.as_mut().unwrap()
    }

    pub(super) fn slice(&mut self) -> Slice<'_> {
        self.slices().get_mut(SLICE).unwrap()
    }

    pub(super) fn look(&self) -> SliceRef<'_> {
        self.slices.as_ref().and_then(|slices| slices.get(SLICE)).unwrap()
    }

    /// The process dies and another one starts; nobody hears of what was being asked.
    pub(super) fn restart(&mut self) {
        drop(self.slices.take());
        self.jobs.clear();
        self.reads.clear();
        self.asked.clear();
        self.topology.version += 1;
        self.topology.members[0].boot.0 += 1;
        self.topology.slices[0].epoch = Epoch(self.topology.version);
        self.topology.slices[0].reign = Epoch(self.topology.version);
        self.topology.slices[0].primary = self.topology.members[0].replica();
        let (slices, may_have_lost) = open(&self.dir, &self.disk, &self.topology, self.now, false);
        self.slices = Some(slices);
        self.may_have_lost = may_have_lost;
        self.stopped = None;
    }

    /// The last message that says what is open, to the present primary.
    pub(super) fn last(&self, opens: Vec<(Handle, u32)>) -> ReclaimOpens {
        let number = self.statements.get() + 1;
        self.statements.set(number);
        ReclaimOpens {
            at: Handle::root().key,
            reign: self.topology.slices[0].reign,
            opens,
            last: true,
            number,
        }
    }

    /// A number that no operation had before.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The next number of a session's operations.
    fn sequence_in(&mut self, session: SessionId) -> u64 {
        let last = self.sequences.entry(session).or_default();
        *last += 1;
        *last
    }

    /// A request of root's in a session, with the next number.
    pub(super) fn call(&mut self, session: SessionId, request: impl Into<Request>) -> Call {
        self.call_with(session, request, b"")
    }

    pub(super) fn call_with(
        &mut self,
        session: SessionId,
        request: impl Into<Request>,
        payload: &[u8],
    ) -> Call {
        let header = RequestHeader {
            tag: Tag(0),
            durability: Durability::Replicated,
            topology_version: 1,
            session,
            sequence: self.sequence_in(session),
            acknowledged: 0,
            call: None,
            deadline_ms: None,
            forwarded: false,
            credentials: Credentials::ROOT,
        };
        Call { header, deadline: None, request: request.into(), payload: Bytes::copy_from_slice(payload) }
    }

    /// Hands a request over; the batch goes on.
    pub(super) fn send(&mut self, call: Call) -> Ticket {
        let ticket = Ticket(self.number());
        self.asked.insert(ticket);
        let now = self.now;
        self.slices().request(now, SLICE, ticket, call);
        self.carry_out();
        ticket
    }

    pub(super) fn batch_end(&mut self) {
        let now = self.now;
        self.slices().batch_end(now);
        self.carry_out();
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        self.slices().cancel(ticket);
        self.carry_out();
    }

    /// Delivers answers, keeps syncs for later.
    pub(super) fn carry_out(&mut self) {
        loop {
            let effects = self.slices().effects();
            if effects.is_empty() && (self.hold_reads || self.reads.is_empty()) {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Answer(ticket, answer) => {
                        assert!(
                            self.asked.remove(&ticket),
                            "{ticket:?} has its one answer already: {answer:?}"
                        );
                        self.order.push(ticket);
                        self.answers.insert(ticket, answer);
                    }
                    Effect::Sync(job, purpose) => self.jobs.push_back((job, purpose)),
                    Effect::Read(ticket, read) => {
                        self.reads.push_back((ticket, read));
                    }
                    Effect::Tell(..) | Effect::Propose(..) | Effect::Across(..) => {
                        panic!("there is nobody else")
                    }
                    Effect::Stop(reason) => {
                        assert!(self.stopped.is_none(), "it stops once");
                        self.stopped = Some(reason);
                    }
                }
            }
            if !self.hold_reads {
                self.start_read();
            }
        }
    }

    fn start_read(&mut self) {
        if let Some((ticket, read)) = self.reads.pop_front() {
            let now = self.now;
            self.slices().read_done(now, ticket, read.run());
            self.slices().batch_end(now);
        }
    }

    /// Runs the oldest read that was asked for.
    pub(super) fn run_read(&mut self) {
        self.start_read();
        self.carry_out();
    }

    /// The disk is full, and the log takes not even the smallest record any more.
    pub(super) fn fill(&mut self) {
        self.disk.set_full(true);
        let now = self.now;
        for _ in 0..100_000 {
            // of nobody
            let change = crate::record::Change::EndSession(SessionId(1));
            if self.slice().record(now, vec![change], None).is_err() {
                return self.batch_end();
            }
        }
        panic!("the disk is never full");
    }

    /// Runs the oldest sync that was asked for; false if there is none.
    pub(super) fn run_sync(&mut self) -> bool {
        let Some((job, purpose)) = self.jobs.pop_front() else { return false };
        let (now, done) = (self.now, job.run());
        self.slices().synced(now, done, purpose);
        self.carry_out();
        true
    }

    pub(super) fn run_syncs(&mut self) {
        for _ in 0..100 {
            if !self.run_sync() {
                return;
            }
        }
        panic!("one sync asks for the next for ever");
    }

    /// One tick, without any time passing.
    pub(super) fn tick(&mut self) {
        let now = self.now;
        self.slices().tick(now);
        self.carry_out();
    }

    pub(super) fn step(&mut self, by: Duration) {
        self.now.monotonic += by;
        self.now.wall = at(self.now.wall.seconds() + i64::try_from(by.as_secs()).unwrap());
    }

    /// Time passes, with ticks and syncs.
    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.step(TICK);
            self.tick();
            self.run_syncs();
        }
    }

    /// The answer to a ticket, if it has come. It is taken.
    pub(super) fn answer(&mut self, ticket: Ticket) -> Option<Answer> {
        self.answers.remove(&ticket)
    }

    /// Asks, and lets the answer go.
    pub(super) fn ask(&mut self, call: Call) -> Answer {
        let ticket = self.send(call);
        self.batch_end();
        self.run_syncs();
        self.answer(ticket).expect("it is answered")
    }

    pub(super) fn ok(&mut self, session: SessionId, request: impl Into<Request>) -> Reply {
        let call = self.call(session, request);
        self.ask(call).unwrap().0
    }

    pub(super) fn error(&mut self, session: SessionId, request: impl Into<Request>) -> FlareError {
        let call = self.call(session, request);
        self.ask(call).unwrap_err().error
    }

    pub(super) fn open_session(&mut self) -> SessionReply {
        match self.ok(SessionId::NONE, OpenSession { client: "a test".into() }) {
            Reply::OpenSession(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn session(&mut self) -> SessionId {
        self.open_session().session
    }

    /// Makes a file in the root.
    pub(super) fn create(&mut self, session: SessionId, file: &str, open: bool) -> Handle {
        match self.ok(session, create(file, open)) {
            Reply::Create(made) => made.attr.handle,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn attr(&mut self, session: SessionId, handle: Handle) -> Result<Attr, FlareError> {
        let call = self.call(session, Getattr { handle });
        match self.ask(call) {
            Ok((Reply::Getattr(attr), _)) => Ok(attr),
            Err(failure) => Err(failure.error),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn exists(&mut self, session: SessionId, file: &str) -> bool {
        let call = self.call(session, Lookup { dir: Handle::root(), name: name(file) });
        self.ask(call).is_ok()
    }

    pub(super) fn read(&mut self, session: SessionId, handle: Handle) -> Result<Bytes, FlareError> {
        let call = self.call(session, Read { handle, offset: 0, length: 1 << 20, opened: true });
        self.ask(call).map(|(_, data)| data).map_err(|failure| failure.error)
    }

    pub(super) fn append(&mut self, session: SessionId, handle: Handle, data: &[u8]) -> Answer {
        let call = self.call_with(session, append(handle), data);
        self.ask(call)
    }

    /// Outcomes kept, answers held, requests waiting for locks.
    pub(super) fn held(&self) -> (usize, usize, usize) {
        self.look().held()
    }
}

pub(super) fn create(file: &str, open: bool) -> Create {
    let how = CreateHow::Guarded;
    Create {
        dir: Handle::root(),
        name: name(file),
        mode: 0o644,
        umask: 0,
        how,
        set: SetAttr::default(),
        open,
    }
}

pub(super) fn unlink(file: &str) -> Unlink {
    Unlink { dir: Handle::root(), name: name(file) }
}

pub(super) fn append(handle: Handle) -> Write {
    Write { handle, at: WriteAt::End, opened: true }
}

pub(super) fn release(handle: Handle) -> Release {
    Release { handle, count: 1 }
}

/// A lock of the whole file.
pub(super) fn lock(handle: Handle, family: LockFamily, kind: LockKind, wait: bool) -> Lock {
    let owner = LockOwner { owner: 1, pid: 1 };
    Lock { handle, family, owner, kind, start: 0, end: u64::MAX, wait }
}
