//! The session of a client: numbers its mutating operations and knows up to where their results have arrived.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::proto::SessionId;
use crate::proto::limits::MAX_UNACKNOWLEDGED;
use crate::transport::lock;

struct Sequences {
    next: u64,
    running: BTreeSet<u64>,
}

impl Sequences {
    fn acknowledged(&self) -> u64 {
        self.running.first().copied().unwrap_or(self.next) - 1
    }
}

/// One session, from its opening to its end.
pub(super) struct Session {
    pub(super) id: SessionId,
    /// It ends when nothing has been heard from us for this long.
    pub(super) lease: Duration,
    sequences: Mutex<Sequences>,
    room: Notify,
}

impl Session {
    pub(super) fn new(id: SessionId, lease: Duration) -> Arc<Self> {
        let sequences = Mutex::new(Sequences { next: 1, running: BTreeSet::new() });
        Arc::new(Self { id, lease, sequences, room: Notify::new() })
    }

    /// The results of all operations up to this sequence number have arrived.
    pub(super) fn acknowledged(&self) -> u64 {
        lock(&self.sequences).acknowledged()
    }

    /// The next sequence number. Waits while an old operation keeps so many results unacknowledged that the volcano
    /// would take no more.
    pub(super) async fn number(self: &Arc<Self>) -> Ticket {
        loop {
            let room = self.room.notified();
            {
                let mut sequences = lock(&self.sequences);
                let sequence = sequences.next;
                if sequence - sequences.acknowledged() <= MAX_UNACKNOWLEDGED as u64 {
                    sequences.next += 1;
                    sequences.running.insert(sequence);
                    return Ticket { session: Arc::clone(self), sequence };
                }
            }
            room.await;
        }
    }
}

/// A numbered operation, until its result has arrived or nobody wants it any more.
pub(super) struct Ticket {
    pub(super) session: Arc<Session>,
    pub(super) sequence: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.session.sequences).running.remove(&self.sequence);
        self.session.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_low_water_mark_stays_below_the_oldest_running_operation() {
        let session = Session::new(SessionId(1), Duration::from_secs(60));
        let one = session.number().await;
        let two = session.number().await;
        let three = session.number().await;
        assert_eq!((one.sequence, two.sequence, three.sequence), (1, 2, 3));
        assert_eq!(session.acknowledged(), 0);
        drop(two);
        assert_eq!(session.acknowledged(), 0);
        drop(one);
        assert_eq!(session.acknowledged(), 2);
        drop(three);
        assert_eq!(session.acknowledged(), 3);
    }

    #[tokio::test]
    async fn a_stuck_operation_stops_the_numbering_before_the_volcano_has_to() {
        let session = Session::new(SessionId(1), Duration::from_secs(60));
        let stuck = session.number().await;
        for _ in 1..MAX_UNACKNOWLEDGED {
            drop(session.number().await);
        }
        assert!(tokio::time::timeout(Duration::from_millis(1), session.number()).await.is_err());
        drop(stuck);
        assert_eq!(session.number().await.sequence, MAX_UNACKNOWLEDGED as u64 + 1);
    }
}
