//! The connections of a gateway, and who makes room when there are too many.
//!
//! Ten thousand connections that never attach must not keep out the next honest client: at the limit
//! the oldest that has not attached is closed. One that has attached is a mounted file system and stays.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::fid::lock;

struct Member {
    attached: Arc<AtomicBool>,
    close: watch::Sender<bool>,
}

/// The connections, by age.
pub(crate) struct Crowd {
    members: Mutex<Members>,
    limit: usize,
}

#[derive(Default)]
struct Members {
    by_number: BTreeMap<u64, Member>,
    next: u64,
}

/// A connection's place among the others, until it is dropped.
pub(crate) struct Admitted {
    crowd: Arc<Crowd>,
    /// Never used again.
    pub(crate) number: u64,
    /// To be set when the client attaches.
    pub(crate) attached: Arc<AtomicBool>,
    close: watch::Receiver<bool>,
}

impl Crowd {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { members: Mutex::default(), limit })
    }

    /// Takes a connection in; `None` if all there are have attached and there is no room.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let mut members = lock(&self.members);
        if members.by_number.len() >= self.limit {
            let idle = members.by_number.iter().find(|(_, member)| !member.attached.load(Ordering::Relaxed));
            let number = idle.map(|(number, _)| *number)?;
            if let Some(member) = members.by_number.remove(&number) {
                member.close.send_replace(true);
            }
        }
        let number = members.next;
        members.next += 1;
        let attached = Arc::new(AtomicBool::new(false));
        let (sender, close) = watch::channel(false);
        members.by_number.insert(number, Member { attached: Arc::clone(&attached), close: sender });
        Some(Admitted { crowd: Arc::clone(self), number, attached, close })
    }

    /// Asks all connections to end.
    pub(crate) fn close_all(&self) {
        for member in lock(&self.members).by_number.values() {
            member.close.send_replace(true);
        }
    }
}

impl Admitted {
    /// Ready when the connection is to end.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut close = self.close.clone();
        async move {
            // A sender that is gone without a word cannot be: the crowd keeps it until the connection's end.
            let _ = close.wait_for(|close| *close).await;
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        lock(&self.crowd.members).by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_never_attached_makes_room() {
        let crowd = Crowd::new(2);
        let mount = crowd.admit().unwrap();
        mount.attached.store(true, Ordering::Relaxed);
        let idle = crowd.admit().unwrap();
        let third = crowd.admit().unwrap();
        idle.closed().await;
        third.attached.store(true, Ordering::Relaxed);
        assert!(crowd.admit().is_none());
        drop(mount);
        assert!(crowd.admit().is_some());
    }
}
