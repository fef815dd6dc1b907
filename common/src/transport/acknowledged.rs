//! Counts what a peer has acknowledged: the only sign that it hears.
//!
//! A peer whose incoming packets are lost goes on sending: answers to what it has heard before, and, again and again, what
//! nobody seems to acknowledge, with its own old acknowledgements beside. Packets that are acknowledged for the first time are not among that.
//! The library tells of them the congestion controller alone; so the count is kept there.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};

/// Makes controllers that count, each around one of another factory's.
pub(super) struct Counting<F>(pub(super) Arc<F>);

impl<F: ControllerFactory + Send + Sync + 'static> ControllerFactory for Counting<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Counter { packets: 0, inner: Arc::clone(&self.0).build(now, current_mtu) })
    }
}

/// How many packets of a connection, made with [`Counting`], its peer has acknowledged. Of those that ask for it, and each once.
pub(super) fn packets(connection: &quinn::Connection) -> u64 {
    let counter = connection.congestion_state().into_any().downcast::<Counter>();
    counter.map_or(0, |counter| counter.packets)
}

struct Counter {
    packets: u64,
    inner: Box<dyn Controller>,
}

impl Controller for Counter {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &quinn_proto::RttEstimator,
    ) {
        self.packets += 1;
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { packets: self.packets, inner: self.inner.clone_box() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
