//! What the console may ask of this volcano and do to it.

use std::rc::Rc;
use std::sync::Arc;

use magma_common::key::{Ino, Key};
use magma_common::logging::{Channel, Channels, Logging, LoggingError};
use magma_common::topology::{SliceId, VolcanoId};
use tokio::sync::Notify;

use crate::console::{AclRule, Admin, CacheFigures, Inspection, Lava, SliceFigures};
use crate::coordinator::{Change, Load, Refusal};
use crate::server::Edge;
use crate::view::ReadError;

/// Answers the console from the slice behind the edge.
pub struct Administration {
    edge: Rc<Edge>,
    logging: Logging,
    shutdown: Notify,
}

impl Administration {
    /// For the slice behind this edge.
    pub fn new(edge: Rc<Edge>, logging: Logging) -> Rc<Self> {
        Rc::new(Self { edge, logging, shutdown: Notify::new() })
    }

    /// Waits until somebody asks this volcano alone to stop.
    pub async fn shutdown_asked(&self) {
        self.shutdown.notified().await;
    }
}

impl Admin for Administration {
    fn lava(&self) -> Lava {
        let now = self.edge.clock().now();
        self.edge.look(|node| {
            let volcanos = node.slices().all_figures();
            let loads = crate::health::loads(node.topology(), &volcanos);
            let slices = loads
                .into_iter()
                .map(|(slice, Load { keys, bytes })| SliceFigures { slice, keys, bytes })
                .collect();
            Lava {
                topology: Arc::new(node.topology().clone()),
                slices,
                volcanos,
                own: node.replica().volcano,
                silences: node.silences(now.monotonic),
                leader: node.leader(now.monotonic),
                now: now.wall,
            }
        })
    }

    fn inspect(&self, key: &Key) -> Result<Option<Inspection>, ReadError> {
        self.edge.look(|node| {
            let topology = node.topology();
            let Some(slice) = topology.slice_of(key).and_then(|slice| node.slice(slice.id)) else {
                return Ok(None);
            };
            let found = Inspection::of(slice.store(), slice.identity().slice, key, 0)?;
            Ok(found.map(|found| {
                let opens = u64::from(slice.sessions().opens_of(&found.row.handle));
                Inspection { opens, ..found }
            }))
        })
    }

    fn median(&self, slice: SliceId) -> Result<Option<Ino>, ReadError> {
        self.edge.look(|node| node.store().median(slice))
    }

    fn caches(&self) -> Vec<CacheFigures> {
        self.edge.look(|node| {
            let (mut outcomes, mut replies, mut locks) = (0, 0, 0);
            for slice in node.slices().iter() {
                let held = slice.held();
                outcomes += held.0;
                replies += held.1;
                locks += held.2;
            }
            let in_memory = |name: &str, entries: usize| CacheFigures {
                name: name.to_owned(),
                entries: entries as u64,
                capacity: 0,
                hits: 0,
                misses: 0,
            };
            vec![
                in_memory("outcomes", outcomes),
                in_memory("replies", replies),
                in_memory("lock-waits", locks),
            ]
        })
    }

    fn acl(&self) -> Vec<AclRule> {
        // Exports are restricted at the doors; the network's own list comes with its topology.
        Vec::new()
    }

    fn channels(&self) -> Channels {
        self.logging.channels()
    }

    fn set_channel(&self, channel: Channel, on: bool) -> Result<(), LoggingError> {
        self.logging.set(channel, on)
    }

    fn propose(&self, change: Change) {
        self.edge.act(|node, clock| node.propose(clock.now(), &change));
    }

    fn refusal(&self, change: &Change) -> Option<Refusal> {
        self.edge.look(|node| node.refusal(change).cloned())
    }

    fn force_out(&self, who: VolcanoId) -> Result<(), Refusal> {
        self.edge.act(|node, clock| node.force_out(clock.now(), who))
    }

    fn shutdown(&self, everywhere: bool) {
        if everywhere {
            self.edge.act(|node, _| node.shut_down(true));
        } else {
            self.shutdown.notify_one();
        }
    }
}
