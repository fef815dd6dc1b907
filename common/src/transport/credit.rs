//! Credit: how much of a stream's requests may be in work at a time. When it is used up the stream
//! is not read any further, which the peer notices by QUIC's flow control, never by an error.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use super::lock;

struct State {
    requests: usize,
    bytes: usize,
    waiting: VecDeque<Waker>,
}

/// What a stream may have in work, in requests and in bytes of payload to be read or sent.
pub(crate) struct Credit {
    state: Mutex<State>,
    /// All of the bytes; who asks for more gets in when nobody else is.
    capacity: usize,
}

impl Credit {
    pub(crate) fn new(requests: usize, bytes: usize) -> Arc<Self> {
        let state = State { requests, bytes, waiting: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state), capacity: bytes })
    }

    /// Waits until one more request that moves so many bytes may be taken on.
    pub(crate) async fn acquire(self: &Arc<Self>, bytes: usize) -> Permit {
        let bytes = bytes.min(self.capacity);
        poll_fn(|context| {
            let mut state = lock(&self.state);
            if state.requests == 0 || state.bytes < bytes {
                state.waiting.push_back(context.waker().clone());
                return Poll::Pending;
            }
            state.requests -= 1;
            state.bytes -= bytes;
            Poll::Ready(())
        })
        .await;
        Permit { credit: Arc::clone(self), bytes }
    }

    /// Takes on one more request that moves no bytes to speak of, if it may be now.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let mut state = lock(&self.state);
        state.requests = state.requests.checked_sub(1)?;
        drop(state);
        Some(Permit { credit: Arc::clone(self), bytes: 0 })
    }
}

/// A request's share of the credit, given back on drop.
pub(crate) struct Permit {
    credit: Arc<Credit>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let waiting = {
            let mut state = lock(&self.credit.state);
            state.requests += 1;
            state.bytes += self.bytes;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    #[tokio::test]
    async fn who_asks_for_more_than_is_left_waits_until_it_is_given_back() {
        let credit = Credit::new(2, 100);
        let first = credit.acquire(80).await;
        let blocked = tokio::time::timeout(Duration::from_millis(1), credit.acquire(30)).await;
        assert!(blocked.is_err());
        drop(first);
        let _second = credit.acquire(30).await;
        let _third = credit.acquire(30).await;
        assert!(tokio::time::timeout(Duration::from_millis(1), credit.acquire(0)).await.is_err());
    }

    #[tokio::test]
    async fn a_request_larger_than_all_credit_gets_in_alone() {
        let credit = Credit::new(2, 10);
        let _permit = credit.acquire(1000).await;
        assert!(tokio::time::timeout(Duration::from_millis(1), credit.acquire(1)).await.is_err());
    }
}
