//! Messages that wait to be sent to one volcano.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::LENGTH_LEN;

/// A message for a volcano that cannot be reached is worth nothing after this time.
const LIFETIME: Duration = Duration::from_secs(1);
/// Handed to a stream in one go, in messages and in bytes.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

struct Waiting {
    since: Instant,
    message: Bytes,
}

/// Bounded in bytes; what a stream has not taken yet counts.
pub(super) struct Queue {
    limit: usize,
    messages: RefCell<VecDeque<Waiting>>,
    bytes: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

/// Messages on their way to a stream. They count until this is dropped.
pub(super) struct Batch<'a> {
    queue: &'a Queue,
    bytes: usize,
    /// Lengths and messages in turn.
    pub(super) chunks: Vec<Bytes>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.queue.bytes.set(self.queue.bytes.get().saturating_sub(self.bytes));
    }
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, messages: RefCell::default(), bytes: Cell::new(0), waker: RefCell::default() }
    }

    /// Adds a message; false if there is no room for it.
    pub(super) fn push(&self, now: Instant, message: Bytes) -> bool {
        let bytes = self.bytes.get() + message.len() + LENGTH_LEN;
        if bytes > self.limit {
            return false;
        }
        self.bytes.set(bytes);
        self.messages.borrow_mut().push_back(Waiting { since: now, message });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }

    /// Drops what has waited for too long; how many messages that were.
    pub(super) fn expire(&self, now: Instant) -> u64 {
        let mut messages = self.messages.borrow_mut();
        let mut expired = 0;
        while let Some(oldest) = messages.front()
            && now.saturating_duration_since(oldest.since) > LIFETIME
        {
            self.bytes.set(self.bytes.get().saturating_sub(oldest.message.len() + LENGTH_LEN));
            messages.pop_front();
            expired += 1;
        }
        expired
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.borrow().is_empty()
    }

    /// Waits for messages and takes some.
    pub(super) async fn take(&self) -> Batch<'_> {
        poll_fn(|context| {
            if self.is_empty() {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(self.take_some())
        })
        .await
    }

    fn take_some(&self) -> Batch<'_> {
        let mut messages = self.messages.borrow_mut();
        let count = messages.len().min(BATCH);
        let mut batch = Batch { queue: self, bytes: 0, chunks: Vec::with_capacity(2 * count) };
        let mut lengths = BytesMut::with_capacity(LENGTH_LEN * count);
        while batch.chunks.len() < 2 * count
            && batch.bytes < BATCH_BYTES
            && let Some(Waiting { message, .. }) = messages.pop_front()
        {
            batch.bytes += message.len() + LENGTH_LEN;
            // Messages are far shorter than what four bytes can say.
            lengths.put_u32(message.len() as u32);
            batch.chunks.extend([lengths.split().freeze(), message]);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_stream_has_not_taken_yet_counts_against_the_limit() {
        let (queue, now) = (Queue::new(30), Instant::now());
        assert!(queue.push(now, Bytes::from_static(&[1; 10])));
        assert!(queue.push(now, Bytes::from_static(&[2; 10])));
        assert!(!queue.push(now, Bytes::from_static(&[3; 10])));
        let batch = queue.take().await;
        assert_eq!(batch.chunks.len(), 4);
        assert_eq!((&batch.chunks[0][..], &batch.chunks[1][..]), (&[0, 0, 0, 10][..], &[1; 10][..]));
        assert!(!queue.push(now, Bytes::from_static(&[3; 10])));
        drop(batch);
        assert!(queue.push(now, Bytes::from_static(&[3; 10])));
    }

    #[test]
    fn old_messages_expire_and_make_room() {
        let (queue, now) = (Queue::new(30), Instant::now());
        assert!(queue.push(now, Bytes::from_static(&[1; 20])));
        let later = now + LIFETIME + Duration::from_millis(1);
        assert!(!queue.push(later, Bytes::from_static(&[2; 20])));
        assert_eq!(queue.expire(later), 1);
        assert!(queue.push(later, Bytes::from_static(&[2; 20])));
        assert_eq!(queue.expire(later), 0);
    }
}
