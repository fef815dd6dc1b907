//! Frames that wait to be written to a stream. Filled from any thread, emptied by the stream's task.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Poll, Waker};

use bytes::Bytes;

use super::credit::Permit;
use super::lock;
use crate::proto::frame::Encoded;

/// Frames that are handed to the stream in one go.
const BATCH: usize = 64;

/// The stream is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

struct Outgoing {
    frame: Encoded,
    /// Given back when the frame is on its way.
    permit: Option<Permit>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Outgoing>,
    closed: bool,
    waker: Option<Waker>,
}

/// Bounded by the permits of those who fill it.
#[derive(Default)]
pub(crate) struct Outbox(Mutex<State>);

impl Outbox {
    pub(crate) fn push(&self, frame: Encoded, permit: Option<Permit>) -> Result<(), Closed> {
        let waker = {
            let mut state = lock(&self.0);
            if state.closed {
                return Err(Closed);
            }
            state.queue.push_back(Outgoing { frame, permit });
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Nothing more can be pushed; what waits is dropped.
    pub(crate) fn close(&self) {
        let (queue, waker) = {
            let mut state = lock(&self.0);
            state.closed = true;
            (std::mem::take(&mut state.queue), state.waker.take())
        };
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for frames; `None` when closed.
    async fn batch(&self) -> Option<(Vec<Bytes>, Vec<Permit>)> {
        poll_fn(|context| {
            let mut state = lock(&self.0);
            if state.closed {
                return Poll::Ready(None);
            }
            if state.queue.is_empty() {
                match &mut state.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            let count = state.queue.len().min(BATCH);
            let (mut bytes, mut permits) = (Vec::with_capacity(2 * count), Vec::with_capacity(count));
            for outgoing in state.queue.drain(..count) {
                bytes.push(outgoing.frame.head);
                if !outgoing.frame.payload.is_empty() {
                    bytes.push(outgoing.frame.payload);
                }
                permits.extend(outgoing.permit);
            }
            Poll::Ready(Some((bytes, permits)))
        })
        .await
    }

    /// Writes everything that is pushed, until the outbox or the stream is closed.
    pub(crate) async fn write_to(&self, stream: &mut quinn::SendStream) -> Result<(), quinn::WriteError> {
        while let Some((mut bytes, permits)) = self.batch().await {
            stream.write_all_chunks(&mut bytes).await?;
            drop(permits);
        }
        Ok(())
    }
}
