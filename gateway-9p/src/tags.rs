//! The requests of a connection that are not answered yet, and the flushes that wait for them.
//!
//! A Tflush is answered after its request has been answered or given up, never before: only then may
//! the client use the old tag again. A flush may itself be flushed; it then waits for the same request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, watch};

/// The client used a tag that is still in use. No reply to either request could be told apart, so the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tag {0} names two requests at once")]
pub(crate) struct TagInUse(pub(crate) u16);

/// Tells a request that its client gave it up.
#[derive(Clone, Debug)]
pub(crate) struct Flushed(watch::Receiver<bool>);

impl Flushed {
    /// Ready once the client has flushed the request.
    pub(crate) async fn wait(&mut self) {
        if self.0.wait_for(|flushed| *flushed).await.is_err() {
            // The sender is gone with the table: nobody can flush any more.
            std::future::pending::<()>().await;
        }
    }
}

/// A flush that waits, with its share of the flushes a client may have outstanding.
pub(crate) struct Waiting {
    /// The flush's own tag.
    pub(crate) tag: u16,
    /// Held until the flush is answered.
    pub(crate) permit: OwnedSemaphorePermit,
}

enum Entry {
    Request {
        flush: watch::Sender<bool>,
        flushes: Vec<Waiting>,
    },
    /// A flush that waits for the request with this tag.
    Flush(u16),
}

/// The tags in use.
#[derive(Default)]
pub(crate) struct Tags(Mutex<HashMap<u16, Entry>>);

impl Tags {
    /// A request with this tag begins.
    pub(crate) fn begin(&self, tag: u16) -> Result<Flushed, TagInUse> {
        let mut tags = self.lock();
        if tags.contains_key(&tag) {
            return Err(TagInUse(tag));
        }
        let (flush, flushed) = watch::channel(false);
        tags.insert(tag, Entry::Request { flush, flushes: Vec::new() });
        Ok(Flushed(flushed))
    }

    /// The client gives `old` up in a flush tagged `tag`. The permit comes back if the flush can be answered at once.
    pub(crate) fn flush(
        &self,
        tag: u16,
        old: u16,
        permit: OwnedSemaphorePermit,
    ) -> Result<Option<OwnedSemaphorePermit>, TagInUse> {
        let mut tags = self.lock();
        if tags.contains_key(&tag) {
            return Err(TagInUse(tag));
        }
        let root = match tags.get(&old) {
            Some(Entry::Flush(root)) => *root,
            _ => old,
        };
        let Some(Entry::Request { flush, flushes }) = tags.get_mut(&root) else { return Ok(Some(permit)) };
        flush.send_replace(true);
        flushes.push(Waiting { tag, permit });
        tags.insert(tag, Entry::Flush(root));
        Ok(None)
    }

    /// The request is answered or given up. `answers` is called, while no tag can be used anew, with the flushes to be
    /// answered after it.
    pub(crate) fn end(&self, tag: u16, answers: impl FnOnce(Vec<Waiting>)) {
        let mut tags = self.lock();
        let flushes = match tags.remove(&tag) {
            Some(Entry::Request { flushes, .. }) => flushes,
            Some(Entry::Flush(_)) | None => Vec::new(),
        };
        for flush in &flushes {
            tags.remove(&flush.tag);
        }
        answers(flushes);
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u16, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use tokio::sync::Semaphore;

    fn permit() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    fn flush(tags: &Tags, tag: u16, old: u16) -> Result<bool, TagInUse> {
        tags.flush(tag, old, permit()).map(|at_once| at_once.is_some())
    }

    fn ended(tags: &Tags, tag: u16) -> Vec<u16> {
        let mut flushes = Vec::new();
        tags.end(tag, |waiting| flushes.extend(waiting.iter().map(|flush| flush.tag)));
        flushes
    }

    #[tokio::test]
    async fn flushes_wait_for_their_request_in_order() {
        let tags = Tags::default();
        let mut flushed = tags.begin(1).unwrap();
        assert_eq!(flush(&tags, 2, 1), Ok(false));
        assert_eq!(flush(&tags, 3, 2), Ok(false));
        flushed.wait().await;
        assert_eq!(ended(&tags, 1), [2, 3]);
        assert!(tags.lock().is_empty());
    }

    #[test]
    fn a_flush_of_nothing_is_answered_at_once() {
        let tags = Tags::default();
        assert_eq!(flush(&tags, 2, 1), Ok(true));
        assert_eq!(flush(&tags, 2, 2), Ok(true));
        assert!(tags.lock().is_empty());
    }

    #[test]
    fn a_tag_in_use_cannot_be_used_again() {
        let tags = Tags::default();
        let _flushed = tags.begin(1).unwrap();
        assert_eq!(tags.begin(1).unwrap_err(), TagInUse(1));
        assert_eq!(flush(&tags, 1, 1), Err(TagInUse(1)));
        assert_eq!(flush(&tags, 2, 1), Ok(false));
        assert_eq!(tags.begin(2).unwrap_err(), TagInUse(2));
        assert_eq!(ended(&tags, 1), [2]);
        assert!(tags.begin(1).is_ok());
    }
}
