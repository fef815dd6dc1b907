//! The surroundings of client libraries: the executor's clock and tasks, and wires whose other ends are in the world.
//!
//! What a library sends waits here until the world takes it; what the world brings is handed to the wire's link.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use magma_common::client::HostPort;
use magma_common::proto::frame::{Encoded, Frame, ReplyFrame, StreamClass};
use magma_common::surroundings::{Later, Link, LinkError, Running, Surroundings, Wire};
use tokio::sync::oneshot;

use super::executor::Executor;
use crate::ring::dice::Dice;

/// Names a wire.
pub type WireId = u64;

/// What a library wants of the world.
#[derive(Debug)]
pub enum Wanted {
    /// A wire is to be laid.
    Connect(WireId, SocketAddr),
    /// A frame is to be carried; on behalf of this operation of a user, or of none.
    Send(WireId, StreamClass, Bytes, Option<u64>),
    /// A wire has been closed here.
    Close(WireId),
}

struct Laid {
    client: usize,
    link: Weak<Link>,
    acknowledged: u64,
    ending: Option<LinkError>,
    connecting: Option<oneshot::Sender<()>>,
}

struct State {
    dice: Dice,
    last: WireId,
    wires: BTreeMap<WireId, Laid>,
    wanted: VecDeque<Wanted>,
}

/// All wires of a world.
#[derive(Clone)]
pub struct Wires(Arc<Mutex<State>>);

thread_local! {
    /// The user's operation whose task runs.
    static RUNNING: Cell<Option<u64>> = const { Cell::new(None) };
}

impl Wires {
    /// Without any wire.
    pub fn new(dice: Dice) -> Self {
        let (last, wires, wanted) = Default::default();
        Self(Arc::new(Mutex::new(State { dice, last, wires, wanted })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it is held")
    }

    fn random(&self) -> u128 {
        let dice = &mut self.state().dice;
        u128::from(dice.next()) << 64 | u128::from(dice.next())
    }

    /// What the libraries want, in this order.
    pub fn wanted(&self) -> VecDeque<Wanted> {
        std::mem::take(&mut self.state().wanted)
    }

    /// Whose wire it is, if it has not ended.
    pub fn client_of(&self, wire: WireId) -> Option<usize> {
        let state = self.state();
        state.wires.get(&wire).filter(|laid| laid.ending.is_none()).map(|laid| laid.client)
    }

    /// A volcano has answered.
    pub fn is_laid(&self, wire: WireId) {
        let connecting = self.state().wires.get_mut(&wire).and_then(|laid| laid.connecting.take());
        if let Some(connecting) = connecting {
            // It may be too late.
            let _ = connecting.send(());
        }
    }

    /// The volcano has acknowledged a frame.
    pub fn is_acknowledged(&self, wire: WireId) {
        if let Some(laid) = self.state().wires.get_mut(&wire) {
            laid.acknowledged += 1;
        }
    }

    /// A frame has come from the volcano.
    pub fn arrives(&self, wire: WireId, reply: ReplyFrame) {
        let link =
            self.state().wires.get(&wire).filter(|laid| laid.ending.is_none()).map(|laid| laid.link.clone());
        if let Some(link) = link.and_then(|link| link.upgrade()) {
            link.receive(reply);
        }
    }

    /// The volcano says that it does not know the wire.
    pub fn is_reset(&self, wire: WireId) {
        let link = {
            let mut state = self.state();
            let Some(laid) = state.wires.get_mut(&wire).filter(|laid| laid.ending.is_none()) else { return };
            laid.ending = Some(LinkError::Lost("reset by peer".into()));
            laid.link.clone()
        };
        if let Some(link) = link.upgrade() {
            link.ended(None);
        }
    }

    /// The client's machine is gone: nobody hears of it.
    pub fn forget_client(&self, client: usize) -> Vec<WireId> {
        let mut state = self.state();
        let wires: Vec<WireId> =
            state.wires.iter().filter(|(_, laid)| laid.client == client).map(|(wire, _)| *wire).collect();
        for wire in &wires {
            state.wires.remove(wire);
        }
        wires
    }

    fn lay(&self, client: usize, to: SocketAddr) -> (WireId, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        state.last += 1;
        let wire = state.last;
        let laid =
            Laid { client, link: Weak::new(), acknowledged: 0, ending: None, connecting: Some(sender) };
        state.wires.insert(wire, laid);
        state.wanted.push_back(Wanted::Connect(wire, to));
        (wire, receiver)
    }
}

/// The surroundings of one library.
pub struct Home {
    /// Which client.
    pub client: usize,
    /// Runs its tasks.
    pub executor: Executor,
    /// Its wires, among others.
    pub wires: Wires,
}

impl Surroundings for Home {
    fn now(&self) -> Instant {
        self.executor.now()
    }

    fn sleep(&self, time: Duration) -> Later<'static, ()> {
        self.executor.sleep(time)
    }

    fn random(&self) -> Option<u128> {
        Some(self.wires.random())
    }

    fn spawn(&self, task: Later<'static, ()>) -> Running {
        let number = self.executor.spawn(self.client, task);
        let executor = self.executor.clone();
        Running::new(move || executor.end(number))
    }

    fn resolve(&self, host: &HostPort) -> Later<'_, std::io::Result<Vec<SocketAddr>>> {
        let address = format!("{}:{}", host.host, host.port).parse();
        Box::pin(async move { Ok(vec![address.map_err(std::io::Error::other)?]) })
    }

    fn connect(&self, address: SocketAddr, limit: Duration) -> Later<'_, Result<Arc<dyn Wire>, LinkError>> {
        Box::pin(async move {
            let (number, laid) = self.wires.lay(self.client, address);
            let end = OneEnd { number, address, wires: self.wires.clone() };
            tokio::select! {
                biased;
                Ok(()) = laid => Ok(Arc::new(end) as Arc<dyn Wire>),
                () = self.sleep(limit) => {
                    end.close(0, b"");
                    Err(LinkError::Lost("no answer".into()))
                }
            }
        })
    }

    fn finish(&self) -> Later<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// The library's end of a wire.
struct OneEnd {
    number: WireId,
    address: SocketAddr,
    wires: Wires,
}

impl Wire for OneEnd {
    fn listen(&self, link: Weak<Link>) {
        if let Some(laid) = self.wires.state().wires.get_mut(&self.number) {
            laid.link = link;
        }
    }

    fn send(&self, class: StreamClass, frame: Encoded) -> bool {
        let mut state = self.wires.state();
        let is_open = state.wires.get(&self.number).is_some_and(|laid| laid.ending.is_none());
        if is_open {
            let mut bytes = BytesMut::from(&frame.head[..]);
            bytes.extend_from_slice(&frame.payload);
            state.wanted.push_back(Wanted::Send(self.number, class, bytes.freeze(), RUNNING.get()));
        }
        is_open
    }

    fn acknowledged(&self) -> u64 {
        self.wires.state().wires.get(&self.number).map_or(0, |laid| laid.acknowledged)
    }

    fn close(&self, _: u32, _: &[u8]) {
        let mut state = self.wires.state();
        let Some(laid) = state.wires.get_mut(&self.number).filter(|laid| laid.ending.is_none()) else {
            return;
        };
        laid.ending = Some(LinkError::Lost("closed".into()));
        state.wanted.push_back(Wanted::Close(self.number));
    }

    fn ending(&self) -> Option<LinkError> {
        match self.wires.state().wires.get(&self.number) {
            Some(laid) => laid.ending.clone(),
            None => Some(LinkError::Lost("gone".into())),
        }
    }

    fn remote_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for OneEnd {
    fn drop(&mut self) {
        self.close(0, b"");
        let laid = self.wires.state().wires.remove(&self.number);
        drop(laid);
    }
}

/// What a task sends while it runs is on behalf of this operation of a user.
pub struct OnBehalf<F> {
    /// Names the operation.
    pub token: u64,
    /// The task.
    pub work: F,
}

impl<F: Future + Unpin> Future for OnBehalf<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let before = RUNNING.replace(Some(self.token));
        let polled = Pin::new(&mut self.work).poll(context);
        RUNNING.set(before);
        polled
    }
}

/// The frame in these bytes, which are one.
pub fn frame_of(bytes: &Bytes) -> Frame {
    let decoded = Frame::decode(&mut BytesMut::from(&bytes[..]));
    decoded.expect("a frame that was sent can be decoded").expect("it is whole")
}
