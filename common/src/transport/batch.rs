//! Says when a batch of requests or messages is complete.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Its task is woken by the first request of a batch, and so runs behind all stream tasks that were ready by then.
#[derive(Default)]
pub(super) struct Batch {
    marked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Batch {
    /// Something was handed over.
    pub(super) fn mark(&self) {
        if !self.marked.replace(true)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    /// Calls `end` at the end of each batch, until dropped.
    pub(super) async fn run(&self, end: impl Fn()) {
        poll_fn::<(), _>(|context| {
            let mut waker = self.waker.borrow_mut();
            match waker.as_mut() {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            drop(waker);
            if self.marked.replace(false) {
                end();
            }
            Poll::Pending
        })
        .await;
    }
}
